"""One picture aligned with a flow's velocities at falling times (Erbach et al. 2025, FLAIR, arXiv 2506.02680)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..diffusion.denoiser import CountingDenoiser
from ..problem.observation import LatentObservation
from ..refiners.common import Noise
from .common import Baseline, Settings, project, setting

# Mean squared error of Stable Diffusion 3's velocity at times 1, 0.9, ..., 0: what the released code calibrates its weight
# with, for every task (`LCFM/SD3_loss_v_MSE_DIV2k_neg_prompt.npy` of prs-eth/FLAIR, rounded).
VELOCITY_ERROR = (0.646, 0.259, 0.233, 0.237, 0.256, 0.291, 0.344, 0.426, 0.555, 0.771, 1.086)


@dataclass(frozen=True)
class FLAIR(Settings):
    """50 times from 1 down to 0.18, weight 0.5: `configs/inpainting.yaml` of prs-eth/FLAIR, which goes on with the noise of
    before by the share 1 - t. Its steps in pixels, until what is visible is met, are exact here: latents in place."""

    steps: int = setting(50, 1, 1000, "Times of the flow, one network call each: more is slower and finer.")
    weight: float = setting(
        0.5, 0.0, 10.0, "Weight of the model: higher goes further towards its estimate at every step."
    )
    last: float = setting(0.18, 0.0, 0.99, "Time of the flow at which it ends: higher leaves out fine detail.")


def calibration(t: float) -> float:
    """The weight of the velocities at time t, 1 on average: one over their error."""
    inverse = torch.tensor([1 / error for error in VELOCITY_ERROR])
    at = (1 - t) * (len(VELOCITY_ERROR) - 1)
    low = min(int(at), len(VELOCITY_ERROR) - 2)
    value = torch.lerp(inverse[low], inverse[low + 1], at - low)
    # The mean of the line through all of them.
    return float(value / (0.5 * (inverse[1:] + inverse[:-1]).mean()))


def times(settings: FLAIR, s_max: float) -> list[float]:
    """Falling times t = s / (1 + s) between that of the largest level and the last one, both left out."""
    first = 1.0 if s_max == float("inf") else s_max / (1 + s_max)
    last = min(settings.last, 0.5 * first)
    return [first + (last - first) * (step + 1) / (settings.steps + 1) for step in range(settings.steps)]


def draw(
    denoiser: CountingDenoiser, observation: LatentObservation, noise: Noise, settings: FLAIR, s_max: float
) -> torch.Tensor:
    """mu <- mu - weight(t) (v - u) with the velocity u = eps - mu, that is, towards the estimate by weight(t) / t."""
    mu, predicted = observation.y.clone(), noise()
    for t in times(settings, s_max):
        s = t / (1 - t)
        # Deterministic trajectory adjustment: a part of the noise is where the model says that the path began.
        eps = (1 - t) * predicted + (1 - (1 - t) ** 2) ** 0.5 * noise()
        u = mu + s * eps
        x0 = denoiser(u, s)
        predicted = (u - x0) / s
        mu = project(mu + settings.weight * calibration(t) / t * (x0 - mu), observation)
    return mu


BASELINE = Baseline(
    "flair",
    "Aligns one picture with the model's velocities at falling noise: no gradients of the network.",
    "Erbach et al. 2025, arXiv 2506.02680",
    FLAIR,
    draw,
    lambda settings: settings.steps,
)
