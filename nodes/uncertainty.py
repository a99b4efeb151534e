"""Where fills agree and where they do not."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.v0_0_2 import io
from einops import rearrange

from . import validation
from .errors import InputError, names_node
from .sockets import CATEGORY

# Anchors of matplotlib's "inferno" (CC0) at equal distances: lightness rises evenly from black.
ANCHORS = np.array(
    [
        [0.001, 0.000, 0.014],
        [0.121, 0.047, 0.282],
        [0.341, 0.062, 0.429],
        [0.550, 0.134, 0.412],
        [0.736, 0.216, 0.330],
        [0.894, 0.354, 0.204],
        [0.978, 0.557, 0.035],
        [0.975, 0.796, 0.240],
        [0.988, 0.998, 0.645],
    ],
    dtype=np.float32,
)
# Below one step of an 8-bit picture a difference is rounding, which must not fill the scale.
SMALLEST = 1 / 255


def spread(images: torch.Tensor, fills: int) -> torch.Tensor:
    """Standard deviation over the fills of each picture, root mean square over colours, (B, H, W)."""
    rows = rearrange(images.float(), "(b fills) h w c -> b fills h w c", fills=fills)
    return rows.var(1, correction=0).mean(-1).sqrt()


def heat_map(values: torch.Tensor) -> torch.Tensor:
    """Colours (B, H, W, 3) of values in [0, 1]."""
    at = values.cpu().numpy()
    places = np.linspace(0, 1, len(ANCHORS))
    channels = [np.interp(at, places, ANCHORS[:, c]) for c in range(3)]
    return torch.from_numpy(np.stack(channels, -1).astype(np.float32))


class VIPaintUncertainty(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintUncertainty",
            display_name="VIPaint Uncertainty",
            category=CATEGORY,
            description="Shows how much the fills of a picture differ, pixel by pixel: dark where all agree, bright "
            "where the visible part leaves the choice open.",
            search_aliases=["vipaint", "heat map", "standard deviation", "variance", "diversity"],
            inputs=[
                io.Image.Input(
                    "images", tooltip="Decoded fills, all of the first picture first. At least 2 per picture."
                ),
                io.Int.Input(
                    "fills",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Fills per picture. 0: all belong to one picture, or to as many as there are masks.",
                ),
                io.Float.Input(
                    "full_scale",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Standard deviation that is drawn brightest, with colours from 0 to 1. 0: the largest of "
                    "each picture. Set a value to compare pictures.",
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
            ],
        )

    @classmethod
    @names_node
    def execute(
        cls, images: torch.Tensor, fills: int = 0, full_scale: float = 0.0, mask: torch.Tensor | None = None
    ) -> io.NodeOutput:
        validation.check_widgets(cls, fills=fills, full_scale=full_scale)
        images = validation.check_image("images", images)
        masks = 1 if mask is None else len(validation.check_mask("mask", mask))
        each = fills or validation.fills_per_picture("images", len(images), masks)
        if each < 2:
            raise InputError("images", "at least 2 fills per picture", str(each), "Raise `fills` of VIPaint Inpaint.")
        if len(images) % each:
            raise InputError(
                "images",
                f"a multiple of {each} fills",
                f"a batch of {len(images)}",
                "Set `fills` to those per picture.",
            )
        deviation = spread(images, each)
        peak = deviation.flatten(1).amax(1).clamp_min(SMALLEST)[:, None, None] if full_scale == 0 else full_scale
        values = (deviation / peak).clamp(0, 1)
        return io.NodeOutput(heat_map(values), values)
