"""Restoration against closed forms: a Gaussian prior behind a linear decoder."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior

from vipaint_core.baselines import BASELINES, Settings, run_baseline
from vipaint_core.denoiser import Counted
from vipaint_core.operators import Compose, Downsample, Mask
from vipaint_core.pixels import PixelObservation
from vipaint_core.restore import Restoration, estimate, restore
from vipaint_core.solver import posterior_shift

SHAPE, SIZE = (2, 3, 4), (3, 6, 8)
PRIOR = GaussianPrior.correlated(SHAPE)
DECODER = torch.randn(144, 24, generator=torch.Generator().manual_seed(5), dtype=torch.float64) / 24**0.5
OPERATORS = {"all": Compose(), "reduced": Downsample(2, "area")}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decode(x: torch.Tensor) -> torch.Tensor:
    return (x.flatten(1) @ DECODER.T).unflatten(1, SIZE)


def curved(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(decode(x))


def observe(name: str, images: int = 1, sigma_y: float = 0.3, decoder=decode) -> PixelObservation:
    """Noisy pixels of prior draws; of "all" the left half."""
    x = PRIOR.draw(images, torch.Generator().manual_seed(1))
    y = OPERATORS[name].A(decoder(x))
    seen = torch.ones(images, 1, *y.shape[-2:], dtype=torch.float64)
    if name == "all":
        seen[..., 4:] = 0
    return PixelObservation(y + sigma_y * normal(*y.shape, seed=2), seen, OPERATORS[name], decoder, SHAPE, sigma_y)


def matrix(observation: PixelObservation) -> torch.Tensor:
    """What maps latents to observed pixels, (pixels, 24)."""
    eye = torch.eye(24, dtype=torch.float64).reshape(24, *SHAPE)
    one = replace(
        observation, y=observation.y[:1].expand(24, -1, -1, -1), seen=observation.seen[:1].expand(24, -1, -1, -1)
    )
    return one.show(eye).flatten(1).T


def given(mean: torch.Tensor, covariance: torch.Tensor, observation: PixelObservation) -> tuple[torch.Tensor, ...]:
    """Mean and covariance of a Gaussian of the first picture's latents given its pixels."""
    A, R = matrix(observation), observation.sigma_y**2  # noqa: N806
    inner = A @ covariance @ A.T + R * torch.eye(len(A), dtype=torch.float64)
    gain = torch.linalg.solve(inner, A @ covariance).T
    y = torch.where(observation.seen[0] > 0, observation.y[0], 0.0).flatten()
    return mean + gain @ (y - A @ mean), covariance - gain @ A @ covariance


@pytest.mark.parametrize("name", OPERATORS)
def test_solver_is_exact_and_no_step_is_worse_than_none(name: str) -> None:
    observation = observe(name, images=3)
    inverse = torch.linalg.inv(PRIOR.covariance)

    def covariance(v: torch.Tensor) -> torch.Tensor:
        return (v.flatten(1) @ PRIOR.covariance).reshape(v.shape)

    start = normal(3, *SHAPE, seed=3)
    with observation.gradients():
        operator, residual = observation.linear(start)
        shifts = [posterior_shift(covariance, observation.variance, residual, operator, k) for k in range(1, 25)]
    exact, _ = given(start[0].flatten(), PRIOR.covariance, observation)
    assert torch.allclose(start[0].flatten() + shifts[-1][0].flatten(), exact, atol=1e-7)
    energy = [
        observation.misfit(observation.residual(start + shift)).flatten()
        * residual[0].numel()
        * (observation.seen > 0).double().mean()
        + torch.einsum("ni,ij,nj->n", shift.flatten(1), inverse, shift.flatten(1))
        for shift in [torch.zeros_like(start), *shifts]
    ]
    assert all((after <= before + 1e-6).all() for before, after in zip(energy, energy[1:], strict=False))


def test_solver_keeps_rows_apart_and_survives_negative_curvature() -> None:
    turn = normal(24, 24)

    def covariance(v: torch.Tensor) -> torch.Tensor:
        return (v.flatten(1) @ (turn - 0.5 * PRIOR.covariance)).reshape(v.shape)

    observation, start = observe("all", images=2), normal(2, *SHAPE, seed=4)
    # A row that has nothing to explain.
    observation = replace(observation, y=torch.cat([observation.y[:1], decode(start[1:])]))

    def shift(rows: list[int]) -> torch.Tensor:
        watched = observation.rows(torch.tensor(rows))
        with watched.gradients():
            operator, residual = watched.linear(start[rows])
            return posterior_shift(covariance, watched.variance, residual, operator, 4)

    both = shift([0, 1])
    assert torch.isfinite(both).all() and both[1].abs().max() < 1e-9 < 0.01 < both[0].abs().max()
    assert torch.allclose(both, torch.cat([shift([0]), shift([1])]), atol=1e-9)


@pytest.mark.parametrize(("decoder", "near"), [(decode, 1e-9), (curved, 0.1)])
def test_linearised_decoder_is_its_derivative(decoder, near: float) -> None:
    observation, x = observe("reduced", images=2, decoder=decoder), normal(2, *SHAPE, seed=6)
    v, y = normal(2, *SHAPE, seed=7), normal(*observation.y.shape, seed=8)
    with observation.gradients():
        operator, residual = observation.linear(x)
        exact = torch.autograd.functional.jvp(observation.show, x, v)[1]
        assert (operator.A(v) - exact).square().mean() <= near**2 * exact.square().mean()
        assert torch.allclose((exact * y).sum(), (v * operator.A_adjoint(y)).sum())
    assert torch.allclose(residual, observation.residual(x))


