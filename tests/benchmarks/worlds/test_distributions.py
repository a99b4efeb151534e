"""Scores of draws against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.worlds import distributions


def test_crps_of_exact_draws_is_that_of_the_distribution() -> None:
    """Gneiting and Raftery 2007, eq. 5, for a Gaussian; a third of the width less a sixth for a uniform one."""
    numbers = torch.Generator().manual_seed(0)
    truth = torch.tensor([0.0, 1.0, -2.0])
    density = torch.distributions.Normal(0.0, 1.0)
    z = truth
    exact = z * (2 * density.cdf(z) - 1) + 2 * density.log_prob(z).exp() - 1 / math.sqrt(math.pi)
    assert torch.allclose(distributions.crps(torch.randn(3, 3000, generator=numbers), truth), exact, atol=0.03)
    truth = 10 * torch.rand(2000, generator=numbers)
    found = distributions.crps(10 * torch.rand(2000, 4, generator=numbers), truth).mean()
    assert float(found) == pytest.approx(10 / 6, abs=0.1)
    # One wrong answer costs its distance.
    assert distributions.crps(torch.full((1, 5), 3.0), torch.tensor([1.0])).item() == pytest.approx(2)


def test_wasserstein_distance_from_a_uniform_distribution() -> None:
    low, high = torch.tensor([0.0]), torch.tensor([10.0])
    # A point in the middle moves a quarter of the width, one at the end half of it.
    assert distributions.wasserstein_uniform(torch.full((1, 4), 5.0), low, high).item() == pytest.approx(2.5, abs=1e-3)
    assert distributions.wasserstein_uniform(torch.full((1, 4), 10.0), low, high).item() == pytest.approx(5, abs=1e-3)
    # Draws at the middles of n parts: a quarter of a part.
    even = (torch.arange(8) + 0.5)[None] / 8 * 10
    assert distributions.wasserstein_uniform(even, low, high).item() == pytest.approx(10 / 32, abs=1e-3)


def test_total_variation_and_its_floor() -> None:
    values = torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2]])
    exact = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25]])
    assert distributions.total_variation(values, exact).tolist() == [0, 0.75]
    # Of one draw: 1 less the probability that it names.
    assert distributions.tv_floor((0.7, 0.3), 1) == pytest.approx(0.7 * 0.3 + 0.3 * 0.7, abs=0.01)
    assert distributions.tv_floor((0.5, 0.5), 400) < 0.03
