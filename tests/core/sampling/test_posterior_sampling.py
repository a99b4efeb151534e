"""Fills against exact posteriors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import (
    CLOSED_FORM,
    GaussianPrior,
    draw_many,
    half_observed,
    hidden,
    left_half,
    noisy_draws,
    normal,
)

from vipaint_core import (
    PRESETS,
    Evaluations,
    FitConfig,
    KeptContent,
    LatentObservation,
    Preset,
    Progress,
    ScheduleConfig,
    chain_method,
    fit,
    further_method,
    posterior_method,
    rectified_flow,
    sample,
)
from vipaint_core.problem.operators import Blur, Downsample, LinearOperator, gaussian_kernel
from vipaint_core.refiners.common import LevelStep

SHAPE = (2, 3, 4)
# A short fit with two deep keypoints.
SHORT = Preset(
    "short",
    "",
    FitConfig((10.0, 30.0), steps=2, draws=2, learning_rate=0.01, upper_evidence=0.25),
    ScheduleConfig(steps=4),
)


def hidden_errors(preset: Preset) -> tuple[float, float, float]:
    """Of 2048 fills in hidden correlated cells: largest error of the mean, smallest and largest ratio of deviations."""
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_observed(prior, sigma_y=0.05)
    fitted = fit(prior, observation, preset, 0)
    fills = draw_many(posterior_method(preset, fitted.posterior), prior, observation, 2048, seed=1)
    mean, covariance = prior.posterior(observation)
    unobserved = hidden(observation)
    error, ratio = (fills.mean(0) - mean).abs(), fills.std(0) / covariance.diag().sqrt()
    assert error[~unobserved].max() < 0.05
    return float(error[unobserved].max()), float(ratio[unobserved].min()), float(ratio[unobserved].max())


def test_fills_approach_the_exact_posterior() -> None:
    """What remains is the width of the coarse chain; a fit halves the start's error of the mean."""
    config = {"draws": 8, "learning_rate": 0.1, "upper_evidence": 0.25}
    once = CLOSED_FORM.with_changes(fit=config, schedule={"steps": 30}, sampler={"refiner": "pigdm"})
    start, *_ = hidden_errors(once)
    mean, narrowest, widest = hidden_errors(once.with_changes(fit={"steps": 100}))
    assert mean < 0.25 and mean < 0.6 * start
    assert 0.75 < narrowest and widest < 1.25


def test_resamplings_approach_the_exact_posterior() -> None:
    """Going back up and down again is Gibbs sampling: without any fit or gradient the error falls."""
    once = CLOSED_FORM.with_changes(fit={"keypoints": (30.0,)}, schedule={"steps": 60})
    first, *_ = hidden_errors(once)
    resampled = {"resamplings": 5, "resample_below": 30.0}
    mean, narrowest, widest = hidden_errors(once.with_changes(schedule=resampled))
    assert mean < 0.2 and mean < 0.5 * first
    assert 0.8 < narrowest and widest < 1.2


def test_moment_matching_approaches_the_exact_posterior() -> None:
    """Without a fit; the diagonal approximation of PiGDM is ten times as far off. Of second order fills vary enough."""
    once = CLOSED_FORM.with_changes(fit={"keypoints": (30.0,)})
    mean, *_ = hidden_errors(once.with_changes(sampler={"refiner": "moment_matching"}))
    assert mean < 0.06 and hidden_errors(once.with_changes(sampler={"refiner": "pigdm"}))[0] > 5 * mean
    mean, narrowest, _ = hidden_errors(PRESETS["balanced"])
    assert mean < 0.06 and narrowest > 0.9


def test_forward_passes_do_for_gradients() -> None:
    """The Jacobian of a Gaussian's denoiser is linear and symmetric: differences are as good, and one product a step
    that goes on from those before errs little."""
    fast = PRESETS["fast"]
    found = hidden_errors(fast)
    assert found == pytest.approx(hidden_errors(fast.with_changes(sampler={"differences": False})), rel=1e-4)
    mean, narrowest, widest = found
    assert mean < 0.15 and 0.9 < narrowest and widest < 1.1
    alone, *_ = hidden_errors(CLOSED_FORM)
    assert alone > 2 * mean


