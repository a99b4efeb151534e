"""Fills that are drawn by the gains which a picture's first fills have fitted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior, noisy_draws, normal

from vipaint_core import (
    PRESETS,
    Evaluations,
    FittedPosterior,
    GainState,
    LatentObservation,
    Preset,
    Progress,
    chains_needed,
    fit,
    fit_gains,
    gain_bound,
    sample,
    shown_too,
    start_from,
)
from vipaint_core.posterior import gains
from vipaint_core.problem.observation import CutCells
from vipaint_core.problem.operators import Blur, gaussian_kernel

SHAPE = (2, 3, 4)
BALANCED = PRESETS["balanced"]
ALONE = BALANCED.with_changes(fit={"chains": 0})


def noisily_seen() -> tuple[GaussianPrior, LatentObservation]:
    """A prior of which half of the cells are told with noise of 0.3.

    They are cut cells, of which the gain is the whole step: none is conditioned by itself.
    """
    prior = GaussianPrior.correlated(SHAPE)
    kind = torch.zeros(1, 1, 3, 4, dtype=torch.uint8)
    kind[..., :2] = 1
    cut = CutCells(kind, torch.eye(2).double()[None, None] / 0.3)
    return prior, LatentObservation.masked(
        noisy_draws(prior, sigma_y=0.3), torch.zeros(1, 1, 3, 4).double(), 0.1, cut=cut
    )


def fine(levels: int) -> Preset:
    """Many levels, guided to the end, and enough solver steps to be exact: what remains is the steps' length."""
    return BALANCED.with_changes(
        fit={"chains": 1, "rank": 12},
        schedule={"steps": levels, "guided_above": 0.03, "resamplings": 1},
        sampler={"solver_steps": 12, "corrections": 0},
    )


def test_draws_by_gains_follow_the_exact_posterior() -> None:
    """A Gaussian's gain is the same for all states: one chain tells all of it, and no product is needed after it."""
    (prior, observation), rows = noisily_seen(), 2048
    fitted = fit_gains(prior, fit(prior, observation, fine(40), 0))
    drawn = sample(prior, fitted, 1, rows, batch=rows)
    assert drawn.evaluations == Evaluations(forward=40 * rows)
    mean, covariance = prior.posterior(observation)
    fills, variance = drawn.latents.flatten(1), covariance.diag()
    # Five standard errors, and what forty steps leave of the mean.
    assert ((fills.mean(0) - mean).abs() < 5 * (variance / rows).sqrt() + 0.01).all()
    error = ((variance[:, None] * variance + covariance.square()) / rows).sqrt()
    assert ((torch.cov(fills.T) - covariance).abs() < 5 * error + 0.05 * variance.max()).all()
    assert (covariance - prior.covariance).abs().max() > 10 * error.max()


def test_the_bound_of_a_gaussian_becomes_its_evidence() -> None:
    """From below, the closer the more levels there are."""
    prior, observation = noisily_seen()
    evidence, gaps = float(prior.log_evidence(observation)), []
    for levels in (20, 160):
        fitted = fit_gains(prior, fit(prior, observation, fine(levels), 0))
        gaps.append(evidence + gain_bound(prior, fitted, 1, 512, batch=512).means.total)
    assert gaps[0] > 2 and abs(gaps[1]) < 0.5


def test_a_fitted_posterior_has_a_better_bound() -> None:
    """Where what is visible moves what is hidden: a wide prior of which a quarter is seen."""
    prior = GaussianPrior.correlated(SHAPE, length=4.0)
    weight = torch.zeros(2, 1, 3, 4).double()
    weight[..., 0] = 1
    observation = LatentObservation.masked(noisy_draws(prior, images=2, sigma_y=0.3), weight, sigma_y=0.3)
    fitted = fit_gains(prior, fit(prior, observation, fine(20), 0))
    found, unfitted = (gain_bound(prior, fitted, 1, 64, with_gains=known, batch=128) for known in (True, False))
    assert (found.total < unfitted.total).all()
    assert torch.allclose(found.prior, unfitted.prior)
    for image in range(2):
        assert found.total[image] > -prior.log_evidence(observation, image)


def test_a_bound_asks_for_gains() -> None:
    prior, observation = noisily_seen()
    with pytest.raises(ValueError, match="expected a preset with chains"):
        gain_bound(prior, fit(prior, observation, ALONE, 0), 1)


