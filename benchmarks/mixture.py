"""Gaussian mixtures: everything that a sampler approximates is closed form here."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vipaint_core import Observation


@dataclass(frozen=True)
class Mixture:
    """Components N(means[k], diag(variance)) over D numbers.

    logits: (K,), unnormalised log weights. means: (K, D). variance: (D,), or (1,) where all numbers share it.
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
        squares = means.square().unflatten(1, (len(variance), -1)).sum(2)
        logits = (x / total) @ means.T - 0.5 * (1 / total) @ squares.T + self.logits.to(x.dtype)
        mean = logits.softmax(1) @ means
        return mean.lerp(x, variance / total).reshape(u.shape)

    def given(self, observation: Observation) -> Mixture:
        """The exact posterior, a mixture again (cells are observed one by one)."""
        y, seen = observation.y.flatten().to(self.means), observation.seen.flatten().to(self.means)
        noise = torch.where(seen > 0, observation.sigma_y**2 / seen.clamp_min(1e-30), torch.inf)
        evidence = ((y - self.means).square() / (self.variance + noise)).sum(1)
        gain = self.variance / (self.variance + noise)
        means = self.means + gain * (y - self.means)
        return Mixture(self.logits - 0.5 * evidence, means, self.variance * (1 - gain))

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Exact samples (count, D)."""
        component = torch.multinomial(self.logits.softmax(0), count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[component] + self.variance.sqrt() * noise
