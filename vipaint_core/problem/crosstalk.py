"""Encoder crosstalk: how hidden content reaches the observed latent cells around it, measured with other fillers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from .observation import CutCells

# Ridge strengths, in units of the inputs' mean square; the kernel that predicts best is taken.
RIDGE_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)

# Cut cells are told apart by which of four sides is hidden, and by how much of them in so many steps.
CUT_SHARES = 4


class Crosstalk(NamedTuple):
    """kernel: (B, C, C, k, k), see `operators.Mask`. variance: (B, 1, H, W), of what the kernel does not explain."""

    kernel: torch.Tensor
    variance: torch.Tensor


def measure_crosstalk(moved: torch.Tensor, observed: torch.Tensor, radius: int = 1) -> Crosstalk:
    """Crosstalk kernel and left-over variance of every picture.

    A ridge regression of observed cells' changes on those of the hidden cells around them, one kernel per picture.
    Errors are those on fillers that the regression has not seen; a kernel that predicts none of them better than
    nothing is zero.

    moved: (K, B, C, H, W), latents of the picture with K >= 2 other fillers in its hole, less those with its own.
    observed: (B, 1, H, W) bool.
    radius: cells around an observed one that its latent may depend on.
    """
    kernels, variances = zip(
        *(_measure(rows, kept, radius) for rows, kept in zip(moved.unbind(1), observed, strict=True)), strict=True
    )
    return Crosstalk(torch.stack(kernels), torch.stack(variances))


def measure_cut_cells(moved: torch.Tensor, latents: torch.Tensor, hidden: torch.Tensor) -> CutCells:
    """What the visible pixels of cut cells tell of their latents.

    Over fillers the latents of cells that are cut alike have a covariance S, and those of hidden cells, of which nothing
    is visible, S_0. The visible pixels tell the quotient of the two Gaussians, of precision S^-1 - S_0^-1, around the
    latents of the picture whose hole is filled from the nearest visible pixels.

    moved, latents: (K, B, C, H, W) as in `measure_crosstalk`, and (B, C, H, W), the latents with the picture's own filler.
    hidden: (B, 1, h, w) bool, pixels.
    """
    size = latents.shape[-2], latents.shape[-1]
    kind, whole = _cut_kinds(hidden, size), F.adaptive_avg_pool2d(hidden.float(), size) == 1
    every = torch.cat([torch.zeros_like(moved[:1]), moved])
    deviations = (every - every.mean(0)).movedim(2, -1)
    pictures = zip(deviations.unbind(1), latents, kind[:, 0], whole[:, 0], strict=True)
    return CutCells(kind, torch.stack([_cut_maps(*picture, int(kind.max())) for picture in pictures]))


def _cut_kinds(hidden: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, 1, H, W) uint8: cells by the side where most is hidden, and by how much; 0 uncut."""
    cell = hidden.shape[-2] // size[0], hidden.shape[-1] // size[1]
    blocks = hidden[..., : cell[0] * size[0], : cell[1] * size[1]].float()
    share = F.avg_pool2d(blocks, cell)
    down = torch.linspace(-1, 1, cell[0]).repeat(size[0])[:, None]
    across = torch.linspace(-1, 1, cell[1]).repeat(size[1])
    vertical, horizontal = (F.avg_pool2d(blocks * axis, cell) for axis in (down, across))
    side = torch.where(vertical.abs() >= horizontal.abs(), (vertical > 0).int(), 2 + (horizontal > 0).int())
    kind = 1 + CUT_SHARES * side + (CUT_SHARES * share).int().clamp(max=CUT_SHARES - 1)
    return torch.where((share > 0) & (share < 1), kind, 0).to(torch.uint8)


def _cut_maps(
    deviations: torch.Tensor, latents: torch.Tensor, kind: torch.Tensor, whole: torch.Tensor, count: int
) -> torch.Tensor:
    """One picture: deviations (K, H, W, C) from the mean over fillers, kind and whole (H, W); (count, C, C)."""
    channels = len(latents)
    unit = torch.eye(channels, dtype=torch.float64)

    def covariance(cells: torch.Tensor, guess: torch.Tensor) -> torch.Tensor:
        """Drawn to the guess as by 2 C more deviations."""
        rows = deviations[:, cells].flatten(0, 1).double()
        # A mean over fillers takes one of their deviations.
        scatter = rows.mT @ rows * len(deviations) / (len(deviations) - 1)
        return (scatter + 2 * channels * guess) / (len(rows) + 2 * channels)

    nothing = covariance(whole, latents.flatten(1).double().cov(correction=0))
    # Latents have about unit variance; those of a flat picture have none.
    nothing = nothing + (1e-3 * nothing.diagonal().mean() + 1e-4) * unit
    alike = covariance(kind > 0, nothing)
    maps = latents.new_zeros(count, channels, channels)
    for number in kind[kind > 0].unique().tolist():
        told = covariance(kind == number, alike) + 1e-4 * unit
        precision, rows = torch.linalg.eigh(torch.linalg.inv(told) - torch.linalg.inv(nothing))
        maps[number - 1] = (precision.clamp_min(0).sqrt()[:, None] * rows.mT).to(maps)
    return maps


def _measure(moved: torch.Tensor, observed: torch.Tensor, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One picture: moved (K, C, H, W), observed (1, H, W); kernel (C, C, k, k), variance (1, H, W)."""
    channels, size = moved.shape[1], 2 * radius + 1
    beside = (observed & (F.max_pool2d((~observed).float(), size, 1, radius) > 0)).flatten()
    # (K, cells, features) and (K, cells, C); features in the order (channel, line, column).
    around = F.unfold(torch.where(observed, 0.0, moved), size, padding=radius)[:, :, beside].mT.double()
    targets = moved.flatten(2)[:, :, beside].mT.double()
    grams, products = around.mT @ around, around.mT @ targets
    gram, product = grams.sum(0), products.sum(0)
    unit = torch.eye(len(gram)).to(gram) * gram.diagonal().mean().clamp_min(1e-30)
    kernel, errors = torch.zeros_like(product), targets
    for strength in RIDGE_STRENGTHS:
        without = torch.linalg.solve(gram - grams + strength * unit, product - products)
        found = targets - around @ without
        if found.square().sum() < errors.square().sum():
            kernel, errors = torch.linalg.solve(gram + strength * unit, product), found
    rest = moved.flatten(2).clone()
    rest[:, :, beside] = errors.mT.to(rest)
    variance = rest.square().mean((0, 1)).reshape(observed.shape)
    return kernel.mT.reshape(channels, channels, size, size).to(moved), variance
