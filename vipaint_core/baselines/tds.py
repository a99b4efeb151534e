"""Twisted particles (Wu et al. 2023, TDS, arXiv 2306.17775, alg. 1): exact as their number grows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..denoiser import Counted
from ..observation import Observation
from ..particles import walk
from ..presets import Preset
from ..refine import Estimate, Noise, evidence
from .common import Baseline, Settings, knob, start, vp_levels


@dataclass(frozen=True)
class TDS(Settings):
    """100 steps, systematic resampling at every step: `mnist_model_and_diffusion_conf.yml` and
    `base_sampler_conf.yml` of blt2114/twisted_diffusion_sampler. The twisting function's variance is that of
    `run_image.py`, s^2 tau^2 / (s^2 + tau^2), with tau^2 = 1 of latents in place of 0.12 of MNIST,
    plus the observation noise. The number of particles (there 4) is the number of fills."""

    steps: int = knob(100, 1, 1000, "Denoising steps: more is slower and closer to exact.")
    threshold: float = knob(
        1.0, 0.0, 1.0, "Resample below this share of effective particles: 1 at every step, 0 never and so not exact."
    )


def draw(denoiser: Counted, observation: Observation, noise: Noise, settings: TDS, s_max: float) -> torch.Tensor:
    """All rows are particles of one image.

    Proposal: the prior's step from x0 + s^2 grad log p(y | u), with p(y | u) = N(y; A x0, r^2 + sigma_y^2).
    """
    levels = vp_levels(s_max, settings.steps)
    u = start(noise, levels[0])
    preset = Preset("tds", "", (), steps=0)
    weight = u.new_zeros(len(u))
    return walk(
        guided,
        denoiser,
        u,
        weight,
        levels,
        observation,
        noise,
        preset,
        threshold=lambda _: settings.threshold,
        strength=lambda _: 1.0,
    ).u


def guided(denoiser: Counted, u: torch.Tensor, s: float, observation: Observation, *_: object) -> Estimate:
    """`refine.pigdm` without its exact conditioning of seen cells, which TDS does not have."""
    x0, gradient, log_likelihood = evidence(denoiser, u, s, observation)
    return Estimate(x0, x0 + s**2 * gradient, log_likelihood)


BASELINE = Baseline(
    "tds",
    "The fills of a picture are particles, weighed and resampled in one batch: exact for very many, alike for few.",
    "Wu et al. 2023, arXiv 2306.17775",
    TDS,
    draw,
    lambda settings: settings.steps,
    needs_gradient=True,
    particles=True,
)
