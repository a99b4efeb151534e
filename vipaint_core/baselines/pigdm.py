"""Guidance by a pseudo-inverse (Song et al. 2023, PiGDM, openreview 9_gsMA8MRKQ, alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import remaining_variance, vp_levels
from ..diffusion.transition import transition
from ..problem.likelihood import condition
from ..problem.observation import LatentObservation
from ..refiners.common import Noise
from ..refiners.pigdm import likelihood_gradient
from .common import Baseline, Settings, setting, start


@dataclass(frozen=True)
class PiGDM(Settings):
    """DDIM (eta 0) and weight 1: `_configs/algo/pgdm.yaml` of NVlabs/RED-diff, by the same authors, who
    also replace observed cells of x0 and guide hidden ones only when inpainting (`algos/pgdm.py`). 100
    steps: its README."""

    steps: int = setting(100, 1, 1000, "Denoising steps: more is slower and finer.")
    weight: float = setting(
        1.0, 0.0, 10.0, "Pull of what is visible on the hole: higher is more consistent, less varied."
    )
    eta: float = setting(0.0, 0.0, 1.0, "Fresh noise per step: 1 as in DDPM, 0 none.")


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: PiGDM, s_max: float
) -> torch.Tensor:
    """Moves u by J^T (y - x0) r^2 / (r^2 + sigma_y^2); `refiners.pigdm` moves x0, by Bayes' rule.

    With alpha = 1 / (1 + s^2) the code's sqrt(alpha_t alpha_s) grad_z in z is grad_u in u.
    """
    levels = vp_levels(s_max, settings.steps)
    u = start(noise, levels[0])
    for s, s_next in pairwise(levels):
        x0, gradient, _ = likelihood_gradient(denoiser, u, s, observation)
        mean, variance = transition(u, condition(observation, x0, s), s, s_next, settings.eta)
        guidance = remaining_variance(s) * (1 - observation.weight) * gradient
        u = mean + variance.sqrt() * noise() + settings.weight * guidance
    return u


BASELINE = Baseline(
    "pigdm",
    "Carries what is visible into the hole through the network's Jacobian: consistent, costs variety.",
    "Song et al. 2023, openreview 9_gsMA8MRKQ",
    PiGDM,
    draw,
    lambda settings: settings.steps,
    needs_gradient=True,
)
