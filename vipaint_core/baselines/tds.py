"""Twisted particles (Wu et al. 2023, TDS, arXiv 2306.17775, alg. 1): exact as their number grows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import vp_levels
from ..problem.observation import LatentObservation
from ..refiners.common import Estimate, LevelStep, Noise
from ..refiners.pigdm import likelihood_gradient
from ..sampling.smc import twisted_smc
from .common import Baseline, Settings, setting, start


@dataclass(frozen=True)
class TDS(Settings):
    """100 steps, systematic resampling at every step: `mnist_model_and_diffusion_conf.yml` and
    `base_sampler_conf.yml` of blt2114/twisted_diffusion_sampler. The twisting function's variance is that of
    `run_image.py`, s^2 tau^2 / (s^2 + tau^2), with tau^2 = 1 of latents in place of 0.12 of MNIST,
    plus the observation noise. The number of particles (there 4) is the number of fills."""

    steps: int = setting(100, 1, 1000, "Denoising steps: more is slower and closer to exact.")
    ess_threshold: float = setting(
        1.0, 0.0, 1.0, "Resample below this share of effective particles: 1 at every step, 0 never and so not exact."
    )


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: TDS, s_max: float
) -> torch.Tensor:
    """All rows are particles of one image.

    Proposal: the prior's step from x0 + s^2 grad log p(y | u), with p(y | u) = N(y; A x0, r^2 + sigma_y^2).
    """
    steps = [LevelStep(s, s_next) for s, s_next in pairwise(vp_levels(s_max, settings.steps))]
    u = start(noise, steps[0].s)
    return twisted_smc(
        estimate,
        denoiser,
        u,
        u.new_zeros(len(u)),
        steps,
        observation,
        noise,
        threshold=lambda _: settings.ess_threshold,
        scale=lambda _: 1.0,
    ).u


def estimate(
    denoiser: CountingDenoiser, u: torch.Tensor, step: LevelStep, observation: LatentObservation, *_: object
) -> Estimate:
    """`refiners.pigdm` without its exact conditioning of observed cells, which TDS does not have."""
    x0, gradient, log_likelihood = likelihood_gradient(denoiser, u, step.s, observation)
    return Estimate(x0, x0 + step.s**2 * gradient, log_likelihood)


BASELINE = Baseline(
    "tds",
    "The fills of a picture are particles, weighed and resampled in one batch: exact for very many, alike for few.",
    "Wu et al. 2023, arXiv 2306.17775",
    TDS,
    draw,
    lambda settings: settings.steps,
    needs_gradient=True,
    coupled=True,
)
