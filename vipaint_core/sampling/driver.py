"""Draws fills in batches, with a noise stream per fill and a state to go on from: what every sampler runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from ..diffusion.denoiser import CountingDenoiser, Denoiser, Evaluations, Progress
from ..problem.observation import Observation

BATCH = 8


@dataclass(frozen=True)
class SampleResult:
    """latents: (B * fills, C, H, W) in model scale, all fills of the first image first."""

    latents: torch.Tensor
    evaluations: Evaluations


@dataclass
class SampleState:
    """Unfinished draws. `draw_fills` updates it after every batch; drawing continues from it, in batches of any size.

    latents: as in `SampleResult`, None before the first call.
    done: rows drawn.
    drawing: image and number of the fills that are being drawn.
    calls: network calls that they took.
    """

    latents: torch.Tensor | None = None
    done: int = 0
    drawing: tuple[tuple[int, int], ...] = ()
    calls: int = 0
    evaluations: Evaluations = field(default_factory=Evaluations)


class RowNoise:
    """Standard normal noise with one seeded CPU stream per row: a fill does not depend on its batch."""

    def __init__(self, seeds: list[int], shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device, self._dtype = shape, device, dtype

    def __call__(self) -> torch.Tensor:
        rows = [torch.randn(self._shape, generator=g, dtype=self._dtype) for g in self._generators]
        return torch.stack(rows).to(self._device)


O = TypeVar("O", bound=Observation)  # noqa: E741  (short in signatures)
# draw(denoiser, observation, image, noise): latents (N, C, H, W) of N rows, where `observation` holds the rows' own
# observations, `image` (N,) their numbers and `noise()` standard normal latents.
Draw = Callable[[CountingDenoiser, O, torch.Tensor, RowNoise], torch.Tensor]


@dataclass(frozen=True)
class DrawMethod(Generic[O]):
    """How a batch of fills is drawn.

    draw: see `Draw`.
    calls: network calls of one batch, at most.
    needs_gradient: whether it differentiates the network.
    coupled: the fills of an image depend on each other, as particles do, and are drawn in one batch.
    """

    draw: Draw[O]
    calls: int
    needs_gradient: bool
    coupled: bool = False

    def batch_size(self, fills: int, batch: int) -> int:
        """Rows that are drawn together."""
        return fills if self.coupled else batch

    def planned_calls(self, images: int, fills: int, batch: int = BATCH) -> int:
        """Network calls of `fills` fills per image that are drawn, at most."""
        return -(-images * fills // self.batch_size(fills, batch)) * self.calls


def draw_fills(
    denoiser: Denoiser,
    observation: O,
    method: DrawMethod[O],
    seed: int,
    fills: int,
    *,
    first: int = 0,
    batch: int = BATCH,
    given: torch.Tensor | None = None,
    state: SampleState | None = None,
    callback: Callable[[Progress], None] | None = None,
    stage: str = "sample",
) -> SampleResult:
    """`fills` fills per image, drawn in batches of at most `batch` rows.

    Fill number f of an image is the same whatever `fills`, `first` and `batch` are (up to the rounding of differently
    sized batches), unless the method's fills are coupled. Images whose observation is complete return their latents.

    first: number of the first fill; 4 adds to four earlier ones.
    given: (M, B, C, H, W), fills 0 to M - 1 of every image, which are not drawn.
    state: earlier, unfinished draws of the same arguments, continued in place; an exception leaves it at the last
        whole batch.
    stage: see `Progress`.

    Raises ValueError for fills or a batch below 1.
    """
    if fills < 1 or first < 0 or batch < 1:
        raise ValueError(f"sample: expected fills >= 1, first >= 0, batch >= 1, found {fills}, {first}, {batch}")
    state = state if state is not None else SampleState()
    if state.latents is None:
        state.latents = observation.latents.repeat_interleave(fills, 0)
    out = state.latents
    known = 0 if given is None else min(max(len(given) - first, 0), fills)
    if given is not None and known:
        out.unflatten(0, (-1, fills))[:, :known] = given[first : first + known].transpose(0, 1).to(out)
    wanted = ~observation.complete.repeat_interleave(fills)
    wanted &= (torch.arange(len(wanted), device=wanted.device) % fills) >= known
    todo = wanted.nonzero()[state.done :, 0]
    chunks = todo.split(method.batch_size(fills, batch)) if len(todo) else ()
    planned = state.calls + len(chunks) * method.calls
    counting = CountingDenoiser(denoiser, stage, planned, callback, state.calls)
    for chunk in chunks:
        image, fill = chunk // fills, first + chunk % fills
        state.drawing = tuple(zip(image.tolist(), fill.tolist(), strict=True))
        seeds = [_mixed_seed(seed, *fill_of_image) for fill_of_image in state.drawing]
        noise = RowNoise(seeds, observation.shape, out.device, out.dtype)
        out[chunk] = method.draw(counting, observation.rows(image), image, noise)
        state.done += len(chunk)
        state.calls += method.calls
        state.evaluations += counting.take_evaluations()
    return SampleResult(out, state.evaluations)


def _mixed_seed(seed: int, image: int, fill: int) -> int:
    """A seed per fill, well apart for neighbouring numbers (SplitMix64's multiplier)."""
    return ((seed * 0x9E3779B97F4A7C15) ^ (image * 0xBF58476D1CE4E5B9) ^ (fill * 0x94D049BB133111EB)) % 2**63
