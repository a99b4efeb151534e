"""Decoupled annealing (Zhang et al. 2025, DAPS, arXiv 2407.01521, alg. 1).

The observation is one of latents, without a decoder: the target of the Langevin steps is Gaussian, and
all steps of one level are solved as one draw from the diffusion that they discretise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import LARGEST, karras_levels
from ..problem.observation import LatentObservation
from ..refiners.common import Noise
from .common import Baseline, Settings, diffuse, probability_flow, setting, start


@dataclass(frozen=True)
class DAPS(Settings):
    """`configs/sampler/edm_daps.yaml` and the pixel part of `configs/task/inpainting.yaml` of
    zhangbingliang2019/DAPS: 200 levels (100 to 0.1, rho 7; here from 80), 5 ODE steps (to 0.01), 100
    Langevin steps. With Stable Diffusion it has 50 levels from 10 and 2 ODE steps."""

    steps: int = setting(200, 1, 1000, "Noise levels: more is slower and finer.")
    ode_steps: int = setting(5, 1, 50, "Network calls of one estimate: more is slower and sharper.")
    langevin_steps: int = setting(
        100, 1, 1000, "Steps towards what is visible, without network calls: more fits closer."
    )
    rate: float = setting(5e-5, 0.0, 0.1, "Size of the Langevin steps: higher fits closer and is noisier.")
    rate_end: float = setting(
        0.01, 0.0, 1.0, "Size of the last Langevin steps relative to the first: lower ends cleaner."
    )
    tau: float = setting(0.01, 1e-4, 1.0, "Assumed noise of the visible cells: lower fits them more closely.")


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: DAPS, s_max: float
) -> torch.Tensor:
    levels = karras_levels(min(s_max, LARGEST), settings.steps, s_min=0.1, rho=7)
    u = start(noise, levels[0])
    evidence = observation.weight / settings.tau**2
    for index, (s, s_next) in enumerate(pairwise(levels)):
        x0 = probability_flow(denoiser, u, karras_levels(s, settings.ode_steps, s_min=0.01, rho=7))
        precision = 1 / s**2 + evidence
        target = (x0 / s**2 + evidence * observation.y) / precision
        rate = settings.rate * (1 - (1 - settings.rate_end) * index / settings.steps)
        u = diffuse(x0, target, precision, rate * settings.langevin_steps, noise) + s_next * noise()
    return u


BASELINE = Baseline(
    "daps",
    "Solves for a clean picture at every level, pulls it to what is visible, adds noise again: no gradients.",
    "Zhang et al. 2025, arXiv 2407.01521",
    DAPS,
    draw,
    lambda settings: settings.steps * settings.ode_steps,
)
