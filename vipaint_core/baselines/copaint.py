"""The noisy state optimised at every step (Zhang et al. 2023, CoPaint, arXiv 2304.03322, alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import vp_levels
from ..diffusion.transition import transition
from ..problem.observation import LatentObservation
from ..refiners.common import Noise
from .common import Baseline, Settings, setting, start


@dataclass(frozen=True)
class CoPaint(Settings):
    """`configs/celebahq.yaml` of UCSB-NLP-Chang/CoPaint (DDIM, one-step estimates, no time travel).

    The released code also shrinks a step until the loss falls, at a price unknown beforehand; here it does not.
    """

    steps: int = setting(250, 1, 1000, "Denoising steps: more is slower and finer.")
    iterations: int = setting(2, 1, 20, "Gradient steps at every noise level: more is slower and fits more closely.")
    rate: float = setting(0.02, 0.0, 1.0, "Size of the gradient steps: higher fits more closely, then breaks.")
    growth: float = setting(
        1.012, 1.0, 1.1, "Growth of the rate from step to step: higher fits more closely at the end."
    )
    tether: float = setting(0.0001, 0.0, 1.0, "Hold to the state before the gradient steps: higher moves less.")
    tether_growth: float = setting(
        1.01, 1.0, 1.1, "Growth of the hold from step to step: higher moves less at the end."
    )


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: CoPaint, s_max: float
) -> torch.Tensor:
    """Descends ||A x0(z) - y||^2 + tether ||z - z_0||^2 in z = u / sqrt(1 + s^2) by rate / sqrt(1 + s^2)."""
    levels = vp_levels(s_max, settings.steps)
    u = start(noise, levels[0])
    for index, (s, s_next) in enumerate(pairwise(levels)):
        rate = settings.rate * settings.growth**index * (1 + s**2) ** 0.5
        tether = settings.tether * settings.tether_growth**index / (1 + s**2)
        origin = u
        for _ in range(settings.iterations):
            with denoiser.gradients():
                point = u.detach().requires_grad_()
                loss = ((denoiser(point, s) - observation.y).square() * observation.weight).sum()
                (gradient,) = torch.autograd.grad(loss, point)
            u = u - rate * (gradient + 2 * tether * (u - origin))
        u = transition(u, denoiser(u, s), s, s_next, eta=0).mean
    return u


BASELINE = Baseline(
    "copaint",
    "Moves the noisy picture by gradient steps until its estimate fits what is visible, at every level: slow.",
    "Zhang et al. 2023, arXiv 2304.03322",
    CoPaint,
    draw,
    lambda settings: settings.steps * (settings.iterations + 1),
    needs_gradient=True,
)
