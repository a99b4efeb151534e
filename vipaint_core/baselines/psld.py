"""DPS with a gluing term for latents (Rout et al. 2023, PSLD, arXiv 2307.00619, alg. 2).

The observation is one of latents, without a decoder: the gluing residual z - E(A^T y + (1 - A^T A) D(z))
is then A^T (A z - y), DPS's own, and the weights omega and gamma of both add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..problem.observation import LatentObservation
from ..refiners.common import Noise
from . import dps
from .common import Baseline, Settings, setting


@dataclass(frozen=True)
class PSLD(Settings):
    """1000 DDIM steps with eta 0 (`stable-diffusion/scripts/inverse.py` of LituRout/PSLD), omega 0.1 and
    gamma 0.01 (`run/inverse_bip.sh`, box inpainting with Stable Diffusion)."""

    steps: int = setting(1000, 1, 1000, "Denoising steps: more is slower and finer.")
    omega: float = setting(0.1, 0.0, 10.0, "Pull towards what is visible: higher fits it more closely, then breaks.")
    gamma: float = setting(
        0.01, 0.0, 10.0, "Gluing at the seam; in latents it adds to omega: higher fits more closely."
    )
    eta: float = setting(0.0, 0.0, 1.0, "Fresh noise per step: 1 as in DDPM, 0 none.")


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: PSLD, s_max: float
) -> torch.Tensor:
    both = dps.DPS(settings.steps, settings.omega + settings.gamma, settings.eta)
    return dps.draw(denoiser, observation, noise, both, s_max)


BASELINE = Baseline(
    "psld",
    "DPS for latent models with a gluing term; without a decoder it is DPS with other weights.",
    "Rout et al. 2023, arXiv 2307.00619",
    PSLD,
    draw,
    lambda settings: settings.steps,
    needs_gradient=True,
    any_observation=True,
)
