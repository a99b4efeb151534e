"""Fills put into originals without a visible seam."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

from .holes import distance_to_visible, fill_from_nearest

# Relaxation sweeps per grid; every halving of the grid doubles how far they reach.
SWEEPS = 24


def membrane(known: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Solves Laplace's equation in the hidden pixels with the visible ones as boundary values.

    Coarse to fine, with Jacobi sweeps (the correction of Perez et al. 2003, Poisson image editing, eq. 4).

    known: (B, C, H, W); its hidden pixels are not read.
    hidden: (B, 1, H, W) bool.
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
    """Fills in originals where the hole is above 0; visible pixels stay as they are, bit for bit.

    fills, original: (N, H, W, 3).
    hole: (N, 1, H, W) in [0, 1].
    feather: width in pixels of a crossfade inside the hole, from the nearest visible pixels to the fill.
    colour_match: share of the colour difference along the seam that is evened out inside the hole.
    """
    hidden = hole > 0
    if colour_match > 0:
        difference = rearrange(original - fills, "n h w c -> n c h w")
        correction = rearrange(membrane(difference, hidden), "n c h w -> n h w c")
        fills = fills + colour_match * correction
    # The original's hidden pixels are not shown, not even in the seam: it blends with its visible neighbours.
    base = fill_from_nearest(original, hole)
    ramp = (distance_to_visible(hole) / (feather + 1)).clamp(max=1)
    seam = torch.lerp(base, fills, rearrange(ramp, "n 1 h w -> n h w 1"))
    return torch.lerp(original, seam.clamp(0, 1), rearrange(hole, "n 1 h w -> n h w 1"))
