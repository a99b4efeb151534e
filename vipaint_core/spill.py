"""How an encoder mixes hidden content into the seen cells around it, measured from other fillers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# Strengths of the ridge, in units of the inputs' mean square; the kernel that predicts best is taken.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)


def measure_spill(moved: torch.Tensor, seen: torch.Tensor, reach: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """`Observation.spill` and the variance that it leaves, `Observation.leak`, of every picture.

    moved: (K, B, C, H, W), latents of the picture with K >= 2 other fillers in its hole, less that of its
    own filler. seen: (B, 1, H, W) bool. reach: cells around a seen one that its latent may depend on.

    A ridge regression of seen cells' moves on those of the hidden cells around them, one kernel per
    picture. Errors are those on fillers that the regression has not seen; a kernel that predicts none
    of them better than nothing is zero.
    """
    kernels, leaks = zip(
        *(_measure(rows, kept, reach) for rows, kept in zip(moved.unbind(1), seen, strict=True)), strict=True
    )
    return torch.stack(kernels), torch.stack(leaks)


def _measure(moved: torch.Tensor, seen: torch.Tensor, reach: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One picture: moved (K, C, H, W), seen (1, H, W); kernel (C, C, k, k), variance (1, H, W)."""
    channels, size = moved.shape[1], 2 * reach + 1
    beside = (seen & (F.max_pool2d((~seen).float(), size, 1, reach) > 0)).flatten()
    # (K, cells, features) and (K, cells, C); features in the order (channel, line, column).
    around = F.unfold(torch.where(seen, 0.0, moved), size, padding=reach)[:, :, beside].mT.double()
    targets = moved.flatten(2)[:, :, beside].mT.double()
    grams, products = around.mT @ around, around.mT @ targets
    gram, product = grams.sum(0), products.sum(0)
    unit = torch.eye(len(gram)).to(gram) * gram.diagonal().mean().clamp_min(1e-30)
    kernel, errors = torch.zeros_like(product), targets
    for strength in STRENGTHS:
        without = torch.linalg.solve(gram - grams + strength * unit, product - products)
        found = targets - around @ without
        if found.square().sum() < errors.square().sum():
            kernel, errors = torch.linalg.solve(gram + strength * unit, product), found
    rest = moved.flatten(2).clone()
    rest[:, :, beside] = errors.mT.to(rest)
    variance = rest.square().mean((0, 1)).reshape(seen.shape)
    return kernel.mT.reshape(channels, channels, size, size).to(moved), variance
