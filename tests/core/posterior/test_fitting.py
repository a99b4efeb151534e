"""Fits against exact posteriors."""

from __future__ import annotations

import copy

import pytest
import torch
from gaussian import GaussianPrior, exact_unit, half_observed, matrices, noisy_draws, normal

from vipaint_core import (
    PRESETS,
    FitConfig,
    FitState,
    HierarchicalPosterior,
    KeptContent,
    LatentObservation,
    Preset,
    Progress,
    fit,
    initial_posterior,
)
from vipaint_core.diffusion.denoiser import CountingDenoiser
from vipaint_core.problem.operators import Downsample

SHAPE = (2, 3, 4)
LEVELS = {1: (0.5,), 2: (0.4, 2.0), 4: (0.3, 0.8, 2.0, 6.0)}
LONG = Preset("long", "", FitConfig((1.0,), steps=400, draws=16, learning_rate=0.05))


def moments(
    posterior: HierarchicalPosterior, prior: GaussianPrior, rows: int = 4000
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of u_1 under the chain, by antithetic draws."""
    generator = torch.Generator().manual_seed(5)
    half = torch.randn(posterior.K, rows // 2, *prior.shape, generator=generator, dtype=torch.float64)
    noise = list(torch.cat([half, -half], 1))
    repeated = posterior.rows(torch.zeros(rows, dtype=torch.long))
    states = repeated.chain(CountingDenoiser(prior, "fit", 0, None), noise).states[0]
    return states.mean(0), states.std(0)


@pytest.mark.parametrize("K", [1, 2, 4])
def test_fit_reaches_the_exact_posterior(K: int) -> None:  # noqa: N803
    """Independent cells: the family holds the exact posterior; mean within 0.01, deviation within 6 %."""
    prior = GaussianPrior.unit(SHAPE)
    observation = half_observed(prior, sigma_y=0.3)
    fitted = fit(prior, observation, LONG.with_changes(fit={"keypoints": LEVELS[K]}), seed=0)
    mean, deviation = moments(fitted.posterior, prior)
    true_mean, true_deviation = moments(exact_unit(observation, LEVELS[K])[0], prior)
    assert (mean - true_mean).abs().max() < 0.01
    assert (deviation / true_deviation - 1).abs().max() < 0.06


def chain_posterior_mean(
    prior: GaussianPrior, observation: LatentObservation, levels: tuple[float, ...]
) -> torch.Tensor:
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
    operator, y, variance = matrices(observation)
    A = operator @ prior.covariance @ torch.linalg.inv(prior.covariance + s**2 * eye)  # noqa: N806
    noise = variance.diag() + s**2 / (1 + s**2) * operator @ operator.T
    return covariance @ A.T @ torch.linalg.solve(A @ covariance @ A.T + noise, y)


@pytest.mark.parametrize("levels", [(0.5, 30.0), (0.1, 0.4, 1.0, 3.0, 30.0)])
def test_correlated_mean_is_exact(levels: tuple[float, ...]) -> None:
    """The mean of a Gaussian fit is the exact posterior's, also where cells depend on each other: within 0.01."""
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_observed(prior, sigma_y=0.3)
    # Antithetic draws leave the mean no noise: few will do.
    changes = {"keypoints": levels, "steps": 300, "draws": 4, "learning_rate": 0.1}
    fitted = fit(prior, observation, LONG.with_changes(fit=changes), seed=0)
    mean, _ = moments(fitted.posterior, prior)
    assert (mean.flatten() - chain_posterior_mean(prior, observation, levels)).abs().max() < 0.01


def test_correlated_mean_is_exact_through_an_operator() -> None:
    """As above, of latents that are observed at half the size."""
    shape, levels, operator = (1, 4, 4), (0.5, 30.0), Downsample(2, "bicubic")
    prior = GaussianPrior.correlated(shape)
    y = operator.A(noisy_draws(prior))
    observation = LatentObservation(y, torch.ones(1, 1, 2, 2).double(), operator, shape, sigma_y=0.3)
    changes = {"keypoints": levels, "steps": 100, "draws": 4, "learning_rate": 0.1}
    fitted = fit(prior, observation, LONG.with_changes(fit=changes), seed=0)
    mean, _ = moments(fitted.posterior, prior)
    assert (mean.flatten() - chain_posterior_mean(prior, observation, levels)).abs().max() < 0.01


def test_fit_improves_the_bound() -> None:
    prior = GaussianPrior.correlated(SHAPE)
    config = FitConfig((10.0, 30.0), steps=40, draws=8, learning_rate=0.01, upper_evidence=0.25)
    history = fit(prior, half_observed(prior), Preset("short", "", config), 0).history
    assert sum(history[-5:]) < sum(history[:5])


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["paper-2", "paper-4"])
def test_interrupted_fit_continues_to_the_same_result(name: str) -> None:
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_observed(prior)
    preset = PRESETS[name].with_changes(fit={"steps": 6})
    heard: list[Progress] = []
    whole = fit(prior, observation, preset, 1, callback=heard.append)
    state = FitState()

    def stop(progress: Progress) -> None:
        if progress.call == preset.fit.calls // 2 + 1:
            raise Stop

    with pytest.raises(Stop):
        fit(prior, observation, preset, 1, state=state, callback=stop)
    assert state.step == 3
    copied, later = copy.deepcopy(state), []
    for unfinished in (state, copied):
        later.clear()
        resumed = fit(prior, observation, preset, 1, state=unfinished, callback=later.append)
        for part in ("mu", "log_tau", "gamma"):
            assert torch.equal(getattr(whole.posterior, part), getattr(resumed.posterior, part))
        assert whole.history == resumed.history and whole.evaluations == resumed.evaluations
        assert [p.call for p in later] == [p.call for p in heard[preset.fit.calls // 2 :]]
        assert later[-1].calls == heard[-1].calls == preset.fit.calls and later[-1].bound == heard[-1].bound


@pytest.mark.parametrize(
    ("level", "s_max", "expected"),
    [
        (2.0, torch.inf, (0.3, 0.8, 2.0)),
        (1.0, torch.inf, (0.3, 0.8, 1.0)),
        (0.1, torch.inf, (0.1,)),
        # Published presets start low: the content's level is added above them.
        (40.0, torch.inf, (0.3, 0.8, 2.0, 6.0, 40.0)),
        (40.0, 14.6, (0.3, 0.8, 2.0, 6.0, 14.6)),
    ],
)
def test_content_is_kept_from_its_own_level(level: float, s_max: float, expected: tuple[float, ...]) -> None:
    observation = half_observed(GaussianPrior.unit(SHAPE))
    content, preset = KeptContent(normal(1, *SHAPE, seed=4), level), Preset("", "", FitConfig(LEVELS[4]))
    assert initial_posterior(observation, preset, s_max, content).levels == expected


def test_a_fit_leaves_content_as_it_was_given() -> None:
    """Its keypoint is no guess; those below follow it and the observation."""
    prior, content = GaussianPrior.correlated(SHAPE), KeptContent(normal(1, *SHAPE, seed=4), 1.5)
    observation, preset = half_observed(prior), PRESETS["paper-2"].with_changes(fit={"steps": 6})
    heard: list[Progress] = []
    fitted = fit(prior, observation, preset, 0, content=content, callback=heard.append).posterior
    start = initial_posterior(observation, preset, content=content)
    assert fitted.levels == (1.0, 1.5) and torch.equal(fitted.mu[1], start.mu[1])
    assert torch.equal(fitted.log_tau[1], start.log_tau[1])
    assert (fitted.mu[0] - start.mu[0]).abs().max() > 0.01
    assert heard[-1].call == heard[-1].calls == 6 * 3


def test_nothing_forgets_content() -> None:
    """New noise of resamplings, and weights of particles, would."""
    prior, content = GaussianPrior.unit(SHAPE), KeptContent(normal(1, *SHAPE), 1.0)
    for preset in (PRESETS["thorough"], PRESETS["balanced"].with_changes(sampler={"smc": True})):
        found = fit(prior, half_observed(prior), preset, 0, content=content).preset
        assert not any(step.renew for step in found.descent(1.0)) and not found.sampler.smc
        assert fit(prior, half_observed(prior), preset, 0).preset == preset
