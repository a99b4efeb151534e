"""Puts fills back into the original: visible pixels stay as they are, bit for bit."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io

from ..vipaint_core.imaging.regions import Crop, enlarged, enlargement, scaled, with_neighbours
from ..vipaint_core.imaging.seams import composite
from . import validation
from .errors import InputError
from .execution import names_node
from .sockets import CATEGORY, CropType

# Pixels; no image VAE of the host has larger cells than half of it.
LARGEST_CELL = 64
# What becomes of the original's transparency.
KEEP, OPAQUE = "keep", "opaque where painted"


def check_crop(crop: Crop, pictures: torch.Tensor, hole: torch.Tensor) -> None:
    """A crop of these pictures (B, H, W, 3) around these holes (B, 1, H, W)."""

    def refuse(name: str, expected: str, found: str) -> None:
        raise InputError(
            name, expected, found, "Connect the picture and the mask that VIPaint Crop has cut, and its crop."
        )

    if not isinstance(crop, Crop):
        refuse("crop", "the crop of VIPaint Crop", type(crop).__name__)
    made, found = ((number, *size) for number, size in ((len(crop.regions), crop.picture), (len(hole), hole.shape[2:])))
    if made != found:
        words = "{0} of {2} x {1} pixels".format
        refuse("original", f"the pictures that were cut, {words(*made)}", words(*found))
    for number, (region, cover) in enumerate(zip(crop.regions, hole[:, 0], strict=True), 1):
        outside = cover > 0
        outside[region.inside] = False
        if outside.any():
            refuse("mask", f"the mask that picture {number} was cut with", "white outside the cut")


def without_padding(fills: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Fills (N, H', W', 3) of the size (H, W), or that enlarged: less what `pad_to_cells` has added."""
    factor = enlargement((fills.shape[1], fills.shape[2]), size, LARGEST_CELL)
    height, width = (round(factor * length) for length in size) if factor is not None else size
    extra = fills.shape[1] - height, fills.shape[2] - width
    if not all(0 <= lines < LARGEST_CELL for lines in extra):
        raise InputError(
            "fills",
            f"the size of what was painted in, {width} x {height} pixels, or that padded to the VAE's cell or enlarged",
            f"{fills.shape[2]} x {fills.shape[1]} pixels",
            "Connect the picture that was painted in, and crop if VIPaint Crop made it. VAE Encode cuts pictures that "
            "do not fill its cells: use image, mask and vae of VIPaint Inpaint.",
        )
    return fills[:, :height, :width]


class VIPaintComposite(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintComposite",
            display_name="VIPaint Composite",
            category=CATEGORY,
            description="Puts fills into the original picture. Pixels where the mask is black are returned unchanged; "
            "for fills that were enlarged, the original is enlarged with them.",
            search_aliases=[
                "vipaint",
                "paste",
                "blend",
                "seam",
                "stitch",
                "colour match",
                "color match",
                "mask",
                "合成",
                "接缝",
                "贴回",
                "継ぎ目",
                "raccord",
            ],
            inputs=[
                io.Image.Input(
                    "fills",
                    tooltip="Decoded fills, all of the first picture first. Lines and columns that were added at the "
                    "right and the bottom to fill the VAE's cells are cut off. Fills may have been enlarged.",
                ),
                io.Image.Input("original", tooltip="The pictures that were painted in."),
                io.Mask.Input("mask", tooltip="The mask that was painted: white is taken from the fills."),
                io.Int.Input(
                    "feather",
                    # Wider seams were further from the truth than colours that are matched at a hard edge.
                    default=0,
                    min=0,
                    max=512,
                    tooltip="Width in pixels of a crossfade at the seam, inside the hole only, from the nearest visible "
                    "pixels to the fill. For seams that colour_match leaves.",
                ),
                io.Float.Input(
                    "colour_match",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of the colour difference along the seam is evened out inside the hole. 0: none.",
                ),
                CropType.Input(
                    "crop",
                    optional=True,
                    tooltip="From VIPaint Crop, if its cuts were painted in: fills are scaled back and put where they "
                    "were cut. Original and mask are then the whole ones.",
                ),
                io.Combo.Input(
                    "alpha",
                    options=[KEEP, OPAQUE],
                    default=KEEP,
                    optional=True,
                    advanced=True,
                    tooltip="The transparency of an original that has one. keep: returned as it is. opaque where "
                    "painted: what the mask shows is visible, e.g. where transparent parts were painted.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "image", tooltip="One picture for each fill, with the original's transparency if it has any."
                )
            ],
        )

    @classmethod
    @names_node
    def execute(
        cls,
        fills: torch.Tensor,
        original: torch.Tensor,
        mask: torch.Tensor,
        feather: int = 0,
        colour_match: float = 1.0,
        crop: Crop | None = None,
        alpha: str = KEEP,
    ) -> io.NodeOutput:
        validation.check_widgets(cls, feather=feather, colour_match=colour_match, alpha=alpha)
        painted = validation.check_image("fills", fills)
        pictures = validation.check_image("original", original, with_alpha=True).to(painted.device)
        pictures, hole = validation.check_masked_pictures("mask", mask, pictures)
        hole = hole.to(painted.device)
        whole = crop is None
        if crop is None:
            crop = Crop.of_whole(pictures)
        check_crop(crop, pictures, hole)
        painted = without_padding(painted, crop.size)
        if whole and tuple(painted.shape[1:3]) != crop.picture:
            pictures, hole = enlarged(pictures, hole, (painted.shape[1], painted.shape[2]))
            crop = Crop.of_whole(pictures)
        each = validation.fills_per_picture("fills", len(painted), len(pictures))
        out = []
        for picture, cover, region, own in zip(pictures, hole, crop.regions, painted.split(each), strict=True):
            full, (lines, columns) = picture.repeat(each, 1, 1, 1), region.inside
            colours, opacity, shown = full[..., :3], full[..., 3:], cover[0, ..., None]
            if alpha == OPAQUE:
                opacity.copy_(torch.maximum(opacity, shown))
            part, cover = colours[:, lines, columns], cover[:, lines, columns]
            found = scaled(own, (region.height, region.width))[:, : part.shape[1], : part.shape[2]]
            window = (slice(None), *with_neighbours(cover[0] > 0))
            covers = cover[window].expand(each, -1, -1, -1)
            part[window] = composite(found[window], part[window], covers, feather, colour_match)
            out.append(full)
        return io.NodeOutput(torch.cat(out))
