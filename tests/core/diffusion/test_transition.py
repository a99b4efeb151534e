"""The prior's own step."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from vipaint_core.diffusion.transition import transition

levels = st.floats(1e-4, 1e4)


@given(levels, levels, st.floats(0, 1), st.floats(-3, 3))
def test_transitions_keep_the_marginal(s: float, other: float, eta: float, x0: float) -> None:
    """With x0 known, a step from N(x0, s^2) lands on N(x0, s_next^2), whatever the levels and eta."""
    low, high = sorted((s, other))
    u = torch.full((1, 1, 1, 1), x0 + high, dtype=torch.float64)
    step = transition(u, torch.full_like(u, x0), high, low, eta)
    variance = (float(step.mean) - x0) ** 2 + float(step.variance)
    assert math.isclose(variance, low**2, rel_tol=1e-6, abs_tol=1e-12 * (1 + x0**2))
