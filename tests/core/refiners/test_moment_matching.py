"""Moment matching against exact Gaussian posteriors: with enough solver steps it is one."""

from __future__ import annotations

import pytest
import torch
from gaussian import (
    GaussianPrior,
    conditioned,
    half_observed,
    hidden,
    left_half,
    noisy_draws,
    normal,
)

from vipaint_core import LatentObservation
from vipaint_core.diffusion.denoiser import CountingDenoiser, Denoiser
from vipaint_core.problem.observation import CutCells
from vipaint_core.problem.operators import Blur, Compose, Downsample, LinearOperator, gaussian_kernel
from vipaint_core.refiners.common import Estimate, LevelStep
from vipaint_core.refiners.moment_matching import moment_matching

SHAPE = (2, 3, 4)


def estimate(
    denoiser: Denoiser,
    u: torch.Tensor,
    s: float,
    observation: LatentObservation,
    solver_steps: int = 24,
    score: torch.Tensor | None = None,
) -> Estimate:
    step = LevelStep(s, 0.0, solver_steps=solver_steps)
    return moment_matching(CountingDenoiser(denoiser, "", 0, None), u, step, observation, score)


def exact_means(prior: GaussianPrior, u: torch.Tensor, s: float, observation: LatentObservation) -> torch.Tensor:
    """E[x0 | u, y] of every row, (N, D), where the rows are images."""
    means, covariance = prior.given_state(u, s)
    return torch.stack([conditioned(mean, covariance, observation, row)[0] for row, mean in enumerate(means)])


