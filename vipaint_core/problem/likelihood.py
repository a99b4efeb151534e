"""The Gaussian likelihood of an observation given an estimate of x0, and x0 conditioned on the observation."""

from __future__ import annotations

import math

import torch

from .. import linalg
from ..diffusion.coordinate import Level, per_row
from ..diffusion.levels import remaining_variance
from .observation import LatentObservation, Observation
from .operators import Mask
from .pixels import LinearisedDecoder, PixelObservation

# Steps of solvers that call no network: operators of latents are cheap.
SOLVER_STEPS = 20


def estimate_variance(s: Level, like: torch.Tensor) -> torch.Tensor:
    """`remaining_variance` as a tensor that broadcasts over `like`, (B, C, H, W)."""
    return remaining_variance(per_row(s, like))


def noise_variance(observation: Observation) -> torch.Tensor:
    """Variance of the observation noise, (B, 1, h, w): larger for small weights; hidden numbers take no part."""
    return observation.sigma_y**2 / torch.where(observation.weight > 0, observation.weight, 1.0)


def precision(observation: LatentObservation, s: Level, calibrated: bool) -> torch.Tensor:
    """Precision of y given the estimate from level s, (B, 1 or c, h, w).

    calibrated: adds the estimate's own variance r^2 A A^T to the noise, as far as A A^T is diagonal; otherwise the
        observation noise alone counts.
    """
    found = observation.weight / observation.sigma_y**2
    if calibrated:
        level = per_row(s, observation.weight)
        found = found / (1 + found * observation.operator.gram * level**2 / (1 + level**2))
    return found


def distance(observation: Observation, x0: torch.Tensor) -> torch.Tensor:
    """||y - A(x0)|| with every number counted by its weight, (B,)."""
    return (observation.residual(x0).square() * observation.weight).flatten(1).sum(1).add(1e-12).sqrt()


def misfit(observation: Observation, residual: torch.Tensor) -> torch.Tensor:
    """Mean square of the residual in units of the noise, over what is observed, (B, 1, 1, 1): 1 is expected."""
    counted = (observation.weight > 0).expand_as(residual).sum((1, 2, 3), keepdim=True).clamp_min(1)
    return (residual.square() / noise_variance(observation)).sum((1, 2, 3), keepdim=True) / counted


def negative_log_likelihood(
    observation: LatentObservation, x0: torch.Tensor, s: Level, calibrated: bool
) -> torch.Tensor:
    """-log p(y | u) in nats from the estimate x0 = D(u, s), (B,).

    p(y | u) = N(y; A x0, r^2 A A^T + R) with R = sigma_y^2 / weight, and r^2 = 0 where not `calibrated`. Hidden cells
    are marginalised: they do not appear (VIPaint, arXiv 2411.18929, sec. 4). For operators other than a mask the
    determinant, a constant of the level, is left out.
    """
    residual = observation.residual(x0)
    if calibrated and not observation.is_cellwise:
        with torch.no_grad():
            score = _calibrated_update(observation, residual, s).score
        # The value of residual^T S^-1 residual / 2, and its gradient, without one through the solver.
        half = 0.5 * (score * residual).flatten(1).sum(1)
        return 2 * half - half.detach()
    weight = precision(observation, s, calibrated)
    normaliser = torch.where(weight > 0, torch.log(weight.clamp_min(1e-30) / (2 * math.pi)), 0.0)
    return 0.5 * (weight * residual.square() - normaliser).flatten(1).sum(1)


def condition(
    observation: LatentObservation, x0: torch.Tensor, s: Level, shift: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of x0 given its estimate N(x0, r^2) and y, (B, C, H, W).

    shift: (B, C, H, W), what another estimator moves x0 by on account of y. Observed cells of a mask are conditioned
        on their own values in place of it, so that each counts y once; its other cells, and other operators, take
        the shift as it is.
    """
    operator = observation.operator
    if isinstance(operator, Mask):
        if shift is not None:
            x0 = torch.where(operator.observed, x0, x0 + shift)
        level = per_row(s, observation.weight)
        own = (1 + level**2) / level**2
        evidence = observation.weight / observation.sigma_y**2
        update = evidence / (own + operator.gram * evidence) * observation.residual(x0)
        moved = x0 + torch.where(operator.observed, update, 0.0)
        return moved if shift is not None else moved + operator.cut_adjoint(update)
    if shift is None:
        shift = _calibrated_update(observation, observation.residual(x0), s).shift
    return x0 + shift


def conditioned(observation: LatentObservation, x0: torch.Tensor, s: Level) -> tuple[torch.Tensor, torch.Tensor]:
    """`condition`, and log p(y | u) with the estimate's own variance, (N,), up to a constant of the level."""
    if observation.is_cellwise:
        return condition(observation, x0, s), -negative_log_likelihood(observation, x0, s, calibrated=True)
    update = _calibrated_update(observation, observation.residual(x0), s)
    return x0 + update.shift, update.log_likelihood


def _calibrated_update(observation: LatentObservation, residual: torch.Tensor, s: Level) -> linalg.Update:
    """The Gaussian update of an estimate with covariance r^2 by any linear operator."""
    variance = estimate_variance(s, residual)
    scale = precision(observation, s, calibrated=True).sqrt()
    return linalg.gmres_update(
        lambda v: variance * v, noise_variance(observation), residual, scale, observation.operator, SOLVER_STEPS
    )


def condition_pixels(observation: PixelObservation, x0: torch.Tensor, s: Level, steps: int) -> torch.Tensor:
    """Mean of x0 given the estimate N(x0, r^2) and pixels, (B, C, H, W): one Gauss-Newton step.

    r^2 is as large as makes the residual likely, up to s^2 / (1 + s^2): what a sharp prior has right must not
    be moved by noise. steps: of `linalg.map_update`.
    """
    with observation.gradients():
        operator, residual = observation.linearise(x0)
        own = torch.minimum(_likely_variance(observation, operator, residual), estimate_variance(s, x0))
        return x0 + linalg.map_update(lambda v: own * v, noise_variance(observation), residual, operator, steps)


def _likely_variance(
    observation: PixelObservation, operator: LinearisedDecoder, residual: torch.Tensor
) -> torch.Tensor:
    """r^2 of an estimate that leaves this residual, (N, 1, 1, 1): E |y - A x0|^2 = tr(r^2 A A^T + R)."""
    probe = torch.randn(operator.point.shape[1:], generator=torch.Generator().manual_seed(0)).to(residual)
    gain = misfit(observation, operator.A(probe.expand_as(operator.point)))
    return (misfit(observation, residual) - 1).clamp_min(1e-6) / gain.clamp_min(1e-30)
