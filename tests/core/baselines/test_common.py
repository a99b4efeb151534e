"""What the baselines share."""

from __future__ import annotations

import math

import pytest
import torch

from vipaint_core.baselines.common import diffuse, gaussian_product


def test_draws_from_conditioned_gaussians() -> None:
    """The product of two Gaussians, and a diffusion whose two halves make the whole."""
    one = torch.ones(1, dtype=torch.float64)
    mean = gaussian_product(2 * one, 0.5, 5 * one, 1.0, lambda: 0 * one)
    deviation = gaussian_product(2 * one, 0.5, 5 * one, 1.0, lambda: one) - mean
    assert float(mean) == pytest.approx((2 / 0.5 + 5) / 3) and float(deviation) == pytest.approx(3**-0.5)

    def moments(x: torch.Tensor, time: float) -> tuple[float, float]:
        still = diffuse(x, 4 * one, 3 * one, time, lambda: 0 * one)
        return float(still), float(diffuse(x, 4 * one, 3 * one, time, lambda: one) - still) ** 2

    half, variance = moments(one, 0.1)
    whole, total = moments(one, 0.2)
    assert moments(half * one, 0.1)[0] == pytest.approx(whole)
    assert variance * math.exp(-0.6) + variance == pytest.approx(total)
    assert moments(one, 100.0) == pytest.approx((4.0, 1 / 3))