@pytest.mark.parametrize(
    ("operator", "shape", "rows"),
    [(Downsample(2, "area"), (2, 4, 4), 1024), (Blur(gaussian_kernel(0.7), "circular"), (1, 3, 4), 512)],
    ids=["reduced", "blurred"],
)
def test_fills_through_an_operator_follow_the_exact_posterior(
    operator: LinearOperator, shape: tuple[int, int, int], rows: int
) -> None:
    """Mean and covariance of latents that mix before they are observed, within five standard errors of the fills'."""
    prior = GaussianPrior.correlated(shape)
    y = operator.A(noisy_draws(prior, sigma_y=0.0))
    y = y + 0.2 * normal(*y.shape, seed=3)
    observation = LatentObservation(y, torch.ones(1, 1, *y.shape[-2:]).double(), operator, shape, sigma_y=0.2)
    preset = PRESETS["balanced"].with_changes(fit={"rank": 12}, schedule={"steps": 22}, sampler={"solver_steps": 12})
    fills = sample(prior, fit(prior, observation, preset, 0), 1, rows, batch=rows).latents.flatten(1)
    mean, covariance = prior.posterior(observation)
    variance = covariance.diag()
    assert ((fills.mean(0) - mean).abs() < 5 * (variance / rows).sqrt()).all()
    error = ((variance[:, None] * variance + covariance.square()) / rows).sqrt()
    assert ((torch.cov(fills.T) - covariance).abs() < 5 * error).all()
    # What is observed counts: the prior is farther from it than that.
    assert (covariance - prior.covariance).abs().max() > 10 * error.max()


@pytest.mark.parametrize("level", [0.5, 2.0])
def test_fills_that_keep_content_follow_the_exact_law(level: float) -> None:
    """Content seen through noise of its level is an observation of the hidden cells, averaged over that noise."""
    prior, rows = GaussianPrior.correlated(SHAPE), 2048
    observation, content = half_observed(prior, sigma_y=0.05), 1.5 * normal(1, *SHAPE, seed=4)
    preset = PRESETS["balanced"].with_changes(
        schedule={"steps": 22, "guided_above": 0.05}, sampler={"solver_steps": 12}
    )
    fitted = fit(prior, observation, preset, 0, content=KeptContent(content, level))
    fills = draw_many(posterior_method(fitted.preset, fitted.posterior), prior, observation, rows, seed=1)
    mean, covariance = prior.posterior(observation)
    unobserved = hidden(observation)
    inner = covariance[unobserved][:, unobserved] + level**2 * torch.eye(int(unobserved.sum())).double()
    gain = torch.linalg.solve(inner, covariance[unobserved]).T
    expected = mean + gain @ (content.flatten()[unobserved] - mean[unobserved])
    variance = (covariance - gain @ covariance[unobserved] + level**2 * gain @ gain.T).diag()
    assert (expected - mean).abs().max() > 0.3
    assert (fills.mean(0) - expected).abs().max() < 0.12
    assert (fills.std(0) / variance.sqrt() - 1)[unobserved].abs().max() < 0.15


