"""What must hold for every operator and every noise level, on inputs that nobody has chosen."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vipaint_core import VARIANCE_EXPLODING, Coordinate, rectified_flow
from vipaint_core.levels import check_levels, clip_levels, refine_levels
from vipaint_core.operators import Blur, Compose, Downsample, Mask, Operator
from vipaint_core.posterior import transition

EPS = torch.finfo(torch.float64).eps


def normal(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- operators ---


@st.composite
def masks(draw: st.DrawFn) -> tuple[Mask, torch.Tensor, torch.Tensor]:
    """A mask, with or without spill, and two latents of any size, single rows and columns included."""
    batch, channels, height, width = (draw(st.integers(1, n)) for n in (3, 4, 9, 9))
    seed = draw(st.integers(0, 2**32 - 1))
    hidden = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    seen = torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(seed)) >= hidden
    size = draw(st.sampled_from([0, 1, 3, 5]))
    spill = normal((batch, channels, channels, size, size), seed + 1) if size else None
    x, y = normal((2, batch, channels, height, width), seed + 2)
    return Mask(seen, spill), x, y


@st.composite
def operators(draw: st.DrawFn) -> tuple[Operator, torch.Tensor]:
    """Any operator, and a tensor that it takes."""
    mask, x, _ = draw(masks())
    seed = draw(st.integers(0, 2**32 - 1))
    factor = draw(st.integers(1, 4))
    reduced = Downsample(factor, draw(st.sampled_from(["area", "bicubic"])))
    reach, breadth = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    blur = Blur(
        normal((2 * reach + 1, 2 * breadth + 1), seed), draw(st.sampled_from(["reflect", "replicate", "circular"]))
    )
    # Reflected and repeated borders need pictures larger than half the kernel.
    larger = normal((*x.shape[:2], factor * (4 + x.shape[2]), factor * (4 + x.shape[3])), seed + 1)
    return draw(
        st.sampled_from(
            [(mask, x), (Compose((mask,)), x), (reduced, larger), (blur, larger), (Compose((blur, reduced)), larger)]
        )
    )


@given(operators(), st.integers(0, 2**32 - 1))
def test_the_adjoint_is_the_adjoint(case: tuple[Operator, torch.Tensor], seed: int) -> None:
    """<A x, y> = <x, A' y>."""
    operator, x = case
    image = operator.A(x)
    y = normal(image.shape, seed)
    back = operator.A_adjoint(y)
    scale = image.norm() * y.norm() + x.norm() * back.norm() + 1e-30
    assert ((image * y).sum() - (x * back).sum()).abs() <= 1e3 * EPS * scale


@given(masks(), st.floats(-3, 3), st.floats(-3, 3))
def test_operators_are_linear_and_hide_what_is_hidden(
    case: tuple[Mask, torch.Tensor, torch.Tensor], a: float, b: float
) -> None:
    operator, x, y = case
    for linear in (operator.A, operator.A_adjoint):
        torch.testing.assert_close(linear(a * x + b * y), a * linear(x) + b * linear(y), rtol=1e-9, atol=1e-9)
    assert (operator.A(x)[~operator.seen.expand_as(x)] == 0).all()
    # What is hidden is read through the spill and nowhere else.
    visible = torch.where(operator.seen, x, 0.0)
    assert torch.equal(operator.A(visible), visible)
    if operator.spill is None:
        assert torch.equal(operator.A(x), visible)


# --- noise levels ---

coordinates = st.one_of(st.just(VARIANCE_EXPLODING), st.floats(0.1, 10).map(rectified_flow))
levels = st.floats(1e-4, 1e4)


@given(coordinates, levels)
def test_levels_and_sigmas_are_inverse_maps(place: Coordinate, s: float) -> None:
    """To rounding, which a flow's sigma near its end magnifies by s / scale."""
    sigma = place.sigma_of_s(s)
    assert 0 < sigma and (not place.flow or sigma < place.noise_scale)
    condition = 1 + s / place.noise_scale
    assert math.isclose(place.s_of_sigma(sigma), s, rel_tol=16 * EPS * condition)
    assert math.isclose(place.sigma_of_s(place.s_of_sigma(sigma)), sigma, rel_tol=16 * EPS)


@given(coordinates, st.floats(1e-4, 0.999))
def test_sigmas_and_levels_are_inverse_maps(place: Coordinate, time: float) -> None:
    sigma = time * place.noise_scale
    assert math.isclose(place.sigma_of_s(place.s_of_sigma(sigma)), sigma, rel_tol=16 * EPS)


@given(coordinates, st.lists(levels, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_states_and_the_host_s_are_inverse_maps(place: Coordinate, rows: list[float], seed: int) -> None:
    s, u = torch.tensor(rows, dtype=torch.float64), normal((len(rows), 2, 3, 2), seed)
    z, sigma = place.to_host(u, s)
    back, level = place.from_host(z, sigma)
    tolerance = 16 * EPS * (1 + float(s.max()) / place.noise_scale)
    torch.testing.assert_close(back, u, rtol=tolerance, atol=0)
    torch.testing.assert_close(level, s, rtol=tolerance, atol=0)
    # A scalar is a level for all rows.
    one, _ = place.to_host(u, rows[0])
    torch.testing.assert_close(one[0], z[0], rtol=16 * EPS, atol=0)


@given(coordinates, levels, levels)
def test_more_noise_is_more_noise_to_the_host(place: Coordinate, s: float, other: float) -> None:
    low, high = sorted((s, other))
    assert place.sigma_of_s(low) <= place.sigma_of_s(high)


@given(st.floats(1e-3, 1e3), st.integers(1, 200))
def test_refinement_falls_from_the_first_level_to_zero(s: float, steps: int) -> None:
    found = refine_levels(s, steps)
    assert len(found) == steps + 1 and math.isclose(found[0], s, rel_tol=1e-12) and found[-1] == 0
    assert all(a > b for a, b in zip(found, found[1:], strict=False))


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


@given(levels, levels, st.floats(0, 1), st.floats(-3, 3))
def test_transitions_keep_the_marginal(s: float, other: float, eta: float, x0: float) -> None:
    """With x0 known, a step from N(x0, s^2) lands on N(x0, s_next^2), whatever the levels and eta."""
    low, high = sorted((s, other))
    u = torch.full((1, 1, 1, 1), x0 + high, dtype=torch.float64)
    step = transition(u, torch.full_like(u, x0), high, low, eta)
    variance = (float(step.mean) - x0) ** 2 + float(step.variance)
    assert math.isclose(variance, low**2, rel_tol=1e-6, abs_tol=1e-12 * (1 + x0**2))
