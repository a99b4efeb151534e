"""Posteriors given a fill: evidence from a part of it, and draws around it."""

from __future__ import annotations

import pytest
import torch
from gaussian import GaussianPrior, draw_many, half_observed, hidden, normal

from vipaint_core import (
    PRESETS,
    FitConfig,
    FittedPosterior,
    HierarchicalPosterior,
    KeptContent,
    Preset,
    ScheduleConfig,
    around,
    fit,
    given_cells,
    posterior_method,
    sample,
)

SHAPE = (2, 3, 4)
PRIOR = GaussianPrior.correlated(SHAPE)
FINE = PRESETS["balanced"].with_changes(schedule={"steps": 22, "guided_above": 0.05}, sampler={"solver_steps": 12})
FITTED = Preset("fitted", "", FitConfig((1.0, 4.0, 20.0), steps=3, draws=2), ScheduleConfig(steps=3))


def draws(fitted: FittedPosterior, count: int) -> torch.Tensor:
    method = posterior_method(fitted.preset, fitted.posterior)
    return draw_many(method, PRIOR, fitted.observation, count, seed=1)


def column(number: int) -> torch.Tensor:
    weight = torch.zeros(1, 1, *SHAPE[1:]).double()
    weight[..., number] = 1
    return weight


def test_fills_that_keep_a_part_follow_the_exact_conditional() -> None:
    observation = half_observed(PRIOR, sigma_y=0.05)
    fill = 1.5 * normal(1, *SHAPE, seed=4)
    kept = given_cells(fit(PRIOR, observation, FINE, 0), fill, column(2))
    fills = draws(kept, 2048)
    mean, covariance = PRIOR.posterior(kept.observation)
    rest = hidden(kept.observation)
    assert rest.sum() == 6 and (mean - PRIOR.posterior(observation)[0])[rest].abs().max() > 0.3
    assert (fills.mean(0) - mean).abs().max() < 0.1
    assert (fills.std(0) / covariance.diag().sqrt() - 1)[rest].abs().max() < 0.15
    assert (fills.reshape(-1, *SHAPE) - fill)[..., 2].std() < 0.1


@pytest.mark.parametrize("level", [0.7, 2.0])
def test_variations_of_exact_fills_are_exact_fills(level: float) -> None:
    """Up by the prior's noise and down by the posterior: mean and covariance stay, and each keeps what noise leaves."""
    observation = half_observed(PRIOR, sigma_y=0.05)
    fitted, (mean, covariance) = fit(PRIOR, observation, FINE, 0), PRIOR.posterior(observation)
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(len(mean)).double())
    start = mean + normal(2048, len(mean), seed=2) @ root.T
    many = fitted.rows(torch.zeros(len(start), dtype=torch.long))
    begun = around(many, KeptContent(start.reshape(-1, *SHAPE), level))
    assert begun.posterior.levels == (level,) and begun.preset.schedule.resamplings == 1
    found = sample(PRIOR, begun, 3, 1, batch=len(start)).latents.flatten(1)
    unobserved = hidden(observation)
    assert (found.mean(0) - mean)[unobserved].abs().max() < 0.1
    assert (found.std(0) / covariance.diag().sqrt() - 1)[unobserved].abs().max() < 0.12
    apart = (torch.cov(found.T) - covariance)[unobserved][:, unobserved].abs().max()
    # Of an exact conditional x0' given u = x0 + s n the correlation with x0 is that of both with u.
    inner = covariance[unobserved][:, unobserved]
    expected = inner @ torch.linalg.solve(inner + level**2 * torch.eye(len(inner)).double(), inner)
    cross = (start - start.mean(0))[:, unobserved].T @ (found - found.mean(0))[:, unobserved] / len(start)
    assert apart < 0.15 and (cross - expected).abs().max() < 0.15


def test_a_fit_is_kept_where_nothing_was_added() -> None:
    """Of a posterior that was fitted by gradient steps: kept cells get the analytic start, all others stay."""
    fitted = fit(PRIOR, half_observed(PRIOR, images=2), FITTED, 0)
    fill, weight = normal(2, *SHAPE, seed=4), column(3).expand(2, -1, -1, -1)
    kept = given_cells(fitted, fill, weight)
    start = HierarchicalPosterior.initial(kept.observation, fitted.posterior.levels, fitted.posterior.eta)
    for name in ("mu", "log_tau", "gamma"):
        found, old, new = (getattr(case, name) for case in (kept.posterior, fitted.posterior, start))
        assert torch.equal(found[..., :3], old[..., :3]) and torch.equal(found[..., 3], new[..., 3])
    # A cell that is kept again stays as it is.
    again = given_cells(kept, fill + 1, weight)
    assert torch.equal(again.posterior.mu, kept.posterior.mu) and torch.equal(again.observation.y, kept.observation.y)


def test_lower_keypoints_of_a_fit_are_kept_around_a_fill() -> None:
    fitted = fit(PRIOR, half_observed(PRIOR), FITTED, 0)
    fill = normal(1, *SHAPE, seed=4)
    begun = around(fitted, KeptContent(fill, 6.0)).posterior
    assert begun.levels == (1.0, 4.0, 6.0)
    for name in ("mu", "log_tau", "gamma"):
        assert torch.equal(getattr(begun, name)[:2], getattr(fitted.posterior, name)[:2])
    assert torch.equal(begun.mu[2, 0, :, :, 2:], fill[0, :, :, 2:])
    assert around(fitted, KeptContent(fill, 20.0)) is fitted


def test_both_keep_a_part_and_vary_the_rest() -> None:
    fitted = fit(PRIOR, half_observed(PRIOR), FINE, 0)
    fill = 1.5 * normal(1, *SHAPE, seed=4)
    kept = given_cells(fitted, fill, column(2))
    fills = draws(around(kept, KeptContent(fill, 0.3)), 64)
    assert (fills.reshape(-1, *SHAPE) - fill)[..., 2].abs().max() < 0.3
    near, far = (
        float((draws(around(kept, KeptContent(fill, level)), 64).reshape(-1, *SHAPE) - fill)[..., 3].abs().mean())
        for level in (0.1, 5.0)
    )
    assert near < 0.2 < far


def test_rows_of_a_fitted_posterior() -> None:
    fitted = fit(PRIOR, half_observed(PRIOR, images=2), FITTED, 0)
    rows = fitted.rows(torch.tensor([1, 1, 0]))
    assert torch.equal(rows.posterior.mu[:, 0], fitted.posterior.mu[:, 1])
    assert torch.equal(rows.observation.y, fitted.observation.y[[1, 1, 0]])