class Curved:
    """A mixture of two Gaussians that differ in every cell: what is seen decides between them, the gain depends on u."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        self.passes += len(u)
        variance = 0.04 + s[:, None, None, None] ** 2
        tilt = torch.tanh((u / variance).flatten(1).sum(1))[:, None, None, None]
        return tilt + 0.04 / variance * (u - tilt)


def seen(images: int = 1) -> LatentObservation:
    """Of the mode at 1 or -1, one column in four."""
    weight = torch.zeros(images, 1, 3, 4).double()
    weight[..., 0] = 1
    sign = (-1.0) ** torch.arange(images)[:, None, None, None]
    return LatentObservation.masked(sign * (1 + 0.1 * normal(images, 2, 3, 4)), weight, 0.1)


def drawn(fitted: FittedPosterior, seed: int, fills: int, first: int = 0, batch: int = 8) -> torch.Tensor:
    """(B, fills, C, H, W)."""
    return sample(Curved(), fitted, seed, fills, first=first, batch=batch).latents.unflatten(0, (-1, fills))


def test_the_first_fill_is_drawn_alone() -> None:
    """It costs what it does without gains, and is the same; what is observed decides the mode of all."""
    observation = seen(2)
    fitted, alone = (fit(Curved(), observation, preset, 5) for preset in (BALANCED, ALONE))
    found, expected = drawn(fitted, 5, 6), drawn(alone, 5, 6)
    assert torch.allclose(found[:, 0], expected[:, 0], atol=1e-10)
    assert ((found[:, 1:] - expected[:, 1:]).abs().amax((0, 2, 3, 4)) > 1e-6).all()
    for fills in (found, expected):
        assert (fills[0].mean((1, 2, 3)) > 0.5).all() and (fills[1].mean((1, 2, 3)) < -0.5).all()
    one = sample(Curved(), fitted, 5, 1)
    assert torch.equal(one.latents[:, None], drawn(alone, 5, 1)) and one.evaluations == Evaluations(2 * 16, 2 * 26)


def test_a_fill_is_the_same_whatever_is_drawn_beside_it() -> None:
    """Whatever batch and first number, with a posterior that has all of its chains, some or none."""
    bare = fit(Curved(), seen(2), BALANCED, 5)
    whole, part = fit_gains(Curved(), bare), fit_gains(Curved(), bare, 1)
    assert whole.gains is not None and part.gains is not None
    assert (whole.gains.chains, part.gains.chains) == (3, 1)
    for seed in (5, 6):
        expected = drawn(whole, seed, 7)
        for fitted in (whole, part, bare):
            assert torch.allclose(drawn(fitted, seed, 7, batch=3), expected, atol=1e-6)
            assert torch.allclose(drawn(fitted, seed, 2, first=5), expected[:, 5:], atol=1e-6)
            assert torch.allclose(drawn(fitted, seed, 3, first=1), expected[:, 1:4], atol=1e-6)


def test_chains_are_drawn_where_a_fill_needs_them() -> None:
    fitted = fit(Curved(), seen(), BALANCED, 5)
    assert [chains_needed(fitted, 5, fills, first) for fills, first in ((1, 0), (2, 1), (3, 1), (1, 9))] == [1, 3, 3, 3]
    assert chains_needed(fitted, 6, 1) == 3
    assert chains_needed(fit(Curved(), seen(), ALONE, 5), 6, 1) == 0
    whole = fit_gains(Curved(), fitted)
    # Fills after the first are never differentiated: a product in each of twelve steps, or seven, are forward passes.
    assert whole.evaluations == Evaluations(16 + 2 * (16 + 12), 26)
    assert fit_gains(Curved(), whole) is whole
    assert sample(Curved(), whole, 5, 3).evaluations == Evaluations()
    assert sample(Curved(), whole, 6, 4).evaluations == Evaluations(4 * (16 + 7))


def test_unfinished_chains_go_on() -> None:
    """An exception leaves whole chains and batches, and continuing gives the gains of a run without one."""
    fitted = fit(Curved(), seen(2), BALANCED, 5)
    whole = fit_gains(Curved(), fitted, batch=1)

    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        assert progress.stage == "chains"
        if progress.call == 2 * 16 + 28 + 5:
            raise Stop

    state = GainState()
    with pytest.raises(Stop):
        fit_gains(Curved(), fitted, batch=1, state=state, callback=stop)
    assert state.fitted is not None and state.fitted.gains is not None
    assert (state.fitted.gains.chains, state.drawing.done) == (1, 1)
    resumed = fit_gains(Curved(), fitted, batch=1, state=state)
    assert resumed.gains is not None and whole.gains is not None
    for part in ("directions", "products"):
        for one, other in zip(getattr(resumed.gains, part), getattr(whole.gains, part), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(resumed.gains.fills, whole.gains.fills) and resumed.evaluations == whole.evaluations


def test_pictures_with_nothing_to_paint_have_no_chains() -> None:
    """The others have theirs, in the right rows."""
    observation = seen(3)
    weight = observation.weight.clone()
    weight[1] = 1
    latents = 0.9 + 0.1 * normal(3, 2, 3, 4)
    mixed = LatentObservation.masked(torch.cat([observation.y[:1], latents[1:2], observation.y[2:]]), weight, 0.1)
    fitted = fit_gains(Curved(), fit(Curved(), mixed, BALANCED, 5))
    assert fitted.gains is not None and fitted.evaluations == Evaluations(2 * (16 + 2 * 28), 2 * 26)
    assert all(not part[1].any() and part[2].any() for part in fitted.gains.products)
    assert torch.equal(drawn(fitted, 6, 2)[1], latents[1].expand(2, -1, -1, -1))


def test_gains_of_half_precision_draw_the_same_fills() -> None:
    """As far as a fill matters: rounding is small beside what the states of chains differ by."""
    fitted = fit_gains(Curved(), fit(Curved(), seen(), BALANCED, 5))
    assert fitted.gains is not None and {part.dtype for part in fitted.gains.products} == {torch.bfloat16}
    doubled = replace(
        fitted,
        gains=replace(
            fitted.gains,
            directions=tuple(part.double() for part in fitted.gains.directions),
            products=tuple(part.double() for part in fitted.gains.products),
        ),
    )
    assert torch.equal(drawn(fitted, 6, 4), drawn(doubled, 6, 4))


def test_every_operator_has_gains() -> None:
    prior, operator = GaussianPrior.correlated((1, 3, 4)), Blur(gaussian_kernel(0.7), "circular")
    y = operator.A(noisy_draws(prior, sigma_y=0.0))
    y = y + 0.2 * normal(*y.shape, seed=3)
    observation = LatentObservation(y, torch.ones(1, 1, 3, 4).double(), operator, (1, 3, 4), sigma_y=0.2)
    fills = sample(prior, fit(prior, observation, BALANCED, 0), 1, 512, batch=512).latents.flatten(1)
    mean, covariance = prior.posterior(observation)
    assert ((fills.mean(0) - mean).abs() < 5 * (covariance.diag() / 512).sqrt() + 0.03).all()
    assert ((mean - prior.mean).abs() > 0.5).any()


def error_of_mean(prior: GaussianPrior, fitted: FittedPosterior) -> float:
    """Of further fills, in deviations of the exact posterior."""
    mean, covariance = prior.posterior(fitted.observation)
    fills = sample(prior, fitted, 1, 1024, batch=1024).latents.flatten(1)
    return float(((fills.mean(0) - mean).square() / covariance.diag()).mean().sqrt())


def test_gains_keep_what_tells_most() -> None:
    """Of twelve products at a level the first four: nearly as good as all."""
    prior, observation = noisily_seen()

    def error(rank: int) -> float:
        fitted = fit_gains(prior, fit(prior, observation, fine(30).with_changes(fit={"rank": rank}), 0))
        assert fitted.gains is not None and {part.shape[1] for part in fitted.gains.products} == {rank}
        return error_of_mean(prior, fitted)

    errors = [error(rank) for rank in (1, 4, 12)]
    assert errors[0] > 2 * errors[1]
    assert errors[1] < 0.2 and errors[2] < 0.05


def test_products_of_levels_above_are_less_by_what_is_less_open() -> None:
    """Of data of unit variance 4/5 is open at level 2, half at level 1; of two pictures each has its own."""
    directions = torch.stack([torch.full((1, 1, 3, 4), 1.0), torch.full((1, 1, 3, 4), 2.0)])
    own = gains.Gains(
        (2.0, 1.0), (directions, 3 * directions), (8 * directions, 5 * directions), torch.zeros(1, 2, 1, 3, 4)
    )
    known = own.at(1.0, torch.tensor([1, 1]))
    assert known is not None and known.image.tolist() == [0, 0]
    assert known.directions[:, :, 0, 0, 0].tolist() == [[2, 6]]
    assert known.products[:, :, 0, 0, 0].tolist() == [[10, 10]]
    highest = own.at(2.0, torch.tensor([0, 1]))
    assert highest is not None and highest.products[:, :, 0, 0, 0].tolist() == [[8], [16]]
    assert own.at(0.5, torch.tensor([0])) is None


def test_products_of_levels_above_serve_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one product at a level they halve the error."""
    prior, observation = noisily_seen()
    fitted = fit_gains(prior, fit(prior, observation, fine(30).with_changes(fit={"rank": 1}), 0))
    with_levels_above = error_of_mean(prior, fitted)
    monkeypatch.setattr(gains, "LEVELS_ABOVE", 0)
    assert with_levels_above < 0.5 * error_of_mean(prior, fitted)


