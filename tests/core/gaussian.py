"""A Gaussian prior, about which everything is closed form, and observations of its draws."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.distributions import Normal

from vipaint_core import (
    Denoiser,
    DrawMethod,
    FitConfig,
    HierarchicalPosterior,
    LatentObservation,
    PixelObservation,
    Preset,
    ScheduleConfig,
)
from vipaint_core.diffusion.denoiser import CountingDenoiser

# An analytic posterior of five keypoints and the plainest refiner, for tests to change.
CLOSED_FORM = Preset("closed_form", "", FitConfig(keypoints=(0.7, 1.6, 4.0, 10.0, 30.0)), ScheduleConfig(steps=12))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class GaussianPrior:
    """x0 ~ N(mean, covariance) over flattened latents of the given shape (C, H, W)."""

    shape: tuple[int, int, int]
    mean: torch.Tensor
    covariance: torch.Tensor

    @classmethod
    def unit(cls, shape: tuple[int, int, int]) -> GaussianPrior:
        size = math.prod(shape)
        return cls(shape, torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64))

    @classmethod
    def correlated(cls, shape: tuple[int, int, int], length: float = 1.5) -> GaussianPrior:
        """Unit marginals, correlation falling off with the distance of cells; channels independent."""
        channels, height, width = shape
        cells = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double()
        block = torch.exp(-torch.cdist(cells, cells) / length)
        return cls(
            shape,
            torch.zeros(channels * height * width, dtype=torch.float64),
            torch.block_diag(*[block] * channels),
        )

    @cached_property
    def _spectrum(self) -> tuple[torch.Tensor, torch.Tensor]:
        values, vectors = torch.linalg.eigh(self.covariance)
        return values, vectors

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """The denoiser E[x0 | u], rows of one level or several."""
        values, vectors, mean = (tensor.to(u.dtype) for tensor in (*self._spectrum, self.mean))
        gain = values / (values + s.to(u.dtype)[:, None] ** 2)
        return (((u.flatten(1) - mean) @ vectors * gain) @ vectors.T + mean).reshape(u.shape)

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        root = torch.linalg.cholesky(self.covariance)
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64)
        return (self.mean + noise @ root.T).reshape(count, *self.shape)

    def given_state(self, u: torch.Tensor, s: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Exact means (N, D) and covariance (D, D) of x0 given u = x0 + s n."""
        eye = torch.eye(len(self.mean), dtype=torch.float64)
        gain = self.covariance @ torch.linalg.inv(self.covariance + s**2 * eye)
        return self.mean + (u.flatten(1) - self.mean) @ gain.T, self.covariance - gain @ self.covariance

    def posterior(self, observation: LatentObservation, image: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Exact mean and covariance of x0 given the observation of one image."""
        return conditioned(self.mean, self.covariance, observation, image)

    def log_evidence(self, observation: LatentObservation, image: int = 0) -> torch.Tensor:
        A, y, variance = matrices(observation, image)  # noqa: N806
        inner = A @ self.covariance @ A.T + variance.diag()
        return torch.distributions.MultivariateNormal(A @ self.mean, inner).log_prob(y)


def matrices(
    observation: LatentObservation | PixelObservation, image: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A (M, D), y (M,) and the variance of the noise (M,) of the M numbers that are observed of one image."""
    size = math.prod(observation.shape)
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *observation.shape)
    rows = observation.rows(torch.full((size,), image))
    outputs = rows.predict(eye) if isinstance(rows, PixelObservation) else rows.operator.A(eye)
    weight = observation.weight[image].expand(observation.y.shape[1:]).flatten()
    observed = weight > 0
    y, variance = observation.y[image].flatten()[observed], observation.sigma_y**2 / weight[observed]
    return outputs.flatten(1).T[observed], y, variance


