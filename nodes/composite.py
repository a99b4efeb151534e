"""Puts fills back into the original: visible pixels stay as they are, bit for bit."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from scipy import ndimage

from . import validation
from .crop import Crop, CropType, Region, extent, scaled
from .observe import fill_from_nearest
from .painting import CATEGORY

NODE = "VIPaintComposite"

# Relaxation sweeps per grid; every halving of the grid doubles how far they reach.
SWEEPS = 24
# Pixels; no image VAE of the host has larger cells than half of it.
LARGEST_CELL = 64


def depth(hole: torch.Tensor) -> torch.Tensor:
    """Distance in pixels from each hidden pixel to the nearest visible one, (B, 1, H, W); 0 where visible."""
    rows = []
    for cover in hole[:, 0]:
        hidden = cover.cpu().numpy() > 0
        far = ndimage.distance_transform_edt(hidden)
        # Without any visible pixel there is no seam.
        rows.append(torch.full(cover.shape, torch.inf) if hidden.all() else torch.from_numpy(far).float())
    return torch.stack(rows)[:, None].to(hole.device)


def membrane(known: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Solves Laplace's equation in the hidden pixels with the visible ones as boundary values.

    known: (B, C, H, W), its hidden pixels are not read; hidden: (B, 1, H, W) bool. Coarse to fine,
    with Jacobi sweeps (the correction of Perez et al. 2003, Poisson image editing, eq. 4).
    """
    visible = (~hidden).to(known)
    if min(known.shape[-2:]) > 2 and bool(hidden.any()):
        weight = F.avg_pool2d(visible, 2, ceil_mode=True)
        coarse = F.avg_pool2d(known * visible, 2, ceil_mode=True) / weight.clamp_min(1e-6)
        guess = F.interpolate(membrane(coarse, weight == 0), known.shape[-2:], mode="bilinear", align_corners=False)
    else:
        total = visible.sum((2, 3), keepdim=True)
        guess = ((known * visible).sum((2, 3), keepdim=True) / total.clamp_min(1)).expand_as(known)
    out = torch.where(hidden, guess, known)
    for _ in range(SWEEPS):
        padded = F.pad(out, (1, 1, 1, 1), mode="replicate")
        mean = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
        out = torch.where(hidden, mean / 4, known)
    return out


def composite(
    fills: torch.Tensor, original: torch.Tensor, hole: torch.Tensor, feather: int, colour_match: float
) -> torch.Tensor:
    """Fills (N, H, W, 3) into originals (N, H, W, 3) where hole (N, 1, H, W) is above 0."""
    hidden = hole > 0
    if colour_match > 0:
        difference = (original - fills).movedim(-1, 1)
        correction = membrane(difference, hidden).movedim(1, -1)
        fills = fills + colour_match * correction
    # The original's hidden pixels are not shown, not even in the seam: it blends with its visible neighbours.
    base = fill_from_nearest(original, hole)
    ramp = (depth(hole) / (feather + 1)).clamp(max=1)
    seam = torch.lerp(base, fills, ramp.movedim(1, -1))
    return torch.lerp(original, seam.clamp(0, 1), hole.movedim(1, -1))


def beside(hidden: torch.Tensor) -> tuple[slice, slice]:
    """Lines and columns of the hidden pixels, (H, W) bool, and of their visible neighbours: all that a seam needs."""
    (top, bottom), (left, right) = extent(hidden.any(1)), extent(hidden.any(0))
    return slice(max(0, top - 1), bottom + 1), slice(max(0, left - 1), right + 1)


def whole(pictures: torch.Tensor) -> Crop:
    """Pictures (B, H, W, 3) that are not cut."""
    height, width = pictures.shape[1:3]
    return Crop((Region(0, 0, width, height),) * len(pictures), (height, width), (height, width))


def check_crop(crop: Any, pictures: torch.Tensor, hole: torch.Tensor) -> None:
    """A crop of these pictures (B, H, W, 3) around these holes (B, 1, H, W)."""

    def refuse(name: str, expected: str, found: str) -> None:
        raise validation.problem(
            NODE, name, expected, found, "Connect the picture and the mask that VIPaintCrop has cut, and its crop."
        )

    if not isinstance(crop, Crop):
        refuse("crop", "the crop of VIPaintCrop", type(crop).__name__)
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
    """Fills (N, H', W', 3) in the size (H, W): less the lines and columns that `observe.padded` has added."""
    height, width = size
    extra = fills.shape[1] - height, fills.shape[2] - width
    if not all(0 <= lines < LARGEST_CELL for lines in extra):
        raise validation.problem(
            NODE,
            "fills",
            f"the size of what was painted in, {width} x {height} pixels, or that padded to the VAE's cell",
            f"{fills.shape[2]} x {fills.shape[1]} pixels",
            "Connect the picture that was painted in, and crop if VIPaintCrop made it. VAE Encode cuts pictures that "
            "do not fill its cells: use image, mask and vae of VIPaintInpaint.",
        )
    return fills[:, :height, :width]


class VIPaintComposite(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=NODE,
            display_name="VIPaint Composite",
            category=CATEGORY,
            description="Puts fills into the original picture. Pixels where the mask is black are returned unchanged.",
            search_aliases=["vipaint", "paste", "blend", "seam", "stitch", "colour match", "color match"],
            inputs=[
                io.Image.Input(
                    "fills",
                    tooltip="Decoded fills, all of the first picture first. Lines and columns that were added at the "
                    "right and the bottom to fill the VAE's cells are cut off.",
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
                    tooltip="From VIPaintCrop, if its cuts were painted in: fills are scaled back and put where they "
                    "were cut. Original and mask are then the whole ones.",
                ),
            ],
            outputs=[io.Image.Output("image", tooltip="One picture for each fill.")],
        )

    @classmethod
    def execute(
        cls,
        fills: torch.Tensor,
        original: torch.Tensor,
        mask: torch.Tensor,
        feather: int = 0,
        colour_match: float = 1.0,
        crop: Any | None = None,
    ) -> io.NodeOutput:
        validation.check_widgets(cls, feather=feather, colour_match=colour_match)
        painted = validation.check_image(NODE, "fills", fills)
        pictures = validation.check_image(NODE, "original", original).to(painted.device)
        hole = validation.check_mask(NODE, "mask", mask, len(pictures)).to(painted.device)
        validation.check_same_size(NODE, "mask", hole, pictures)
        if crop is None:
            crop = whole(pictures)
        check_crop(crop, pictures, hole)
        painted = without_padding(painted, crop.size)
        each = validation.images_per_batch(NODE, "fills", len(painted), len(pictures))
        out = []
        for picture, cover, region, own in zip(pictures, hole, crop.regions, painted.split(each), strict=True):
            full, (lines, columns) = picture.repeat(each, 1, 1, 1), region.inside
            part, cover = full[:, lines, columns], cover[:, lines, columns]
            found = scaled(own, (region.height, region.width))[:, : part.shape[1], : part.shape[2]]
            window = (slice(None), *beside(cover[0] > 0))
            covers = cover[window].expand(each, -1, -1, -1)
            part[window] = composite(found[window], part[window], covers, feather, colour_match)
            out.append(full)
        return io.NodeOutput(torch.cat(out))