# --- gains of other pictures ---


@pytest.mark.parametrize("pictures", [1, 3])
def test_draws_by_gains_of_other_pictures_follow_the_exact_posterior(pictures: int) -> None:
    """A Gaussian's gain is the same for all pictures: what the chains of others have found is all that there is."""
    (prior, observation), rows = noisily_seen(), 2048
    other = observation.rows(torch.zeros(pictures, dtype=torch.long))
    moved = other.y.flip(-2) - 2 - torch.arange(pictures)[:, None, None, None]
    other = replace(other, y=torch.where(other.weight > 0, moved, 0.0))
    given = fit_gains(prior, fit(prior, other, fine(40), 0))
    fitted = start_from(fit(prior, observation, fine(40), 1), given)
    assert fitted.gains is not None and fitted.gains.chains == 0
    drawn = sample(prior, fitted, 1, rows, batch=rows)
    assert drawn.evaluations == Evaluations(forward=40 * rows)
    mean, covariance = prior.posterior(observation)
    variance = covariance.diag()
    assert ((drawn.latents.flatten(1).mean(0) - mean).abs() < 5 * (variance / rows).sqrt() + 0.01).all()
    far = (prior.posterior(other)[0] - mean).abs()
    assert (far > 10 * (variance / rows).sqrt()).any()


