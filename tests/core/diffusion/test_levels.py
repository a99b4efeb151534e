"""Schedules of noise levels."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vipaint_core.diffusion.levels import check_levels, clip_levels, flow_levels, karras_levels, vp_levels


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_karras_levels_fall_to_zero(steps: int) -> None:
    levels = karras_levels(0.7, steps)
    assert len(levels) == steps + 1
    assert levels[0] == pytest.approx(0.7) and levels[-1] == 0
    assert all(a > b for a, b in pairwise(levels))


@given(st.floats(1e-3, 1e3), st.integers(1, 200))
def test_karras_levels_fall_from_the_first_level_to_zero(s: float, steps: int) -> None:
    found = karras_levels(s, steps)
    assert len(found) == steps + 1 and math.isclose(found[0], s, rel_tol=1e-12) and found[-1] == 0
    assert all(a > b for a, b in pairwise(found))


def test_vp_and_flow_levels() -> None:
    """The VP schedule is that of DDPM's betas; both start at the model's largest level and end at 0."""
    remaining = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)
    ddpm = ((1 - remaining) / remaining).sqrt()
    found = torch.tensor(vp_levels(float(ddpm[599]), 600), dtype=torch.float64)
    assert torch.allclose(found[:-1], ddpm[:600].flip(0), rtol=0.06)
    for levels in (vp_levels, flow_levels):
        assert levels(math.inf, 10)[0] == pytest.approx(80) and levels(14.6, 10)[0] == pytest.approx(14.6)
        assert levels(math.inf, 10)[-1] == 0 and len(levels(math.inf, 10)) == 11
        assert all(high > low for high, low in pairwise(levels(math.inf, 10)))


def test_levels_beyond_the_model_are_clipped() -> None:
    assert clip_levels((0.5, 2.0, 10.0, 30.0), 14.6) == (0.5, 2.0, 10.0, 14.6)
    assert clip_levels((0.5, 2.0), 14.6) == (0.5, 2.0)


@given(st.sets(st.floats(1e-3, 1e3), min_size=1, max_size=12), st.floats(1e-3, 1e3))
def test_clipped_levels_are_levels_that_the_model_knows(keypoints: set[float], s_max: float) -> None:
    given_levels = tuple(sorted(keypoints))
    found = clip_levels(given_levels, s_max)
    check_levels(found)
    assert found[-1] <= s_max and set(found) <= {*given_levels, s_max} and len(found) <= len(given_levels)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=4))
def test_levels_pass_if_they_rise_from_above_zero(keypoints: list[float]) -> None:
    good = bool(keypoints) and all(0 < s < math.inf for s in keypoints) and sorted(set(keypoints)) == keypoints
    if good:
        check_levels(keypoints)
    else:
        with pytest.raises(ValueError, match="s_1 < "):
            check_levels(keypoints)
