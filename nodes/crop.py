"""Cuts from a large picture what the model works on: the hole and its surroundings."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io

from ..vipaint_core.imaging.regions import Crop, cut, region_around
from . import validation
from .errors import names_node
from .host.messages import say, warn
from .sockets import CATEGORY, CropType


class VIPaintCrop(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintCrop",
            display_name="VIPaint Crop",
            category=CATEGORY,
            description="Cuts the hole with its surroundings from a large picture, in the size that the model works "
            "at. Paint in the cut, then connect crop to VIPaint Composite, which puts the fills back in their place.",
            search_aliases=[
                "vipaint",
                "inpaint crop",
                "crop and stitch",
                "only masked",
                "zoom",
                "large picture",
                "mask",
                "裁剪",
                "遮罩",
                "切り抜き",
                "マスク",
                "rogner",
            ],
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
                CropType.Output("crop", tooltip="Where the cuts were made, for VIPaint Composite."),
            ],
        )

    @classmethod
    @names_node
    def execute(
        cls, image: torch.Tensor, mask: torch.Tensor, width: int, height: int, context: float, enlarge: float
    ) -> io.NodeOutput:
        validation.check_widgets(cls, width=width, height=height, context=context, enlarge=enlarge)
        pictures = validation.check_image("image", image)
        hole = validation.check_mask("mask", mask, len(pictures))
        validation.check_same_size("mask", hole, pictures)
        for number, cover in enumerate(hole, 1):
            if not cover.any():
                warn(f"the mask of picture {number} is black, nothing to paint: its middle is cut")
        size = height, width
        regions = tuple(region_around(cover, size, context, enlarge) for cover in hole[:, 0])
        for left, top, wide, high in regions:
            say(f"cut {wide} x {high} pixels at {left}, {top}, scaled to {width} x {height}")
        crop = Crop(regions, (pictures.shape[1], pictures.shape[2]), size)
        parts, covers = zip(
            *(cut(pictures[n : n + 1], hole[n : n + 1], crop, n) for n in range(len(pictures))), strict=True
        )
        return io.NodeOutput(torch.cat(parts), torch.cat(covers)[:, 0], crop)