def test_gains_of_several_pictures_serve_each_of_others() -> None:
    """Pooled, in as many directions as one picture has, and without cells that are not shown any more."""
    fitted = fit_gains(Curved(), fit(Curved(), seen(2), BALANCED, 5))
    assert fitted.gains is not None
    weight = seen(3).weight.clone()
    weight[:, :, 0, 0] = 0
    lent = fitted.gains.lent(weight)
    for kind in ("directions", "products"):
        for own, part in zip(getattr(fitted.gains, kind), getattr(lent, kind), strict=True):
            assert part.shape == (3, *own.shape[1:]) and part.dtype == own.dtype and part.isfinite().all()
    assert all(not part[..., 0, 0].any() and part[..., 1, 0].any() for part in lent.directions)


def test_every_fill_by_gains_of_other_pictures_is_a_further_one() -> None:
    """It takes no gradients, whatever the seed and the number, and what is observed decides its mode."""
    given = fit_gains(Curved(), fit(Curved(), seen(2), BALANCED, 5))
    started = start_from(fit(Curved(), seen(2), BALANCED, 5), given)
    for seed in (5, 6):
        assert chains_needed(started, seed, 2) == 0
        found = sample(Curved(), started, seed, 2)
        assert found.evaluations == Evaluations(4 * (16 + 7))
        fills = found.latents.unflatten(0, (2, 2))
        assert (fills[0].mean((1, 2, 3)) > 0.5).all() and (fills[1].mean((1, 2, 3)) < -0.5).all()
    assert fit_gains(Curved(), started) is started


def test_gains_can_be_lent_again() -> None:
    given = fit_gains(Curved(), fit(Curved(), seen(2), BALANCED, 5))
    bare = fit(Curved(), seen(1), BALANCED, 5)
    again = start_from(bare, start_from(bare, given))
    assert again.gains is not None and given.gains is not None
    sizes = [{part.shape[1] for part in gains.directions} for gains in (again.gains, given.gains)]
    assert sizes[0] == sizes[1]


def test_what_cannot_be_lent_is_refused() -> None:
    bare = fit(Curved(), seen(), BALANCED, 5)
    given = fit_gains(Curved(), bare)
    hidden = seen()
    hidden.weight[..., 0] = 0
    hidden.weight[..., 1] = 1
    elsewhere = LatentObservation.masked(torch.zeros(1, 2, 3, 4).double(), hidden.weight, 0.1)
    assert (shown_too(elsewhere, seen()), shown_too(seen(), seen(3))) == (0, 1)
    cases = {
        "with gains": (bare, bare),
        "at the levels": (fit(Curved(), seen(), fine(7), 5), given),
        "cells to be observed": (fit(Curved(), elsewhere, BALANCED, 5), given),
    }
    for words, (fitted, other) in cases.items():
        with pytest.raises(ValueError, match=words):
            start_from(fitted, other)
    wide = LatentObservation.masked(torch.zeros(1, 2, 3, 5).double(), torch.ones(1, 1, 3, 5).double(), 0.1)
    with pytest.raises(ValueError, match="gains of latents"):
        start_from(fit(Curved(), wide, BALANCED, 5), given)
