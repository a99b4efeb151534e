"""Refiners against exact Gaussian posteriors."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from gaussian import GaussianPrior, half_seen

from vipaint_core import PRESETS, Observation, Preset, fit, sample
from vipaint_core.denoiser import Counted
from vipaint_core.operators import Mask
from vipaint_core.refine import REFINERS, Step, _explain, _persisting, begin, extrapolated, moment_matching

SHAPE = (2, 3, 4)
BASE = replace(PRESETS["fast"], levels=(30.0,), refine_steps=12)


def hidden_mean(
    solver_steps: int, turns: int = 1, guess: float | None = None, s: float = 3.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """E[x0 | u, y] of a correlated Gaussian's hidden cells: after so many estimates, each from the last's score; exact."""
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_seen(prior, images=2, sigma_y=0.2)
    generator = torch.Generator().manual_seed(1)
    u = observation.latent + s * torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    preset = replace(BASE, solver_steps=solver_steps)
    wild = torch.randn(u.shape, generator=generator, dtype=torch.float64)
    score = None if guess is None else guess * torch.where(observation.seen > 0, wild, 0.0)
    for _ in range(turns):
        found = moment_matching(Counted(prior, "", 0, None), u, s, observation, preset, score)
        score = found.score
    eye = torch.eye(24, dtype=torch.float64)
    gain = prior.covariance @ torch.linalg.inv(prior.covariance + s**2 * eye)
    left = prior.covariance - gain @ prior.covariance
    seen = observation.seen[0].expand(SHAPE).flatten() > 0
    inner = left[seen][:, seen] + 0.04 * torch.eye(int(seen.sum()), dtype=torch.float64)
    mean = u.flatten(1) @ gain.T
    residual = observation.latent.flatten(1)[:, seen] - mean[:, seen]
    exact = mean + torch.linalg.solve(inner, residual.T).T @ left[seen]
    # In seen cells condition() would count the observation twice.
    return found.given_y.flatten(1)[:, ~seen], exact[:, ~seen]


@pytest.mark.parametrize("guess", [None, 0.1, 3.0])
def test_moment_matching_gives_the_exact_mean(guess: float | None) -> None:
    """Enough products with the Jacobian: to rounding, from whatever score."""
    found, exact = hidden_mean(solver_steps=24, guess=guess)
    assert torch.allclose(found, exact, atol=1e-8)


def test_estimates_go_on_where_the_last_has_stopped() -> None:
    """Four estimates of one solver step each, every one from the score of the last."""
    (first, exact), (fourth, _) = hidden_mean(solver_steps=1, s=0.5), hidden_mean(solver_steps=1, turns=4, s=0.5)
    error = (first - exact).abs().max()
    assert error > 0.005 and (fourth - exact).abs().max() < 0.05 * error


def test_no_score_takes_a_state_out_of_its_noise() -> None:
    prior, s = GaussianPrior.unit(SHAPE), 2.0
    observation, u = half_seen(prior), torch.zeros(1, *SHAPE, dtype=torch.float64)
    points: list[torch.Tensor] = []

    class Recorded:
        def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
            points.append(u.detach())
            return prior(u, s)

    for size in (0.01, 1e6):
        score = size * torch.ones_like(u)
        moment_matching(Counted(Recorded(), "", 0, None), u, s, observation, BASE, score)
    half = u[0].numel() / 2
    assert points[0].norm().item() == pytest.approx(0.01 * s**2 * half**0.5)
    assert points[1].norm().item() == pytest.approx(s * (2 * half) ** 0.5)


def test_a_score_persists_as_its_noise_does() -> None:
    """Down from level 4 to 2; there once more, down to 1 and up again."""
    u = torch.ones(1, *SHAPE)
    step = Step(u, 4.0, u, score=u)
    assert _persisting(begin(u), 4.0, 2.0) is None and _persisting(Step(u, 4.0, u), 2.0, 1.0) is None
    assert torch.equal(_persisting(step, 2.0, 1.0), 0.5 * u)
    assert torch.equal(_persisting(step._replace(s=2.0), 2.0, 1.0), 0.25 * u)


def test_solver_survives_directions_that_are_nearly_spanned() -> None:
    """Covariances from one eigenvalue to four: the second direction is anything between rounding and new."""
    rows, generator = 2000, torch.Generator().manual_seed(0)
    gap = torch.logspace(-17, -2, rows, dtype=torch.float64)[:, None]
    values = 1 + gap * torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(rows, 4, 4, generator=generator, dtype=torch.float64))
    covariance = rotation * values[:, None] @ rotation.mT
    residual = torch.randn(rows, 1, 2, 2, generator=generator, dtype=torch.float64)
    variance = torch.full_like(residual, 0.1)

    def product(v: torch.Tensor) -> torch.Tensor:
        return (covariance @ v.reshape(rows, 4, 1)).reshape(v.shape)

    shift, _, score = _explain(
        product, variance, residual, torch.full_like(residual, 3.0), Mask(residual.isfinite()), 4
    )
    inner = covariance + 0.1 * torch.eye(4, dtype=torch.float64)
    exact = covariance @ torch.linalg.solve(inner, residual.reshape(rows, 4, 1))
    torch.testing.assert_close(shift, exact.reshape(shift.shape), atol=1e-7, rtol=0)
    torch.testing.assert_close(product(score), shift, atol=1e-7, rtol=0)


def test_second_order_steps_are_nearer_to_the_flow() -> None:
    """A unit Gaussian's probability flow takes a state of level s to one of level 0 by a factor 1 / sqrt(1 + s^2)."""
    prior, u = GaussianPrior.unit(SHAPE), torch.ones(1, *SHAPE, dtype=torch.float64)
    hidden = Observation(torch.zeros_like(u), torch.zeros(1, 1, *SHAPE[1:], dtype=torch.float64))
    preset = replace(BASE, eta=0.0, late=30.0, refine_steps=16, rho=7.0)

    def error(preset: Preset) -> float:
        levels = preset.descent(30.0)
        step = begin(u * (1 + 30.0**2) ** 0.5)
        for s, s_next in pairwise(levels):
            step = REFINERS["closed_form"](
                Counted(prior, "", 0, None), step.u, s, s_next, hidden, lambda: torch.zeros_like(u), preset, step
            )
        return float((step.u - 1).abs().max())

    first, second = error(preset), error(replace(preset, second_order=True))
    assert second < 0.3 * first < 0.05
    assert error(replace(preset, second_order=True, late=0.0)) == first


