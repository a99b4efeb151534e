"""Guidance by a pseudo-inverse (Song et al. 2023, PiGDM, openreview 9_gsMA8MRKQ, eq. 8)."""

from __future__ import annotations

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..problem.likelihood import condition, negative_log_likelihood
from ..problem.observation import LatentObservation
from .common import Estimate, LevelStep, Refiner


def likelihood_gradient(
    denoiser: CountingDenoiser, u: torch.Tensor, s: float, observation: LatentObservation
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x0, the gradient to u of log p(y | u) = log N(y; A x0, r^2 A A^T + R), and its value (N,).

    One forward and one backward pass; r as in `likelihood.estimate_variance`.
    """
    with denoiser.gradients():
        point = u.detach().requires_grad_()
        x0 = denoiser(point, s)
        log_likelihood = -negative_log_likelihood(observation, x0, s, calibrated=True)
        (gradient,) = torch.autograd.grad(log_likelihood.sum(), point)
    return x0.detach(), gradient, log_likelihood.detach()


def pigdm(
    denoiser: CountingDenoiser, u: torch.Tensor, step: LevelStep, observation: LatentObservation, *_: object
) -> Estimate:
    """Evidence reaches hidden cells through the network's Jacobian J.

    x0 + guidance_scale * s^2 J^T (y - x0) / (r^2 + sigma_y^2); observed cells as in `closed_form`.
    """
    x0, gradient, log_likelihood = likelihood_gradient(denoiser, u, step.s, observation)
    shift = step.guidance_scale * step.s**2 * gradient
    return Estimate(x0, condition(observation, x0, step.s, shift), log_likelihood)


REFINER = Refiner.of_estimator(pigdm, needs_gradient=True)
