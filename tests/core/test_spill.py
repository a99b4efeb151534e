"""What seen cells owe to hidden ones: measured from fillers, and taken into account exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior, half_seen

from vipaint_core import PRESETS, Observation, measure_spill
from vipaint_core.denoiser import Counted
from vipaint_core.refine import REFINERS, begin

SHAPE = (2, 3, 4)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_what_is_seen_by_definition_and_its_adjoint() -> None:
    """A cell less the kernel's share of the hidden cells around it, every picture with its own kernel."""
    seen = (normal(2, 1, 6, 5) > 0).double()
    observation = Observation(normal(2, 3, 6, 5), seen, spill=normal(2, 3, 3, 3, 3))
    x, y, operator = normal(2, 3, 6, 5, seed=1), normal(2, 3, 6, 5, seed=2), observation.operator
    line, column = (seen[1, 0] * (seen[1, 0].roll(1, 1) == 0))[:, 1:-1].nonzero()[0].tolist()
    column += 1
    expected = x[1, :, line, column].clone()
    for i in range(max(line - 1, 0), min(line + 2, 6)):
        for j in range(column - 1, column + 2):
            if not seen[1, 0, i, j]:
                expected -= observation.spill[1, :, :, i - line + 1, j - column + 1] @ x[1, :, i, j]
    assert torch.allclose(operator.A(x)[1, :, line, column], expected)
    assert torch.allclose((operator.A(x) * y).sum(), (x * operator.A_adjoint(y)).sum())
    assert (operator.A(x)[(seen == 0).expand_as(x)] == 0).all()


def test_a_linear_spill_is_found_and_leaves_nothing() -> None:
    seen = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    seen[:, :, :, 3:] = False
    kernel = 0.3 * normal(2, 3, 3, 3, 3)
    moved = torch.where(seen, 0.0, normal(24, 2, 3, 6, 6, seed=1))
    operator = Observation(moved[0], seen.double(), spill=kernel).operator
    moved = torch.stack([torch.where(seen, -operator.A(rows), rows) for rows in moved])
    found, rest = measure_spill(moved, seen)
    # The hidden cells are to the right: nothing is known of the kernel's other columns.
    assert torch.allclose(found[..., 2], kernel[..., 2], atol=0.02)
    assert found[..., :2].abs().max() < 1e-9
    assert rest[seen].max() < 1e-3 * moved[:, seen.expand(2, 3, 6, 6)].square().mean()


def test_what_nothing_predicts_is_leak_alone() -> None:
    seen = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    seen[..., ::2] = True
    moved = normal(40, 1, 2, 8, 8)
    found, rest = measure_spill(moved, seen)
    assert found.abs().max() == 0
    assert torch.allclose(rest, moved.square().mean((0, 2))[:, None])
    everything, nothing = torch.ones_like(seen), torch.zeros_like(seen)
    assert all((measure_spill(moved, cover)[0] == 0).all() for cover in (everything, nothing))


def test_bad_kernels_are_named() -> None:
    for shape in ((1, 2, 2, 2, 2), (2, 2, 2, 3, 3), (1, 2, 1, 3, 3)):
        with pytest.raises(ValueError, match="expected spill"):
            Observation(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4), spill=torch.zeros(shape))


def test_moment_matching_explains_a_spill_by_what_is_hidden() -> None:
    """E[x0 | u, y] of a correlated Gaussian observed through a kernel, to rounding, and not without it."""
    prior = GaussianPrior.correlated(SHAPE)
    plain, s = half_seen(prior, sigma_y=0.2), 3.0
    watched = replace(plain, spill=0.5 * normal(1, 2, 2, 3, 3))
    u = s * normal(1, *SHAPE, seed=1)
    preset = replace(PRESETS["fast"], solver_steps=24)

    def given(observation: Observation) -> torch.Tensor:
        found = REFINERS["moment_matching"](
            Counted(prior, "", 0, None), u, s, 0.0, observation, torch.empty, preset, begin(u)
        ).u
        return found[0].flatten()

    eye = torch.eye(24, dtype=torch.float64)
    A = torch.stack([watched.operator.A(row.reshape(1, *SHAPE)).flatten() for row in eye], 1)  # noqa: N806
    kept = A.abs().sum(1) > 0
    gain = prior.covariance @ torch.linalg.inv(prior.covariance + s**2 * eye)
    mean, left = gain @ u.flatten(), prior.covariance - gain @ prior.covariance
    inner = A[kept] @ left @ A[kept].T + 0.04 * torch.eye(int(kept.sum()), dtype=torch.float64)
    exact = mean + left @ A[kept].T @ torch.linalg.solve(inner, (watched.y.flatten() - A @ mean)[kept])
    assert torch.allclose(given(watched)[~kept], exact[~kept], atol=1e-7)
    assert (given(plain) - exact)[~kept].abs().max() > 0.1
