"""Draws pictures from a fitted posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .denoiser import Counted, Denoiser, Evaluations, Progress
from .fit import Fit
from .refine import REFINERS, refine_levels


@dataclass(frozen=True)
class SampleResult:
    """latents: (B * fills, C, H, W) in model scale, all fills of the first image first."""

    latents: torch.Tensor
    evaluations: Evaluations


class RowNoise:
    """Standard normal noise with one seeded CPU stream per row: a fill does not depend on its batch."""

    def __init__(self, seeds: list[int], shape: torch.Size, device: torch.device, dtype: torch.dtype) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device, self._dtype = shape, device, dtype

    def __call__(self) -> torch.Tensor:
        rows = [torch.randn(self._shape, generator=g, dtype=self._dtype) for g in self._generators]
        return torch.stack(rows).to(self._device)


def sample(
    denoiser: Denoiser,
    fitted: Fit,
    seed: int,
    fills: int,
    *,
    first: int = 0,
    batch: int = 8,
    callback: Callable[[Progress], None] | None = None,
) -> SampleResult:
    """Draws `fills` pictures per image through the chain and refines them from s_1 to 0.

    Fill number f of an image is the same whatever `fills`, `first` and `batch` are (up to the
    rounding of differently sized batches): ask for `first=4` to add to four earlier fills.
    Images with nothing hidden return their latent. Raises ValueError for fills below 1.
    """
    if fills < 1 or first < 0 or batch < 1:
        raise ValueError(f"sample: expected fills >= 1, first >= 0, batch >= 1, found {fills}, {first}, {batch}")
    preset, observation = fitted.preset, fitted.observation
    out = observation.latent.repeat_interleave(fills, 0)
    painted = ~observation.nothing_to_paint.repeat_interleave(fills, 0)
    todo = painted.nonzero()[:, 0]
    chunks = todo.split(batch) if len(todo) else ()
    levels = refine_levels(fitted.posterior.levels[0], preset.refine_steps)
    per_chunk = fitted.posterior.K - 1 + preset.refine_steps * preset.rounds
    counted = Counted(denoiser, "sample", len(chunks) * per_chunk, callback)
    refiner = REFINERS[preset.refiner]
    for chunk in chunks:
        image, fill = chunk // fills, first + chunk % fills
        seeds = [_mix(seed, int(i), int(f)) for i, f in zip(image, fill, strict=True)]
        noise = RowNoise(seeds, out.shape[1:], out.device, out.dtype)
        watched = observation.rows(image)
        posterior = fitted.posterior.rows(image)
        with torch.no_grad():
            u = posterior.chain(counted, [noise() for _ in range(posterior.K)]).states[0]
        for s, s_next in zip(levels, levels[1:], strict=False):
            for turn in range(preset.rounds):
                lower = refiner(counted, u, s, s_next, watched, noise, preset)
                if turn + 1 < preset.rounds:
                    u = lower + (s**2 - s_next**2) ** 0.5 * noise()
            u = lower
        out[chunk] = u
    return SampleResult(out, counted.evaluations)


def _mix(seed: int, image: int, fill: int) -> int:
    """A seed per fill, well apart for neighbouring numbers (SplitMix64's multiplier)."""
    return ((seed * 0x9E3779B97F4A7C15) ^ (image * 0xBF58476D1CE4E5B9) ^ (fill * 0x94D049BB133111EB)) % 2**63
