"""Gradient of the residual's norm through the network (Chung et al. 2023, DPS, arXiv 2209.14687, alg. 1)."""

from __future__ import annotations

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..problem.likelihood import distance
from ..problem.observation import LatentObservation, Observation
from .common import LevelStep, Noise, Refiner, StepResult, prior_step


def dps_step(
    denoiser: CountingDenoiser, u: torch.Tensor, step: LevelStep, observation: Observation, noise: Noise
) -> StepResult:
    """The prior's step, then -guidance_scale * grad_u ||A x0 - y||."""
    with denoiser.gradients():
        point = u.detach().requires_grad_()
        x0 = denoiser(point, step.s)
        (gradient,) = torch.autograd.grad(distance(observation, x0).sum(), point)
    lower = prior_step(u, x0.detach(), step, noise) - step.guidance_scale * gradient
    return StepResult(lower, step.s, x0.detach())


def _refine(
    denoiser: CountingDenoiser,
    u: torch.Tensor,
    step: LevelStep,
    observation: LatentObservation,
    noise: Noise,
    _previous: StepResult,
) -> StepResult:
    return dps_step(denoiser, u, step, observation, noise)


REFINER = Refiner(_refine, needs_gradient=True)
