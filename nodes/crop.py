"""Cuts from a large picture what the model works on: the hole and its surroundings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from comfy_api.latest import io

from . import validation
from .observe import fill_from_nearest
from .painting import CATEGORY

log = logging.getLogger(__name__)

NODE = "VIPaintCrop"

CropType = io.Custom("VIPAINT_CROP")
# Of the hole's size: surroundings that are kept at the price of a cut that reaches over the picture's border.
LEAST_CONTEXT = 1.25


class Region(NamedTuple):
    """A rectangle in pixels that starts inside the picture and may reach over its right and lower border."""

    left: int
    top: int
    width: int
    height: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """Lines and columns of the picture."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Crop:
    """Where each picture of a batch was cut.

    picture: height and width of the pictures; size: those that every cut was scaled to.
    """

    regions: tuple[Region, ...]
    picture: tuple[int, int]
    size: tuple[int, int]


def extent(hidden: torch.Tensor) -> tuple[int, int]:
    """First and one past the last of the lines or columns, (N,) bool, that are hidden; the middle where none is."""
    at = hidden.nonzero()
    return (int(at.min()), int(at.max()) + 1) if len(at) else (len(hidden) // 2, len(hidden) // 2)


def region_around(hole: torch.Tensor, size: tuple[int, int], context: float, enlarge: float) -> Region:
    """The part of a picture to work on, around the pixels where `hole` (H, W) is above 0.

    It has the shape of `size` (height, width) and is `context` times as large as the hole's bounding box, but at
    least 1 / `enlarge` of `size`. It lies inside the picture as long as that leaves some context around the hole.
    Without a hole it is in the middle.
    """
    rows = []
    for hidden, pixels, side in zip(((hole > 0).any(1), (hole > 0).any(0)), hole.shape, size, strict=True):
        start, end = extent(hidden)
        rows.append((start, end, pixels, side))

    def scale(factor: float) -> float:
        """Of the smallest region of this shape that holds the hole with so much context, where there is any."""
        return max(min((end - start) * factor, pixels) / side for start, end, pixels, side in rows)

    largest = min(pixels / side for _, _, pixels, side in rows)
    chosen = max(scale(min(context, LEAST_CONTEXT)), min(largest, max(scale(context), 1 / enlarge)))
    places = []
    for start, end, pixels, side in rows:
        # A visible pixel on each side: the seam is made there.
        length = max(round(chosen * side), min(end - start + 2, pixels))
        places.append((max(0, min((start + end - length) // 2, pixels - length)), length))
    (top, height), (left, width) = places
    return Region(left, top, width, height)


def scaled(pictures: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pictures (B, H, W, C) in another size (height, width), without offset: outer borders stay outer borders."""
    if tuple(pictures.shape[1:3]) == tuple(size):
        return pictures
    channels = pictures.movedim(-1, 1)
    return F.interpolate(channels, size, mode="bicubic", antialias=True).clamp(0, 1).movedim(1, -1)


def cut(picture: torch.Tensor, hole: torch.Tensor, crop: Crop, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Picture (1, H, W, 3) and hole (1, 1, H, W) of one region in the crop's size, without hidden pixels.

    What is outside the picture is hidden: nothing is known of it.
    """
    region = crop.regions[number]
    lines, columns = region.inside
    part, cover = picture[:, lines, columns].movedim(-1, 1), hole[..., lines, columns]
    beyond = (0, region.width - part.shape[-1], 0, region.height - part.shape[-2])
    part, cover = F.pad(part, beyond).movedim(1, -1), F.pad(cover, beyond, value=1.0)
    # Filled before it is scaled, which would mix hidden pixels into visible ones.
    return scaled(fill_from_nearest(part, cover), crop.size), F.adaptive_max_pool2d(cover, crop.size)


class VIPaintCrop(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=NODE,
            display_name="VIPaint Crop",
            category=CATEGORY,
            description="Cuts the hole with its surroundings from a large picture, in the size that the model works "
            "at. Paint in the cut, then connect crop to VIPaint Composite, which puts the fills back in their place.",
            search_aliases=["vipaint", "inpaint crop", "crop and stitch", "only masked", "zoom", "large picture"],
            inputs=[
                io.Image.Input("image", tooltip="The whole pictures, of any size."),
                io.Mask.Input("mask", tooltip="White is painted. Each picture is cut around its own white area."),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=16,
                    max=8192,
                    step=8,
                    tooltip="Width of the cut in pixels: what the model was trained for, e.g. 512 for SD1.5, 1024 for "
                    "SDXL.",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=16,
                    max=8192,
                    step=8,
                    tooltip="Height of the cut in pixels: what the model was trained for.",
                ),
                io.Float.Input(
                    "context",
                    default=2.0,
                    min=1.0,
                    max=16.0,
                    step=0.1,
                    tooltip="How much of the surroundings the model sees: 2 is twice the hole's width and height. "
                    "Larger cuts than width and height are scaled down: more context, less detail.",
                ),
                io.Float.Input(
                    "enlarge",
                    default=1.0,
                    min=1.0,
                    max=16.0,
                    step=0.1,
                    tooltip="How far a cut around a small hole may be enlarged. 1: never, a small hole gets more context "
                    "instead. Higher paints small things, e.g. faces, in more detail.",
                ),
            ],
            outputs=[
                io.Image.Output("image", tooltip="The cuts, with the hole covered."),
                io.Mask.Output("mask", tooltip="The masks of the cuts. White also where a cut leaves the picture."),
                CropType.Output("crop", tooltip="Where the cuts were made, for VIPaintComposite."),
            ],
        )

    @classmethod
    def execute(
        cls, image: torch.Tensor, mask: torch.Tensor, width: int, height: int, context: float, enlarge: float
    ) -> io.NodeOutput:
        validation.check_widgets(cls, width=width, height=height, context=context, enlarge=enlarge)
        pictures = validation.check_image(NODE, "image", image)
        hole = validation.check_mask(NODE, "mask", mask, len(pictures))
        validation.check_same_size(NODE, "mask", hole, pictures)
        for number, cover in enumerate(hole, 1):
            if not cover.any():
                log.warning("%s: the mask of picture %d is black, nothing to paint: its middle is cut", NODE, number)
        size = height, width
        regions = tuple(region_around(cover, size, context, enlarge) for cover in hole[:, 0])
        crop = Crop(regions, tuple(pictures.shape[1:3]), size)
        parts, covers = zip(
            *(cut(pictures[n : n + 1], hole[n : n + 1], crop, n) for n in range(len(pictures))), strict=True
        )
        return io.NodeOutput(torch.cat(parts), torch.cat(covers)[:, 0], crop)
