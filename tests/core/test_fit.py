"""Fits and fills against exact posteriors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior, half_seen
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
    observation = half_seen(prior, sigma_y=0.3)
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
    observation = half_seen(prior, sigma_y=0.3)
    fitted = fit(prior, observation, replace(LONG, levels=levels, steps=600, rate=0.1), seed=0)
    mean, _ = moments(fitted.posterior, prior)
    assert (mean.flatten() - chain_posterior_mean(prior, observation, levels)).abs().max() < 0.01


def hidden_errors(preset: Preset) -> tuple[float, float]:
    """Largest error of 2048 fills' mean, and of their deviation as a ratio, over hidden correlated cells."""
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_seen(prior, sigma_y=0.05)
    fills = sample(prior, fit(prior, observation, preset, 0), 1, 2048, batch=512).latents.flatten(1)
    mean, covariance = prior.posterior(observation)
    hidden = observation.seen[0].expand(SHAPE).flatten() == 0
    assert (fills.mean(0) - mean)[~hidden].abs().max() < 0.05
    ratio = fills.std(0) / covariance.diag().sqrt()
    return float((fills.mean(0) - mean)[hidden].abs().max()), float((ratio - 1)[hidden].abs().max())


def test_fills_approach_the_exact_posterior() -> None:
    """What remains is the width of the coarse chain; a fit halves the start's error of the mean."""
    once = replace(SHORT, levels=PRESETS["fast"].levels, draws=8, rate=0.1, refiner="pigdm", refine_steps=30)
    start, _ = hidden_errors(replace(once, steps=0))
    mean, deviation = hidden_errors(replace(once, steps=100))
    assert mean < 0.25 and mean < 0.6 * start
    assert deviation < 0.25


def test_rounds_approach_the_exact_posterior() -> None:
    """Going back up and down again is Gibbs sampling: without any fit or gradient the error falls."""
    once = replace(PRESETS["fast"], levels=(30.0,), refine_steps=60)
    first, _ = hidden_errors(once)
    mean, deviation = hidden_errors(replace(once, rounds=5, late=30.0))
    assert mean < 0.2 and mean < 0.5 * first
    assert deviation < 0.2


def test_flow_and_variance_exploding_agree() -> None:
    prior = GaussianPrior.correlated(SHAPE)
    coordinate = rectified_flow()

    def flow_model(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """A flow network: predicts the velocity eps - x0 at (z, sigma)."""
        u, s = coordinate.from_host(z, sigma)
        x0 = prior(u, s)
        return (z - x0) / sigma.reshape(-1, 1, 1, 1)

    def adapter(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        z, sigma = coordinate.to_host(u, s)
        return z - sigma.reshape(-1, 1, 1, 1) * flow_model(z, sigma)

    observation = half_seen(prior)
    preset = replace(SHORT, steps=5, refine_steps=5)
    results = [sample(d, fit(d, observation, preset, 3), 4, 2).latents for d in (prior, adapter)]
    assert torch.allclose(*results, atol=1e-6)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_deterministic_and_counted(name: str) -> None:
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_seen(prior, images=2)
    preset = replace(PRESETS[name], steps=min(PRESETS[name].steps, 3), refine_steps=4)
    heard = []
    first = fit(prior, observation, preset, 7, callback=heard.append)
    again = fit(prior, observation, preset, 7)
    assert torch.equal(first.posterior.mu, again.posterior.mu)
    fills = sample(prior, first, 8, 3, callback=heard.append)
    assert torch.equal(fills.latents, sample(prior, again, 8, 3).latents)
    assert not torch.equal(fills.latents, sample(prior, again, 9, 3).latents)
    assert torch.isfinite(fills.latents).all()
    assert len(heard) == planned_evaluations(preset, 2, 3)
    rows = 2 * preset.draws * preset.fit_calls
    assert first.evaluations == Evaluations(rows, rows)
    forward, backward = len(preset.levels) - 1, 0
    for s in preset.descent(preset.levels[0])[:-1]:
        turns = preset.rounds if preset.guided_above < s <= preset.late else 1
        products = {
            "closed_form": 0,
            "dps": 1,
            "moment_matching": math.ceil(preset.solver_steps / turns),
        }
        forward, backward = forward + turns, backward + turns * products[preset.step(s)]
    assert fills.evaluations == Evaluations(6 * forward, 6 * backward)


def test_fit_improves_the_bound() -> None:
    prior = GaussianPrior.correlated(SHAPE)
    history = fit(prior, half_seen(prior), replace(SHORT, steps=40, draws=8), 0).history
    assert sum(history[-5:]) < sum(history[:5])


def test_fills_do_not_depend_on_company() -> None:
    """More fills, later fills and other batch sizes give the same fill for the same number."""
    prior = GaussianPrior.correlated(SHAPE)
    fitted = fit(prior, half_seen(prior, images=2), replace(SHORT, steps=2, refine_steps=4), 0)
    many = sample(prior, fitted, 5, 6).latents.reshape(2, 6, *SHAPE)
    few = sample(prior, fitted, 5, 2, batch=3).latents.reshape(2, 2, *SHAPE)
    later = sample(prior, fitted, 5, 2, first=4).latents.reshape(2, 2, *SHAPE)
    assert torch.allclose(many[:, :2], few, atol=1e-9)
    assert torch.allclose(many[:, 4:], later, atol=1e-9)
    assert not torch.allclose(many[:, 0], many[:, 1])


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["paper-2", "paper-4"])
def test_interrupted_fit_continues_to_the_same_result(name: str, tmp_path) -> None:
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_seen(prior)
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


def test_odd_sizes() -> None:
    unit = lambda u, s: u / (1 + s.reshape(-1, 1, 1, 1) ** 2)  # noqa: E731
    seen = (torch.rand(3, 1, 37, 31, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    observation = Observation(torch.randn(3, 4, 37, 31), seen, 0.01)
    fitted = fit(unit, observation, replace(SHORT, steps=2, refine_steps=4), 0)
    fills = sample(unit, fitted, 0, 2).latents
    assert fills.shape == (6, 4, 37, 31)
    errors = (fills - observation.latent.repeat_interleave(2, 0)).abs() * seen.repeat_interleave(2, 0)
    assert errors.max() < 0.05


def test_nothing_hidden_returns_the_input_without_a_call() -> None:
    def forbidden(u, s):
        raise AssertionError("the network was called")

    latent = torch.randn(2, 3, 5, 5)
    observation = Observation(latent, torch.ones(2, 1, 5, 5))
    assert observation.nothing_to_paint.all()
    fitted = fit(forbidden, observation, PRESETS["fast"], 0)
    assert torch.equal(sample(forbidden, fitted, 0, 2).latents, latent.repeat_interleave(2, 0))


def test_nothing_seen_samples_the_prior() -> None:
    prior = GaussianPrior.correlated(SHAPE)
    observation = Observation(torch.zeros(1, *SHAPE).double(), torch.zeros(1, 1, *SHAPE[1:]).double())
    # Many keypoints: the ancestral chain is exact in the limit of small steps.
    levels = tuple(0.1 * 300 ** (i / 159) for i in range(160))
    preset = replace(PRESETS["fast"], refine_steps=40, levels=levels)
    fills = sample(prior, fit(prior, observation, preset, 0), 0, 2000, batch=2000).latents.flatten(1)
    assert fills.mean(0).abs().max() < 0.12
    assert (torch.cov(fills.T) - prior.covariance).abs().max() < 0.15
