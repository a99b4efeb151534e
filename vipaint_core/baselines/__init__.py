"""Published samplers behind one call, for comparison with VIPaint: see `BASELINES`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ..diffusion.denoiser import CountingDenoiser, Denoiser, Progress
from ..problem.observation import LatentObservation, Observation
from ..sampling.driver import BATCH, DrawMethod, RowNoise, SampleResult, SampleState, draw_fills
from . import blended, copaint, daps, ding, dps, flair, langevin, pigdm, psld, red_diff, repaint, resample, tds
from .common import Baseline, Settings

_METHODS = (blended, repaint, dps, psld, pigdm, red_diff, copaint, resample, daps, ding, tds, langevin, flair)
BASELINES: dict[str, Baseline] = {method.BASELINE.name: method.BASELINE for method in _METHODS}


def baseline_method(name: str, settings: Settings | None = None, s_max: float = math.inf) -> DrawMethod[Any]:
    """The named method with its defaults, where settings is None.

    s_max: the largest level that the model knows.

    Raises ValueError for unknown names and for settings of another method.
    """
    if name not in BASELINES:
        raise ValueError(f"baseline: expected one of {', '.join(BASELINES)}, found {name!r}")
    baseline = BASELINES[name]
    chosen = settings if settings is not None else baseline.settings()
    if not isinstance(chosen, baseline.settings):
        raise ValueError(f"baseline {name}: expected {baseline.settings.__name__}, found {type(chosen).__name__}")

    def draw(
        denoiser: CountingDenoiser, observation: Observation, _image: torch.Tensor, noise: RowNoise
    ) -> torch.Tensor:
        is_mask = isinstance(observation, LatentObservation) and observation.is_cellwise
        if not is_mask and not baseline.any_observation:
            kind = type(getattr(observation, "operator", observation)).__name__
            raise ValueError(f"baseline {name}: expected latents seen through a mask, found {kind}")
        with torch.no_grad():
            return baseline.draw(denoiser, observation, noise, chosen, s_max)

    return DrawMethod(draw, baseline.calls(chosen), baseline.needs_gradient, baseline.coupled)


def run_baseline(
    name: str,
    denoiser: Denoiser,
    observation: Observation,
    seed: int,
    fills: int,
    *,
    settings: Settings | None = None,
    s_max: float = math.inf,
    first: int = 0,
    batch: int = BATCH,
    state: SampleState | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> SampleResult:
    """Draws `fills` pictures per image with the named method; see `baseline_method` and `draw_fills`."""
    method = baseline_method(name, settings, s_max)
    return draw_fills(
        denoiser, observation, method, seed, fills, first=first, batch=batch, state=state, callback=callback
    )


__all__ = ["BASELINES", "Baseline", "Settings", "baseline_method", "run_baseline"]
