"""Fills as weighted particles: exact for every observation as their number and the levels grow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from .denoiser import Counted
from .observation import Observation
from .posterior import transition
from .presets import Preset
from .refine import Estimate, Estimator, Noise


def walk(
    estimator: Estimator,
    denoiser: Counted,
    u: torch.Tensor,
    log_weight: torch.Tensor,
    levels: Sequence[float],
    observation: Observation,
    noise: Noise,
    preset: Preset,
    threshold: float = 0.3,
) -> torch.Tensor:
    """Takes one image's particles u (N, C, H, W) from levels[0] to the last, 0; equally weighted latents.

    log_weight: log p(u) - log q(u) of the particles given, (N,), where q has drawn them.
    Sequential Monte Carlo with a twisted target (Wu et al. 2023, TDS, arXiv 2306.17775, alg. 1). Each
    step proposes the prior's step from the estimate given y and weighs it by p(u_next | u) p(y | u_next)
    over q(u_next | u, y) p(y | u). Any positive p(y | u) of `estimator` leaves the result exact; the
    nearer it is to the truth, the fewer particles die. threshold: resample below this share of
    effective particles. Rows depend on each other.
    """
    for s, s_next in pairwise(levels):
        estimate = estimator(denoiser, u, s, observation, noise, preset)
        log_weight = log_weight + estimate.log_likelihood
        weight = log_weight.softmax(0)
        if s_next == 0 or 1 / weight.square().sum() <= threshold * len(u):
            kept = systematic(weight, torch.special.ndtr(noise().flatten()[0]))
            u, estimate = u[kept], Estimate(*(part[kept] for part in estimate))
            log_weight = torch.zeros_like(log_weight)
        if s_next == 0:
            return estimate.given_y
        mean, variance = transition(u, estimate.x0, s, s_next, preset.eta)
        shift = (transition(u, estimate.given_y, s, s_next, preset.eta).mean - mean) / variance.sqrt()
        fresh = noise()
        u = mean + variance.sqrt() * (shift + fresh)
        log_weight = log_weight - (shift * (0.5 * shift + fresh)).flatten(1).sum(1) - estimate.log_likelihood
    return u


def systematic(weight: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Indices (N,) of particles kept with the given normalised weights (N,), from one uniform number."""
    points = (torch.arange(len(weight), device=weight.device) + uniform) / len(weight)
    return torch.searchsorted(weight.cumsum(0), points).clamp_max(len(weight) - 1)
