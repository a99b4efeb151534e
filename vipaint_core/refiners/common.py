"""The contract of refiners: one step from a noisy state down to a lower level, given an observation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.transition import transition
from ..linalg import Pairs, Tried
from ..problem.observation import LatentObservation

Noise = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class LevelStep:
    """One step of a descent: one network call, and what decides it.

    s, s_next: levels before and after, s_next below s or 0.
    refiner: a key of `REFINERS`.
    renew: the state goes back up from s_next to s by new noise first (a resampling, Lugmayr et al. 2022, RePaint).
    eta: fresh noise of the prior's transition, 1 ancestral.
    solver_steps: see `moment_matching`.
    differences: its products are differences of two forward passes in place of backward passes, see `jacobian_free`.
    warm_start: its solver starts from the score of the step before.
    second_order: the step also follows the estimate's change since the step before, see `extrapolated`.
    guidance_scale: strength of `pigdm` and `dps`.
    recycles: its solver begins with what the row's own solver has tried at earlier steps, and with `known`
        (Krylov subspace recycling, Parks et al. 2006), see `linalg.recycled_update`.
    known: what other fills' solvers have found at this level and above, see `posterior.gains.Gains.at`.
    own: what the row's own solver has tried at earlier steps.
    """

    s: float
    s_next: float
    refiner: str = "closed_form"
    renew: bool = False
    eta: float = 1.0
    solver_steps: int = 3
    differences: bool = False
    warm_start: bool = True
    second_order: bool = False
    guidance_scale: float = 1.0
    recycles: bool = False
    known: Pairs | None = field(default=None, compare=False, repr=False)
    own: Tried = field(default=Tried(), compare=False, repr=False)


class Estimate(NamedTuple):
    """An estimate of x0 given the state u and the observation y.

    x0: given u alone, (N, C, H, W).
    given_y: given u and y, (N, C, H, W).
    log_likelihood: log p(y | u), (N,), up to a constant of the level.
    score: gradient of log p(y | u) to A x0, (N, c, h, w), or None where the estimator does not tell.
    tried: directions that its solver took products of, with these, if it has one.
    """

    x0: torch.Tensor
    given_y: torch.Tensor
    log_likelihood: torch.Tensor
    score: torch.Tensor | None = None
    tried: Tried | None = None


class StepResult(NamedTuple):
    """The state u that a step from level s has led to, the estimate x0 that it used, and that estimate's score.

    u, x0: (N, C, H, W). score, tried: see `Estimate`.
    """

    u: torch.Tensor
    s: float
    x0: torch.Tensor
    score: torch.Tensor | None = None
    tried: Tried | None = None

    @classmethod
    def start(cls, u: torch.Tensor) -> StepResult:
        """A state that no step has led to: extrapolated from infinitely far above it stays as it is."""
        return cls(u, math.inf, u)


# estimator(denoiser, u, step, observation, score): score is a guess of `Estimate.score`, or None.
Estimator = Callable[
    [CountingDenoiser, torch.Tensor, LevelStep, LatentObservation, "torch.Tensor | None"],
    Estimate,
]
# refine(denoiser, u, step, observation, noise, previous): noise() gives a new standard normal tensor like u.
Refine = Callable[[CountingDenoiser, torch.Tensor, LevelStep, LatentObservation, Noise, StepResult], StepResult]


@dataclass(frozen=True)
class Refiner:
    """A way down from one noise level to the next.

    refine: the step.
    needs_gradient: it differentiates the network.
    uses_crosstalk: it asks what observed cells owe to hidden content, see `LatentObservation.crosstalk_variance`.
    estimator: the estimate inside the step, where there is one: twisted SMC weighs by its log-likelihood.
    solves: it differentiates once for each of `LevelStep.solver_steps`, others once a step.
    """

    refine: Refine
    needs_gradient: bool
    uses_crosstalk: bool = False
    estimator: Estimator | None = None
    solves: bool = False

    def backward_passes(self, step: LevelStep) -> int:
        """Backward passes through the network that a step takes."""
        if self.solves:
            return 0 if step.differences else step.solver_steps
        return int(self.needs_gradient)

    def forward_passes(self, step: LevelStep) -> int:
        """Forward passes that a step takes."""
        return 1 + (step.solver_steps if self.solves and step.differences else 0)

    @classmethod
    def of_estimator(
        cls, estimator: Estimator, needs_gradient: bool, uses_crosstalk: bool = False, solves: bool = False
    ) -> Refiner:
        """The prior's step from the estimate given y."""

        def refine(
            denoiser: CountingDenoiser,
            u: torch.Tensor,
            step: LevelStep,
            observation: LatentObservation,
            noise: Noise,
            previous: StepResult,
        ) -> StepResult:
            score = correlated_score(previous, step.s, step.s_next) if step.warm_start else None
            estimate = estimator(denoiser, u, step, observation, score)
            x0 = extrapolated(estimate.given_y, step, previous)
            lower = prior_step(u, x0, step, noise)
            return StepResult(lower, step.s, estimate.given_y, estimate.score, estimate.tried)

        return cls(refine, needs_gradient, uses_crosstalk, estimator, solves)


def prior_step(u: torch.Tensor, x0: torch.Tensor, step: LevelStep, noise: Noise) -> torch.Tensor:
    """A draw of the prior's transition from the estimate x0; x0 itself where the step ends at level 0."""
    if step.s_next == 0:
        return x0
    mean, variance = transition(u, x0, step.s, step.s_next, step.eta)
    return mean + variance.sqrt() * noise()


def correlated_score(previous: StepResult, s: float, s_next: float) -> torch.Tensor | None:
    """What of an earlier score is likely to hold at level s.

    The score depends on the state's noise, and the correlation of noise at levels s > t is t / s, down by the
    ancestral step as well as up by fresh noise.
    """
    if previous.score is None:
        return None
    return _level_reached(previous, s, s_next) ** 2 / (previous.s * s) * previous.score


def _level_reached(previous: StepResult, s: float, s_next: float) -> float:
    """The level of the earlier step's result: s itself, or s_next where a resampling went back up to s."""
    return s if previous.s > s else s_next


def extrapolated(x0: torch.Tensor, step: LevelStep, previous: StepResult) -> torch.Tensor:
    """The estimate for a step: x0 or, of second order, with its change since the step before.

    A long step to the mean of p(x0 | u) leaves out what x0 varies by given u, and fills become too much alike. What
    x0 has moved by since the last noise stands in for that: half of it, where levels are at equal ratios (Lu et al.
    2022, DPM-Solver++, arXiv 2211.01095, alg. 2).
    """
    if not step.second_order or step.s_next == 0:
        return x0
    before = previous.s / _level_reached(previous, step.s, step.s_next)
    return x0 + math.log(step.s / step.s_next) / (2 * math.log(before)) * (x0 - previous.x0)
