"""Fits and fills against exact posteriors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior, half_observed
from test_bound import exact_unit

from vipaint_core import (
    PRESETS,
    Evaluations,
    FitState,
    Observation,
    Preset,
    fit,
    planned_evaluations,
    rectified_flow,
    sample,
)

SHAPE = (2, 3, 4)
# A short fit with two deep keypoints.
SHORT = replace(
    PRESETS["fast"], levels=(10.0, 30.0), steps=12, draws=2, rate=0.01, upper_evidence=0.25, refine_steps=20
)
LEVELS = {1: (0.5,), 2: (0.4, 2.0), 4: (0.3, 0.8, 2.0, 6.0)}
LONG = Preset("long", "", (1.0,), steps=400, draws=16, rate=0.05)


def moments(posterior, prior: GaussianPrior, rows: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of u_1 under the chain, by antithetic draws."""
    from vipaint_core.denoiser import Counted

    generator = torch.Generator().manual_seed(5)
    half = torch.randn(posterior.K, rows // 2, *SHAPE, generator=generator, dtype=torch.float64)
    noise = list(torch.cat([half, -half], 1))
    repeated = posterior.rows(torch.zeros(rows, dtype=torch.long))
    states = repeated.chain(Counted(prior, "fit", 0, None), noise).states[0]
    return states.mean(0), states.std(0)


@pytest.mark.parametrize("K", [1, 2, 4])
def test_fit_reaches_the_exact_posterior(K: int) -> None:  # noqa: N803
    """Independent cells: the family holds the exact posterior; mean within 0.01, deviation within 6 %."""
    prior = GaussianPrior.unit(SHAPE)
    observation = half_observed(prior, sigma_y=0.3)
    fitted = fit(prior, observation, replace(LONG, levels=LEVELS[K]), seed=0)
    mean, deviation = moments(fitted.posterior, prior)
    true_mean, true_deviation = moments(exact_unit(observation, LEVELS[K])[0], prior)
    assert (mean - true_mean).abs().max() < 0.01
    assert (deviation / true_deviation - 1).abs().max() < 0.06


def chain_posterior_mean(prior: GaussianPrior, observation: Observation, levels: tuple[float, ...]) -> torch.Tensor:
    """E[u_1 | y] of the hierarchical model (the prior's chain, then the calibrated likelihood), in matrices."""
    size = len(prior.mean)
    eye = torch.eye(size, dtype=torch.float64)
    covariance = (1 + levels[-1] ** 2) * eye
    for low, high in zip(levels[-2::-1], levels[:0:-1], strict=True):
        v = low**2 * (high**2 - low**2) / high**2
        denoise = prior.covariance @ torch.linalg.inv(prior.covariance + high**2 * eye)
        step = denoise + low**2 / high**2 * (eye - denoise)
        covariance = step @ covariance @ step.T + v * eye
    s = levels[0]
    seen = observation.seen[0].expand(prior.shape).flatten() > 0
    A = (prior.covariance @ torch.linalg.inv(prior.covariance + s**2 * eye))[seen]  # noqa: N806
    noise = (observation.sigma_y**2 + s**2 / (1 + s**2)) * torch.eye(int(seen.sum()), dtype=torch.float64)
    gain = covariance @ A.T @ torch.linalg.inv(A @ covariance @ A.T + noise)
    return gain @ observation.latent[0].flatten()[seen]


@pytest.mark.parametrize("levels", [(0.5, 30.0), (0.1, 0.4, 1.0, 3.0, 30.0)])
def test_correlated_mean_is_exact(levels: tuple[float, ...]) -> None:
    """The mean of a Gaussian fit is the exact posterior's, also where cells depend on each other: within 0.01."""
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_observed(prior, sigma_y=0.3)
    fitted = fit(prior, observation, replace(LONG, levels=levels, steps=600, rate=0.1), seed=0)
    mean, _ = moments(fitted.posterior, prior)
    assert (mean.flatten() - chain_posterior_mean(prior, observation, levels)).abs().max() < 0.01


def test_fit_improves_the_bound() -> None:
    prior = GaussianPrior.correlated(SHAPE)
    history = fit(prior, half_observed(prior), replace(SHORT, steps=40, draws=8), 0).history
    assert sum(history[-5:]) < sum(history[:5])


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["paper-2", "paper-4"])
def test_interrupted_fit_continues_to_the_same_result(name: str, tmp_path) -> None:
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_observed(prior)
    preset = replace(PRESETS[name], steps=6)
    whole = fit(prior, observation, preset, 1)
    state = FitState()

    def stop(progress) -> None:
        if progress.call == preset.fit_calls // 2 + 1:
            raise Stop

    with pytest.raises(Stop):
        fit(prior, observation, preset, 1, state=state, callback=stop)
    assert state.step == 3
    state.save(tmp_path / "state.safetensors")
    resumed = fit(prior, observation, preset, 1, state=FitState.load(tmp_path / "state.safetensors"))
    assert torch.equal(whole.posterior.mu, resumed.posterior.mu)
    assert torch.equal(whole.posterior.gamma, resumed.posterior.gamma)
    assert whole.history == resumed.history


