"""How draws are scored against distributions that are known."""

from __future__ import annotations

from functools import cache

import torch


def crps(draws: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Continuous ranked probability score of draws, (N, draws) against (N,): mean |X - y| - 1/2 mean |X - X'|, (N,).

    Means are over pairs of different draws, which makes it unbiased in their number (Gneiting and Raftery 2007, eq. 21).
    """
    count = draws.shape[1]
    apart = (draws[:, :, None] - draws[:, None]).abs().sum((1, 2)) / (count * (count - 1))
    return (draws - truth[:, None]).abs().mean(1) - 0.5 * apart


def wasserstein_uniform(draws: torch.Tensor, low: torch.Tensor, high: torch.Tensor, steps: int = 4096) -> torch.Tensor:
    """Wasserstein distance (of order 1) of draws (N, draws) from uniform distributions on intervals, (N,)."""
    level = (torch.arange(steps, device=draws.device) + 0.5) / steps
    ordered = draws.sort(1).values[:, (level * draws.shape[1]).long()]
    return (ordered - low[:, None] - (high - low)[:, None] * level).abs().mean(1)


def total_variation(values: torch.Tensor, distribution: torch.Tensor) -> torch.Tensor:
    """Distance of the values' frequencies, (..., draws), from distributions (..., size)."""
    share = torch.nn.functional.one_hot(values, distribution.shape[-1]).to(distribution).mean(-2)
    return 0.5 * (share - distribution).abs().sum(-1)


@cache
def tv_floor(distribution: tuple[float, ...], draws: int, trials: int = 20_000) -> float:
    """Mean total variation of so many exact draws of a distribution."""
    probabilities = torch.tensor(distribution, dtype=torch.float64)
    numbers = torch.Generator().manual_seed(3)
    values = torch.multinomial(probabilities, trials * draws, replacement=True, generator=numbers)
    return float(total_variation(values.reshape(trials, draws), probabilities.expand(trials, -1)).mean())