def test_what_is_visible_wins_over_a_prompt() -> None:
    """Classifier-free guidance moves the prior's mean, w times as far as the prompt does: fills are its posterior."""
    unprompted = GaussianPrior.correlated(SHAPE)
    prompted = replace(unprompted, mean=unprompted.mean + 0.4)
    observation, preset, moved = half_observed(unprompted, sigma_y=0.02), PRESETS["balanced"], []
    for cfg in (1.0, 8.0):

        def guided(u: torch.Tensor, s: torch.Tensor, cfg: float = cfg) -> torch.Tensor:
            return unprompted(u, s) + cfg * (prompted(u, s) - unprompted(u, s))

        # One noise for both.
        fills = sample(guided, fit(guided, observation, preset, 0), 1, 64, batch=64).latents.flatten(1)
        exact = replace(unprompted, mean=unprompted.mean + 0.4 * cfg).posterior(observation)[0]
        assert (fills.mean(0) - exact).abs().mean() < 0.15
        moved.append(fills.mean(0))
    change, unobserved = (moved[1] - moved[0]).abs(), hidden(observation)
    assert change[~unobserved].max() < 0.02
    # In the hole a prompt counts, the less the nearer to what is visible.
    near, far = (change.reshape(SHAPE)[..., column].mean() for column in (SHAPE[2] // 2, SHAPE[2] - 1))
    assert 0.3 < near < far


def test_nothing_observed_samples_the_prior() -> None:
    prior = GaussianPrior.correlated(SHAPE)
    nothing = torch.zeros(1, 1, *SHAPE[1:], dtype=torch.float64)
    observation = LatentObservation.masked(torch.zeros(1, *SHAPE, dtype=torch.float64), nothing)
    # Many keypoints: the ancestral chain is exact in the limit of small steps.
    keypoints = tuple(0.1 * 300 ** (i / 159) for i in range(160))
    preset = CLOSED_FORM.with_changes(fit={"keypoints": keypoints}, schedule={"steps": 40})
    fitted = fit(prior, observation, preset, 0)
    fills = draw_many(posterior_method(preset, fitted.posterior), prior, observation, 2000)
    assert fills.mean(0).abs().max() < 0.12
    assert (torch.cov(fills.T) - prior.covariance).abs().max() < 0.15


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

    observation = half_observed(prior)
    preset = SHORT.with_changes(fit={"steps": 5}, schedule={"steps": 5})
    results = [sample(d, fit(d, observation, preset, 3), 4, 2).latents for d in (prior, adapter)]
    assert torch.allclose(*results, atol=1e-6)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_deterministic_and_counted(name: str) -> None:
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_observed(prior, images=2)
    preset = PRESETS[name]
    preset = preset.with_changes(fit={"steps": min(preset.fit.steps, 3)}, schedule={"steps": 4})
    heard: list[Progress] = []
    first = fit(prior, observation, preset, 7, callback=heard.append)
    again = fit(prior, observation, preset, 7)
    assert torch.equal(first.posterior.mu, again.posterior.mu)
    fills = sample(prior, first, 8, 3, callback=heard.append)
    assert torch.equal(fills.latents, sample(prior, again, 8, 3).latents)
    assert not torch.equal(fills.latents, sample(prior, again, 9, 3).latents)
    assert torch.isfinite(fills.latents).all()
    method, further = posterior_method(preset, first.posterior), further_method(first)
    planned = method.calls + 2 * chain_method(first, 1).calls if preset.chains else 0
    assert {p.calls for p in heard if p.stage == "chains"} == {planned} - {0}
    assert {p.calls for p in heard if p.stage == "sample"} == {further.calls}
    assert len(heard) == preset.fit.calls + planned + further.calls
    rows = 2 * preset.fit.draws * preset.fit.calls
    assert first.evaluations == Evaluations(rows, rows)

    def passes(steps: list[LevelStep]) -> Evaluations:
        forward, backward = len(preset.fit.keypoints) - 1, 0
        for step in steps:
            products = {"closed_form": 0, "dps": 1, "moment_matching": step.solver_steps}[step.refiner]
            forward += 1 + products * step.differences
            backward += products * (not step.differences)
        return Evaluations(2 * forward, 2 * backward)

    lowest = preset.fit.keypoints[0]
    alone, chain, last = map(
        passes, (preset.descent(lowest), preset.chain_descent(lowest, 1), preset.further_descent(lowest))
    )
    # Three chains, with a seed of their own, and three fills of their findings; or three fills alone.
    expected = [alone, *2 * [chain], *3 * [last]] if preset.chains else 3 * [alone]
    assert fills.evaluations == sum(expected, Evaluations())
    assert method.needs_gradient == (alone.backward > 0)


@pytest.mark.parametrize("name", ["balanced", "fast"])
def test_crosstalk_counts_as_noise(name: str) -> None:
    """Its variance is added to the noise of the observed cells before anything is drawn."""
    prior, weight = GaussianPrior.correlated(SHAPE), left_half(1, SHAPE)
    latents, variance = noisy_draws(prior), 0.3 * normal(1, 1, *SHAPE[1:]).square()
    observation = LatentObservation.masked(latents, weight, 0.1, 0.1 * normal(1, 2, 2, 3, 3), variance)
    fitted = fit(prior, observation, PRESETS[name], 0)
    fills = sample(prior, fitted, 0, 2).latents
    noisier = replace(fitted, observation=observation.with_crosstalk_as_noise())
    assert torch.equal(fills, sample(prior, noisier, 0, 2).latents)
    ignored = replace(fitted, observation=replace(observation, crosstalk_variance=None))
    assert (fills - sample(prior, ignored, 0, 2).latents).abs().max() > 0.01


def test_odd_sizes() -> None:
    unit = lambda u, s: u / (1 + s.reshape(-1, 1, 1, 1) ** 2)  # noqa: E731
    weight = (torch.rand(3, 1, 37, 31, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    observation = LatentObservation.masked(torch.randn(3, 4, 37, 31), weight, 0.01)
    fills = sample(unit, fit(unit, observation, SHORT, 0), 0, 2).latents
    assert fills.shape == (6, 4, 37, 31)
    errors = (fills - observation.y.repeat_interleave(2, 0)).abs() * weight.repeat_interleave(2, 0)
    assert errors.max() < 0.05
