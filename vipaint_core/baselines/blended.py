"""Mask replacement (Avrahami et al. 2023, Blended Latent Diffusion, arXiv 2206.02779, alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import vp_levels
from ..diffusion.transition import transition
from ..problem.observation import LatentObservation
from ..refiners.common import Noise
from .common import Baseline, Settings, replace_observed, setting, start


@dataclass(frozen=True)
class Blended(Settings):
    """50 DDIM steps of which the first quarter is skipped: `scripts/text_editing_SD2.py` of
    omriav/blended-latent-diffusion. There the mask is also widened for thin holes, and pixels are
    optimised at the end; here neither."""

    steps: int = setting(50, 1, 1000, "Denoising steps: more is slower and finer.")
    skip: float = setting(0.25, 0.0, 0.9, "Share of the steps left out at the noisy end: more is faster, less varied.")

    @property
    def first(self) -> int:
        return int(self.steps * self.skip)


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: Blended, s_max: float
) -> torch.Tensor:
    levels = vp_levels(s_max, settings.steps)[settings.first :]
    u = start(noise, levels[0])
    for s, s_next in pairwise(levels):
        u = transition(u, denoiser(u, s), s, s_next, eta=0).mean
        u = replace_observed(u, observation, s_next, noise)
    return u


BASELINE = Baseline(
    "blended",
    "Plain sampling with the visible area pasted in after every step: fastest, and blind to the seam.",
    "Avrahami et al. 2023, arXiv 2206.02779",
    Blended,
    draw,
    lambda settings: settings.steps - settings.first,
)
