"""What the baselines share: their contract, settings with limits, and conditioned draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.transition import transition
from ..problem.observation import LatentObservation
from ..refiners.common import Noise


def setting(default: float, low: float, high: float, effect: str) -> Any:
    """A field of `Settings`: its limits, and what it does in which direction."""
    return field(default=default, metadata={"low": low, "high": high, "effect": effect})


@dataclass(frozen=True)
class Settings:
    """A method's settings; every field is a `setting`.

    Raises ValueError for values outside their limits and for what is no number.
    """

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, low, high = getattr(self, entry.name), entry.metadata["low"], entry.metadata["high"]
            kind = int if isinstance(entry.default, int) else (int, float)
            if not isinstance(value, kind) or not low <= value <= high:
                raise ValueError(f"{entry.name}: expected {low} to {high}, found {value!r}")


@dataclass(frozen=True)
class Baseline:
    """A published method.

    draw(denoiser, observation, noise, settings, s_max): latents (N, C, H, W) in model scale, one per row of
        `observation`, with s_max the largest level that the model knows.
    calls(settings): network calls of one draw.
    needs_gradient: it differentiates the network.
    coupled: the rows of a draw are one image's particles and depend on each other.
    any_observation: it takes any `Observation`; others take a `LatentObservation` of a mask.
    """

    name: str
    description: str
    source: str
    settings: type[Settings]
    draw: Callable[..., torch.Tensor]
    calls: Callable[[Any], int]
    needs_gradient: bool = False
    coupled: bool = False
    any_observation: bool = False


def start(noise: Noise, s: float) -> torch.Tensor:
    """The prior's marginal at level s for data of unit variance."""
    return math.sqrt(1 + s**2) * noise()


def probability_flow(denoiser: CountingDenoiser, u: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
    """Euler steps of the probability-flow ODE down through the levels."""
    for s, s_next in pairwise(levels):
        u = transition(u, denoiser(u, s), s, s_next, eta=0).mean
    return u


def replace_observed(u: torch.Tensor, observation: LatentObservation, s: float, noise: Noise) -> torch.Tensor:
    """u with the observation, noised to level s, in place of the observed cells; soft cells are mixed."""
    return torch.lerp(u, observation.y + s * noise(), observation.weight.expand_as(u))


def project(x0: torch.Tensor, observation: LatentObservation) -> torch.Tensor:
    """x0 with the observation itself in place of the observed cells; soft cells are mixed."""
    return torch.lerp(x0, observation.y, observation.weight.expand_as(x0))


def gaussian_product(
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
