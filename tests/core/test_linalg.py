"""Both solvers against exact updates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import conditioned, normal
from pictures import OPERATORS, PRIOR, SHAPE, decode, observe

from vipaint_core.linalg import gmres_update, map_update
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
