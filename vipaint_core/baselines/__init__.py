"""Published samplers behind one call, for comparison with VIPaint: see `BASELINES`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..denoiser import Counted, Denoiser, Progress
from ..sample import RowNoise, SampleResult, SampleState, Seen, draw_fills
from . import blended, copaint, daps, ding, dps, langevin, pigdm, psld, red_diff, repaint, resample, tds
from .common import Baseline, Settings

_METHODS = (blended, repaint, dps, psld, pigdm, red_diff, copaint, resample, daps, ding, tds, langevin)
BASELINES: dict[str, Baseline] = {method.BASELINE.name: method.BASELINE for method in _METHODS}


def run_baseline(
    name: str,
    denoiser: Denoiser,
    observation: Seen,
    seed: int,
    fills: int,
    *,
    settings: Settings | None = None,
    s_max: float = math.inf,
    first: int = 0,
    batch: int = 8,
    state: SampleState | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> SampleResult:
    """Draws `fills` pictures per image with the named method; its defaults where settings is None.

    observation: an `Observation`; "dps" takes a `PixelObservation` as well.
    s_max: the largest level that the model knows. Where fills are particles, `batch` is ignored: all
    fills of an image go into one batch, and each depends on the others. See `draw_fills`. Raises
    ValueError for unknown names and for settings of another method.
    """
    if name not in BASELINES:
        raise ValueError(f"baseline: expected one of {', '.join(BASELINES)}, found {name!r}")
    baseline = BASELINES[name]
    chosen = settings if settings is not None else baseline.settings()
    if not isinstance(chosen, baseline.settings):
        raise ValueError(f"baseline {name}: expected {baseline.settings.__name__}, found {type(chosen).__name__}")

    def draw(counted: Counted, watched: Seen, _image: torch.Tensor, noise: RowNoise) -> torch.Tensor:
        with torch.no_grad():
            return baseline.draw(counted, watched, noise, chosen, s_max)

    return draw_fills(
        denoiser,
        observation,
        seed,
        fills,
        draw,
        calls=baseline.calls(chosen),
        first=first,
        batch=baseline.rows(fills, batch),
        state=state,
        callback=callback,
    )


__all__ = ["BASELINES", "Baseline", "Settings", "run_baseline"]
