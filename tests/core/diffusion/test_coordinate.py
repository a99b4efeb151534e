"""The core's coordinate against the linear path of flows, and its maps on inputs that nobody has chosen."""

from __future__ import annotations

import math

import torch
from gaussian import normal
from hypothesis import given
from hypothesis import strategies as st

from vipaint_core import VARIANCE_EXPLODING, Coordinate, rectified_flow

EPS = torch.finfo(torch.float64).eps

coordinates = st.one_of(st.just(VARIANCE_EXPLODING), st.floats(0.1, 10).map(rectified_flow))
levels = st.floats(1e-4, 1e4)


def test_flow_is_the_linear_path() -> None:
    x0, eps = torch.randn(2, 1, 2, 2, 2, dtype=torch.float64)
    for noise_scale in (1.0, 2.0):
        coordinate = rectified_flow(noise_scale)
        s = torch.tensor([1.7], dtype=torch.float64)
        z, sigma = coordinate.to_host(x0 + s * eps, s)
        time = sigma / noise_scale
        assert torch.allclose(z, (1 - time) * x0 + sigma * eps)


@given(coordinates, levels)
def test_levels_and_sigmas_are_inverse_maps(coordinate: Coordinate, s: float) -> None:
    """To rounding, which a flow's sigma near its end magnifies by s / scale."""
    sigma = coordinate.sigma_of_s(s)
    assert 0 < sigma and (not coordinate.flow or sigma < coordinate.noise_scale)
    condition = 1 + s / coordinate.noise_scale
    assert math.isclose(coordinate.s_of_sigma(sigma), s, rel_tol=16 * EPS * condition)
    assert math.isclose(coordinate.sigma_of_s(coordinate.s_of_sigma(sigma)), sigma, rel_tol=16 * EPS)


@given(coordinates, st.floats(1e-4, 0.999))
def test_sigmas_and_levels_are_inverse_maps(coordinate: Coordinate, time: float) -> None:
    sigma = time * coordinate.noise_scale
    assert math.isclose(coordinate.sigma_of_s(coordinate.s_of_sigma(sigma)), sigma, rel_tol=16 * EPS)


@given(coordinates, st.lists(levels, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_states_and_the_host_s_are_inverse_maps(coordinate: Coordinate, rows: list[float], seed: int) -> None:
    s, u = torch.tensor(rows, dtype=torch.float64), normal(len(rows), 2, 3, 2, seed=seed)
    z, sigma = coordinate.to_host(u, s)
    back, level = coordinate.from_host(z, sigma)
    tolerance = 16 * EPS * (1 + float(s.max()) / coordinate.noise_scale)
    torch.testing.assert_close(back, u, rtol=tolerance, atol=0)
    torch.testing.assert_close(level, s, rtol=tolerance, atol=0)
    # A scalar is a level for all rows.
    one, _ = coordinate.to_host(u, rows[0])
    torch.testing.assert_close(one[0], z[0], rtol=16 * EPS, atol=0)


@given(coordinates, levels, levels)
def test_more_noise_is_more_noise_to_the_host(coordinate: Coordinate, s: float, other: float) -> None:
    low, high = sorted((s, other))
    assert coordinate.sigma_of_s(low) <= coordinate.sigma_of_s(high)
