"""Langevin steps with a score guided both ways (Zheng et al. 2025, LanPaint, arXiv 2502.03491), implemented anew.

Hidden cells follow the model's score -(u - x0) / s^2, observed ones
-((1 + lambda) (u - y) - lambda (u - x0)) / s^2, which lets the model object to them. The paper's dynamics
has momentum, heavily damped at the released friction; here there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import LARGEST, karras_levels
from ..diffusion.transition import transition
from ..problem.observation import LatentObservation
from ..refiners.common import Noise
from .common import Baseline, Settings, diffuse, project, replace_observed, setting, start


@dataclass(frozen=True)
class Langevin(Settings):
    """30 steps with 5 Langevin steps at each but the last, step size 0.2, lambda 5 (16 in earlier releases),
    Karras levels with rho 7: `LanPaint_KSampler` in `src/LanPaint/nodes.py` of scraed/LanPaint."""

    steps: int = setting(30, 1, 1000, "Denoising steps: more is slower and finer.")
    inner: int = setting(5, 0, 100, "Langevin steps at every noise level: more is slower and more consistent.")
    step_size: float = setting(0.2, 0.0001, 2.0, "Length of a Langevin step: longer mixes faster and is less exact.")
    strength: float = setting(
        5.0, 0.0, 50.0, "Lambda, the guidance of observed cells: higher holds the hole closer to them."
    )


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: Langevin, s_max: float
) -> torch.Tensor:
    """A step treats the model's noise estimate u - x0 in observed cells and x0 in hidden ones as constant."""
    levels = karras_levels(min(s_max, LARGEST), settings.steps, rho=7)
    u = start(noise, levels[0])
    stiffness = 1 + settings.strength * observation.weight
    for s, s_next in pairwise(levels):
        u = replace_observed(u, observation, s, noise)
        for _ in range(settings.inner if s_next > 0 else 0):
            x0 = denoiser(u, s)
            objection = observation.y + settings.strength / (1 + settings.strength) * (u - x0)
            target = torch.lerp(x0, objection, observation.weight.expand_as(u))
            u = diffuse(u, target, stiffness / s**2, settings.step_size * s**2, noise)
        u = transition(u, project(denoiser(u, s), observation), s, s_next, eta=0).mean
    return u


BASELINE = Baseline(
    "langevin",
    "LanPaint's idea: Langevin steps at every level let hole and visible area agree, without gradients.",
    "Zheng et al. 2025, arXiv 2502.03491",
    Langevin,
    draw,
    lambda settings: settings.steps * (settings.inner + 1) - settings.inner,
)
