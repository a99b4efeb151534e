"""The exact enlargement of the toy prior."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.harness.host import PACK
from benchmarks.portraits.enlarged import (
    DETAIL,
    EnlargedMask,
    EnlargedPrior,
    block_means,
    enlarged,
    enlarged_observation,
)

CHANNELS, SIDE, FACTOR = 2, 4, 3
SHAPE = (CHANNELS, SIDE, SIDE)


class GaussianDenoiser:
    """Of independent cells with a variance of each."""

    def __init__(self, variance: torch.Tensor) -> None:
        self.variance = variance

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return self.variance / (self.variance + s.reshape(-1, 1, 1, 1) ** 2) * u


@pytest.mark.parametrize("level", [0.1, 2.0, 30.0])
def test_denoiser_is_the_posterior_mean_of_the_enlarged_gaussian(level: float) -> None:
    generator = torch.Generator().manual_seed(0)
    variance = torch.rand(1, *SHAPE, generator=generator, dtype=torch.float64) + 0.5
    u = torch.randn(1, CHANNELS, FACTOR * SIDE, FACTOR * SIDE, generator=generator, dtype=torch.float64)
    # Cells of a block share z; their details have mean zero, hence the covariance DETAIL^2 (I - 1 1^T / n).
    cells = FACTOR * FACTOR
    ones = torch.ones(cells, cells, dtype=torch.float64)
    detail = DETAIL**2 * (torch.eye(cells, dtype=torch.float64) - ones / cells)
    expected = torch.empty_like(u)
    for channel in range(CHANNELS):
        for row in range(SIDE):
            for column in range(SIDE):
                rows = slice(FACTOR * row, FACTOR * (row + 1))
                columns = slice(FACTOR * column, FACTOR * (column + 1))
                prior = variance[0, channel, row, column] * ones + detail
                gain = torch.linalg.solve(prior + level**2 * torch.eye(cells, dtype=torch.float64), prior)
                block = u[0, channel, rows, columns]
                expected[0, channel, rows, columns] = (block.reshape(-1) @ gain).reshape(block.shape)
    estimate = EnlargedPrior(GaussianDenoiser(variance), SIDE)(u, torch.tensor([level], dtype=torch.float64))
    torch.testing.assert_close(estimate, expected)


def observation(crosstalk: torch.Tensor | None):
    observed = torch.ones(SIDE, SIDE, dtype=torch.bool)
    observed[:, 2:] = False
    y = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    core = PACK.core.problem
    cells = observed.expand(1, 1, SIDE, SIDE)
    operator = core.operators.Mask(cells, crosstalk)
    return core.observation.LatentObservation(torch.where(observed, y, 0.0), cells.float(), operator, SHAPE)


def test_mask_with_crosstalk_has_its_adjoint_and_acts_on_block_means() -> None:
    generator = torch.Generator().manual_seed(2)
    kernel = torch.randn(1, CHANNELS, CHANNELS, 3, 3, generator=generator, dtype=torch.float64)
    small = observation(kernel).operator
    large = EnlargedMask(enlarged(small.observed, FACTOR), kernel, factor=FACTOR)
    x = torch.randn(1, CHANNELS, FACTOR * SIDE, FACTOR * SIDE, generator=generator, dtype=torch.float64)
    y = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    assert math.isclose(float((large.A(x) * y).sum()), float((x * large.A_adjoint(y)).sum()), rel_tol=1e-10)
    torch.testing.assert_close(block_means(large.A(x), FACTOR), small.A(block_means(x, FACTOR)))


def test_observation_keeps_block_means_and_adds_detail() -> None:
    small = observation(None)
    large = enlarged_observation(small, FACTOR, seed=0)
    assert large.shape == (CHANNELS, FACTOR * SIDE, FACTOR * SIDE)
    torch.testing.assert_close(block_means(large.y, FACTOR), small.y)
    seen = (large.y - enlarged(small.y, FACTOR))[..., : 2 * FACTOR]
    assert 0.7 * DETAIL < float(seen.std()) < 1.3 * DETAIL
