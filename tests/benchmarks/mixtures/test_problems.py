"""Mixtures whose posteriors are known, and problems over them."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.mixtures.problems import VARIANTS, Cell, Mixture, problem
from vipaint_core import LatentObservation
from vipaint_core.problem import likelihood


def mixture() -> Mixture:
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    return Mixture(torch.tensor([0.3, -0.2, 0.5]).double(), means, torch.tensor([0.2, 0.5, 0.1, 0.3]).double())


def log_density(given: Mixture, x: torch.Tensor, s: float) -> torch.Tensor:
    """log p(u) at level s, (N, D) -> (N,), by torch.distributions."""
    scale = (given.variance + s**2).sqrt()
    parts = torch.distributions.Independent(torch.distributions.Normal(given.means, scale.expand_as(given.means)), 1)
    mixed = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=given.logits), parts)
    return mixed.log_prob(x)


@pytest.mark.parametrize("s", [0.1, 1.0, 20.0])
def test_denoiser_is_tweedie_s(s: float) -> None:
    """E[x0 | u] = u + s^2 grad log p(u)."""
    given = mixture()
    u = (1 + s) * torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    (score,) = torch.autograd.grad(log_density(given, u, s).sum(), u)
    found = given(u.detach().reshape(5, 1, 1, 4), torch.full((5,), s, dtype=torch.float64)).reshape(5, 4)
    assert torch.allclose(found, (u + s**2 * score).detach(), atol=1e-9)


def test_posterior_is_prior_times_likelihood() -> None:
    given = mixture()
    seen = torch.tensor([1.0, 0.25, 0.0, 0.0], dtype=torch.float64)
    observation = LatentObservation.masked(torch.randn(1, 1, 1, 4, dtype=torch.float64), seen.reshape(1, 1, 1, 4), 0.4)
    x = torch.randn(6, 4, dtype=torch.float64)
    loss = likelihood.negative_log_likelihood(observation, x.reshape(6, 1, 1, 4), 0.0, calibrated=False)
    exact = log_density(given, x, 0.0) - loss
    found = log_density(given.given(observation), x, 0.0)
    assert torch.allclose(found - found[0], exact - exact[0], atol=1e-9)


def test_draws_have_the_mixture_s_moments() -> None:
    given = mixture()
    drawn = given.draw(200_000, torch.Generator().manual_seed(0))
    weights = given.logits.softmax(0)[:, None]
    mean = (weights * given.means).sum(0)
    variance = given.variance + (weights * (given.means - mean).square()).sum(0)
    assert torch.allclose(drawn.mean(0), mean, atol=0.01)
    assert torch.allclose(drawn.var(0), variance, rtol=0.02)


@pytest.mark.parametrize("variant", VARIANTS)
def test_problems_are_fixed_and_their_scale_is_the_prior_s(variant: str) -> None:
    cell = Cell(variant, 8, 2)
    given, again = problem(cell, 3), problem(cell, 3)
    assert torch.equal(given.observation.y, again.observation.y)
    assert int((given.observation.weight > 0).sum()) == 2
    assert math.isclose(float(given.prior.variance[0]) * given.scale**2, 1.0)
    distances = torch.cdist(given.prior.means, given.prior.means) * given.scale
    nearest = distances.fill_diagonal_(math.inf).min()
    # Neighbours differ by 8 in every other coordinate; `apart` by 24 in all.
    assert float(nearest) == pytest.approx(24 * math.sqrt(8) if variant == "apart" else 8 * 2, rel=1e-6)
