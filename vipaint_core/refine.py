"""From a noisy state to a picture: estimates of the picture given state and observation, and steps down.

    estimator(denoiser, u, s, observation, preset, score) -> Estimate
    refiner(denoiser, u, s, s_next, observation, noise, preset, earlier) -> Step

u (N, C, H, W) at level s, s_next below it or 0. score: a guess of `Estimate.score`, or None. noise() gives a new
standard normal tensor like u. earlier: the step before; `begin(u)` where there was none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from .denoiser import Counted
from .observation import Observation
from .operators import Mask
from .pixels import PixelObservation
from .posterior import transition
from .presets import Preset

Noise = Callable[[], torch.Tensor]


class Estimate(NamedTuple):
    """x0 given u, x0 given u and y, both (N, C, H, W), and log p(y | u), (N,), up to a constant of the level.

    score: gradient of log p(y | u) to A x0, (N, C, H, W), or None where the estimator does not tell.
    """

    x0: torch.Tensor
    given_y: torch.Tensor
    log_likelihood: torch.Tensor
    score: torch.Tensor | None = None


class Step(NamedTuple):
    """A step down from level s: the state it leads to, the estimate it used and its score, all (N, C, H, W)."""

    u: torch.Tensor
    s: float
    x0: torch.Tensor
    score: torch.Tensor | None = None


def begin(u: torch.Tensor) -> Step:
    """A state that no step has led to: what is extrapolated from infinitely far above stays as it is."""
    return Step(u, math.inf, u)


Estimator = Callable[[Counted, torch.Tensor, float, Observation, Preset, torch.Tensor | None], Estimate]
Refiner = Callable[[Counted, torch.Tensor, float, float, Observation, Noise, Preset, Step], Step]


def closed_form(denoiser: Counted, u: torch.Tensor, s: float, observation: Observation, *_: object) -> Estimate:
    """No gradient: seen cells of the estimate are conditioned on y exactly, hidden ones are the prior's.

    Given x0 in a seen cell, that cell's next state is the Gaussian bridge to it: exact as sigma_y
    goes to 0 (compare DING, arXiv 2512.18365).
    """
    observation = observation.softened()
    with torch.no_grad():
        x0 = denoiser(u, s)
        return Estimate(x0, observation.condition(x0, s), -observation.nll(x0, s, calibrated=True))


def pigdm(
    denoiser: Counted, u: torch.Tensor, s: float, observation: Observation, preset: Preset, *_: object
) -> Estimate:
    """Evidence reaches hidden cells through the network's Jacobian (Song et al. 2023, PiGDM, eq. 8).

    x0 + guidance * s^2 J^T (y - x0) / (r^2 + sigma_y^2); seen cells as in `closed_form`.
    """
    x0, gradient, log_likelihood = evidence(denoiser, u, s, observation)
    return Estimate(x0, _conditioned(x0, preset.guidance * s**2 * gradient, s, observation), log_likelihood)


def _conditioned(x0: torch.Tensor, shift: torch.Tensor, s: float, observation: Observation) -> torch.Tensor:
    """Hidden cells of x0 moved by the evidence, seen cells conditioned on their own: each counts y once."""
    return observation.condition(torch.where(observation.seen > 0, x0, x0 + shift), s)


def evidence(
    denoiser: Counted, u: torch.Tensor, s: float, observation: Observation
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x0, the gradient to u of log p(y | u) = log N(y; A x0, r^2 + sigma_y^2), and its value (N,).

    One forward and one backward pass; r as in `Observation.precision`.
    """
    with denoiser.gradients():
        point = u.detach().requires_grad_()
        x0 = denoiser(point, s)
        log_likelihood = -observation.nll(x0, s, calibrated=True)
        (gradient,) = torch.autograd.grad(log_likelihood.sum(), point)
    return x0.detach(), gradient, log_likelihood.detach()


