"""The prior's own step from one noise level to a lower one."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .coordinate import Level, per_row


class Transition(NamedTuple):
    """Mean and variance of a Gaussian step; they broadcast to (B, C, H, W)."""

    mean: torch.Tensor
    variance: torch.Tensor


def transition(u: torch.Tensor, x0: torch.Tensor, s: Level, s_next: Level, eta: float = 1.0) -> Transition:
    """p(u_next | u) from level s down to s_next (Song et al. 2021, DDIM, arXiv 2010.02502, eq. 12).

    variance = eta^2 s_next^2 (s^2 - s_next^2) / s^2, mean = x0 + sqrt(s_next^2 - variance) / s (u - x0).
    u, x0: (B, C, H, W), x0 the estimate from u. eta: 1 ancestral (DDPM), 0 deterministic.
    """
    high, low = per_row(s, u), per_row(s_next, u)
    variance = eta**2 * low**2 * (high**2 - low**2) / high**2
    return Transition(x0 + (low**2 - variance).clamp_min(0).sqrt() / high * (u - x0), variance)
