"""Mask replacement with jumps back to more noise (Lugmayr et al. 2022, RePaint, arXiv 2201.09865, alg. 1)."""

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
class RePaint(Settings):
    """250 steps, jumps of 10 steps, every stretch 10 times: `confs/face_example.yml` of andreas128/RePaint."""

    steps: int = setting(250, 1, 1000, "Denoising steps: more is slower and finer.")
    jump: int = setting(10, 1, 100, "Steps that a jump goes back: longer ones join the hole to the rest better.")
    resamplings: int = setting(10, 1, 50, "How often every stretch is taken: more is slower, with fewer seams.")

    def visits(self) -> list[int]:
        """Indices of the levels in the order of visits, as the released schedule has them."""
        visited = [0]
        for index in range(1, self.steps + 1):
            visited.append(index)
            left = self.steps - 1 - index
            if left >= 0 and left % self.jump == 0 and left < self.steps - self.jump:
                visited += [*range(index - self.jump, index + 1)] * (self.resamplings - 1)
        return visited


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: RePaint, s_max: float
) -> torch.Tensor:
    levels = vp_levels(s_max, settings.steps)
    u = start(noise, levels[0])
    for here, there in pairwise(settings.visits()):
        s, s_next = levels[here], levels[there]
        if there < here:
            u = u + (s_next**2 - s**2) ** 0.5 * noise()
        else:
            mean, variance = transition(u, denoiser(u, s), s, s_next)
            u = replace_observed(mean + variance.sqrt() * noise(), observation, s_next, noise)
    return u


BASELINE = Baseline(
    "repaint",
    "Mask replacement that jumps back to more noise again and again, so that hole and rest agree: very slow.",
    "Lugmayr et al. 2022, arXiv 2201.09865",
    RePaint,
    draw,
    lambda settings: sum(there > here for here, there in pairwise(settings.visits())),
)
