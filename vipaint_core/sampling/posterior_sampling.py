"""Draws pictures from a fitted posterior: through its chain, then down to level 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from ..diffusion.denoiser import CountingDenoiser, Denoiser, Progress
from ..diffusion.levels import remaining_variance
from ..linalg import Tried
from ..posterior.chain import HierarchicalPosterior
from ..posterior.fitting import FittedPosterior
from ..posterior.gains import Gains, Recorder
from ..presets import Preset
from ..problem.observation import LatentObservation
from ..refiners import REFINERS
from ..refiners.common import LevelStep, StepResult
from .driver import BATCH, DrawMethod, RowNoise, SampleResult, SampleState, draw_fills
from .smc import twisted_smc


def posterior_method(preset: Preset, posterior: HierarchicalPosterior) -> DrawMethod[LatentObservation]:
    """Fills through the chain of a posterior and then by the preset's descent, each drawn by the refiner alone."""
    _, _, channels, height, width = posterior.mu.shape
    return _method(preset, posterior, preset.at_size((channels, height, width)).descent(posterior.levels[0]))


def chain_method(
    fitted: FittedPosterior, number: int, recorder: Recorder | None = None
) -> DrawMethod[LatentObservation]:
    """The chain of this number, by what those before it have found. recorder: is told what its solver finds."""
    steps = fitted.sized_preset.chain_descent(fitted.posterior.levels[0], number)
    return _method(fitted.preset, fitted.posterior, steps, fitted.gains, recorder)


def further_method(fitted: FittedPosterior) -> DrawMethod[LatentObservation]:
    """Fills that are no chains of the posterior: by its gains, where it has them or its preset will."""
    if fitted.gains is None and not fitted.preset.chains:
        return posterior_method(fitted.preset, fitted.posterior)
    steps = fitted.sized_preset.further_descent(fitted.posterior.levels[0])
    return _method(fitted.preset, fitted.posterior, steps, fitted.gains)


def _method(
    preset: Preset,
    posterior: HierarchicalPosterior,
    steps: Sequence[LevelStep],
    gains: Gains | None = None,
    recorder: Recorder | None = None,
) -> DrawMethod[LatentObservation]:
    """Fills through the chain of a posterior, on whichever device it lies, and then by these steps.

    gains: what solvers begin with, where they recycle.
    recorder: is told what solvers find.
    """

    def draw(
        denoiser: CountingDenoiser, observation: LatentObservation, image: torch.Tensor, noise: RowNoise
    ) -> torch.Tensor:
        observation = observation.with_crosstalk_as_noise()
        remaining: Iterable[LevelStep] = steps
        own = posterior.to(observation.y.device, observation.y.dtype).rows(image)
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
        if gains is not None:
            there = gains.to(observation.y.device)
            # One by one: each step's are copies.
            remaining = (replace(step, known=there.at(step.s, image)) for step in steps)
        if recorder is not None:
            recorder.begin()
        last = descend(denoiser, result, remaining, observation, noise, recorder)
        if recorder is not None:
            recorder.end(image)
        return last.u

    calls, gradient = _demand(steps)
    return DrawMethod(draw, posterior.K - 1 + calls, gradient, coupled=preset.sampler.smc)


def _demand(steps: Sequence[LevelStep]) -> tuple[int, bool]:
    """Forward passes that steps take, and whether they take backward ones."""
    taken = [(REFINERS[step.refiner], step) for step in steps]
    calls = sum(refiner.forward_passes(step) for refiner, step in taken)
    return calls, any(refiner.backward_passes(step) for refiner, step in taken)


# The latest products of its own that a fill goes on with; of older ones little holds.
OWN_PRODUCTS = 12


class Stepped(NamedTuple):
    """One step of a descent: from the state u, renewed where it is a resampling, and after the result before to another."""

    step: LevelStep
    u: torch.Tensor
    before: StepResult
    after: StepResult


def descents(
    denoiser: CountingDenoiser,
    result: StepResult,
    steps: Iterable[LevelStep],
    observation: LatentObservation,
    noise: RowNoise,
) -> Iterator[Stepped]:
    """Takes the steps of a preset, one after the other, from the state of an earlier result.

    What a row's own solver has tried is known to it from then on where steps recycle it: at lower levels by as much less
    as the variance of an estimate is there.
    """
    # Products are in units of that variance.
    directions: list[torch.Tensor] = []
    products: list[torch.Tensor] = []
    for step in steps:
        u = result.u + (step.s**2 - step.s_next**2) ** 0.5 * noise() if step.renew else result.u
        spread = remaining_variance(step.s)
        if step.recycles:
            step = replace(step, own=Tried(directions, [spread * product for product in products]))
        before, result = result, REFINERS[step.refiner].refine(denoiser, u, step, observation, noise, result)
        if step.recycles and result.tried is not None:
            directions = [*directions, *result.tried.directions][-OWN_PRODUCTS:]
            products = [*products, *(product / spread for product in result.tried.products)][-OWN_PRODUCTS:]
        yield Stepped(step, u, before, result)


def descend(
    denoiser: CountingDenoiser,
    result: StepResult,
    steps: Iterable[LevelStep],
    observation: LatentObservation,
    noise: RowNoise,
    recorder: Recorder | None = None,
) -> StepResult:
    """The last result of `descents`. recorder: is told what solvers try."""
    for stepped in descents(denoiser, result, steps, observation, noise):
        result = stepped.after
        if recorder is not None:
            recorder.add(stepped.step, result.tried)
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

    return DrawMethod(draw, *_demand(steps))


