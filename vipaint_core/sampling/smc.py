"""Fills as weighted particles: exact for every observation as their number and the levels grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.transition import transition
from ..problem.observation import LatentObservation
from ..refiners.common import Estimate, Estimator, LevelStep, Noise, StepResult, extrapolated

# Above this level alternatives are told apart, below it details.
DECIDED = 0.2


def ess_threshold(s: float) -> float:
    """Share of effective particles below which to resample at level s.

    Weights of alternatives go up and down and must not remove them too soon; where details differ a copy soon leaves
    its twin.
    """
    return 0.3 if s > DECIDED else 0.9


def guidance_scale(s: float) -> float:
    """Share of the way to the estimate given y that a proposal goes at level s.

    Where there are alternatives, evidence taken for Gaussian goes too far; weights make up for any share.
    """
    return 0.7 if s > DECIDED else 1.0


def twisted_smc(
    estimator: Estimator,
    denoiser: CountingDenoiser,
    u: torch.Tensor,
    log_weight: torch.Tensor,
    steps: Sequence[LevelStep],
    observation: LatentObservation,
    noise: Noise,
    threshold: Callable[[float], float] = ess_threshold,
    scale: Callable[[float], float] = guidance_scale,
) -> StepResult:
    """Takes one image's particles down through the steps, after which they weigh the same.

    Sequential Monte Carlo with a twisted target (Wu et al. 2023, TDS, arXiv 2306.17775, alg. 1). Each step proposes the
    prior's step from the estimate given y and weighs it by p(u_next | u) p(y | u_next) over q(u_next | u, y) p(y | u).
    Any positive p(y | u) of `estimator` leaves the result exact; the nearer it is to the truth, the fewer particles
    are lost. Of second order the prior's chain remembers the estimate before, and is nearer to the continuous one.
    Rows depend on each other.

    u: particles at the first step's level, (N, C, H, W).
    log_weight: log p(u) - log q(u) of these particles, (N,), where q has drawn them.
    threshold, scale: by level, see `ess_threshold` and `guidance_scale`.
    """
    result = StepResult.start(u)
    for step in steps:
        s = step.s
        estimate = estimator(denoiser, u, step, observation, None)
        log_weight = log_weight + estimate.log_likelihood
        weight = log_weight.softmax(0)
        if step is steps[-1] or 1 / weight.square().sum() <= threshold(s) * len(u):
            kept = systematic_resampling(weight, torch.special.ndtr(noise().flatten()[0]))
            u, estimate = u[kept], Estimate(estimate.x0[kept], estimate.given_y[kept], estimate.log_likelihood[kept])
            result = StepResult(u, result.s, result.x0[kept])
            log_weight = torch.zeros_like(log_weight)
        if step.s_next == 0:
            return StepResult(estimate.given_y, s, estimate.x0)
        x0 = extrapolated(estimate.x0, step, result)
        mean, variance = transition(u, x0, s, step.s_next, step.eta)
        aim = x0 + scale(s) * (estimate.given_y - estimate.x0)
        proposed = transition(u, aim, s, step.s_next, step.eta).mean
        shift = (proposed - mean) / variance.sqrt()
        fresh = noise()
        u = mean + variance.sqrt() * (shift + fresh)
        log_weight = log_weight - (shift * (0.5 * shift + fresh)).flatten(1).sum(1) - estimate.log_likelihood
        result = StepResult(u, s, estimate.x0)
    return result


def systematic_resampling(weight: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Indices (N,) of particles kept with the given normalised weights (N,), from one uniform number."""
    points = (torch.arange(len(weight), device=weight.device) + uniform) / len(weight)
    return torch.searchsorted(weight.cumsum(0), points).clamp_max(len(weight) - 1)