def hidden_mean(
    solver_steps: int, estimates: int = 1, guess: float | None = None, s: float = 3.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """E[x0 | u, y] of a correlated Gaussian's hidden cells: after so many estimates, each from the last's score; exact."""
    prior, weight = GaussianPrior.correlated(SHAPE), left_half(2, SHAPE)
    latents = noisy_draws(prior, images=2, sigma_y=0.2)
    observation = LatentObservation.masked(latents, weight, sigma_y=0.2)
    u = latents + s * normal(2, *SHAPE, seed=1)
    score = None if guess is None else guess * torch.where(weight > 0, normal(2, *SHAPE, seed=2), 0.0)
    for _ in range(estimates):
        found = estimate(prior, u, s, observation, solver_steps, score)
        score = found.score
    exact, unobserved = exact_means(prior, u, s, observation), hidden(observation)
    # In observed cells `condition` would count the observation twice.
    return found.given_y.flatten(1)[:, unobserved], exact[:, unobserved]


@pytest.mark.parametrize("guess", [None, 0.1, 3.0])
def test_the_mean_is_exact(guess: float | None) -> None:
    """Enough products with the Jacobian: to rounding, from whatever score."""
    found, exact = hidden_mean(solver_steps=24, guess=guess)
    assert torch.allclose(found, exact, atol=1e-8)


MIXING: dict[str, LinearOperator] = {
    "reduced": Downsample(2, "area"),
    "blurred": Blur(gaussian_kernel(0.7), "circular"),
    "both": Compose((Blur(gaussian_kernel(0.5), "replicate"), Downsample(2, "bicubic"))),
}


@pytest.mark.parametrize("guess", [None, 0.1, 3.0])
@pytest.mark.parametrize("name", MIXING)
def test_the_mean_is_exact_through_any_operator(name: str, guess: float | None) -> None:
    """E[x0 | u, y] in every cell, where the operator mixes cells and numbers have weights of their own."""
    shape, s, operator = (2, 4, 6), 2.0, MIXING[name]
    prior = GaussianPrior.correlated(shape)
    y = operator.A(noisy_draws(prior, images=2, sigma_y=0.0))
    weight = 0.5 + 0.5 * normal(2, 1, *y.shape[-2:], seed=1).sigmoid()
    observation = LatentObservation(y + 0.2 * normal(*y.shape, seed=2), weight, operator, shape, sigma_y=0.2)
    u = s * normal(2, *shape, seed=3)
    score = None if guess is None else guess * normal(*y.shape, seed=4)
    found = estimate(prior, u, s, observation, 48, score)
    exact = exact_means(prior, u, s, observation)
    torch.testing.assert_close(found.given_y.flatten(1), exact, rtol=0, atol=1e-7)


def test_estimates_go_on_where_the_last_has_stopped() -> None:
    """Four estimates of one solver step each, every one from the score of the last."""
    (first, exact), (fourth, _) = hidden_mean(solver_steps=1, s=0.5), hidden_mean(solver_steps=1, estimates=4, s=0.5)
    error = (first - exact).abs().max()
    assert error > 0.005 and (fourth - exact).abs().max() < 0.05 * error


def test_no_score_takes_a_state_out_of_its_noise() -> None:
    prior, s = GaussianPrior.unit(SHAPE), 2.0
    observation, u = half_observed(prior), torch.zeros(1, *SHAPE, dtype=torch.float64)
    points: list[torch.Tensor] = []

    def recorded(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        points.append(u.detach())
        return prior(u, s)

    for size in (0.01, 1e6):
        estimate(recorded, u, s, observation, solver_steps=3, score=size * torch.ones_like(u))
    half = u[0].numel() / 2
    assert points[0].norm().item() == pytest.approx(0.01 * s**2 * half**0.5)
    assert points[1].norm().item() == pytest.approx(s * (2 * half) ** 0.5)


def test_the_likelihood_is_the_gaussian_s_own() -> None:
    """log p(y | u) of a correlated Gaussian up to a constant of the level, once the solver reaches everything."""
    prior = GaussianPrior.correlated((1, 3, 4))
    observation = half_observed(prior, sigma_y=0.3).rows(torch.zeros(5, dtype=torch.long))
    s = 2.0
    u = (1 + s) * torch.randn(5, 1, 3, 4, dtype=torch.float64)
    found = estimate(prior, u, s, observation, solver_steps=6).log_likelihood
    means, covariance = prior.given_state(u, s)
    observed = ~hidden(observation)
    left = covariance[observed][:, observed] + 0.09 * torch.eye(6, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(means[:, observed], left)
    exact = law.log_prob(observation.y.flatten(1)[:, observed])
    assert torch.allclose(found - found[0], exact - exact[0], atol=1e-6)


def test_cells_with_crosstalk_are_noisier_evidence() -> None:
    """With all the solver steps it takes, the mean given u and y is that of a Gaussian whose noise holds the crosstalk."""
    prior, s = GaussianPrior.correlated(SHAPE), 3.0
    latents, weight = noisy_draws(prior, sigma_y=0.2), left_half(1, SHAPE)
    variance = torch.zeros_like(weight)
    variance[..., 1] = 0.3
    observation = LatentObservation.masked(latents, weight, 0.2, crosstalk_variance=variance)
    u = s * normal(1, *SHAPE, seed=1)
    found = estimate(prior, u, s, observation.with_crosstalk_as_noise()).given_y.flatten()
    mean, left = prior.given_state(u, s)
    observed = ~hidden(observation)
    R = torch.diag(0.04 + variance[0].expand(SHAPE).flatten()[observed])  # noqa: N806
    score = torch.linalg.solve(left[observed][:, observed] + R, (latents.flatten() - mean[0])[observed])
    exact = mean[0] + left[:, observed] @ score
    assert torch.allclose(found[~observed], exact[~observed], atol=1e-6)


def test_crosstalk_is_explained_by_what_is_hidden() -> None:
    """E[x0 | u, y] of a correlated Gaussian observed through a kernel, to rounding, and not without it."""
    prior, s = GaussianPrior.correlated(SHAPE), 3.0
    latents, weight = noisy_draws(prior, sigma_y=0.2), left_half(1, SHAPE)
    plain = LatentObservation.masked(latents, weight, 0.2)
    mixed = LatentObservation.masked(latents, weight, 0.2, crosstalk=0.5 * normal(1, 2, 2, 3, 3))
    u = s * normal(1, *SHAPE, seed=1)

    def given(observation: LatentObservation) -> torch.Tensor:
        return estimate(prior, u, s, observation).given_y[0].flatten()

    exact, unobserved = exact_means(prior, u, s, mixed)[0], hidden(mixed)
    assert torch.allclose(given(mixed)[unobserved], exact[unobserved], atol=1e-7)
    assert (given(plain) - exact)[unobserved].abs().max() > 0.1


def test_cut_cells_are_evidence_of_what_they_show() -> None:
    """E[x0 | u, y] of a correlated Gaussian of which cut cells show one combination of channels, to rounding."""
    prior, s = GaussianPrior.correlated(SHAPE), 3.0
    latents, weight = noisy_draws(prior, sigma_y=0.2), left_half(1, SHAPE)
    kind = torch.zeros_like(weight, dtype=torch.uint8)
    kind[..., SHAPE[-1] // 2] = 1
    maps = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    maps[0, 0, 0] = torch.tensor([4.0, -3.0])
    plain = LatentObservation.masked(latents, weight, 0.2)
    cut = LatentObservation.masked(latents, weight, 0.2, cut=CutCells(kind, maps))
    u = s * normal(1, *SHAPE, seed=1)
    exact, unobserved = exact_means(prior, u, s, cut)[0], ~cut.operator.observed[0].expand(SHAPE).flatten()
    found = estimate(prior, u, s, cut).given_y[0].flatten()
    assert torch.allclose(found[unobserved], exact[unobserved], atol=1e-7)
    assert (estimate(prior, u, s, plain).given_y[0].flatten() - exact)[unobserved].abs().max() > 0.1
