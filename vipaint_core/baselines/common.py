"""What the baselines share: their contract, knobs with limits, noise schedules and conditioned draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

import torch

from ..denoiser import Counted
from ..observation import Observation
from ..posterior import transition
from ..refine import Noise

# Flows have no largest level; of data of unit variance nothing is left here.
START = 80.0


def knob(default: float, low: float, high: float, effect: str) -> Any:
    """A field of `Settings`: its limits, and what it does in which direction."""
    return field(default=default, metadata={"low": low, "high": high, "effect": effect})


@dataclass(frozen=True)
class Settings:
    """A method's knobs; every field is a `knob`. Raises ValueError for values outside their limits or no numbers."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, low, high = getattr(self, entry.name), entry.metadata["low"], entry.metadata["high"]
            kind = int if isinstance(entry.default, int) else (int, float)
            if not isinstance(value, kind) or not low <= value <= high:
                raise ValueError(f"{entry.name}: expected {low} to {high}, found {value!r}")


@dataclass(frozen=True)
class Baseline:
    """A published method.

    draw(denoiser, observation, noise, settings, s_max): latents (N, C, H, W) in model scale, one per
    row of `observation`, with s_max the largest level that the model knows. calls(settings): network
    calls of one draw. particles: the rows of a draw are one image's particles and depend on each other.
    """

    name: str
    description: str
    source: str
    settings: type[Settings]
    draw: Callable[..., torch.Tensor]
    calls: Callable[[Any], int]
    needs_gradient: bool = False
    particles: bool = False

    def rows(self, fills: int, batch: int) -> int:
        """Rows of one draw: all fills of an image where they are particles."""
        return fills if self.particles else batch

    def planned(self, settings: Settings, images: int, fills: int, batch: int = 8) -> int:
        """Network calls of `fills` fills per image."""
        return -(-images * fills // self.rows(fills, batch)) * self.calls(settings)


def vp_levels(s_max: float, steps: int) -> list[float]:
    """`steps` + 1 levels from min(s_max, 80) to 0 at equal times of the linear VP schedule.

    s(t)^2 = exp(0.1 t + 9.95 t^2) - 1, t in [0, 1]: the continuous form of DDPM's betas from 1e-4
    to 0.02 (Song et al. 2021, arXiv 2011.13456, app. C), in which most methods were tuned.
    """
    top = (math.sqrt(0.01 + 4 * 9.95 * math.log1p(min(s_max, START) ** 2)) - 0.1) / (2 * 9.95)
    times = [top * (1 - step / steps) for step in range(steps + 1)]
    return [math.sqrt(math.expm1(0.1 * t + 9.95 * t**2)) for t in times]


def flow_levels(s_max: float, steps: int, shift: float = 3.0) -> list[float]:
    """`steps` + 1 levels from min(s_max, 80) to 0 at equal times t of a shifted flow, s = shift t / (1 - t)."""
    highest = min(s_max, START)
    times = [highest / (shift + highest) * (1 - step / steps) for step in range(steps + 1)]
    return [shift * t / (1 - t) for t in times]


def start(noise: Noise, s: float) -> torch.Tensor:
    """The prior's marginal at level s for data of unit variance."""
    return math.sqrt(1 + s**2) * noise()


def probability_flow(denoiser: Counted, u: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
    """Euler steps of the probability-flow ODE down through the levels."""
    for s, s_next in pairwise(levels):
        u = transition(u, denoiser(u, s), s, s_next, eta=0).mean
    return u


def replace_seen(u: torch.Tensor, observation: Observation, s: float, noise: Noise) -> torch.Tensor:
    """u with the observation, noised to level s, in place of the seen cells; soft cells are mixed."""
    return torch.lerp(u, observation.y + s * noise(), observation.seen.expand_as(u))


def project(x0: torch.Tensor, observation: Observation) -> torch.Tensor:
    """x0 with the observation itself in place of the seen cells; soft cells are mixed."""
    return torch.lerp(x0, observation.y, observation.seen.expand_as(x0))


def product(
    mean: torch.Tensor,
    variance: torch.Tensor | float,
    other: torch.Tensor,
    precision: torch.Tensor | float,
    noise: Noise,
) -> torch.Tensor:
    """A draw from N(mean, variance) times N(other, 1 / precision), normalised, cell by cell."""
    total = 1 / variance + precision
    return (mean / variance + precision * other) / total + noise() / total**0.5


def diffuse(x: torch.Tensor, target: torch.Tensor, precision: torch.Tensor, time: float, noise: Noise) -> torch.Tensor:
    """Langevin diffusion towards N(target, 1 / precision) for `time`, solved exactly: dx = -precision (x - target)."""
    kept = torch.exp(-precision * time)
    return target + kept * (x - target) + ((1 - kept**2) / precision).sqrt() * noise()
