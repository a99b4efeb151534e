"""Exact conditioning of the estimate without gradients (compare Moufad et al. 2025, DING, arXiv 2512.18365)."""

from __future__ import annotations

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..problem.likelihood import conditioned
from ..problem.observation import LatentObservation
from .common import Estimate, LevelStep, Refiner


def closed_form(
    denoiser: CountingDenoiser, u: torch.Tensor, step: LevelStep, observation: LatentObservation, *_: object
) -> Estimate:
    """Observed cells of the estimate are conditioned on y exactly, hidden ones are the prior's.

    Given x0 in an observed cell, that cell's next state is the Gaussian bridge to it: exact as sigma_y goes to 0.
    """
    with torch.no_grad():
        x0 = denoiser(u, step.s)
        return Estimate(x0, *conditioned(observation, x0, step.s))


REFINER = Refiner.of_estimator(closed_form, needs_gradient=False)
