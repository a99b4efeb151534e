"""What all painting nodes run through: checked inputs, a method, and the denoiser within memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ..vipaint_core import (
    PRESETS,
    Denoiser,
    DrawMethod,
    FitConfig,
    FitState,
    FittedPosterior,
    GainState,
    HierarchicalPosterior,
    KeptContent,
    LatentObservation,
    Preset,
    Progress,
    SampleState,
    bound_calls,
    chain_method,
    chains_needed,
    draw_fills,
    fit,
    fit_gains,
    further_method,
    gain_bound,
    initial_posterior,
    reachable_level,
    sample,
    start_from,
)
from ..vipaint_core.posterior.objective import BoundParts
from ..vipaint_core.problem.observation import Observation
from . import validation
from .host.decoder import HostDecoder
from .host.denoiser import Conditioning, GuidedModel, SamplingInputs
from .host.memory import MemoryDemand, not_finite, run_within_memory
from .host.messages import say, tell_cost, warn
from .host.model_info import ModelInfo, is_distilled, level_of_strength, model_info
from .host.progress import PlannedCalls, reporter
from .observation import ORIGINAL, PictureInputs, content_of, observe

log = logging.getLogger(__name__)

T_co = TypeVar("T_co", covariant=True)
O = TypeVar("O", bound=Observation)  # noqa: E741  (short in signatures)
# Rows that are drawn together, where memory allows; benchmarks on large GPUs ask for more.
ROWS = ContextVar("vipaint_rows", default=8)


@dataclass
class RunState:
    """What a run has finished; after the end of memory it goes on from here."""

    fitting: FitState = field(default_factory=FitState)
    gains: GainState = field(default_factory=GainState)
    drawing: SampleState = field(default_factory=SampleState)


@dataclass(frozen=True)
class Run:
    """What a method is run with. batch: rows at once, at most."""

    denoiser: Denoiser
    device: torch.device
    batch: int
    seed: int
    state: RunState
    report: Callable[[Progress], None]


class Method(Protocol[T_co]):
    """What a node does with the denoiser.

    demand: what it asks of memory.
    calls: network calls that it plans.
    """

    @property
    def demand(self) -> MemoryDemand: ...

    @property
    def calls(self) -> PlannedCalls: ...

    def run(self, run: Run) -> T_co:
        """Goes on from `run.state`."""


def sampling_inputs(
    model: ModelPatcher, positive: Conditioning, negative: Conditioning, cfg: float, seed: int, gradients: str
) -> SamplingInputs:
    """The inputs that painting nodes share, checked. Raises InputError."""
    info = model_info(model)
    validation.check_conditioning("positive", positive)
    validation.check_conditioning("negative", negative)
    return SamplingInputs(model, info, positive, negative, cfg, seed, gradients)


def run_method(inputs: GuidedModel, method: Method[T_co], report: Callable[[Progress], None] | None = None) -> T_co:
    """Runs a method inside the host, in the memory that there is. Raises InputError.

    report: hears of its progress, the host's bar where None.
    """
    state, begin, working = RunState(), time.monotonic(), 0.0
    if report is None:
        report = reporter(inputs.model, inputs.info, method.calls, state.drawing, state.gains)

    def work(denoiser: Denoiser, device: torch.device, batch: int) -> T_co:
        nonlocal working
        # The weights are there: what is measured is what the next run takes.
        started = time.monotonic()
        try:
            return method.run(Run(denoiser, device, batch, inputs.seed, state, report))
        finally:
            working += time.monotonic() - started

    result = run_within_memory(inputs, method.demand, work, state.drawing, state.gains.drawing)
    say(summary(state, time.monotonic() - begin))
    tell_cost(passes_of(state), working)
    return result


def passes_of(state: RunState) -> int:
    """Passes through the network that a run has taken."""
    done = state.fitting.evaluations + state.gains.drawing.evaluations + state.drawing.evaluations
    return done.forward + done.backward


def summary(state: RunState, seconds: float) -> str:
    """What a run has done, in words."""
    fills = 0 if state.drawing.latents is None else len(state.drawing.latents)
    what = f"{fills} fill{'s' * (fills != 1)}" if fills else "posterior"
    return f"{what} in {seconds:.1f} s, {passes_of(state)} passes through the model"


@dataclass(frozen=True)
class Draws(Generic[O]):
    """Fills by a method of the core; the result is their latents (B * fills, C, H, W) in model scale.

    first: number of the first fill.
    batch: rows that are drawn together, where memory allows.
    decoder: what the observation's pixels are compared through, if anything.
    """

    observation: O
    method: DrawMethod[O]
    fills: int
    first: int = 0
    batch: int = field(default_factory=ROWS.get)
    decoder: HostDecoder | None = None

    @property
    def demand(self) -> MemoryDemand:
        coupled, rows = self.method.coupled, len(self.observation.y) * self.fills
        return MemoryDemand(
            self.observation.shape,
            1 if coupled else min(rows, self.batch),
            self.fills if coupled else 0,
            self.method.needs_gradient,
            decoder=self.decoder,
        )

    @property
    def calls(self) -> PlannedCalls:
        return PlannedCalls(sample=self.method.planned_calls(len(self.observation.y), self.fills, self.batch))

    def run(self, run: Run) -> torch.Tensor:
        return draw_fills(
            run.denoiser,
            self.observation.to(run.device),
            self.method,
            run.seed,
            self.fills,
            first=self.first,
            batch=run.batch,
            state=run.state.drawing,
            callback=run.report,
        ).latents


class Painted(NamedTuple):
    """A fitted posterior on the CPU and, where fills were asked for, their latents in model scale."""

    fitted: FittedPosterior
    latents: torch.Tensor | None


class Plan(NamedTuple):
    """What is drawn of a posterior: chains that it lacks, then further fills of a picture.

    chains: each one's method.
    further: the fills'.
    """

    chains: Sequence[DrawMethod[LatentObservation]]
    further: DrawMethod[LatentObservation]
    fills: int

    @classmethod
    def of(cls, fitted: FittedPosterior, seed: int, fills: int, first: int = 0) -> Plan:
        """fills: 0 where only the posterior is asked for."""
        needed = chains_needed(fitted, seed, fills, first) if fills else fitted.preset.chains
        there = 0 if fitted.gains is None else fitted.gains.chains
        known = max(needed, there) if seed == fitted.seed else 0
        drawn = fills - min(max(known - first, 0), fills)
        chains = [chain_method(fitted, number) for number in range(there, needed)]
        return cls(chains, further_method(fitted), drawn)

    def calls(self, images: int) -> PlannedCalls:
        """Network calls of the chains and of the fills."""
        return PlannedCalls(
            chains=sum(chain.planned_calls(images, 1, ROWS.get()) for chain in self.chains),
            sample=self.further.planned_calls(images, self.fills, ROWS.get()) if self.fills else 0,
        )

    def demand(self, observation: LatentObservation) -> MemoryDemand:
        images, coupled = len(observation.y), self.further.coupled
        rows = min(max(images * self.fills, images if self.chains else 1), ROWS.get())
        return MemoryDemand(
            observation.shape,
            1 if coupled else rows,
            self.fills if coupled else 0,
            any(method.needs_gradient for method in (*self.chains, self.further)),
            differentiated=rows if self.further.needs_gradient else images,
        )


def draw_from(run: Run, fitted: FittedPosterior, fills: int, first: int = 0) -> Painted:
    """The chains that these fills need and a posterior lacks, then the fills; 0 fills: all chains alone."""
    fitted = fitted.to(run.device)
    needed = chains_needed(fitted, run.seed, fills, first) if fills else None
    fitted = fit_gains(run.denoiser, fitted, needed, batch=run.batch, state=run.state.gains, callback=run.report)
    latents = None
    if fills:
        drawing = run.state.drawing
        latents = sample(
            run.denoiser, fitted, run.seed, fills, first=first, batch=run.batch, state=drawing, callback=run.report
        ).latents
    return Painted(fitted.to("cpu"), latents)


@dataclass(frozen=True)
class DrawMore:
    """Fills of a fitted posterior."""

    fitted: FittedPosterior
    seed: int
    fills: int
    first: int = 0

    @property
    def _plan(self) -> Plan:
        return Plan.of(self.fitted, self.seed, self.fills, self.first)

    @property
    def demand(self) -> MemoryDemand:
        return self._plan.demand(self.fitted.observation)

    @property
    def calls(self) -> PlannedCalls:
        return self._plan.calls(len(self.fitted.observation.y))

    def run(self, run: Run) -> torch.Tensor:
        latents = draw_from(run, self.fitted, self.fills, self.first).latents
        assert latents is not None
        return latents


@dataclass(frozen=True)
class FitAndDraw:
    """Fits a preset's posterior, then draws `fills` per picture from it (0: fits only).

    content: what holes keep in part, if anything.
    given: posterior of other pictures, whose gains are taken in place of own ones.
    """

    observation: LatentObservation
    preset: Preset
    info: ModelInfo
    fills: int
    content: KeptContent | None = None
    given: FittedPosterior | None = None

    @property
    def _largest_level(self) -> float:
        return reachable_level(self.info.largest_level, self.observation.shape)

    @cached_property
    def _start(self) -> HierarchicalPosterior:
        return initial_posterior(self.observation, self.preset, self._largest_level, self.content)

    @property
    def _config(self) -> FitConfig:
        """The preset's fit with the keypoints that there are."""
        return replace(self.preset.fit, keypoints=self._start.levels)

    @property
    def _without_given(self) -> FittedPosterior:
        return FittedPosterior(self._start, self.observation, self.preset)

    # Pooling a given posterior's gains takes work: they are asked for by the plan, several times, and by the run.
    @cached_property
    def _unfitted(self) -> FittedPosterior:
        return self._without_given if self.given is None else start_from(self._without_given, self.given)

    def check(self) -> None:
        """Raises InputError where the given posterior does not serve."""
        if self.given is not None:
            validation.check_start(self._without_given, self.given)

    @property
    def _plan(self) -> Plan:
        """The draws from the fit's start, which ask for as much as those from its end."""
        return Plan.of(self._unfitted, 0, self.fills)

    @property
    def demand(self) -> MemoryDemand:
        draws, config = self._plan.demand(self.observation), self._config
        rows = len(self.observation.y) * config.draws if config.steps else 0
        return MemoryDemand(
            draws.shape,
            draws.batch,
            max(draws.inseparable, rows),
            config.steps > 0 or draws.gradient,
            config.calls_per_step if config.steps else 1,
            differentiated=draws.differentiated,
        )

    @property
    def calls(self) -> PlannedCalls:
        images = len(self.observation.y)
        calls = self._plan.calls(images)._replace(fit=self._config.calls)
        if self._evaluates_bound:
            calls = calls._replace(bound=-(-images // ROWS.get()) * bound_calls(self._unfitted))
        return calls

    @property
    def _evaluates_bound(self) -> bool:
        """Where fills are asked for, theirs would be the passes; with content it is not one on log p(y)."""
        return self.preset.chains > 0 and not self.fills and self.content is None and self.given is None

    def run(self, run: Run) -> Painted:
        fitted = fit(
            run.denoiser,
            self.observation.to(run.device),
            self.preset,
            run.seed,
            s_max=self._largest_level,
            family=self.info.family,
            content=None if self.content is None else self.content.to(run.device),
            state=run.state.fitting,
            callback=run.report,
        )
        if self.given is not None:
            fitted = replace(fitted.without_gains(), gains=self._unfitted.gains)
        painted = draw_from(run, fitted, self.fills)
        if self._evaluates_bound:
            # Of draws that are no fills of the seed.
            seed = (run.seed + 1) % 2**63
            on_device = painted.fitted.to(run.device)
            bound = gain_bound(run.denoiser, on_device, seed, batch=run.batch, callback=run.report).means
            painted = painted._replace(fitted=replace(painted.fitted, bound=bound))
        return painted


def paint(
    inputs: SamplingInputs,
    picture: PictureInputs,
    preset: str,
    fills: int,
    strength: float = 1.0,
    content: str = ORIGINAL,
    given: FittedPosterior | None = None,
) -> Painted:
    """Fits a preset's posterior of a picture and draws `fills` fills from it, none where that is 0.

    strength: from 0 to 1, how much of what is in the hole is replaced.
    content: what is there, see `observation.content_of`.
    given: posterior of other pictures, whose gains are taken in place of own ones.
    """
    chosen = PRESETS[preset]
    advise_on_preset(inputs.model, chosen)
    observation = observe(inputs.info, picture, with_crosstalk=chosen.refiner.uses_crosstalk)
    kept = None
    if strength < 1:
        latents = content_of(inputs.info, picture, observation, content)
        if strength > 0:
            level = level_of_strength(inputs.model, inputs.info.coordinate, strength)
            log.info("VIPaint: strength %.2f starts at noise level %.3g", strength, level)
            kept, chosen = KeptContent(latents, level), chosen.keeping_content()
        else:
            warn("strength 0 keeps all that is in the hole, so there is nothing to paint")
            observation = LatentObservation.masked(latents, torch.ones_like(observation.cell_weight))
    if is_complete(observation):
        chosen, given = chosen.with_changes(fit={"steps": 0, "chains": 0}), None
    method = FitAndDraw(observation, chosen, inputs.info, fills, kept, given)
    method.check()
    painted = run_method(inputs, method)
    if given is not None:
        say(given_in_words(given))
    if painted.fitted.bound is not None:
        say(bound_in_words(painted.fitted.bound))
    return painted


def given_in_words(given: FittedPosterior) -> str:
    """What a posterior of other gains is, for the node."""
    gains, pictures = given.gains, len(given.observation.y)
    assert gains is not None
    count = max(part.shape[1] for part in gains.directions)
    whose = "another picture" if pictures == 1 else f"{pictures} other pictures"
    few = "; those of three or more are better" if pictures < 3 else ""
    return f"starts from {count} gains a level of {whose}, without asking the model{few}"


def bound_in_words(bound: BoundParts) -> str:
    """What the fit's bound is, for the node."""
    prior, hierarchy, reconstruction = (round(part) for part in bound)
    return (
        f"log p(y) is at least {-bound.total:.0f} nats: {-reconstruction} for what is visible, less {hierarchy} for leaving "
        f"the model's own way and {prior} at its top"
    )


def advise_on_preset(model: ModelPatcher, preset: Preset) -> None:
    """Says in the log where another preset is right: see `benchmark distilled`."""
    if not preset.needs_gradient and is_distilled(model):
        log.info(
            "VIPaint: the model was distilled for few steps; `%s` errs more with it than `balanced`, which does not",
            preset.name,
        )


def is_complete(observation: LatentObservation) -> bool:
    """Whether nothing is to be painted, which the log says."""
    complete = bool(observation.complete.all())
    if complete:
        warn("the mask is black everywhere, so there is nothing to paint: the picture is returned")
    return complete


def to_latent(info: ModelInfo, latents: torch.Tensor, observation: LatentObservation | None = None) -> dict[str, Any]:
    """The host's LATENT of latents in model scale. Raises InputError for numbers that are not finite.

    observation: of the pictures that they are fills of: what it leaves open becomes the noise mask, so that a sampler
        that goes on from here leaves alone what is visible.
    """
    if not bool(torch.isfinite(latents).all()):
        raise not_finite()
    out = info.to_host_latent(latents.float())
    # Older hosts (0.16) know no other latents than float32.
    dtype = getattr(comfy.model_management, "intermediate_dtype", lambda: torch.float32)()
    device = comfy.model_management.intermediate_device()
    latent = {"samples": out.to(device=device, dtype=dtype)}
    if observation is not None:
        hidden = 1 - observation.cell_weight
        latent["noise_mask"] = hidden.repeat_interleave(len(latents) // len(hidden), 0).to(device=device, dtype=dtype)
    return latent
