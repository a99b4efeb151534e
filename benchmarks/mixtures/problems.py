"""Gaussian mixtures, where all that a sampler approximates is closed form, and linear problems over them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange, repeat

from vipaint_core import LatentObservation

VARIANTS = ("linear", "mask", "apart")
DIMENSIONS, MEASUREMENTS = (8, 80, 800), (1, 2, 4)
# Between neighbouring means, per coordinate.
SPACING = 8.0


@dataclass(frozen=True)
class Mixture:
    """Components N(means[k], diag(variance)) over D numbers.

    logits: (K,), unnormalised log weights.
    means: (K, D).
    variance: (D,), or (1,) where all numbers share it.
    """

    logits: torch.Tensor
    means: torch.Tensor
    variance: torch.Tensor

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """The denoiser E[x0 | u], u (N, 1, 1, D), s (N,)."""
        x = u.flatten(1)
        variance, means = self.variance.to(x.dtype), self.means.to(x.dtype)
        total = variance + s.to(x.dtype)[:, None] ** 2
        # -|x - m|^2 / (2 total) without the part that all components share.
        squares = rearrange(means.square(), "k (v d) -> k v d", v=len(variance)).sum(2)
        logits = (x / total) @ means.T - 0.5 * (1 / total) @ squares.T + self.logits.to(x.dtype)
        mean = logits.softmax(1) @ means
        return mean.lerp(x, variance / total).reshape(u.shape)

    def given(self, observation: LatentObservation) -> Mixture:
        """The exact posterior, a mixture again (cells are observed one by one)."""
        y, weight = observation.y.flatten().to(self.means), observation.weight.flatten().to(self.means)
        noise = torch.where(weight > 0, observation.sigma_y**2 / weight.clamp_min(1e-30), torch.inf)
        evidence = ((y - self.means).square() / (self.variance + noise)).sum(1)
        gain = self.variance / (self.variance + noise)
        means = self.means + gain * (y - self.means)
        return Mixture(self.logits - 0.5 * evidence, means, self.variance * (1 - gain))

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Exact samples (count, D)."""
        component = torch.multinomial(self.logits.softmax(0), count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[component] + self.variance.sqrt() * noise


@dataclass(frozen=True)
class Cell:
    """One kind of problem: numbers of the prior, and of those measured."""

    variant: str
    dimension: int
    measurements: int

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.dimension}-{self.measurements}"


@dataclass(frozen=True)
class Problem:
    """A prior over (1, 1, D) latents, one observation of it, and the factor back to the original scale."""

    prior: Mixture
    observation: LatentObservation
    scale: float


def problem(cell: Cell, index: int) -> Problem:
    """Problem number `index` of a cell, float64."""
    generator = torch.Generator().manual_seed(1_000_003 * index + cell.dimension * 10 + cell.measurements)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    d, measured = cell.dimension, cell.measurements
    if cell.variant == "apart":
        means = repeat(3 * SPACING * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), "k -> k d", d=d)
        logits = torch.tensor([0.6, 0.1, 0.3], dtype=torch.float64).log()
    else:
        grid = torch.cartesian_prod(torch.arange(-2.0, 3.0), torch.arange(-2.0, 3.0)).double()
        means = -SPACING * repeat(grid, "k pair -> k (times pair)", times=d // 2)
        logits = normal(25).square().log()
    precision = torch.zeros(d, dtype=torch.float64)
    if cell.variant == "linear":
        rotation, _ = torch.linalg.qr(normal(d, d))
        means = means @ rotation
        singular = torch.rand(measured, generator=generator, dtype=torch.float64).sort(descending=True).values
        precision[:measured] = (singular / singular[0]).square()
    else:
        precision[torch.randperm(d, generator=generator)[:measured]] = 1
    # Relative to max s: in this basis the noise of the best measured coordinate.
    sigma = float(torch.rand(1, generator=generator, dtype=torch.float64).clamp_min(0.01))
    scale = math.sqrt(1 + 2 * SPACING**2)
    prior = Mixture(logits, means / scale, torch.tensor([1 / scale**2], dtype=torch.float64))
    clean = rearrange(prior.draw(1, generator), "n d -> n 1 1 d")
    noise = sigma / scale / precision.clamp_min(1e-12).sqrt() * normal(d)
    weight = rearrange(precision, "d -> 1 1 1 d")
    latents = torch.where(weight > 0, clean + noise, torch.zeros(()))
    return Problem(prior, LatentObservation.masked(latents, weight, sigma / scale), scale)
