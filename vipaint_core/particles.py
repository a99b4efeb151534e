"""Fills as weighted particles: exact for every observation as their number and the levels grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from .denoiser import Counted
from .observation import Observation
from .posterior import transition
from .presets import Preset
from .refine import Estimate, Estimator, Noise, Step, begin, extrapolated

# Above it alternatives are told apart, below it details.
DECIDED = 0.2


def threshold_at(s: float) -> float:
    """Share of effective particles below which to resample.

    Weights of alternatives go up and down and must not kill them too soon; where details differ a copy soon leaves
    its twin.
    """
    return 0.3 if s > DECIDED else 0.9


def strength_at(s: float) -> float:
    """Share of the way to the estimate given y that a proposal goes.

    Where there are alternatives, evidence taken for Gaussian pulls too far; weights make up for any share.
    """
    return 0.7 if s > DECIDED else 1.0


def walk(
    estimator: Estimator,
    denoiser: Counted,
    u: torch.Tensor,
    log_weight: torch.Tensor,
    levels: Sequence[float],
    observation: Observation,
    noise: Noise,
    preset: Preset,
    threshold: Callable[[float], float] = threshold_at,
    strength: Callable[[float], float] = strength_at,
) -> Step:
    """Takes one image's particles u (N, C, H, W) from levels[0] to the last, where they weigh the same.

    log_weight: log p(u) - log q(u) of the particles given, (N,), where q has drawn them.
    Sequential Monte Carlo with a twisted target (Wu et al. 2023, TDS, arXiv 2306.17775, alg. 1). Each
    step proposes the prior's step from the estimate given y and weighs it by p(u_next | u) p(y | u_next)
    over q(u_next | u, y) p(y | u). Any positive p(y | u) of `estimator` leaves the result exact; the
    nearer it is to the truth, the fewer particles die. Of second order the prior's chain remembers the
    estimate before, and is nearer to the continuous one. threshold, strength: by level, see
    `threshold_at` and `strength_at`. Rows depend on each other.
    """
    step = begin(u)
    for s, s_next in pairwise(levels):
        estimate = estimator(denoiser, u, s, observation, preset, None)
        log_weight = log_weight + estimate.log_likelihood
        weight = log_weight.softmax(0)
        if s_next == levels[-1] or 1 / weight.square().sum() <= threshold(s) * len(u):
            kept = systematic(weight, torch.special.ndtr(noise().flatten()[0]))
            u, estimate = u[kept], Estimate(*(part[kept] for part in estimate[:3]))
            step = Step(u, step.s, step.x0[kept])
            log_weight = torch.zeros_like(log_weight)
        if s_next == 0:
            return Step(estimate.given_y, s, estimate.x0)
        ahead = extrapolated(estimate.x0, s, s_next, step, preset)
        mean, variance = transition(u, ahead, s, s_next, preset.eta)
        aim = ahead + strength(s) * (estimate.given_y - estimate.x0)
        proposed = transition(u, aim, s, s_next, preset.eta).mean
        shift = (proposed - mean) / variance.sqrt()
        fresh = noise()
        u = mean + variance.sqrt() * (shift + fresh)
        log_weight = log_weight - (shift * (0.5 * shift + fresh)).flatten(1).sum(1) - estimate.log_likelihood
        step = Step(u, s, estimate.x0)
    return step


def systematic(weight: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Indices (N,) of particles kept with the given normalised weights (N,), from one uniform number."""
    points = (torch.arange(len(weight), device=weight.device) + uniform) / len(weight)
    return torch.searchsorted(weight.cumsum(0), points).clamp_max(len(weight) - 1)
