"""Encoder crosstalk: how hidden content reaches the observed latent cells around it, measured with other fillers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

# Ridge strengths, in units of the inputs' mean square; the kernel that predicts best is taken.
RIDGE_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)


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
