"""Particles against posteriors whose modes have exactly known weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior, half_seen

from benchmarks.mixture import Mixture
from vipaint_core import PRESETS, Observation, fit, sample
from vipaint_core.denoiser import Counted
from vipaint_core.particles import systematic, walk
from vipaint_core.refine import moment_matching

EXACT = replace(PRESETS["fast"], levels=(30.0,), refiner="moment_matching", particles=True, refine_steps=60)


def test_systematic_keeps_each_particle_in_proportion() -> None:
    weight = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    for uniform in torch.linspace(0.01, 0.99, 7, dtype=torch.float64):
        counts = torch.bincount(systematic(weight.repeat(2) / 2, uniform), minlength=8)
        assert counts.sum() == 8
        assert ((counts - 8 * weight.repeat(2) / 2).abs() < 1).all()


def test_evidence_is_the_gaussian_s_own() -> None:
    """log p(y | u) of a correlated Gaussian up to a constant of the level, once the solver reaches everything."""
    prior = GaussianPrior.correlated((1, 3, 4))
    observation = half_seen(prior, sigma_y=0.3).rows(torch.zeros(5, dtype=torch.long))
    s = 2.0
    u = (1 + s) * torch.randn(5, 1, 3, 4, dtype=torch.float64)
    preset = replace(EXACT, solver_steps=6)
    found = moment_matching(Counted(prior, "", 0, None), u, s, observation, preset).log_likelihood
    eye = torch.eye(12, dtype=torch.float64)
    gain = prior.covariance @ torch.linalg.inv(prior.covariance + s**2 * eye)
    seen = observation.seen[0].flatten() > 0
    left = (prior.covariance - gain @ prior.covariance)[seen][:, seen] + 0.09 * torch.eye(6, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal((u.flatten(1) @ gain.T)[:, seen], left)
    exact = law.log_prob(observation.latent.flatten(1)[:, seen])
    assert torch.allclose(found - found[0], exact - exact[0], atol=1e-6)


def test_particles_weigh_modes_exactly() -> None:
    """Six unequal modes whose hidden parts differ; what is seen favours some of them."""
    generator = torch.Generator().manual_seed(2)
    means = 1.2 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    prior = Mixture(torch.randn(6, generator=generator, dtype=torch.float64), means, torch.full((6,), 0.02).double())
    seen = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64).reshape(1, 1, 1, 6)
    observation = Observation(prior.draw(1, generator).reshape(1, 1, 1, 6) * seen, seen, sigma_y=0.5)
    exact = prior.given(observation)

    def error(preset) -> float:
        drawn = sample(prior, fit(prior, observation, preset, 0), 1, 2000, batch=2000).latents.flatten(1)
        nearest = torch.cdist(drawn, exact.means).argmin(1)
        share = torch.bincount(nearest, minlength=6) / len(drawn)
        return float((share - exact.logits.softmax(0)).abs().sum() / 2)

    assert error(EXACT) < 0.05
    assert error(replace(EXACT, particles=False, refiner="closed_form")) > 0.15


def test_particles_of_several_pictures_stay_apart() -> None:
    """Each picture's particles compete among themselves; a picture without a hole is returned."""
    prior = GaussianPrior.unit((1, 1, 4))
    latent = torch.randn(3, 1, 1, 4, dtype=torch.float64)
    seen = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]], dtype=torch.float64).reshape(3, 1, 1, 4)
    observation = Observation(latent, seen, 0.3)
    drawn = sample(prior, fit(prior, observation, EXACT, 0), 0, 64).latents.reshape(3, 64, 4)
    assert torch.equal(drawn[1], latent[1].flatten().expand(64, 4))
    for image in (0, 2):
        shown = seen[image].flatten() > 0
        # The exact means and deviations are y / 1.09 in seen cells, 0 and 1 in hidden ones.
        expected = latent[image].flatten()[shown] / 1.09
        assert (drawn[image][:, shown].mean(0) - expected).abs().max() < 0.2
        assert drawn[image][:, ~shown].mean(0).abs().max() < 0.5
        assert drawn[image][:, ~shown].std(0).min() > 0.6


def test_copies_part_where_nothing_is_weighed() -> None:
    """Below `guided_above` particles take plain steps without gradients, whose noise tells copies apart."""
    prior = GaussianPrior.correlated((1, 3, 4))
    observation = half_seen(prior, sigma_y=0.1).rows(torch.zeros(1, dtype=torch.long))

    def drawn(preset):
        result = sample(prior, fit(prior, observation, preset, 0), 1, 50)
        return len(result.latents.unique(dim=0)), result.evaluations

    copies, _ = drawn(EXACT)
    preset = replace(EXACT, guided_above=0.3, second_order=True, late=30.0)
    different, evaluations = drawn(preset)
    levels = preset.descent(30.0)[:-1]
    weighed = sum(s > 0.3 for s in levels)
    assert copies < different == 50
    assert evaluations.forward == 50 * len(levels)
    assert evaluations.backward == 50 * weighed * preset.solver(1.0)


def test_second_order_particles_are_as_wide_as_they_should_be() -> None:
    """Few levels of first order leave a Gaussian's fills too narrow."""
    prior = GaussianPrior.unit((1, 1, 4))
    seen = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).reshape(1, 1, 1, 4)
    observation = Observation(torch.ones(1, 1, 1, 4, dtype=torch.float64), seen, 0.3)

    def width(**changes) -> float:
        preset = replace(EXACT, refine_steps=20, rho=1000.0, late=30.0, guided_above=0.05, **changes)
        drawn = sample(prior, fit(prior, observation, preset, 0), 0, 4000).latents.reshape(4000, 4)
        return float(drawn[:, 1:].std())

    narrow, right = width(), width(second_order=True)
    assert abs(right - 1) < 0.5 * abs(narrow - 1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_any_share_of_the_evidence_in_proposals_is_exact(share: float) -> None:
    """Weights make up for what a proposal leaves out."""
    prior = GaussianPrior.unit((1, 1, 2))
    seen = torch.tensor([1.0, 0], dtype=torch.float64).reshape(1, 1, 1, 2)
    observation = Observation(torch.ones(1, 1, 1, 2, dtype=torch.float64), seen, 0.5)
    levels, count = EXACT.descent(30.0), 4000
    generator = torch.Generator().manual_seed(0)

    def noise() -> torch.Tensor:
        return torch.randn(count, 1, 1, 2, generator=generator, dtype=torch.float64)

    u = (1 + levels[0] ** 2) ** 0.5 * noise()
    rows = observation.rows(torch.zeros(count, dtype=torch.long))
    drawn = walk(
        moment_matching,
        Counted(prior, "", 0, None),
        u,
        torch.zeros(count, dtype=torch.float64),
        levels,
        rows,
        noise,
        replace(EXACT, second_order=True, late=30.0),
        strength=lambda _: share,
    ).u.flatten(1)
    assert (drawn.mean(0) - torch.tensor([0.8, 0.0])).abs().max() < 0.08
    assert (drawn.std(0) - torch.tensor([0.2**0.5, 1.0])).abs().max() < 0.08


@pytest.mark.parametrize("change", [{"refiner": "dps"}, {"eta": 0.0}])
def test_particles_need_weights_that_can_be_had(change) -> None:
    with pytest.raises(ValueError, match="particles"):
        replace(EXACT, **change)
