"""The negative variational bound in its three parts (VIPaint, arXiv 2411.18929, eq. 9 to 12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..diffusion.coordinate import per_row
from ..diffusion.denoiser import CountingDenoiser
from ..problem.likelihood import negative_log_likelihood
from ..problem.observation import LatentObservation
from .chain import Chain, HierarchicalPosterior


class BoundParts(NamedTuple):
    """Parts of -ELBO in nats, means over images and draws; see `Bound`."""

    prior: float
    hierarchy: float
    reconstruction: float

    @property
    def total(self) -> float:
        return self.prior + self.hierarchy + self.reconstruction


class Bound(NamedTuple):
    """Parts of -ELBO in nats, (B,) each, for one draw of the chain per row."""

    prior: torch.Tensor
    hierarchy: torch.Tensor
    reconstruction: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        return self.prior + self.hierarchy + self.reconstruction

    @property
    def means(self) -> BoundParts:
        return BoundParts(*(float(part.mean()) for part in self))


def gaussian_prior(posterior: HierarchicalPosterior) -> torch.Tensor:
    """KL(q(u_K) || N(0, 1 + s_K^2)) per image, (B,): exact where noise drowns unit-variance data.

    Costs no network call; for top keypoints of about s = 10 and above.
    """
    variance = 1 + posterior.levels[-1] ** 2
    mu, log_tau = posterior.mu[-1], posterior.log_tau[-1]
    terms = 0.5 * (mu.square() + (2 * log_tau).exp()) / variance - log_tau + 0.5 * math.log(variance) - 0.5
    return terms.flatten(1).sum(1)


def diffusion_prior(
    denoiser: CountingDenoiser,
    posterior: HierarchicalPosterior,
    top: torch.Tensor,
    v: torch.Tensor,
    noise: torch.Tensor,
    v_range: tuple[float, float],
) -> torch.Tensor:
    """KL(q(u_K) || p(u_K)) by the diffusion loss above the top keypoint, up to a constant, (B,).

    The estimate of u_K from u_t = u_K + sqrt(v) eps is x0 + s_K^2 / s_t^2 (u_t - x0).

    top: u_K, (B, C, H, W).
    v: added variance, (B,), log-uniform in v_range.
    noise: standard normal, like top.
    """
    s = posterior.levels[-1]
    added = per_row(v, top)
    total = s**2 + added
    u = top + added.sqrt() * noise
    x0 = denoiser(u, (s**2 + v).sqrt())
    estimate = x0 + s**2 / total * (u - x0)
    weight = 0.5 * math.log(v_range[1] / v_range[0]) / v
    return weight * (top - estimate).square().flatten(1).sum(1) - posterior.log_tau[-1].flatten(1).sum(1)


def hierarchy(posterior: HierarchicalPosterior, chain: Chain) -> torch.Tensor:
    """Sum over keypoints below the top of KL(q(u_i | u_{i+1}) || p(u_i | u_{i+1})), (B,)."""
    total = torch.zeros_like(chain.states[0].flatten(1)[:, 0])
    for index, (mean, variance) in enumerate(chain.transitions):
        log_tau, weight = posterior.log_tau[index], torch.sigmoid(posterior.gamma[index])
        shift = (1 - weight) * (posterior.mu[index] - mean)
        terms = 0.5 * ((2 * log_tau).exp() + shift.square()) / variance - log_tau + 0.5 * variance.log() - 0.5
        total = total + terms.flatten(1).sum(1)
    return total


def negative_bound(
    denoiser: CountingDenoiser,
    posterior: HierarchicalPosterior,
    observation: LatentObservation,
    noise: Sequence[torch.Tensor],
    *,
    calibrated: bool = True,
    upper_evidence: float = 0.0,
    added: tuple[torch.Tensor, torch.Tensor, tuple[float, float]] | None = None,
) -> Bound:
    """-ELBO of every row for one draw of the chain; K network calls, one more with `added`.

    noise: K standard normal tensors (B, C, H, W).
    calibrated: see `likelihood.precision`.
    upper_evidence: weight of -log p(y | u_i) at keypoints above the first (0 is the bound itself).
    added: (v, noise, v_range) selects `diffusion_prior` for the top, None `gaussian_prior`.
    """
    chain = posterior.chain(denoiser, noise)
    x0 = denoiser(chain.states[0], posterior.levels[0])
    reconstruction = negative_log_likelihood(observation, x0, posterior.levels[0], calibrated)
    if upper_evidence:
        for s, estimate in zip(posterior.levels[1:], chain.estimates, strict=True):
            reconstruction = reconstruction + upper_evidence * negative_log_likelihood(
                observation, estimate, s, calibrated
            )
    if added is None:
        prior = gaussian_prior(posterior)
    else:
        prior = diffusion_prior(denoiser, posterior, chain.states[-1], *added)
    return Bound(prior, hierarchy(posterior, chain), reconstruction)
