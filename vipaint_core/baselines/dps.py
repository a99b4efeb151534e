"""Gradient of the residual's norm through the network (Chung et al. 2023, DPS, arXiv 2209.14687, alg. 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch

from .. import refine
from ..denoiser import Counted
from ..observation import Observation
from ..pixels import PixelObservation
from ..presets import Preset
from ..refine import Noise
from .common import Baseline, Settings, knob, start, vp_levels


@dataclass(frozen=True)
class DPS(Settings):
    """1000 DDPM steps, scale 0.5: `configs/diffusion_config.yaml` and `inpainting_config.yaml` of
    DPS2022/diffusion-posterior-sampling. There the network predicts its variance; here it is DDPM's."""

    steps: int = knob(1000, 1, 1000, "Denoising steps: more is slower and finer.")
    scale: float = knob(0.5, 0.0, 20.0, "Pull towards what is visible: higher fits it more closely, then breaks.")
    eta: float = knob(1.0, 0.0, 1.0, "Fresh noise per step: 1 as in DDPM, 0 none.")


def dps_step(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation | PixelObservation,
    noise: Noise,
    scale: float,
    eta: float,
) -> torch.Tensor:
    """`refine.dps` with the paper's scale, which moves z = u / sqrt(1 + s^2): scale * grad_z ||A x0 - y||."""
    guidance = scale * math.sqrt((1 + s**2) * (1 + s_next**2))
    preset = Preset("dps", "", (), steps=0, guidance=guidance, eta=eta)
    return refine.dps(denoiser, u, s, s_next, observation, noise, preset).u


def draw(
    denoiser: Counted, observation: Observation | PixelObservation, noise: Noise, settings: DPS, s_max: float
) -> torch.Tensor:
    """Of pixels it is latent DPS: the gradient passes through the decoder, too."""
    levels = vp_levels(s_max, settings.steps)
    u = start(noise, levels[0])
    for s, s_next in pairwise(levels):
        u = dps_step(denoiser, u, s, s_next, observation, noise, settings.scale, settings.eta)
    return u


BASELINE = Baseline(
    "dps",
    "Follows the gradient of the visible mismatch through the network at every step: slow, needs memory.",
    "Chung et al. 2023, arXiv 2209.14687",
    DPS,
    draw,
    lambda settings: settings.steps,
    needs_gradient=True,
)
