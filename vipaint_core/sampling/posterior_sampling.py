"""Draws pictures from a fitted posterior: through its chain, then down to level 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..diffusion.denoiser import CountingDenoiser, Denoiser, Progress
from ..posterior.chain import HierarchicalPosterior
from ..posterior.fitting import FittedPosterior
from ..presets import Preset
from ..problem.observation import LatentObservation
from ..refiners import REFINERS
from ..refiners.common import LevelStep, StepResult
from .driver import BATCH, DrawMethod, RowNoise, SampleResult, SampleState, draw_fills
from .smc import twisted_smc


def posterior_method(preset: Preset, posterior: HierarchicalPosterior) -> DrawMethod[LatentObservation]:
    """Fills through the chain of a posterior, on whichever device it lies, and then by the preset's descent."""
    _, _, channels, height, width = posterior.mu.shape
    steps = preset.at_size((channels, height, width)).descent(posterior.levels[0])

    def draw(
        denoiser: CountingDenoiser, observation: LatentObservation, image: torch.Tensor, noise: RowNoise
    ) -> torch.Tensor:
        observation = observation.with_crosstalk_as_noise()
        own, remaining = posterior.to(observation.y.device, observation.y.dtype).rows(image), steps
        with torch.no_grad():
            chain = own.chain(denoiser, [noise() for _ in range(own.K)])
        result = StepResult.start(chain.states[0])
        if preset.sampler.smc:
            guided = max(1, sum(step.s > preset.schedule.guided_above for step in steps))
            estimator, remaining = preset.refiner.estimator, steps[guided:]
            assert estimator is not None
            result = twisted_smc(
                estimator, denoiser, result.u, own.log_ratio(chain), steps[:guided], observation, noise
            )
        return descend(denoiser, result, remaining, observation, noise).u

    calls = posterior.K - 1 + len(steps)
    return DrawMethod(draw, calls, preset.refiner.needs_gradient, coupled=preset.sampler.smc)


def descend(
    denoiser: CountingDenoiser,
    result: StepResult,
    steps: Sequence[LevelStep],
    observation: LatentObservation,
    noise: RowNoise,
) -> StepResult:
    """Takes the steps of a preset, one after the other, from the state of an earlier result."""
    for step in steps:
        u = result.u + (step.s**2 - step.s_next**2) ** 0.5 * noise() if step.renew else result.u
        result = REFINERS[step.refiner].refine(denoiser, u, step, observation, noise, result)
    return result


def descent_method(
    preset: Preset, levels: Sequence[float], states: torch.Tensor, estimates: torch.Tensor
) -> DrawMethod[LatentObservation]:
    """One fill per image, from given states through any falling levels, by the steps of a preset without particles.

    levels: the last one may be above 0.
    states: (B, C, H, W) at the first level.
    estimates: (B, C, H, W), filled with the last estimates of x0 given y.
    """
    steps = preset.steps_through(levels)

    def draw(
        denoiser: CountingDenoiser, observation: LatentObservation, image: torch.Tensor, noise: RowNoise
    ) -> torch.Tensor:
        start = StepResult.start(states[image].to(observation.y))
        result = descend(denoiser, start, steps, observation.with_crosstalk_as_noise(), noise)
        estimates[image] = result.x0.to(estimates)
        return result.u

    return DrawMethod(draw, len(steps), preset.refiner.needs_gradient)


def sample(
    denoiser: Denoiser,
    fitted: FittedPosterior,
    seed: int,
    fills: int,
    *,
    first: int = 0,
    batch: int = BATCH,
    state: SampleState | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> SampleResult:
    """Draws `fills` pictures per image from a fitted posterior; see `draw_fills` for the arguments."""
    return draw_fills(
        denoiser,
        fitted.observation,
        posterior_method(fitted.preset, fitted.posterior),
        seed,
        fills,
        first=first,
        batch=batch,
        state=state,
        callback=callback,
    )
