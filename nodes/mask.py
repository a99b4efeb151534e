"""Makes a mask fit for painting: from a mask, from transparency, or from both."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io

from ..vipaint_core.imaging.masks import tended
from . import validation
from .errors import InputError
from .execution import names_node
from .sockets import CATEGORY


def transparency(image: torch.Tensor) -> torch.Tensor:
    """What pictures with an alpha do not show, (B, 1, H, W). Raises InputError for pictures without."""
    picture = validation.check_image("image", image, with_alpha=True)
    if picture.shape[-1] != 4:
        raise InputError(
            "image",
            "pictures with transparency, 4 channels",
            f"{picture.shape[-1]} channels",
            "Load Image gives a file's transparency as its mask: connect that, or Join Image with Alpha.",
        )
    return validation.check_mask("image", 1 - picture[..., 3].clamp(0, 1))


class VIPaintMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintMask",
            display_name="VIPaint Mask",
            category=CATEGORY,
            description="Tends a mask before it is painted: removes specks, fills holes, grows or shrinks, blurs, inverts. "
            "Or makes it from a picture's transparency.",
            search_aliases=[
                "vipaint",
                "grow mask",
                "expand mask",
                "shrink mask",
                "blur mask",
                "feather mask",
                "invert mask",
                "fill holes",
                "alpha to mask",
                "transparency",
            ],
            inputs=[
                io.Mask.Input("mask", optional=True, tooltip="Masks, one or several: white is painted."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Pictures with transparency, whose transparent parts are painted, too.",
                ),
                io.Boolean.Input("invert", default=False, tooltip="Exchanges white and black before all else."),
                io.Int.Input(
                    "specks",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="White spots up to so many pixels wide and high are removed. Higher removes larger ones; 0: "
                    "none.",
                ),
                io.Boolean.Input(
                    "fill_holes", default=False, tooltip="Whether black areas that white encloses become white."
                ),
                io.Int.Input(
                    "grow",
                    default=0,
                    min=-1024,
                    max=1024,
                    tooltip="Pixels by which white grows in all directions, e.g. 8 for masks that end at an object's edge; "
                    "below 0 it shrinks.",
                ),
                io.Float.Input(
                    "blur",
                    default=0.0,
                    min=0.0,
                    max=256.0,
                    step=0.5,
                    tooltip="Softens the edge over about so many pixels to both sides: what is grey is kept loosely, and "
                    "VIPaint Composite crossfades there. Higher is softer; 0: hard.",
                ),
            ],
            outputs=[io.Mask.Output("mask", tooltip="White is painted, black is kept.")],
        )

    @classmethod
    @names_node
    def execute(
        cls,
        mask: torch.Tensor | None = None,
        image: torch.Tensor | None = None,
        invert: bool = False,
        specks: int = 0,
        fill_holes: bool = False,
        grow: int = 0,
        blur: float = 0.0,
    ) -> io.NodeOutput:
        validation.check_widgets(cls, specks=specks, grow=grow, blur=blur)
        if mask is None and image is None:
            raise InputError("mask", "a mask, or an image with transparency", "neither", "Connect one of them.")
        if image is None:
            found = validation.check_mask("mask", mask)
        else:
            found = transparency(image)
            if mask is not None:
                pictures, other = validation.check_masked_pictures("mask", mask, found.movedim(1, -1))
                found = torch.maximum(pictures.movedim(-1, 1), other)
        care = tended(found, invert=invert, specks=specks, fill_holes=fill_holes, grow=grow, blur=blur)
        return io.NodeOutput(care[:, 0])
