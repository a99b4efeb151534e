"""Baselines against exact Gaussian posteriors, and what all of them must keep."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from gaussian import GaussianPrior, half_seen

from vipaint_core import Observation
from vipaint_core.baselines import BASELINES, Settings, run_baseline
from vipaint_core.baselines.common import diffuse, flow_levels, product, vp_levels
from vipaint_core.baselines.dps import DPS, dps_step
from vipaint_core.baselines.repaint import RePaint
from vipaint_core.denoiser import Counted

SHAPE = (1, 2, 4)
every = pytest.mark.parametrize("name", BASELINES)
# Network calls per fill of the published settings.
PRICES = {
    "blended": 38,
    "repaint": 2410,
    "dps": 1000,
    "psld": 1000,
    "pigdm": 100,
    "red_diff": 100,
    "copaint": 750,
    "resample": 665,
    "daps": 1000,
    "ding": 55,
    "tds": 100,
    "langevin": 175,
}
# In place of the published weights, which count on many steps.
FEW_STEPS = {"psld": {"omega": 0.5}, "copaint": {"growth": 1.1}, "repaint": {"resamplings": 5}}


def quick(name: str) -> Settings:
    """The published settings with fewer steps."""
    return replace(BASELINES[name].settings(), **{"steps": 30, **FEW_STEPS.get(name, {})})


def draw(name: str, observation: Observation, fills: int = 3, seed: int = 0, **options) -> torch.Tensor:
    prior = GaussianPrior.correlated(SHAPE)
    return run_baseline(name, prior, observation, seed, fills, **{"settings": quick(name), **options}).latents


def two_images() -> Observation:
    return half_seen(GaussianPrior.correlated(SHAPE), images=2)


def test_prices_of_the_published_settings() -> None:
    assert {name: baseline.calls(baseline.settings()) for name, baseline in BASELINES.items()} == PRICES


@every
def test_evaluations_are_as_planned(name: str) -> None:
    heard = []
    settings, baseline = quick(name), BASELINES[name]
    result = run_baseline(
        name, GaussianPrior.unit(SHAPE), two_images(), 0, 3, settings=settings, batch=4, callback=heard.append
    )
    planned = baseline.planned(settings, images=2, fills=3, batch=4)
    assert [p.call for p in heard] == list(range(1, planned + 1))
    assert {(p.stage, p.calls) for p in heard} == {("sample", planned)}
    assert result.evaluations.forward == 6 * baseline.calls(settings)
    assert (result.evaluations.backward > 0) == baseline.needs_gradient


@every
def test_a_seed_decides_the_result(name: str) -> None:
    first = draw(name, two_images(), fills=8)
    assert torch.isfinite(first).all()
    assert torch.equal(first, draw(name, two_images(), fills=8))
    hidden = two_images().seen[0, 0] == 0
    assert (first - draw(name, two_images(), fills=8, seed=1))[..., hidden].abs().min() > 1e-4
    # Of particles some are equal.
    assert (first[:8].std(0)[..., hidden] > 0.02).all()


@every
def test_fills_do_not_depend_on_their_batch(name: str) -> None:
    """Particles do, and so have the batch that they need whatever is asked for."""
    together = draw(name, two_images(), batch=8)
    assert torch.allclose(together, draw(name, two_images(), batch=1), atol=1e-8)
    later = draw(name, two_images(), fills=1, first=2)
    assert torch.allclose(together[[2, 5]], later, atol=1e-8) != BASELINES[name].particles


@every
def test_hidden_cells_of_the_latent_are_never_used(name: str) -> None:
    observation = two_images()
    other = replace(observation, latent=torch.where(observation.seen > 0, observation.latent, 7.0))
    assert torch.equal(draw(name, observation), draw(name, other))


@every
def test_nothing_to_paint_returns_the_latent(name: str) -> None:
    observation = two_images()
    whole = replace(observation, seen=torch.stack([torch.ones_like(observation.seen[0]), observation.seen[1]]))
    fills = draw(name, whole, fills=2)
    assert torch.equal(fills[:2], whole.latent[:1].expand(2, -1, -1, -1))
    assert (fills[2:] - whole.latent[1]).abs().max() > 0.1
    everything = replace(observation, seen=torch.ones_like(observation.seen))
    result = run_baseline(name, GaussianPrior.unit(SHAPE), everything, 0, 2)
    assert result.evaluations.forward == 0


@every
def test_soft_masks_and_models_of_low_noise(name: str) -> None:
    """Cells of any precision in float32, from the model's own largest level."""
    generator = torch.Generator().manual_seed(0)
    latent, seen = torch.randn(2, 1, *SHAPE, generator=generator)
    heard: list[float] = []

    def denoiser(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        heard.append(float(s.max()))
        return u / (1 + s[:, None, None, None] ** 2)

    observation = Observation(latent, seen.sigmoid())
    fills = run_baseline(name, denoiser, observation, 0, 2, settings=quick(name), s_max=5.0).latents
    assert fills.dtype == torch.float32 and torch.isfinite(fills).all()
    assert fills.abs().max() < 10
    assert 2 < max(heard) < 5.0001


@pytest.mark.parametrize("name", ["blended", "repaint", "resample", "langevin"])
def test_seen_cells_are_kept_exactly(name: str) -> None:
    observation = two_images()
    seen = observation.seen[0, 0] > 0
    fills = draw(name, observation)
    assert torch.equal(fills[..., seen], observation.latent.repeat_interleave(3, 0)[..., seen])


def errors(name: str, prior: GaussianPrior, fills: int = 512) -> tuple[float, float, float, float]:
    """Largest errors of the mean in hidden and seen cells; smallest and largest ratio of deviations where hidden.

    512 fills have a standard error of 0.044 in every cell.
    """
    observation = half_seen(prior, sigma_y=0.05)
    latents = run_baseline(name, prior, observation, 1, fills, settings=quick(name), batch=fills).latents.flatten(1)
    mean, covariance = prior.posterior(observation)
    hidden = observation.seen[0].expand(SHAPE).flatten() == 0
    error, ratio = (latents.mean(0) - mean).abs(), (latents.std(0) / covariance.diag().sqrt())[hidden]
    return float(error[hidden].max()), float(error[~hidden].max()), float(ratio.min()), float(ratio.max())


@every
def test_independent_cells_follow_the_prior_where_hidden(name: str) -> None:
    """What is seen tells nothing about hidden cells here: those must be standard normal, and seen ones near y."""
    hidden, seen, narrow, wide = errors(name, GaussianPrior.unit(SHAPE))
    assert hidden < 0.15 and seen < 0.07
    # Few steps of any sampler narrow it a little; RED-diff averages over levels.
    assert (0.7 if name == "red_diff" else 0.8) < narrow <= wide < 1.1


# A sampler that ignores the observation is 0.46 off in its hidden cells.
HIDDEN_ERRORS = {
    "repaint": 0.3,
    "dps": 0.2,
    "psld": 0.2,
    "pigdm": 0.2,
    "red_diff": 0.25,
    "copaint": 0.2,
    "resample": 0.3,
    "daps": 0.3,
    "ding": 0.3,
    "tds": 0.15,
    "langevin": 0.1,
}


@pytest.mark.parametrize("name", HIDDEN_ERRORS)
def test_correlated_cells_follow_what_is_seen(name: str) -> None:
    """The mean's largest error in hidden cells, of methods that are approximate but for the last two."""
    hidden, seen, narrow, wide = errors(name, GaussianPrior.correlated(SHAPE))
    assert hidden < HIDDEN_ERRORS[name] and seen < 0.1
    assert 0.7 < narrow <= wide < 1.1


def test_twisted_particles_approach_the_exact_posterior() -> None:
    hidden, seen, narrow, wide = errors("tds", GaussianPrior.correlated(SHAPE), 2048)
    assert hidden < 0.08 and seen < 0.005 and 0.85 < narrow <= wide < 1.05


def test_repaint_repairs_mask_replacement() -> None:
    prior = GaussianPrior.correlated(SHAPE)
    assert errors("repaint", prior)[0] < errors("blended", prior)[0] - 0.05


def test_dps_moves_in_the_coordinate_of_the_paper() -> None:
    """z_next = DDIM's step in z minus scale * grad_z ||A x0(z) - y||, by hand."""
    prior, observation = GaussianPrior.correlated(SHAPE), two_images()
    s, s_next, scale = 2.0, 1.5, 0.3
    u = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = dps_step(Counted(prior, "", 0, None), u, s, s_next, observation, lambda: 0 * u, scale, eta=0.0)
    alpha, alpha_next = 1 / (1 + s**2), 1 / (1 + s_next**2)
    z = (u * alpha**0.5).requires_grad_()
    x0 = prior(z / alpha**0.5, torch.full((2,), s, dtype=torch.float64))
    residual = ((x0 - observation.latent) * observation.seen).flatten(1).norm(dim=1)
    (gradient,) = torch.autograd.grad(residual.sum(), z)
    noise = (z - alpha**0.5 * x0) / (1 - alpha) ** 0.5
    z_next = alpha_next**0.5 * x0 + (1 - alpha_next) ** 0.5 * noise - scale * gradient
    assert torch.allclose(found, (z_next / alpha_next**0.5).detach(), atol=1e-6)


def test_levels() -> None:
    """The VP schedule is that of DDPM's betas; both start at the model's largest level and end at 0."""
    remaining = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)
    ddpm = ((1 - remaining) / remaining).sqrt()
    found = torch.tensor(vp_levels(float(ddpm[599]), 600), dtype=torch.float64)
    assert torch.allclose(found[:-1], ddpm[:600].flip(0), rtol=0.06)
    for levels in (vp_levels, flow_levels):
        assert levels(math.inf, 10)[0] == pytest.approx(80) and levels(14.6, 10)[0] == pytest.approx(14.6)
        assert levels(math.inf, 10)[-1] == 0 and len(levels(math.inf, 10)) == 11
        assert all(high > low for high, low in pairwise(levels(math.inf, 10)))


