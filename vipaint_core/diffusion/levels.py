"""Schedules of noise-to-signal ratios s."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch

# Flows have no largest level; of data of unit variance nothing is left here.
LARGEST = 80.0


Number = TypeVar("Number", float, torch.Tensor)


def remaining_variance(s: Number) -> Number:
    """r^2 = s^2 / (1 + s^2): variance of x0 around its estimate from level s, for data of unit variance.

    Song et al. 2023, PiGDM, openreview 9_gsMA8MRKQ, eq. 7.
    """
    return s**2 / (1 + s**2)


def check_levels(levels: Sequence[float]) -> None:
    """Raises ValueError for keypoints that do not increase or are not positive and finite."""
    rising = all(a < b for a, b in zip(levels, levels[1:], strict=False))
    if not levels or not rising or not 0 < levels[0] or not math.isfinite(levels[-1]):
        raise ValueError(f"levels: expected s_1 < ... < s_K, positive and finite, found {tuple(levels)}")


def clip_levels(levels: tuple[float, ...], s_max: float) -> tuple[float, ...]:
    """Keypoints that a model can reach: those above s_max become one at s_max."""
    kept = tuple(s for s in levels if s < s_max)
    return kept if len(kept) == len(levels) else (*kept, s_max)


def levels_from(levels: tuple[float, ...], s: float) -> tuple[float, ...]:
    """Keypoints that end at s: those below it, and s itself."""
    return (*(level for level in levels if level < s), s)


def karras_levels(s: float, steps: int, s_min: float = 0.03, rho: float = 3.0) -> list[float]:
    """`steps` + 1 levels from s to 0 (Karras et al. 2022, arXiv 2206.00364, eq. 5).

    s_min: the last level above 0. rho: larger is denser towards 0; at equal ratios for very large rho.
    """
    if steps == 1:
        return [s, 0.0]
    low = min(s_min, 0.5 * s)
    ramp = [i / (steps - 1) for i in range(steps)]
    return [(s ** (1 / rho) + t * (low ** (1 / rho) - s ** (1 / rho))) ** rho for t in ramp] + [0.0]


def vp_levels(s_max: float, steps: int) -> list[float]:
    """`steps` + 1 levels from min(s_max, 80) to 0 at equal times of the linear VP schedule.

    s(t)^2 = exp(0.1 t + 9.95 t^2) - 1, t in [0, 1]: the continuous form of DDPM's betas from 1e-4
    to 0.02 (Song et al. 2021, arXiv 2011.13456, app. C).
    """
    top = (math.sqrt(0.01 + 4 * 9.95 * math.log1p(min(s_max, LARGEST) ** 2)) - 0.1) / (2 * 9.95)
    times = [top * (1 - step / steps) for step in range(steps + 1)]
    return [math.sqrt(math.expm1(0.1 * t + 9.95 * t**2)) for t in times]


def flow_levels(s_max: float, steps: int, shift: float = 3.0) -> list[float]:
    """`steps` + 1 levels from min(s_max, 80) to 0 at equal times t of a shifted flow, s = shift t / (1 - t)."""
    highest = min(s_max, LARGEST)
    times = [highest / (shift + highest) * (1 - step / steps) for step in range(steps + 1)]
    return [shift * t / (1 - t) for t in times]
