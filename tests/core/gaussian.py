"""A Gaussian prior: everything about it is closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vipaint_core import Observation


@dataclass(frozen=True)
class GaussianPrior:
    """x0 ~ N(mean, covariance) over flattened latents of the given shape (C, H, W)."""

    shape: tuple[int, int, int]
    mean: torch.Tensor
    covariance: torch.Tensor

    @classmethod
    def unit(cls, shape: tuple[int, int, int]) -> GaussianPrior:
        size = shape[0] * shape[1] * shape[2]
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

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """E[x0 | u], rows of one level or several."""
        eye = torch.eye(len(self.mean), dtype=u.dtype)
        flat = u.flatten(1) - self.mean.to(u.dtype)
        gain = torch.linalg.solve(
            self.covariance.to(u.dtype) + s.to(u.dtype)[:, None, None] ** 2 * eye, flat[..., None]
        )
        return ((self.covariance.to(u.dtype) @ gain)[..., 0] + self.mean.to(u.dtype)).reshape(u.shape)

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        root = torch.linalg.cholesky(self.covariance)
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64)
        return (self.mean + noise @ root.T).reshape(count, *self.shape)

    def posterior(self, observation: Observation, image: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Exact mean and covariance of x0 given what is seen of one image."""
        seen = observation.seen[image].expand(self.shape).flatten() > 0
        y = observation.latent[image].flatten()[seen]
        cross = self.covariance[:, seen]
        inner = self.covariance[seen][:, seen] + observation.sigma_y**2 * torch.eye(
            int(seen.sum()), dtype=torch.float64
        )
        gain = torch.linalg.solve(inner, cross.T).T
        return self.mean + gain @ (y - self.mean[seen]), self.covariance - gain @ cross.T

    def log_evidence(self, observation: Observation, image: int = 0) -> torch.Tensor:
        seen = observation.seen[image].expand(self.shape).flatten() > 0
        inner = self.covariance[seen][:, seen] + observation.sigma_y**2 * torch.eye(
            int(seen.sum()), dtype=torch.float64
        )
        law = torch.distributions.MultivariateNormal(self.mean[seen], inner)
        return law.log_prob(observation.latent[image].flatten()[seen])


def half_seen(prior: GaussianPrior, images: int = 1, sigma_y: float = 0.1, seed: int = 0) -> Observation:
    """Noisy observations of prior draws whose left half is seen."""
    generator = torch.Generator().manual_seed(seed)
    latent = prior.draw(images, generator)
    latent = latent + sigma_y * torch.randn(latent.shape, generator=generator, dtype=torch.float64)
    seen = torch.zeros(images, 1, *prior.shape[1:], dtype=torch.float64)
    seen[..., : prior.shape[2] // 2] = 1
    return Observation(latent, seen, sigma_y)
