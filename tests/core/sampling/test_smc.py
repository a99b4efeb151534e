"""Twisted SMC against posteriors whose modes have exactly known weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussian import CLOSED_FORM, GaussianPrior, draw_many, half_observed

from benchmarks.mixtures.problems import Mixture
from vipaint_core import Evaluations, LatentObservation, Preset, fit, posterior_method, sample
from vipaint_core.diffusion.denoiser import CountingDenoiser
from vipaint_core.problem.operators import Downsample
from vipaint_core.refiners.moment_matching import moment_matching
from vipaint_core.sampling.smc import systematic_resampling, twisted_smc

EXACT = CLOSED_FORM.with_changes(
    fit={"keypoints": (30.0,)}, schedule={"steps": 60}, sampler={"refiner": "moment_matching", "smc": True}
)


def weights(*rows: list[float]) -> torch.Tensor:
    """Weights of pictures of one line, (B, 1, 1, W)."""
    return torch.tensor(rows, dtype=torch.float64)[:, None, None]


def test_systematic_resampling_keeps_each_particle_in_proportion() -> None:
    weight = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    for uniform in torch.linspace(0.01, 0.99, 7, dtype=torch.float64):
        counts = torch.bincount(systematic_resampling(weight.repeat(2) / 2, uniform), minlength=8)
        assert counts.sum() == 8
        assert ((counts - 8 * weight.repeat(2) / 2).abs() < 1).all()


def test_particles_weigh_modes_exactly() -> None:
    """Six unequal modes whose hidden parts differ; what is observed favours some of them."""
    generator = torch.Generator().manual_seed(2)
    means = 1.2 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    prior = Mixture(torch.randn(6, generator=generator, dtype=torch.float64), means, torch.full((6,), 0.02).double())
    weight = weights([1.0, 0, 0, 0, 0, 0])
    observation = LatentObservation.masked(prior.draw(1, generator).reshape(1, 1, 1, 6), weight, sigma_y=0.5)
    exact = prior.given(observation)

    def error(preset: Preset) -> float:
        method = posterior_method(preset, fit(prior, observation, preset, 0).posterior)
        drawn = draw_many(method, prior, observation, 2000, seed=1)
        nearest = torch.cdist(drawn, exact.means).argmin(1)
        share = torch.bincount(nearest, minlength=6) / len(drawn)
        return float((share - exact.logits.softmax(0)).abs().sum() / 2)

    assert error(EXACT) < 0.05
    assert error(EXACT.with_changes(sampler={"smc": False, "refiner": "closed_form"})) > 0.15


def test_particles_of_several_pictures_stay_apart() -> None:
    """Each picture's particles compete among themselves; a picture without a hole is returned."""
    prior = GaussianPrior.unit((1, 1, 4))
    latents = torch.randn(3, 1, 1, 4, dtype=torch.float64)
    weight = weights([1.0, 0, 0, 0], [1.0, 1, 1, 1], [0.0, 0, 1, 1])
    observation = LatentObservation.masked(latents, weight, 0.3)
    drawn = sample(prior, fit(prior, observation, EXACT, 0), 0, 64).latents.reshape(3, 64, 4)
    assert torch.equal(drawn[1], latents[1].flatten().expand(64, 4))
    for image in (0, 2):
        observed = weight[image].flatten() > 0
        # The exact means and deviations are y / 1.09 in observed cells, 0 and 1 in hidden ones.
        expected = latents[image].flatten()[observed] / 1.09
        assert (drawn[image][:, observed].mean(0) - expected).abs().max() < 0.2
        assert drawn[image][:, ~observed].mean(0).abs().max() < 0.5
        assert drawn[image][:, ~observed].std(0).min() > 0.6


def test_copies_part_where_nothing_is_weighed() -> None:
    """Below `guided_above` particles take plain steps without gradients, whose noise tells copies apart."""
    prior = GaussianPrior.correlated((1, 3, 4))
    observation = half_observed(prior, sigma_y=0.1)

    def drawn(preset: Preset) -> tuple[int, Evaluations]:
        result = sample(prior, fit(prior, observation, preset, 0), 1, 50)
        return len(result.latents.unique(dim=0)), result.evaluations

    copies, _ = drawn(EXACT)
    preset = EXACT.with_changes(schedule={"guided_above": 0.3}, sampler={"second_order_below": 30.0})
    different, evaluations = drawn(preset)
    steps = preset.descent(30.0)
    weighed = sum(step.s > 0.3 for step in steps)
    assert copies < different == 50
    assert evaluations.forward == 50 * len(steps)
    assert evaluations.backward == 50 * weighed * preset.sampler.solver_steps


def test_second_order_particles_are_as_wide_as_they_should_be() -> None:
    """Few levels of first order leave a Gaussian's fills too narrow."""
    prior = GaussianPrior.unit((1, 1, 4))
    observation = LatentObservation.masked(torch.ones(1, 1, 1, 4).double(), weights([1.0, 0, 0, 0]), 0.3)

    def width(**changes: Any) -> float:
        schedule = {"steps": 20, "rho": 1000.0, "guided_above": 0.05}
        preset = EXACT.with_changes(schedule=schedule, sampler=changes)
        fitted = fit(prior, observation, preset, 0)
        drawn = draw_many(posterior_method(preset, fitted.posterior), prior, observation, 4000)
        return float(drawn[:, 1:].std())

    narrow, right = width(), width(second_order_below=30.0)
    assert abs(right - 1) < 0.5 * abs(narrow - 1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["mask", "reduced"])
def test_any_share_of_the_evidence_in_proposals_is_exact(name: str, share: float) -> None:
    """Weights make up for what a proposal leaves out, whatever the operator."""
    prior = GaussianPrior.unit((1, 1, 2))
    if name == "mask":
        observation = LatentObservation.masked(torch.ones(1, 1, 1, 2).double(), weights([1.0, 0]), 0.5)
    else:
        # The mean of both cells.
        prior, operator = GaussianPrior.correlated((1, 2, 2)), Downsample(2, "area")
        observation = LatentObservation(torch.ones(1, 1, 1, 1).double(), weights([1.0]), operator, (1, 2, 2), 0.5)
    mean, covariance = prior.posterior(observation)
    count, steps = 4000, EXACT.with_changes(sampler={"second_order_below": 30.0}).descent(30.0)
    generator = torch.Generator().manual_seed(0)

    def noise() -> torch.Tensor:
        return torch.randn(count, *prior.shape, generator=generator, dtype=torch.float64)

    u = (1 + steps[0].s ** 2) ** 0.5 * noise()
    drawn = twisted_smc(
        moment_matching,
        CountingDenoiser(prior, "", 0, None),
        u,
        torch.zeros(count, dtype=torch.float64),
        steps,
        observation.rows(torch.zeros(count, dtype=torch.long)),
        noise,
        scale=lambda _: share,
    ).u.flatten(1)
    assert (drawn.mean(0) - mean).abs().max() < 0.08
    assert (drawn.std(0) - covariance.diag().sqrt()).abs().max() < 0.08


def test_particles_without_guided_levels_keep_the_preset_s_noise() -> None:
    """The one step that is weighed all the same is the prior's of `eta`, also where those below have no noise."""
    prior = GaussianPrior.correlated((1, 3, 4))
    observation = half_observed(prior)
    preset = EXACT.with_changes(schedule={"guided_above": 100.0, "steps": 4}, sampler={"final_eta": 0.0})
    fills = sample(prior, fit(prior, observation, preset, 0), 0, 4).latents
    assert torch.isfinite(fills).all()