def test_what_is_extrapolated() -> None:
    """The course from the level before, by the ratio of the levels; half the change of a round; nothing at first."""
    preset = replace(BASE, late=30.0, second_order=True)
    x0, before = torch.full((1, *SHAPE), 2.0), torch.ones(1, *SHAPE)
    steps = {"level": Step(before, 16.0, before), "round": Step(before, 4.0, before), "first": begin(before)}
    found = {name: float(extrapolated(x0, 4.0, 2.0, step, preset)[0, 0, 0, 0]) for name, step in steps.items()}
    assert found == pytest.approx({"level": 2.25, "round": 2.5, "first": 2.0})


def test_steps_below_the_guided_levels_have_their_own_noise() -> None:
    preset = replace(PRESETS["balanced"], eta=0.5, final_eta=0.25, rounds=4, guided_above=1.0, late=3.0)
    assert [(preset.eta_at(s), preset.turns(s), preset.step(s)) for s in (4.0, 3.0, 1.0)] == [
        (0.5, 1, "moment_matching"),
        (0.5, 4, "moment_matching"),
        (0.25, 1, "closed_form"),
    ]


def errors(preset: Preset) -> tuple[float, float]:
    """Largest error of 2048 fills' mean and smallest ratio of their deviation to the exact one, over hidden cells."""
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_seen(prior, sigma_y=0.05)
    fills = sample(prior, fit(prior, observation, preset, 0), 1, 2048, batch=2048).latents.flatten(1)
    mean, covariance = prior.posterior(observation)
    hidden = observation.seen[0].expand(SHAPE).flatten() == 0
    ratio = fills.std(0) / covariance.diag().sqrt()
    return float((fills.mean(0) - mean)[hidden].abs().max()), float(ratio[hidden].min())


def test_leaking_cells_are_noisier_evidence() -> None:
    """With all the solver steps it takes, the mean given u and y is that of a Gaussian whose noise holds the leak."""
    prior, s = GaussianPrior.correlated(SHAPE), 3.0
    hard = half_seen(prior, sigma_y=0.2)
    leak = torch.zeros_like(hard.seen)
    leak[..., 1] = 0.3
    u = s * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = moment_matching(
        Counted(prior, "", 0, None), u, s, replace(hard, leak=leak), replace(BASE, solver_steps=24)
    ).given_y.flatten()
    eye = torch.eye(24, dtype=torch.float64)
    left = prior.covariance - prior.covariance @ torch.linalg.inv(prior.covariance + s**2 * eye) @ prior.covariance
    kept = hard.seen[0].expand(SHAPE).flatten() > 0
    R = torch.diag(0.04 + leak[0].expand(SHAPE).flatten()[kept])  # noqa: N806
    mean = prior(u, torch.tensor([s])).flatten()
    exact = mean + left[:, kept] @ torch.linalg.solve(left[kept][:, kept] + R, (hard.latent.flatten() - mean)[kept])
    assert torch.allclose(found[~kept], exact[~kept], atol=1e-6)


def test_moment_matching_approaches_the_exact_posterior() -> None:
    """Without a fit; the diagonal approximation of PiGDM is ten times as far off. Of second order fills vary enough."""
    mean, _ = errors(replace(BASE, refiner="moment_matching"))
    assert mean < 0.06 and errors(replace(BASE, refiner="pigdm"))[0] > 5 * mean
    mean, narrowest = errors(PRESETS["balanced"])
    assert mean < 0.06 and narrowest > 0.9


@pytest.mark.parametrize("name", sorted(REFINERS))
def test_refiners_take_soft_masks_and_rows_apart(name: str) -> None:
    """A fill does not depend on the other rows; no row is broken by another's negative curvature."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    seen = torch.rand(2, 1, *SHAPE[1:], generator=generator, dtype=torch.float64)
    seen[0, 0, 0] = 0

    def odd(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """A network whose Jacobian is neither symmetric nor positive for the second row's signs."""
        return torch.sin(3 * u.flip(3)) - 0.3 * u * (u > 0)

    observation = Observation(latent, seen)
    u = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)

    def refine(rows: list[int]) -> torch.Tensor:
        index = torch.tensor(rows)
        denoiser = Counted(odd, "", 0, None)
        watched, first = observation.rows(index), begin(u[index])
        return REFINERS[name](denoiser, first.u, 2.0, 1.0, watched, lambda: noise[index], BASE, first).u

    both = refine([0, 1])
    assert torch.isfinite(both).all()
    assert torch.allclose(both, torch.cat([refine([0]), refine([1])]), atol=1e-9)