def moment_matching(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    observation: Observation,
    preset: Preset,
    score: torch.Tensor | None = None,
) -> Estimate:
    """x0 given u and y as a Gaussian whose covariance is the network's own, C = s^2 J.

    The mean moves by C A^T (A C A^T + R)^-1 (y - A x0), solved by `preset.solver(s)` steps of one
    vector-Jacobian product each (Rozet et al. 2024, MMPS, arXiv 2405.13712, eq. 10). PiGDM puts a diagonal in place
    of A C A^T and so counts correlated evidence many times.
    Few solver steps leave seen cells away from y: they are conditioned as in `closed_form`.

    From a score, mean and C are those at u + s^2 A^T score: there the network's estimate is the mean of
    p(x0 | u) exp(score A x0), normalised, by Tweedie's formula. The solver finds what is left of
    y - A x0 = R score, a Newton step from this guess in place of one from no evidence. What has moved far is then an
    estimate, not the end of a straight line, and solver steps of earlier levels are not lost. For a Gaussian
    prior all guesses lead to one answer. Estimate.x0 and log_likelihood are those of the moved state.
    """
    observation = observation.softened()
    score = torch.zeros_like(u) if score is None else score
    tilt = s**2 * observation.operator.A_adjoint(score)
    # Farther than its own noise is from 0 a state is nothing that the network knows.
    share = (s * math.sqrt(u[0].numel()) / _norm(tilt).clamp_min(1e-30)).clamp_max(1)
    score = share * score
    with denoiser.gradients():
        point = (u + share * tilt).detach().requires_grad_()
        x0 = denoiser(point, s)

        def covariance(v: torch.Tensor) -> torch.Tensor:
            (product,) = torch.autograd.grad(x0, point, v, retain_graph=True)
            return s**2 * product

        # The noise of soft cells is larger by their precision; unseen cells take no part.
        variance = observation.sigma_y**2 / observation.seen.clamp_min(1e-6)
        mean = x0.detach()
        residual = observation.residual(mean) - variance * score
        # The solver's first steps see what is large: cells in units of the deviation that each should have.
        scale = observation.precision(s, calibrated=True).sqrt()
        shift, log_likelihood, left = _explain(
            covariance, variance, residual, scale, observation.operator, preset.solver(s)
        )
    return Estimate(mean, _conditioned(mean, shift, s, observation), log_likelihood, score + left)


def _norm(x: torch.Tensor) -> torch.Tensor:
    """Of every row, (N, 1, 1, 1)."""
    return x.flatten(1).norm(dim=1)[:, None, None, None]


