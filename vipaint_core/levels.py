"""Schedules of noise-to-signal ratios s."""

from __future__ import annotations

import math
from collections.abc import Sequence


def check_levels(levels: Sequence[float]) -> None:
    """Raises ValueError for keypoints that do not increase or are not positive and finite."""
    rising = all(a < b for a, b in zip(levels, levels[1:], strict=False))
    if not levels or not rising or not 0 < levels[0] or not math.isfinite(levels[-1]):
        raise ValueError(f"levels: expected s_1 < ... < s_K, positive and finite, found {tuple(levels)}")


def clip_levels(levels: tuple[float, ...], s_max: float) -> tuple[float, ...]:
    """Keypoints that a model can reach: those above s_max become one at s_max."""
    kept = tuple(s for s in levels if s < s_max)
    return kept if len(kept) == len(levels) else (*kept, s_max)


def refine_levels(s: float, steps: int, s_min: float = 0.03, rho: float = 3.0) -> list[float]:
    """`steps` + 1 levels from s to 0, denser towards 0 (Karras et al. 2022, eq. 5), at equal ratios for large rho."""
    if steps == 1:
        return [s, 0.0]
    low = min(s_min, 0.5 * s)
    ramp = [i / (steps - 1) for i in range(steps)]
    return [(s ** (1 / rho) + t * (low ** (1 / rho) - s ** (1 / rho))) ** rho for t in ramp] + [0.0]
