"""Where fills agree and where they do not."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from comfy_api.v0_0_2 import io

from ..vipaint_core.imaging.spread import fills_per_picture, heat_map, overlay, spread, with_legend
from . import validation
from .errors import InputError
from .execution import names_node
from .host.messages import say
from .sockets import CATEGORY

# Where the scale follows the picture: below one step of an 8-bit picture a difference is rounding.
SMALLEST = 1 / 255


class Fills(NamedTuple):
    """each: fills per picture. pictures: (B, H, W, 3), holes: (B, 1, H, W), of each of them, None where not given."""

    each: int
    pictures: torch.Tensor | None
    holes: torch.Tensor | None


def fills_of(images: torch.Tensor, fills: int, original: Any, mask: Any) -> Fills:
    """What a batch of fills belongs to: by what is connected, else by the pixels that fills of one picture share.

    images: (N, H, W, 3), all fills of the first picture first; several masks of one picture have fills of their own.
    fills: per picture, 0 where it is to be found out. Raises InputError.
    """
    pictures = None if original is None else validation.check_image("original", original).to(images.device)
    holes = None if mask is None else validation.check_mask("mask", mask)
    if pictures is not None and holes is not None:
        pictures, holes = validation.check_masked_pictures("mask", mask, pictures)
    known = pictures if pictures is not None else holes if holes is not None and len(holes) > 1 else None
    if known is None:
        each = fills or fills_per_picture(images)
        if len(images) % each:
            raise InputError(
                "images",
                f"a multiple of {each} fills",
                f"a batch of {len(images)}",
                "Set `fills` to 0: it is found out.",
            )
        return Fills(each, None, None if holes is None else holes.expand(len(images) // each, -1, -1, -1))
    each = validation.fills_per_picture("images", len(images), len(known))
    if fills not in (0, each):
        expected = f"0 or {each}, of {len(images)} fills for {len(known)} pictures or masks"
        raise InputError("fills", expected, str(fills), "Set fills to 0.")
    return Fills(each, pictures, holes)


class VIPaintUncertainty(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintUncertainty",
            display_name="VIPaint Uncertainty",
            category=CATEGORY,
            description="Shows how much the fills of a picture differ, pixel by pixel: dark where all agree, bright "
            "where the visible part leaves the choice open.",
            search_aliases=[
                "vipaint",
                "heat map",
                "standard deviation",
                "variance",
                "diversity",
                "mask of differences",
                "不确定性",
                "差异",
                "不確かさ",
                "incertitude",
            ],
            inputs=[
                io.Image.Input("images", tooltip="Decoded fills, all of the first picture first."),
                io.Int.Input(
                    "fills",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Fills per picture. 0: found out, from original or mask where they are connected, else from the "
                    "pixels that the fills of one picture have in common.",
                ),
                io.Float.Input(
                    "full_scale",
                    default=0.25,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Standard deviation that is drawn brightest, with colours from 0 to 1: lower shows smaller "
                    "differences. The same value makes pictures comparable. 0: the largest of each picture.",
                ),
                io.Image.Input(
                    "original",
                    optional=True,
                    tooltip="The pictures that were painted in, one for each group of fills. The overlay shows them; "
                    "without them it shows the mean of the fills.",
                ),
                io.Float.Input(
                    "opacity",
                    default=0.7,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="How much of the overlay is heat map where fills differ most: 0 shows the picture alone.",
                ),
                io.Float.Input(
                    "outline",
                    default=0.2,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="The overlay has a line around what is above this share of full scale: higher outlines less, "
                    "1 nothing.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The masks that were painted, where one picture had several: each has fills, and a map, of "
                    "its own.",
                ),
            ],
            outputs=[
                io.Image.Output("heat_map", tooltip="One picture for each original, black to yellow."),
                io.Mask.Output("spread", tooltip="The same as numbers from 0 to 1: standard deviation / full scale."),
                io.Image.Output("overlay", tooltip="The heat map over the picture, with its scale."),
            ],
        )

    @classmethod
    @names_node
    def execute(
        cls,
        images: torch.Tensor,
        fills: int = 0,
        full_scale: float = 0.25,
        original: torch.Tensor | None = None,
        opacity: float = 0.7,
        outline: float = 0.2,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        validation.check_widgets(cls, fills=fills, full_scale=full_scale, opacity=opacity, outline=outline)
        images = validation.check_image("images", images)
        each, pictures, _ = fills_of(images, fills, original, mask)
        deviation = spread(images, each)
        largest = deviation.flatten(1).amax(1)
        scale = largest.clamp_min(SMALLEST) if full_scale == 0 else torch.full_like(largest, full_scale)
        values = (deviation / scale[:, None, None]).clamp(0, 1)
        if pictures is None or pictures.shape[1:] != images.shape[1:]:
            pictures = images.unflatten(0, (-1, each)).mean(1)
        if each == 1:
            say("one fill for each picture: nothing to compare with, the map is black")
        for number, size in enumerate(largest.tolist(), 1) if each > 1 else ():
            say(
                f"picture {number}: {each} fills, largest standard deviation {size:.2f} of full scale {scale[number - 1]:.2f}"
            )
        shown = with_legend(overlay(pictures, values, opacity, outline), scale)
        return io.NodeOutput(heat_map(values), values, shown)