def _explain(
    covariance: Callable[[torch.Tensor], torch.Tensor],
    variance: torch.Tensor,
    residual: torch.Tensor,
    scale: torch.Tensor,
    operator: Mask,
    steps: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """C A^T S^-1 residual with S = A C A^T + variance, row by row, from one product with C per step, (N, C, H, W).

    Of all answers that `steps` products with S allow, the one that leaves the smallest residual (Saad and
    Schultz 1986, GMRES): a network's Jacobian is symmetric only nearly, and conjugate gradients, which
    rely on it, move hidden cells too far. Cells are in units of 1 / `scale`, which changes how soon the
    answer is near, not where it ends. Also log N(residual; 0, S), (N,), up to a constant and without the
    determinant of what the steps do not reach, and S^-1 residual, (N, C, H, W).
    """
    target = scale * residual
    basis: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    reaches: list[torch.Tensor] = []
    direction, size = target, _norm(target)
    for _ in range(steps):
        # Twice: once leaves rounding.
        for earlier in [*basis, *basis]:
            direction = direction - (direction * earlier).flatten(1).sum(1)[:, None, None, None] * earlier
        length = _norm(direction)
        # What is left of a direction that earlier ones span is rounding.
        new = length > 100 * torch.finfo(length.dtype).eps * size
        direction = torch.where(new, direction / length.clamp_min(1e-30), 0.0)
        reach = covariance(operator.A_adjoint(scale * direction))
        image = scale * (operator.A(reach) + variance * scale * direction)
        basis.append(direction)
        images.append(image)
        reaches.append(reach)
        direction, size = image, _norm(image)
    spanned, shown = (torch.stack(parts, -1).flatten(1, 3).double() for parts in (basis, images))
    idle = torch.diag_embed((spanned.square().sum(1) == 0).double())
    wanted = target.flatten(1)[:, :, None].double()
    weights = torch.linalg.solve(shown.mT @ shown + idle, shown.mT @ wanted)

    def combined(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.einsum("nk,nchwk->nchw", weights[:, :, 0].to(target), torch.stack(parts, -1))

    projected = spanned.mT @ shown
    pivots = torch.linalg.eigvalsh((projected + projected.mT) / 2 + idle)
    likelihood = -0.5 * (pivots.clamp_min(1e-12).log().sum(1) + (wanted.mT @ spanned @ weights)[:, 0, 0])
    return combined(reaches), likelihood.to(target), scale * combined(basis)


ESTIMATORS: dict[str, Estimator] = {"closed_form": closed_form, "pigdm": pigdm, "moment_matching": moment_matching}


def descend(
    estimator: Estimator,
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation,
    noise: Noise,
    preset: Preset,
    earlier: Step,
) -> Step:
    """The prior's step from the estimate given y, which starts from the score of the step before."""
    score = _persisting(earlier, s, s_next) if preset.warm_start else None
    estimate = estimator(denoiser, u, s, observation, preset, score)
    ahead = extrapolated(estimate.given_y, s, s_next, earlier, preset)
    return Step(_step(u, ahead, s, s_next, noise, preset.eta_at(s)), s, estimate.given_y, estimate.score)


def _persisting(earlier: Step, s: float, s_next: float) -> torch.Tensor | None:
    """What of an earlier score is likely to hold at level s: it depends on the state's noise, of which this much is left.

    The correlation of noise at levels s > t is t / s, down by the ancestral step as well as up by fresh noise.
    """
    if earlier.score is None:
        return None
    return _led_to(earlier, s, s_next) ** 2 / (earlier.s * s) * earlier.score


def _led_to(earlier: Step, s: float, s_next: float) -> float:
    """The level of the earlier step's result: s itself, or s_next where a new round went back up to s."""
    return s if earlier.s > s else s_next


def extrapolated(x0: torch.Tensor, s: float, s_next: float, earlier: Step, preset: Preset) -> torch.Tensor:
    """The estimate for a step from s to s_next: x0 or, where the preset is of second order, its course so far.

    A long step to the mean of p(x0 | u) leaves out what x0 varies by given u, and fills become too much alike. What
    x0 has moved by since the last noise stands in for that: half of it, where levels are at equal ratios.
    """
    if not preset.second_order or s > preset.late or s_next == 0:
        return x0
    before = earlier.s / _led_to(earlier, s, s_next)
    return x0 + math.log(s / s_next) / (2 * math.log(before)) * (x0 - earlier.x0)


def _step(u: torch.Tensor, x0: torch.Tensor, s: float, s_next: float, noise: Noise, eta: float) -> torch.Tensor:
    if s_next == 0:
        return x0
    mean, variance = transition(u, x0, s, s_next, eta)
    return mean + variance.sqrt() * noise()


def dps(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation | PixelObservation,
    noise: Noise,
    preset: Preset,
    *_: object,
) -> Step:
    """The prior's step, then -guidance * grad_u ||A x0 - y|| (Chung et al. 2023, DPS, alg. 1)."""
    with denoiser.gradients():
        point = u.detach().requires_grad_()
        x0 = denoiser(point, s)
        (pull,) = torch.autograd.grad(observation.distance(x0).sum(), point)
    lower = _step(u, x0.detach(), s, s_next, noise, preset.eta_at(s)) - preset.guidance * pull
    return Step(lower, s, x0.detach())


REFINERS: dict[str, Refiner] = {name: partial(descend, estimator) for name, estimator in ESTIMATORS.items()}
REFINERS["dps"] = dps
