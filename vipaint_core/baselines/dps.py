"""Gradient of the residual's norm through the network (Chung et al. 2023, DPS, arXiv 2209.14687, alg. 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import vp_levels
from ..problem.observation import Observation
from ..refiners.common import LevelStep, Noise
from ..refiners.dps import dps_step
from .common import Baseline, Settings, setting, start


@dataclass(frozen=True)
class DPS(Settings):
    """1000 DDPM steps, scale 0.5: `configs/diffusion_config.yaml` and `inpainting_config.yaml` of
    DPS2022/diffusion-posterior-sampling. There the network predicts its variance; here it is DDPM's."""

    steps: int = setting(1000, 1, 1000, "Denoising steps: more is slower and finer.")
    scale: float = setting(0.5, 0.0, 20.0, "Pull towards what is visible: higher fits it more closely, then breaks.")
    eta: float = setting(1.0, 0.0, 1.0, "Fresh noise per step: 1 as in DDPM, 0 none.")


def scaled_step(
    denoiser: CountingDenoiser,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation,
    noise: Noise,
    scale: float,
    eta: float,
) -> torch.Tensor:
    """`refiners.dps` with the paper's scale, which moves z = u / sqrt(1 + s^2): scale * grad_z ||A x0 - y||."""
    guidance_scale = scale * math.sqrt((1 + s**2) * (1 + s_next**2))
    return dps_step(denoiser, u, LevelStep(s, s_next, eta=eta, guidance_scale=guidance_scale), observation, noise).u


def draw(
    denoiser: CountingDenoiser, observation: Observation, noise: Noise, settings: DPS, s_max: float
) -> torch.Tensor:
    """Of pixels it is latent DPS: the gradient passes through the decoder, too."""
    levels = vp_levels(s_max, settings.steps)
    u = start(noise, levels[0])
    for s, s_next in pairwise(levels):
        u = scaled_step(denoiser, u, s, s_next, observation, noise, settings.scale, settings.eta)
    return u


BASELINE = Baseline(
    "dps",
    "Follows the gradient of the visible mismatch through the network at every step: slow, needs memory.",
    "Chung et al. 2023, arXiv 2209.14687",
    DPS,
    draw,
    lambda settings: settings.steps,
    needs_gradient=True,
    any_observation=True,
)