def conditioned(
    mean: torch.Tensor, covariance: torch.Tensor, observation: LatentObservation | PixelObservation, image: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact mean and covariance of latents N(mean, covariance) given the observation of one image."""
    A, y, variance = matrices(observation, image)  # noqa: N806
    gain = torch.linalg.solve(A @ covariance @ A.T + variance.diag(), A @ covariance).T
    return mean + gain @ (y - A @ mean), covariance - gain @ A @ covariance


def noisy_draws(prior: GaussianPrior, images: int = 1, sigma_y: float = 0.1, seed: int = 0) -> torch.Tensor:
    """Draws of the prior with observation noise, (B, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    latents = prior.draw(images, generator)
    return latents + sigma_y * torch.randn(latents.shape, generator=generator, dtype=torch.float64)


def left_half(images: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """The weight, (B, 1, H, W), of an observation of the left half."""
    weight = torch.zeros(images, 1, *shape[1:], dtype=torch.float64)
    weight[..., : shape[2] // 2] = 1
    return weight


def half_observed(prior: GaussianPrior, images: int = 1, sigma_y: float = 0.1, seed: int = 0) -> LatentObservation:
    """Noisy observations of the left half of prior draws."""
    latents = noisy_draws(prior, images, sigma_y, seed)
    return LatentObservation.masked(latents, left_half(images, prior.shape), sigma_y)


def hidden(observation: LatentObservation, image: int = 0) -> torch.Tensor:
    """Which of one image's flattened latents a mask hides, (D,) bool."""
    return observation.weight[image].expand(observation.shape).flatten() == 0


def exact_unit(observation: LatentObservation, levels: tuple[float, ...]) -> tuple[HierarchicalPosterior, float]:
    """Exact posterior and log evidence of the hierarchical model over independent unit-variance cells.

    The model is the prior's ancestral chain itself (whose steps are a little narrower than the exact
    reverse process), so all is one scalar Kalman smoother per cell: messages (P, J) go up, q comes down.
    """
    observed = observation.weight.expand_as(observation.y) > 0
    shrink = 1 / (1 + levels[0] ** 2)
    spread = observation.sigma_y**2 + levels[0] ** 2 * shrink
    P = torch.where(observed, shrink**2 / spread, 0.0)  # noqa: N806
    centre = observation.y / shrink
    steps = []
    mu, log_tau, gamma = [], [], []
    for low, high in zip(levels, levels[1:], strict=False):
        v = low**2 * (high**2 - low**2) / high**2
        share = 1 / (1 + high**2)
        c = share + low**2 / high**2 * (1 - share)
        steps.append((c, v))
        mu.append(centre)
        log_tau.append(-0.5 * (1 / v + P).log())
        gamma.append(torch.logit((1 / v) / (1 / v + P)).clamp(max=50))
        P = torch.where(observed, c**2 / (v + 1 / P), 0.0)  # noqa: N806
        centre = centre / c
    variance = 1 + levels[-1] ** 2
    mu.append(P * centre / (1 / variance + P))
    log_tau.append(-0.5 * (1 / variance + P).log())
    gamma.append(torch.zeros_like(P))
    for c, v in reversed(steps):
        variance = c**2 * variance + v
    law = Normal(torch.zeros((), dtype=torch.float64), (shrink**2 * variance + spread) ** 0.5)
    start = HierarchicalPosterior.initial(observation, levels)
    posterior = replace(start, mu=torch.stack(mu), log_tau=torch.stack(log_tau), gamma=torch.stack(gamma))
    return posterior, float(law.log_prob(observation.y)[observed].sum())


def draw_many(method: DrawMethod[Any], denoiser: Denoiser, observation: Any, count: int, seed: int = 0) -> torch.Tensor:
    """Fills of the first image, (N, D), as `draw_fills` draws them in one batch but from one noise stream: fast."""
    generator, image = torch.Generator().manual_seed(seed), torch.zeros(count, dtype=torch.long)

    def noise() -> torch.Tensor:
        return torch.randn(count, *observation.shape, generator=generator, dtype=torch.float64)

    return method.draw(CountingDenoiser(denoiser, "", 0, None), observation.rows(image), image, noise).flatten(1)
