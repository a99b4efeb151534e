"""Cuts from a large picture what the model works on: the hole and its surroundings."""

from __future__ import annotations

import math

import torch
from comfy_api.v0_0_2 import io

from ..vipaint_core.imaging.regions import Crop, cut, region_around, size_around
from . import validation
from .errors import InputError
from .execution import names_node
from .host.messages import say, warn
from .sockets import CATEGORY, CropType

# How the size of a cut follows from width and height.
EXACT, AREA, AT_MOST = "exact", "area", "at most"
MULTIPLES = ("8", "16", "32", "64")


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
                io.Mask.Input(
                    "context_mask",
                    optional=True,
                    tooltip="White on what the cut must include beside the hole, e.g. the other eye or a light. More of "
                    "it makes the cut larger and its details smaller.",
                ),
                io.Combo.Input(
                    "size",
                    options=[EXACT, AREA, AT_MOST],
                    default=EXACT,
                    optional=True,
                    tooltip="exact: every cut has this width and height. area: it has the shape of the hole with its "
                    "context, and about as many pixels as width x height. at most: the same with no more pixels than "
                    "that, and small cuts stay small, so that nothing is scaled that need not be.",
                ),
                io.Combo.Input(
                    "multiple",
                    options=list(MULTIPLES),
                    default=MULTIPLES[0],
                    optional=True,
                    advanced=True,
                    tooltip="Of which width and height are multiples where size is not exact: 8 for most models, 16 or "
                    "more where a model or another node asks for it.",
                ),
                io.Boolean.Input(
                    "keep_content",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="On: the cut shows what is in the hole, which `strength` below 1 keeps in part. Off: the "
                    "hole is covered from its surroundings.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "image", tooltip="The cuts without transparency, the hole covered: one for each picture or mask."
                ),
                io.Mask.Output("mask", tooltip="The masks of the cuts. White also where a cut leaves the picture."),
                CropType.Output("crop", tooltip="Where the cuts were made, for VIPaint Composite."),
            ],
        )

    @classmethod
    @names_node
    def execute(
        cls,
        image: torch.Tensor,
        mask: torch.Tensor,
        width: int,
        height: int,
        context: float,
        enlarge: float,
        context_mask: torch.Tensor | None = None,
        size: str = EXACT,
        multiple: str = MULTIPLES[0],
        keep_content: bool = False,
    ) -> io.NodeOutput:
        validation.check_widgets(
            cls, width=width, height=height, context=context, enlarge=enlarge, size=size, multiple=multiple
        )
        pictures, hole = validation.check_masked_pictures("mask", mask, validation.check_image("image", image))
        include = None
        if context_mask is not None:
            cuts, include = validation.check_masked_pictures("context_mask", context_mask, pictures)
            if len(cuts) != len(pictures):
                raise InputError(
                    "context_mask", "1 mask", f"{len(cuts)} masks", "Connect one, or one for each picture and mask."
                )
        for number, cover in enumerate(hole, 1):
            if not cover.any():
                warn(f"the mask of picture {number} is black, nothing to paint: its middle is cut")
        holes, others = hole[:, 0], None if include is None else include[:, 0]
        chosen = height, width
        if size != EXACT:
            most_enlarged = enlarge if size == AT_MOST else math.inf
            chosen = size_around(holes, height * width, context, most_enlarged, int(multiple), others)
        regions = tuple(
            region_around(cover, chosen, context, enlarge, None if others is None else others[number])
            for number, cover in enumerate(holes)
        )
        for left, top, wide, high in regions:
            say(f"cut {wide} x {high} pixels at {left}, {top}, scaled to {chosen[1]} x {chosen[0]}")
        crop = Crop(regions, (pictures.shape[1], pictures.shape[2]), chosen)
        parts, covers = zip(
            *(cut(pictures[n : n + 1], hole[n : n + 1], crop, n, keep_content) for n in range(len(pictures))),
            strict=True,
        )
        return io.NodeOutput(torch.cat(parts), torch.cat(covers)[:, 0], crop)
