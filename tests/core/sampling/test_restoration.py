"""Restoration against closed forms: a Gaussian prior behind a linear decoder."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import conditioned, draw_many, normal
from pictures import OPERATORS, PRIOR, SHAPE, curved, observe

from vipaint_core import PixelObservation, RestorationConfig, restoration_method, restore
from vipaint_core.diffusion.denoiser import CountingDenoiser
from vipaint_core.problem.likelihood import misfit
from vipaint_core.sampling.restoration import estimate


def unexplained(observation: PixelObservation, latents: torch.Tensor) -> torch.Tensor:
    """The misfit of every row, (N,)."""
    return misfit(observation, observation.residual(latents)).flatten()


def test_estimate_is_the_exact_mean() -> None:
    """E[x0 | u, y] of a correlated Gaussian, to rounding, when one sweep explains the residual."""
    observation, s = observe("reduced"), 2.0
    u = s * normal(1, *SHAPE, seed=9)
    config = RestorationConfig(guided_above=0.0, sweeps=1, solver_steps=24, spread_below=0.0)
    found = estimate(CountingDenoiser(PRIOR, "", 0, None), u, s, observation, torch.empty, config)
    mean, covariance = PRIOR.given_state(u, s)
    exact, _ = conditioned(mean[0], covariance, observation)
    assert torch.allclose(found.flatten(), exact, atol=1e-7)


@pytest.mark.parametrize("name", OPERATORS)
def test_restored_pictures_follow_the_posterior(name: str) -> None:
    """Mean and spread of many fills; what is observed narrows them."""
    observation = observe(name)
    config = RestorationConfig(guided_above=0.0, solver_steps=8)
    fills = draw_many(restoration_method(config), PRIOR, observation, 1024)
    mean, covariance = conditioned(PRIOR.mean, PRIOR.covariance, observation)
    deviation = covariance.diag().sqrt()
    assert ((fills.mean(0) - mean).abs() < 0.15 * deviation + 0.02).all()
    ratio = fills.std(0) / deviation
    assert 0.7 < ratio.min() and ratio.max() < 1.05


def test_hidden_pixels_do_not_matter_and_soft_ones_matter_less() -> None:
    observation = observe("all")
    other = replace(observation, y=torch.where(observation.weight > 0, observation.y, 7.0))

    def fill(observation: PixelObservation) -> torch.Tensor:
        return restore(PRIOR, observation, 3, 1).latents

    assert torch.equal(fill(observation), fill(other))
    misfits = []
    for weight in (1.0, 0.1, 0.01):
        soft = replace(observation, weight=observation.weight * weight)
        misfits.append(float(unexplained(observation, fill(soft))))
    assert misfits[0] < misfits[1] < misfits[2]


def test_a_fill_is_the_same_in_every_batch() -> None:
    observation = observe("reduced", images=2)
    every = restore(PRIOR, observation, 1, 3, batch=6).latents
    assert torch.allclose(every, restore(PRIOR, observation, 1, 3, batch=1).latents, atol=1e-8)
    later = restore(PRIOR, observation, 1, 1, first=2).latents
    assert torch.allclose(every[2::3], later, atol=1e-8)
    assert (every[0] - every[1]).abs().max() > 0.01


def test_sweeps_go_on_until_the_residual_is_noise() -> None:
    """A curved decoder asks for more than one; rows that are explained rest."""
    observation = observe("all", images=2, sigma_y=0.02, decoder=curved)
    u = 3.0 * normal(2, *SHAPE, seed=9)

    def after(sweeps: int) -> torch.Tensor:
        config = RestorationConfig(sweeps=sweeps, solver_steps=8, spread_below=0.0)
        x0 = estimate(CountingDenoiser(PRIOR, "", 0, None), u, 3.0, observation, torch.empty, config)
        return unexplained(observation, x0)

    one, many = after(1), after(8)
    assert (one > 2).all() and (many < one).all() and float(many.min()) < 1.5


def test_fills_that_do_not_explain_the_pixels_are_drawn_again() -> None:
    """By the network calls of rows: all once, those that are worse than noise again; the best attempt counts."""
    observation, called = observe("all", images=3, sigma_y=0.02, decoder=curved), []

    def prior(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        called.append(len(u))
        return PRIOR(u, s)

    def fills(attempts: int) -> tuple[torch.Tensor, torch.Tensor]:
        called.clear()
        config = RestorationConfig(steps=3, sweeps=1, solver_steps=1, attempts=attempts)
        found = restore(prior, observation, 0, 1, config=config).latents
        return found, unexplained(observation, found)

    (once, first), (again, best) = fills(1), fills(6)
    assert (first > 1).any() and (best <= first).all() and float(best.sum()) < 0.8 * float(first.sum())
    rows = called[::3]
    assert rows[0] == 3 and rows[1] == int((first > 1).sum()) and rows == sorted(rows, reverse=True)
    kept = first <= 1
    assert torch.allclose(again[kept], once[kept], atol=1e-6)


def test_evaluations_are_counted_and_levels_stay_within_the_model_s() -> None:
    heard: list[float] = []

    def prior(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        heard.append(float(s.max()))
        return PRIOR(u, s)

    config = RestorationConfig(steps=6, solver_steps=2, sweeps=1, attempts=1)
    result = restore(prior, observe("all"), 0, 2, config=config, s_max=14.6)
    assert len(heard) == 6 and heard[0] == pytest.approx(14.6) and heard[-1] == pytest.approx(0.1, rel=1e-4)
    guided, drawn = sum(s > 1 for s in heard), sum(1 < s < 4 for s in heard)
    assert result.evaluations.forward == 12 and result.evaluations.backward == 2 * (2 * guided + drawn)
