"""Draws pictures from a fitted posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, TypeVar

import torch

from .denoiser import Counted, Denoiser, Evaluations, Progress
from .fit import Fit
from .observation import Observation
from .particles import walk
from .refine import ESTIMATORS, REFINERS, begin


@dataclass(frozen=True)
class SampleResult:
    """latents: (B * fills, C, H, W) in model scale, all fills of the first image first."""

    latents: torch.Tensor
    evaluations: Evaluations


@dataclass
class SampleState:
    """Unfinished draws. `draw_fills` updates it after every batch; drawing continues from it, in batches of any size.

    latents: as in `SampleResult`, None before the first call. done: rows drawn. calls: network calls that they took.
    """

    latents: torch.Tensor | None = None
    done: int = 0
    calls: int = 0
    evaluations: Evaluations = field(default_factory=Evaluations)


class RowNoise:
    """Standard normal noise with one seeded CPU stream per row: a fill does not depend on its batch."""

    def __init__(self, seeds: list[int], shape: torch.Size, device: torch.device, dtype: torch.dtype) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device, self._dtype = shape, device, dtype

    def __call__(self) -> torch.Tensor:
        rows = [torch.randn(self._shape, generator=g, dtype=self._dtype) for g in self._generators]
        return torch.stack(rows).to(self._device)


class Watched(Protocol):
    """What `draw_fills` asks of an observation, see `Observation`."""

    @property
    def latent(self) -> torch.Tensor: ...

    @property
    def nothing_to_paint(self) -> torch.Tensor: ...

    def rows(self: Seen, index: torch.Tensor) -> Seen: ...


Seen = TypeVar("Seen", bound=Watched)
Draw = Callable[[Counted, Seen, torch.Tensor, RowNoise], torch.Tensor]


def draw_fills(
    denoiser: Denoiser,
    observation: Seen,
    seed: int,
    fills: int,
    draw: Draw[Seen],
    *,
    calls: int,
    first: int = 0,
    batch: int = 8,
    state: SampleState | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> SampleResult:
    """`fills` rows per image, drawn in batches: what every sampler of this package runs in.

    draw(denoiser, observation, image, noise): latents (N, C, H, W) of N rows, where `observation` holds
    the rows' own observations, `image` (N,) their numbers and `noise()` standard normal latents.
    calls: network calls of one `draw`, for the callback's progress. Fill number f of an image is the
    same whatever `fills`, `first` and `batch` are (up to the rounding of differently sized batches).
    state: earlier, unfinished draws of the same arguments, continued in place; an exception leaves it at the last
    whole batch. Images with nothing hidden return their latent. Raises ValueError for fills below 1.
    """
    if fills < 1 or first < 0 or batch < 1:
        raise ValueError(f"sample: expected fills >= 1, first >= 0, batch >= 1, found {fills}, {first}, {batch}")
    state = state if state is not None else SampleState()
    if state.latents is None:
        state.latents = observation.latent.repeat_interleave(fills, 0)
    out = state.latents
    todo = (~observation.nothing_to_paint.repeat_interleave(fills, 0)).nonzero()[state.done :, 0]
    chunks = todo.split(batch) if len(todo) else ()
    counted = Counted(denoiser, "sample", state.calls + len(chunks) * calls, callback, state.calls)
    for chunk in chunks:
        image, fill = chunk // fills, first + chunk % fills
        seeds = [_mix(seed, int(i), int(f)) for i, f in zip(image, fill, strict=True)]
        noise = RowNoise(seeds, out.shape[1:], out.device, out.dtype)
        out[chunk] = draw(counted, observation.rows(image), image, noise)
        state.done += len(chunk)
        state.calls += calls
        state.evaluations += counted.evaluations
        counted.evaluations = Evaluations()
    return SampleResult(out, state.evaluations)


def sample(
    denoiser: Denoiser,
    fitted: Fit,
    seed: int,
    fills: int,
    *,
    first: int = 0,
    batch: int = 8,
    state: SampleState | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> SampleResult:
    """Draws `fills` pictures per image through the chain and refines them from s_1 to 0.

    Ask for `first=4` to add to four earlier fills; see `draw_fills`. Fills of a preset with particles
    depend on their number instead.
    """
    preset, keypoints = fitted.preset, fitted.posterior.levels
    levels = preset.descent(keypoints[0])

    def draw(counted: Counted, observation: Observation, image: torch.Tensor, noise: RowNoise) -> torch.Tensor:
        posterior = fitted.posterior.rows(image)
        with torch.no_grad():
            chain = posterior.chain(counted, [noise() for _ in range(posterior.K)])
        step, left = begin(chain.states[0]), levels
        if preset.particles:
            guided = max(1, sum(s > preset.guided_above for s in levels))
            log_weight, estimator = posterior.log_ratio(chain), ESTIMATORS[preset.refiner]
            step = walk(estimator, counted, step.u, log_weight, levels[: guided + 1], observation, noise, preset)
            left = levels[guided:]
        for s, s_next in pairwise(left):
            refiner = REFINERS[preset.step(s)]
            for turn in range(preset.turns(s)):
                u = step.u + (s**2 - s_next**2) ** 0.5 * noise() if turn else step.u
                step = refiner(counted, u, s, s_next, observation, noise, preset, step)
        return step.u

    return draw_fills(
        denoiser,
        fitted.observation,
        seed,
        fills,
        draw,
        calls=preset.draw_calls(keypoints),
        first=first,
        batch=preset.rows(fills, batch),
        state=state,
        callback=callback,
    )


def _mix(seed: int, image: int, fill: int) -> int:
    """A seed per fill, well apart for neighbouring numbers (SplitMix64's multiplier)."""
    return ((seed * 0x9E3779B97F4A7C15) ^ (image * 0xBF58476D1CE4E5B9) ^ (fill * 0x94D049BB133111EB)) % 2**63
