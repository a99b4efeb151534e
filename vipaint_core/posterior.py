"""The hierarchical Markov posterior over noise levels (VIPaint, arXiv 2411.18929, sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.distributions import Normal

from .coordinate import Level, per_row
from .denoiser import Counted
from .levels import check_levels
from .observation import Observation


class Transition(NamedTuple):
    mean: torch.Tensor
    variance: torch.Tensor


def transition(u: torch.Tensor, x0: torch.Tensor, s: Level, s_next: Level, eta: float = 1.0) -> Transition:
    """The prior's step p(u_next | u) from level s down to s_next, a Gaussian.

    u, x0: (B, C, H, W), x0 the estimate from u. eta: 1 ancestral (DDPM), 0 deterministic
    (Song et al. 2021, DDIM, eq. 12, in the variance-exploding coordinate).
    """
    high, low = per_row(s, u), per_row(s_next, u)
    variance = eta**2 * low**2 * (high**2 - low**2) / high**2
    return Transition(x0 + (low**2 - variance).clamp_min(0).sqrt() / high * (u - x0), variance)


class Chain(NamedTuple):
    """One draw of the chain for every row: states u_1..u_K and, below K, the prior's transitions into them."""

    states: list[torch.Tensor]
    transitions: list[Transition]
    estimates: list[torch.Tensor]


# Initial pull 1 - w towards mu: nearly all where seen; where hidden so little that K of them barely shrink
# the prior's chain.
PULL_SEEN, PULL_HIDDEN = 0.98, 0.01


@dataclass(frozen=True)
class HierarchicalPosterior:
    """q(u_K) = N(mu_K, tau_K^2), q(u_i | u_{i+1}) = N(w_i m_i + (1 - w_i) mu_i, tau_i^2).

    levels: noise-to-signal ratios s_1 < ... < s_K of the keypoints. m_i is the mean of the prior's
    own transition, w_i = sigmoid(gamma_i). mu, log_tau, gamma: (K, B, C, H, W); gamma's top entry is
    unused. Raises ValueError for levels that do not increase, eta outside [0, 1] or shapes that do not
    fit.
    """

    levels: tuple[float, ...]
    mu: torch.Tensor
    log_tau: torch.Tensor
    gamma: torch.Tensor
    eta: float = 1.0

    def __post_init__(self) -> None:
        check_levels(self.levels)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"HierarchicalPosterior: expected eta from 0 to 1, found {self.eta}")
        if self.mu.ndim != 5 or len(self.mu) != len(self.levels):
            raise ValueError(
                f"HierarchicalPosterior: expected mu of shape ({len(self.levels)}, B, C, H, W), "
                f"found {tuple(self.mu.shape)}"
            )
        if not self.mu.shape == self.log_tau.shape == self.gamma.shape:
            raise ValueError(
                "HierarchicalPosterior: expected mu, log_tau and gamma of one shape, found "
                f"{tuple(self.mu.shape)}, {tuple(self.log_tau.shape)}, {tuple(self.gamma.shape)}"
            )

    @classmethod
    def initial(cls, observation: Observation, levels: Sequence[float], eta: float = 1.0) -> HierarchicalPosterior:
        """The analytic start, without any network call.

        Where seen, every level has its exact marginal N(y, s_i^2 + sigma_y^2); where hidden, the chain
        is the prior's own (unit-variance data above the top keypoint). Soft cells interpolate.
        """
        check_levels(levels)
        seen, y = observation.seen.expand_as(observation.latent), observation.y
        mu, log_tau, gamma = [], [], []
        for index, s in enumerate(levels):
            if index + 1 < len(levels):
                above = levels[index + 1]
                hidden_variance = max(eta**2 * s**2 * (above**2 - s**2) / above**2, 1e-6 * s**2)
            else:
                hidden_variance = 1 + s**2
            variance = seen * (s**2 + observation.sigma_y**2) + (1 - seen) * hidden_variance
            pull = seen * PULL_SEEN + (1 - seen) * PULL_HIDDEN / len(levels)
            mu.append(seen * y)
            log_tau.append(0.5 * variance.log())
            gamma.append(-torch.logit(pull))
        return cls(tuple(levels), torch.stack(mu), torch.stack(log_tau), torch.stack(gamma), eta)

    @property
    def K(self) -> int:  # noqa: N802  (the paper's name)
        return len(self.levels)

    def rows(self, index: torch.Tensor) -> HierarchicalPosterior:
        """The posterior of the given images, repeated as often as the index names them."""
        return replace(self, mu=self.mu[:, index], log_tau=self.log_tau[:, index], gamma=self.gamma[:, index])

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> HierarchicalPosterior:
        mu, log_tau, gamma = (tensor.to(device, dtype) for tensor in (self.mu, self.log_tau, self.gamma))
        return replace(self, mu=mu, log_tau=log_tau, gamma=gamma)

    def chain(self, denoiser: Counted, noise: Sequence[torch.Tensor]) -> Chain:
        """Draws u_K, ..., u_1 with the given standard normal noise, K tensors (B, C, H, W); K - 1 calls."""
        u = self.mu[-1] + self.log_tau[-1].exp() * noise[-1]
        states, steps, estimates = [u], [], []
        for index in range(self.K - 2, -1, -1):
            x0 = denoiser(u, self.levels[index + 1])
            step = transition(u, x0, self.levels[index + 1], self.levels[index], self.eta)
            weight = torch.sigmoid(self.gamma[index])
            mean = weight * step.mean + (1 - weight) * self.mu[index]
            u = mean + self.log_tau[index].exp() * noise[index]
            states.append(u)
            steps.append(step)
            estimates.append(x0)
        return Chain(states[::-1], steps[::-1], estimates[::-1])

    def log_ratio(self, chain: Chain) -> torch.Tensor:
        """log p(u_1, ..., u_K) - log q(u_1, ..., u_K) of a draw, (B,): the prior's weight against this posterior.

        As in `objective.gaussian_prior`, the prior at the top keypoint is N(0, 1 + s_K^2).
        """
        zero = torch.zeros_like(chain.states[-1])
        steps = [*chain.transitions, Transition(zero, zero + 1 + self.levels[-1] ** 2)]
        total = torch.zeros_like(zero.flatten(1)[:, 0])
        for index, (u, step) in enumerate(zip(chain.states, steps, strict=True)):
            weight = torch.sigmoid(self.gamma[index]) if index + 1 < self.K else 0.0
            own = Normal(weight * step.mean + (1 - weight) * self.mu[index], self.log_tau[index].exp())
            terms = Normal(step.mean, step.variance.sqrt().expand_as(u)).log_prob(u) - own.log_prob(u)
            total = total + terms.flatten(1).sum(1)
        return total