def test_repaint_walks_every_stretch_again() -> None:
    steps = RePaint(steps=30, jump=10, resamplings=3).walk()
    assert steps[0] == 0 and steps[-1] == 30
    moves = [there - here for here, there in pairwise(steps)]
    assert set(moves) == {1, -10}
    assert [here for here, there in pairwise(steps) if there < here] == [19, 19, 29, 29]


def test_draws_from_conditioned_gaussians() -> None:
    """The product of two Gaussians, and a diffusion whose two halves make the whole."""
    one = torch.ones(1, dtype=torch.float64)
    mean = product(2 * one, 0.5, 5 * one, 1.0, lambda: 0 * one)
    deviation = product(2 * one, 0.5, 5 * one, 1.0, lambda: one) - mean
    assert float(mean) == pytest.approx((2 / 0.5 + 5) / 3) and float(deviation) == pytest.approx(3**-0.5)

    def moments(x: torch.Tensor, time: float) -> tuple[float, float]:
        still = diffuse(x, 4 * one, 3 * one, time, lambda: 0 * one)
        return float(still), float(diffuse(x, 4 * one, 3 * one, time, lambda: one) - still) ** 2

    half, variance = moments(one, 0.1)
    whole, total = moments(one, 0.2)
    assert moments(half * one, 0.1)[0] == pytest.approx(whole)
    assert variance * math.exp(-0.6) + variance == pytest.approx(total)
    assert moments(one, 100.0) == pytest.approx((4.0, 1 / 3))


def test_errors_name_what_is_wrong() -> None:
    prior, observation = GaussianPrior.unit(SHAPE), two_images()
    with pytest.raises(ValueError, match=r"expected one of blended, .* found 'magic'"):
        run_baseline("magic", prior, observation, 0, 1)
    with pytest.raises(ValueError, match="baseline blended: expected Blended, found DPS"):
        run_baseline("blended", prior, observation, 0, 1, settings=DPS())
    for steps in (0, 1001, math.nan):
        with pytest.raises(ValueError, match=f"steps: expected 1 to 1000, found {steps}"):
            DPS(steps=steps)
