"""Hard consistency and a draw back to the noise level (Song et al. 2024, ReSample, arXiv 2307.08123, alg. 1).

The observation is one of latents, without a decoder: the optimisation of ||y - A x0||^2 that makes an
estimate consistent ends in observed cells at y, and is done by putting y there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import vp_levels
from ..problem.observation import LatentObservation
from ..refiners.common import Noise
from .common import Baseline, Settings, gaussian_product, probability_flow, project, setting, start
from .dps import scaled_step


@dataclass(frozen=True)
class ReSample(Settings):
    """500 DDIM steps (eta 0), DPS scale 0.5 alpha_t, every 10th step of the lower two thirds made consistent
    after 5 further steps, variance 40: `sample_condition.py` and `ldm/models/diffusion/ddim.py` of
    soominkwon/resample."""

    steps: int = setting(500, 30, 1000, "Denoising steps: more is slower and finer.")
    scale: float = setting(
        0.5, 0.0, 10.0, "Pull towards what is visible between the hard steps: higher fits more closely."
    )
    ahead: int = setting(5, 1, 9, "Steps that an estimate is refined by before it is made consistent: more is slower.")
    variance: float = setting(
        40.0, 0.01, 1000.0, "Trust in the consistent estimate: lower leaves the noisy state behind."
    )

    def is_hard(self, index: int) -> bool:
        """Is the state after step `index` (from 0) made consistent?"""
        left = self.steps - 1 - index
        return 0 < left <= self.steps - self.steps // 3 and left % 10 == 0


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: ReSample, s_max: float
) -> torch.Tensor:
    levels = vp_levels(s_max, settings.steps)
    u = start(noise, levels[0])
    for index, (s, s_next) in enumerate(pairwise(levels)):
        u = scaled_step(denoiser, u, s, s_next, observation, noise, settings.scale / (1 + s**2), eta=0.0)
        if settings.is_hard(index):
            # The last step goes to 0 and so is the estimate.
            x0 = probability_flow(denoiser, u, [*levels[index + 1 : index + 1 + settings.ahead], 0.0])
            # In z the released sigma^2 is 40 times the variance of DDPM's step, and so it is in u.
            spread = settings.variance * s_next**2 * (s**2 - s_next**2) / s**2
            u = gaussian_product(project(x0, observation), s_next**2, u, 1 / spread, noise)
    return project(u, observation)


BASELINE = Baseline(
    "resample",
    "DPS that now and then puts the visible cells into the estimate and draws the noisy picture from it anew.",
    "Song et al. 2024, arXiv 2307.08123",
    ReSample,
    draw,
    lambda settings: settings.steps + settings.ahead * sum(map(settings.is_hard, range(settings.steps))),
    needs_gradient=True,
)
