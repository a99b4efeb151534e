"""Decoupled guidance in closed form (Moufad et al. 2025, DING, arXiv 2512.18365)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import flow_levels
from ..diffusion.transition import transition
from ..problem.observation import LatentObservation
from ..refiners.common import Noise
from .common import Baseline, Settings, gaussian_product, setting, start


@dataclass(frozen=True)
class DING(Settings):
    """28 steps and the schedule of eta named "square": `configs/sampler/ding.yaml` of YazidJanati/ding. Its
    levels are those of the Stable Diffusion 3 scheduler (shift 3); the variance of a step is
    (s_next t_next)^2 with the flow's time t = s / (1 + s)."""

    steps: int = setting(28, 2, 1000, "Denoising steps of two network calls each: more is slower and finer.")


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: DING, s_max: float
) -> torch.Tensor:
    """Observed cells: the prior's step times N(y + s_next eps, sigma_y^2), with the noise eps of another draw of it."""
    *levels, _ = flow_levels(s_max, settings.steps)
    u = start(noise, levels[0])
    for s, s_next in pairwise(levels):
        eta = s_next / (1 + s_next) / (1 - s_next**2 / s**2) ** 0.5
        mean, variance = transition(u, denoiser(u, s), s, s_next, eta)
        proxy = mean + variance.sqrt() * noise()
        observed_state = observation.y + proxy - denoiser(proxy, s_next)
        u = gaussian_product(mean, variance, observed_state, observation.weight / observation.sigma_y**2, noise)
    return denoiser(u, levels[-1])


BASELINE = Baseline(
    "ding",
    "Two network calls a step and a Gaussian in closed form in place of gradients: fast.",
    "Moufad et al. 2025, arXiv 2512.18365",
    DING,
    draw,
    lambda settings: 2 * settings.steps - 1,
)
