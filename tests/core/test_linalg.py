"""Both solvers against exact updates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import conditioned, normal
from pictures import OPERATORS, PRIOR, SHAPE, decode, observe

from vipaint_core.linalg import Tried, Update, gmres_update, map_update, recycled_update
from vipaint_core.problem.likelihood import misfit, noise_variance
from vipaint_core.problem.operators import Mask


def test_gmres_survives_directions_that_are_nearly_spanned() -> None:
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

    update = gmres_update(product, variance, residual, torch.full_like(residual, 3.0), Mask(residual.isfinite()), 4)
    inner = covariance + 0.1 * torch.eye(4, dtype=torch.float64)
    exact = covariance @ torch.linalg.solve(inner, residual.reshape(rows, 4, 1))
    torch.testing.assert_close(update.shift, exact.reshape(update.shift.shape), atol=1e-7, rtol=0)
    torch.testing.assert_close(product(update.score), update.shift, atol=1e-7, rtol=0)


def test_what_was_tried_before_is_not_tried_again() -> None:
    """Two products, then two more that go on from them, are nearly as good as four; the first alone tell what they told."""
    rows = 3
    factor, _ = torch.linalg.qr(normal(24, 24, seed=5))
    spectrum = factor @ torch.diag(torch.logspace(0, -3, 24, dtype=torch.float64)) @ factor.mT
    residual, variance = normal(rows, *SHAPE, seed=6), torch.full((rows, *SHAPE), 0.1).double()

    def covariance(v: torch.Tensor) -> torch.Tensor:
        return (v.flatten(1) @ spectrum).reshape(v.shape)

    def left(update: Update) -> torch.Tensor:
        return (residual - covariance(update.score) - variance * update.score).flatten(1).norm(dim=1)

    given = (covariance, variance, residual, torch.ones_like(residual), Mask(residual.isfinite()))
    whole, half = gmres_update(*given, 4), recycled_update(*given, 2, None, Tried())
    assert torch.allclose(left(half), left(gmres_update(*given, 2)), rtol=1e-6)
    assert (left(whole) < 0.5 * left(half)).all()
    again, rest = (recycled_update(*given, steps, None, half.tried) for steps in (0, 2))
    # Up to what is doubted of products from other states.
    assert torch.allclose(left(again), left(half), rtol=0.01)
    assert (left(rest) < 0.6 * left(half)).all()
    with pytest.raises(ValueError, match="expected steps, or known directions"):
        recycled_update(*given, 0, None, Tried())


@pytest.mark.parametrize("name", OPERATORS)
def test_map_is_exact_and_no_step_is_worse_than_none(name: str) -> None:
    observation = observe(name, images=3)
    inverse = torch.linalg.inv(PRIOR.covariance)

    def covariance(v: torch.Tensor) -> torch.Tensor:
        return (v.flatten(1) @ PRIOR.covariance).reshape(v.shape)

    start, variance = normal(3, *SHAPE, seed=3), noise_variance(observation)
    with observation.gradients():
        operator, residual = observation.linearise(start)
        shifts = [map_update(covariance, variance, residual, operator, steps) for steps in range(1, 25)]
    exact, _ = conditioned(start[0].flatten(), PRIOR.covariance, observation)
    assert torch.allclose(start[0].flatten() + shifts[-1][0].flatten(), exact, atol=1e-7)
    energy = [
        misfit(observation, observation.residual(start + shift)).flatten()
        * residual[0].numel()
        * (observation.weight > 0).double().mean()
        + torch.einsum("ni,ij,nj->n", shift.flatten(1), inverse, shift.flatten(1))
        for shift in [torch.zeros_like(start), *shifts]
    ]
    assert all((after <= before + 1e-6).all() for before, after in zip(energy, energy[1:], strict=False))


def test_map_keeps_rows_apart_and_survives_negative_curvature() -> None:
    asymmetric = normal(24, 24)

    def covariance(v: torch.Tensor) -> torch.Tensor:
        return (v.flatten(1) @ (asymmetric - 0.5 * PRIOR.covariance)).reshape(v.shape)

    observation, start = observe("all", images=2), normal(2, *SHAPE, seed=4)
    # A row that has nothing to explain.
    observation = replace(observation, y=torch.cat([observation.y[:1], decode(start[1:])]))

    def shift(rows: list[int]) -> torch.Tensor:
        part = observation.rows(torch.tensor(rows))
        with part.gradients():
            operator, residual = part.linearise(start[rows])
            return map_update(covariance, noise_variance(part), residual, operator, 4)

    both = shift([0, 1])
    assert torch.isfinite(both).all() and both[1].abs().max() < 1e-9 < 0.01 < both[0].abs().max()
    assert torch.allclose(both, torch.cat([shift([0]), shift([1])]), atol=1e-9)