def test_estimate_is_the_exact_mean() -> None:
    """E[x0 | u, y] of a correlated Gaussian, to rounding, when one sweep explains the residual."""
    observation, s = observe("reduced"), 2.0
    u = s * normal(1, *SHAPE, seed=9)
    settings = Restoration(guided_above=0.0, sweeps=1, solver_steps=24, spread_below=0.0)
    found = estimate(Counted(PRIOR, "", 0, None), u, s, observation, torch.empty, settings)
    eye = torch.eye(24, dtype=torch.float64)
    gain = PRIOR.covariance @ torch.linalg.inv(PRIOR.covariance + s**2 * eye)
    exact, _ = given(gain @ u.flatten(), PRIOR.covariance - gain @ PRIOR.covariance, observation)
    assert torch.allclose(found.flatten(), exact, atol=1e-7)


@pytest.mark.parametrize("name", OPERATORS)
def test_restored_pictures_follow_the_posterior(name: str) -> None:
    """Mean and spread of many fills; what is seen narrows them."""
    observation = observe(name)
    settings = Restoration(guided_above=0.0, solver_steps=8)
    fills = restore(PRIOR, observation, 0, 1024, settings=settings, batch=1024).latents.flatten(1)
    mean, covariance = given(PRIOR.mean, PRIOR.covariance, observation)
    deviation = covariance.diag().sqrt()
    assert ((fills.mean(0) - mean).abs() < 0.15 * deviation + 0.02).all()
    ratio = fills.std(0) / deviation
    assert 0.7 < ratio.min() and ratio.max() < 1.05


def test_hidden_pixels_do_not_matter_and_soft_ones_matter_less() -> None:
    observation = observe("all")
    other = replace(observation, y=torch.where(observation.seen > 0, observation.y, 7.0))

    def fill(watched: PixelObservation) -> torch.Tensor:
        return restore(PRIOR, watched, 3, 1).latents

    assert torch.equal(fill(observation), fill(other))
    misfits = []
    for weight in (1.0, 0.1, 0.01):
        soft = replace(observation, seen=observation.seen * weight)
        misfits.append(float(observation.misfit(observation.residual(fill(soft)))))
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

    def misfit(sweeps: int) -> torch.Tensor:
        settings = Restoration(sweeps=sweeps, solver_steps=8, spread_below=0.0)
        x0 = estimate(Counted(PRIOR, "", 0, None), u, 3.0, observation, torch.empty, settings)
        return observation.misfit(observation.residual(x0)).flatten()

    one, many = misfit(1), misfit(8)
    assert (one > 2).all() and (many < one).all() and float(many.min()) < 1.5


def test_dps_takes_pixels() -> None:
    """The published gradient, through the decoder: its fills explain the pixels better than the prior's."""
    observation = observe("reduced", sigma_y=0.02, decoder=curved)
    settings = replace(BASELINES["dps"].settings(), steps=60)

    def misfit(settings: Settings) -> float:
        fills = run_baseline("dps", PRIOR, observation, 0, 8, settings=settings).latents
        return float(observation.rows(torch.zeros(8, dtype=torch.long)).distance(fills).mean())

    assert misfit(settings) < 0.5 * misfit(replace(settings, scale=0.0))


def test_fills_that_do_not_explain_the_pixels_are_drawn_again() -> None:
    """By the network calls of rows: all once, those that are worse than noise again; the best attempt counts."""
    observation, called = observe("all", images=3, sigma_y=0.02, decoder=curved), []

    def prior(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        called.append(len(u))
        return PRIOR(u, s)

    def fills(attempts: int) -> tuple[torch.Tensor, torch.Tensor]:
        called.clear()
        settings = Restoration(steps=3, sweeps=1, solver_steps=1, attempts=attempts)
        found = restore(prior, observation, 0, 1, settings=settings).latents
        return found, observation.misfit(observation.residual(found)).flatten()

    (once, first), (_, best) = fills(1), fills(6)
    assert (first > 1).any() and (best <= first).all() and float(best.sum()) < 0.8 * float(first.sum())
    rows = called[::3]
    assert rows[0] == 3 and rows[1] == int((first > 1).sum()) and rows == sorted(rows, reverse=True)
    kept = first <= 1
    assert torch.allclose(fills(6)[0][kept], once[kept], atol=1e-6)


def test_evaluations_are_counted_and_levels_stay_within_the_model_s() -> None:
    heard: list[float] = []

    def prior(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        heard.append(float(s.max()))
        return PRIOR(u, s)

    result = restore(
        prior, observe("all"), 0, 2, settings=Restoration(steps=6, solver_steps=2, sweeps=1, attempts=1), s_max=14.6
    )
    assert len(heard) == 6 and heard[0] == pytest.approx(14.6) and heard[-1] == pytest.approx(0.1, rel=1e-4)
    guided, drawn = sum(s > 1 for s in heard), sum(1 < s < 4 for s in heard)
    assert result.evaluations.forward == 12 and result.evaluations.backward == 2 * (2 * guided + drawn)


def test_observations_that_do_not_fit() -> None:
    good = observe("all")
    for change in (
        {"y": good.y[0]},
        {"seen": good.seen[:, :, 1:]},
        {"seen": good.seen * 2},
        {"sigma_y": 0.0},
        {"y": good.y * torch.nan},
    ):
        with pytest.raises(ValueError, match=r"PixelObservation: expected"):
            replace(good, **change)


def test_a_mask_as_operator_is_the_same_as_unseen_pixels() -> None:
    observation = observe("all")
    masked = replace(observation, operator=Mask(observation.seen > 0))
    assert torch.equal(masked.residual(normal(1, *SHAPE)), observation.residual(normal(1, *SHAPE)))
