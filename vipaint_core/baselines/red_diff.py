"""One picture optimised under all noise levels (Mardani et al. 2023, RED-diff, arXiv 2305.04391, alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..diffusion.levels import vp_levels
from ..problem.observation import LatentObservation
from ..refiners.common import Noise
from .common import Baseline, Settings, setting


@dataclass(frozen=True)
class REDDiff(Settings):
    """100 levels, rate 0.5, weight 0.25: README of NVlabs/RED-diff for inpainting; observation weight 1
    and Adam's betas 0.9, 0.99: its `reddiff.yaml` and `algos/reddiff.py`."""

    steps: int = setting(100, 1, 1000, "Noise levels, one step of the optimiser each: more is slower and finer.")
    rate: float = setting(0.5, 0.001, 2.0, "Step size of the optimiser: higher moves further and is less stable.")
    weight: float = setting(0.25, 0.0, 10.0, "Weight of the model against the visible cells: higher is smoother.")


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: REDDiff, s_max: float
) -> torch.Tensor:
    """The regulariser's gradient with the linear weight s is weight * (mu - x0): no backward pass."""
    mu = observation.y.clone()
    optimiser = torch.optim.Adam([mu], lr=settings.rate, betas=(0.9, 0.99))
    # Both terms are means over their own cells.
    cells = observation.weight[0].numel() / observation.weight.flatten(1).sum(1).clamp_min(1)
    residual_weight = cells[:, None, None, None] * observation.weight
    for s in vp_levels(s_max, settings.steps)[:-1]:
        x0 = denoiser(mu + s * noise(), s)
        mu.grad = settings.weight * (mu - x0) + residual_weight * (mu - observation.y)
        optimiser.step()
    return mu


BASELINE = Baseline(
    "red_diff",
    "Optimises one picture against the denoiser at falling noise levels: no gradients of the network, little variety.",
    "Mardani et al. 2023, arXiv 2305.04391",
    REDDiff,
    draw,
    lambda settings: settings.steps,
)
