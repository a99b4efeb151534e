"""The hierarchical Markov posterior over noise levels (VIPaint, arXiv 2411.18929, sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.distributions import Normal

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import check_levels
from ..diffusion.transition import Transition, transition
from ..problem.observation import LatentObservation


class Chain(NamedTuple):
    """One draw of the chain for every row: states u_1..u_K and, below K, the prior's transitions into them.

    estimates: x0 from which those transitions start, of u_2..u_K.
    """

    states: list[torch.Tensor]
    transitions: list[Transition]
    estimates: list[torch.Tensor]


# Initial weight 1 - w of mu: nearly all in observed cells; in hidden ones so little that K of them barely shrink
# the prior's chain.
MU_WEIGHT_OBSERVED, MU_WEIGHT_HIDDEN = 0.98, 0.01


@dataclass(frozen=True)
class KeptContent:
    """What is in the hole, of which the posterior keeps what noise of one level leaves.

    The chain then starts at u = x0 + level * eps of that content (Meng et al. 2022, SDEdit, arXiv 2108.01073).

    latents: (B, C, H, W) in model scale; only hidden cells matter.
    level: noise-to-signal ratio. Lower keeps more.
    """

    latents: torch.Tensor
    level: float

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> KeptContent:
        return replace(self, latents=self.latents.to(device, dtype))


@dataclass(frozen=True)
class HierarchicalPosterior:
    """q(u_K) = N(mu_K, tau_K^2), q(u_i | u_{i+1}) = N(w_i m_i + (1 - w_i) mu_i, tau_i^2).

    m_i is the mean of the prior's own transition, w_i = sigmoid(gamma_i).

    levels: noise-to-signal ratios s_1 < ... < s_K of the keypoints.
    mu, log_tau, gamma: (K, B, C, H, W); gamma's top entry is unused.
    eta: fresh noise of the prior's transitions, 1 ancestral.

    Raises ValueError for levels that do not increase, eta outside [0, 1] or shapes that do not fit.
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
    def initial(
        cls,
        observation: LatentObservation,
        levels: Sequence[float],
        eta: float = 1.0,
        content: torch.Tensor | None = None,
    ) -> HierarchicalPosterior:
        """The analytic start, without any network call.

        Where a cell is observed, every level has its exact marginal N(y, s_i^2 + sigma_y^2); elsewhere the chain is
        the prior's own (unit-variance data above the top keypoint). Weights between 0 and 1 interpolate.

        content: (B, C, H, W), latents with which hidden cells start, N(content, s_K^2), in place of the prior.
        """
        check_levels(levels)
        y = observation.latents
        observed = observation.cell_weight.expand_as(y)
        mu, log_tau, gamma = [], [], []
        for index, s in enumerate(levels):
            if index + 1 < len(levels):
                above = levels[index + 1]
                hidden_variance = max(eta**2 * s**2 * (above**2 - s**2) / above**2, 1e-6 * s**2)
            else:
                hidden_variance = 1 + s**2 if content is None else s**2
            variance = observed * (s**2 + observation.sigma_y**2) + (1 - observed) * hidden_variance
            mu_weight = observed * MU_WEIGHT_OBSERVED + (1 - observed) * MU_WEIGHT_HIDDEN / len(levels)
            mu.append(observed * y)
            log_tau.append(0.5 * variance.log())
            gamma.append(-torch.logit(mu_weight))
        if content is not None:
            mu[-1] = mu[-1] + (1 - observed) * content
        return cls(tuple(levels), torch.stack(mu), torch.stack(log_tau), torch.stack(gamma), eta)

    @property
    def K(self) -> int:  # noqa: N802  (the paper's name)
        """Number of keypoints."""
        return len(self.levels)

    def rows(self, index: torch.Tensor) -> HierarchicalPosterior:
        """The posterior of the given images, repeated as often as the index names them."""
        return replace(self, mu=self.mu[:, index], log_tau=self.log_tau[:, index], gamma=self.gamma[:, index])

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> HierarchicalPosterior:
        mu, log_tau, gamma = (tensor.to(device, dtype) for tensor in (self.mu, self.log_tau, self.gamma))
        return replace(self, mu=mu, log_tau=log_tau, gamma=gamma)

    def chain(self, denoiser: CountingDenoiser, noise: Sequence[torch.Tensor]) -> Chain:
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
