"""Distances between sets of samples."""

from __future__ import annotations

import torch


def sliced_wasserstein(a: torch.Tensor, b: torch.Tensor, directions: int = 1000, seed: int = 0) -> float:
    """Mean Wasserstein-1 distance of two sample sets over fixed random directions (Bonneel et al. 2015).

    a, b: (N, D), as many samples of each. Raises ValueError for other shapes.
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"sliced_wasserstein: expected two sets (N, D), found {tuple(a.shape)} and {tuple(b.shape)}")
    generator = torch.Generator().manual_seed(seed)
    lines = torch.randn(a.shape[1], directions, generator=generator, dtype=a.dtype)
    lines = (lines / lines.norm(dim=0)).to(a.device)
    return float(((a @ lines).sort(0).values - (b @ lines).sort(0).values).abs().mean())