@dataclass
class GainState:
    """Unfinished chains. `fit_gains` updates it after every batch, and continues from it.

    fitted: with the chains that are whole.
    drawing: of the next one, with what those before it took.
    recorder: of the next one.
    """

    fitted: FittedPosterior | None = None
    drawing: SampleState = field(default_factory=SampleState)
    recorder: Recorder | None = None


def chains_needed(fitted: FittedPosterior, seed: int, fills: int, first: int = 0) -> int:
    """Chains that a posterior must have before these fills can be drawn: one that is itself asked for needs no others."""
    chains, last = fitted.preset.chains, first + fills
    return last if seed == fitted.seed and last < chains else chains


def fit_gains(
    denoiser: Denoiser,
    fitted: FittedPosterior,
    chains: int | None = None,
    *,
    batch: int = BATCH,
    state: GainState | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> FittedPosterior:
    """Draws the chains of a posterior that it does not have yet, one after the other; what their solvers find are its gains.

    chains: how many it then has, those of its preset where None.
    state: earlier, unfinished chains of the same arguments, continued in place; an exception leaves it at the last
        whole batch.
    """
    wanted = fitted.preset.chains if chains is None else chains
    there = 0 if fitted.gains is None else fitted.gains.chains
    if wanted <= there:
        return fitted
    state = state if state is not None else GainState()
    whole = state.fitted or fitted
    first = number = 0 if whole.gains is None else whole.gains.chains
    later = chain_method(whole, first + 1)

    def report(progress: Progress) -> None:
        assert callback is not None
        left = (wanted - number - 1) * later.planned_calls(len(fitted.observation.y), 1, batch)
        callback(replace(progress, calls=progress.calls + left))

    for number in range(first, wanted):
        state.recorder = state.recorder or Recorder(fitted.preset.fit.rank)
        drawn = draw_fills(
            denoiser,
            fitted.observation,
            chain_method(whole, number, state.recorder),
            fitted.seed,
            1,
            first=number,
            batch=batch,
            state=state.drawing,
            callback=None if callback is None else report,
            stage="chains",
        )
        found = state.recorder.gains(drawn.latents)
        whole = replace(whole, gains=found if whole.gains is None else whole.gains.joined(found))
        state.fitted, state.recorder = whole, None
        state.drawing = SampleState(calls=state.drawing.calls, evaluations=state.drawing.evaluations)
    return replace(whole, evaluations=fitted.evaluations + state.drawing.evaluations)


# Least share of an observation's cells that the one whose gains are lent must show too.
SHOWN_TOO = 0.8


def start_from(fitted: FittedPosterior, given: FittedPosterior) -> FittedPosterior:
    """The posterior with the gains of another one in place of chains of its own: every fill is a further one.

    fitted: without gains; of pictures like those of the other, which observation shows about the same cells.
    given: with gains. Those of all its pictures together serve each picture.

    Raises ValueError where the other has no gains, or has them for other levels, latents or cells.
    """
    gains, observation = given.gains, fitted.observation
    if gains is None or not gains.levels:
        raise ValueError("start_from: expected a posterior with gains")
    if observation.shape != given.observation.shape or observation.y.shape[1:] != given.observation.y.shape[1:]:
        raise ValueError(
            f"start_from: expected gains of latents {observation.shape}, found those of {given.observation.shape}"
        )
    if not (wanted := gain_levels(fitted)) <= set(gains.levels):
        raise ValueError(f"start_from: expected gains at the levels {sorted(wanted)}, found {sorted(gains.levels)}")
    if (share := shown_too(observation, given.observation)) < SHOWN_TOO:
        raise ValueError(f"start_from: expected {SHOWN_TOO:.0%} of the cells to be observed in both, found {share:.0%}")
    preset = fitted.preset.with_changes(fit={"chains": 0})
    return replace(fitted, preset=preset, gains=gains.lent(observation.weight))


def gain_levels(fitted: FittedPosterior) -> set[float]:
    """The noise levels at which further fills of a posterior ask for gains."""
    steps = fitted.sized_preset.further_descent(fitted.posterior.levels[0])
    return {step.s for step in steps if REFINERS[step.refiner].solves}


def shown_too(observation: LatentObservation, other: LatentObservation) -> float:
    """The share of an observation's cells that all images of another show too: the least of images with a hole."""
    shown = (other.weight > 0).all(0).to(observation.weight.device)
    own = observation.weight > 0
    share = (own & shown).sum((1, 2, 3)) / own.sum((1, 2, 3)).clamp_min(1)
    return float(torch.where(observation.complete, 1.0, share).min())


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
    """Draws `fills` pictures per image from a fitted posterior; see `draw_fills` for the arguments.

    The posterior's chains are fills of its own seed and are not drawn again. Chains that it lacks are drawn first.
    """
    whole = fit_gains(denoiser, fitted, chains_needed(fitted, seed, fills, first), batch=batch, callback=callback)
    drawn = draw_fills(
        denoiser,
        whole.observation,
        further_method(whole),
        seed,
        fills,
        first=first,
        batch=batch,
        given=whole.gains.fills if whole.gains is not None and seed == whole.seed else None,
        state=state,
        callback=callback,
    )
    return SampleResult(drawn.latents, drawn.evaluations + (whole.evaluations - fitted.evaluations))
