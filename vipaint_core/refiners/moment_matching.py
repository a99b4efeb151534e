"""Guidance by the network's own covariance (Rozet et al. 2024, MMPS, arXiv 2405.13712, eq. 10)."""

from __future__ import annotations

import math

import torch

from .. import linalg
from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.jacobian_free import jacobian_product
from ..problem.likelihood import condition, noise_variance, precision
from ..problem.observation import LatentObservation
from .common import Estimate, LevelStep, Refiner


def moment_matching(
    denoiser: CountingDenoiser,
    u: torch.Tensor,
    step: LevelStep,
    observation: LatentObservation,
    score: torch.Tensor | None = None,
) -> Estimate:
    """x0 given u and y as a Gaussian whose covariance is the network's own, C = s^2 J.

    The mean moves by C A^T (A C A^T + R)^-1 (y - A x0), solved by `step.solver_steps` steps of one vector-Jacobian
    product each. PiGDM puts a diagonal in place of A C A^T and so counts correlated evidence many times. Few solver
    steps leave observed cells away from y: they are conditioned as in `closed_form`.

    From a score, mean and C are those at u + s^2 A^T score: there the network's estimate is the mean of
    p(x0 | u) exp(score A x0), normalised, by Tweedie's formula. The solver finds what remains of y - A x0 = R score,
    a Newton step from this guess in place of one from no evidence. What has moved far is then an estimate, not the end
    of a straight line, and solver steps of earlier levels are not lost. For a Gaussian prior all guesses lead to one
    answer. Estimate.x0 and log_likelihood are those of the moved state.

    Where `step.recycles` the solver begins with what it and those of other fills have found, see
    `linalg.recycled_update`.
    """
    s = step.s
    score = torch.zeros_like(observation.y) if score is None else score
    tilt = s**2 * observation.operator.A_adjoint(score)
    # Farther than its own noise is from 0 a state is nothing that the network knows.
    share = (s * math.sqrt(u[0].numel()) / linalg.row_norm(tilt).clamp_min(1e-30)).clamp_max(1)
    score = share * score
    differentiates = step.solver_steps > 0 and not step.differences
    with denoiser.gradients() if differentiates else torch.no_grad():
        point = (u + share * tilt).detach().requires_grad_(differentiates)
        x0 = denoiser(point, s)

        def covariance(v: torch.Tensor) -> torch.Tensor:
            if step.differences:
                return s**2 * jacobian_product(denoiser, point, s, x0, v, denoiser.difference_step)
            (product,) = torch.autograd.grad(x0, point, v, retain_graph=True)
            return s**2 * product

        variance = noise_variance(observation)
        mean = x0.detach()
        residual = observation.residual(mean) - variance * score
        # The solver's first steps see what is large: numbers in units of the deviation that each should have.
        scale = precision(observation, s, calibrated=True).sqrt()
        given = (covariance, variance, residual, scale, observation.operator, step.solver_steps)
        if step.recycles:
            update = linalg.recycled_update(*given, step.known, step.own)
        else:
            update = linalg.gmres_update(*given)
    given_y = condition(observation, mean, s, update.shift)
    return Estimate(mean, given_y, update.log_likelihood, score + update.score, update.tried)


REFINER = Refiner.of_estimator(moment_matching, needs_gradient=True, uses_crosstalk=True, solves=True)
