"""The variational bound of a posterior of gains, by Monte Carlo over its draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ..diffusion.denoiser import CountingDenoiser, Denoiser, Progress
from ..diffusion.transition import transition
from ..posterior.fitting import FittedPosterior
from ..posterior.objective import Bound, gaussian_prior, hierarchy
from ..problem.likelihood import negative_log_likelihood
from ..problem.observation import LatentObservation
from ..refiners import REFINERS
from ..refiners.common import LevelStep, StepResult, extrapolated
from .driver import BATCH, DrawMethod, RowNoise, draw_fills
from .posterior_sampling import descents


def gain_bound(
    denoiser: Denoiser,
    fitted: FittedPosterior,
    seed: int,
    draws: int = 1,
    *,
    with_gains: bool = True,
    batch: int = BATCH,
    callback: Callable[[Progress], None] | None = None,
) -> Bound:
    """-ELBO of every image in its parts, (B,), means over draws.

    The prior is the chain that the preset's own steps draw from the network alone, resamplings included: q takes the same
    steps with other estimates, so that each adds KL(q(u_i | u_{i+1}) || p(u_i | u_{i+1})) = |m_i^q - m_i^p|^2 / (2 v_i) to
    the hierarchy, and going back up by new noise, which is the same in both, nothing. The reconstruction is
    -log p(y | u) below the last step with gains, see `likelihood.negative_log_likelihood`. One network call more per
    step than a fill takes, and no steps below.

    with_gains: False for the posterior that knows none, where what is observed is conditioned cell by cell.

    Raises ValueError for presets without chains, and for steps without noise, whose KL is infinite.
    """
    preset = fitted.sized_preset
    descent = (preset.further_descent if with_gains else preset.descent)(fitted.posterior.levels[0])
    steps = [step for step in descent if REFINERS[step.refiner].solves]
    if not preset.chains or not steps or not all(step.eta > 0 and step.s_next > 0 for step in steps):
        raise ValueError("gain_bound: expected a preset with chains, whose steps with a solver have noise")
    if not with_gains:
        steps = [replace(step, refiner="closed_form") for step in steps]
    parts: list[torch.Tensor] = []

    def draw(
        denoiser: CountingDenoiser, observation: LatentObservation, image: torch.Tensor, noise: RowNoise
    ) -> torch.Tensor:
        observation = observation.with_crosstalk_as_noise()
        own = fitted.posterior.to(observation.y.device, observation.y.dtype).rows(image)
        known = fitted.gains if with_gains else None
        with torch.no_grad():
            chain = own.chain(denoiser, [noise() for _ in range(own.K)])
            start = result = prior = StepResult.start(chain.states[0])
            shifts = hierarchy(own, chain)
            own_steps = steps if known is None else (replace(step, known=known.at(step.s, image)) for step in steps)
            for step, u, before, after in descents(denoiser, start, own_steps, observation, noise):
                alone = StepResult(u, step.s, denoiser(u, step.s))
                moved = extrapolated(after.x0, step, before), extrapolated(alone.x0, step, prior)
                shifts, prior, result = shifts + _divergence(u, *moved, step), alone, after
            lowest = steps[-1].s_next
            estimate = denoiser(result.u, lowest)
            told = negative_log_likelihood(observation, estimate, lowest, calibrated=True)
        parts.append(torch.stack([gaussian_prior(own), shifts, told], 1))
        return result.u

    method = DrawMethod(draw, bound_calls(fitted) if with_gains else fitted.posterior.K + 2 * len(steps), False)
    draw_fills(denoiser, fitted.observation, method, seed, draws, batch=batch, callback=callback, stage="bound")
    found = fitted.observation.y.new_zeros(len(fitted.observation.y), 3)
    if parts:
        found[~fitted.observation.complete] = torch.cat(parts).unflatten(0, (-1, draws)).mean(1)
    return Bound(*found.unbind(1))


def bound_calls(fitted: FittedPosterior) -> int:
    """Network calls of the bound of one batch of draws."""
    descent = fitted.sized_preset.further_descent(fitted.posterior.levels[0])
    steps = (step for step in descent if REFINERS[step.refiner].solves)
    return fitted.posterior.K + sum(1 + REFINERS[step.refiner].forward_passes(step) for step in steps)


def _divergence(u: torch.Tensor, given_y: torch.Tensor, x0: torch.Tensor, step: LevelStep) -> torch.Tensor:
    """KL of the transitions from two estimates, (N,)."""
    mean, variance = transition(u, given_y, step.s, step.s_next, step.eta)
    return 0.5 * ((mean - transition(u, x0, step.s, step.s_next, step.eta).mean).square() / variance).flatten(1).sum(1)
