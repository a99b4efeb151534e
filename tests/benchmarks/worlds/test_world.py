"""The energy score against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.worlds.world import energy_score


def one_pixel(height: int = 1) -> torch.Tensor:
    hole = torch.zeros(height, 4, dtype=torch.bool)
    hole[0, 0] = True
    return hole


def gaussians(pictures: int, fills: int, spread: float, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.Generator().manual_seed(3)
    fill = shift + spread * torch.randn(pictures, fills, 3, 1, 4, generator=numbers, dtype=torch.float64)
    return fill, torch.randn(pictures, 3, 1, 4, generator=numbers, dtype=torch.float64)


# Mean length of a standard normal vector of three numbers.
LENGTH = math.sqrt(2) * math.gamma(2) / math.gamma(1.5)


@pytest.mark.parametrize("fills", [2, 5])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 2.0])
def test_gaussian_fills_have_the_score_of_the_formula(fills: int, spread: float) -> None:
    score = float(energy_score(*gaussians(20_000, fills, spread), one_pixel()).mean())
    expected = (math.sqrt(1 + spread**2) - math.sqrt(2) * spread / 2) * LENGTH / math.sqrt(3)
    assert score == pytest.approx(expected, abs=0.015)


def test_the_posterior_itself_scores_best() -> None:
    best = energy_score(*gaussians(20_000, 4, 1.0), one_pixel()).mean()
    for spread, shift in ((0.0, 0.0), (0.5, 0.0), (2.0, 0.0), (1.0, 0.5)):
        assert energy_score(*gaussians(20_000, 4, spread, shift), one_pixel()).mean() > best + 0.02


def test_only_hidden_pixels_count_and_their_number_does_not() -> None:
    fills, truth = torch.rand(2, 3, 3, 2, 4), torch.rand(2, 3, 2, 4)
    changed = fills.clone()
    changed[..., 1, :] += 1
    hole = one_pixel(2)
    assert torch.equal(energy_score(fills, truth, hole), energy_score(changed, truth, hole))
    constant = torch.full((1, 2, 3, 2, 4), 0.25), torch.zeros(1, 3, 2, 4)
    for region in (hole, torch.ones_like(hole)):
        assert energy_score(*constant, region).item() == pytest.approx(0.25)


def test_one_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="expected two fills at least, found 1"):
        energy_score(torch.zeros(1, 1, 3, 1, 4), torch.zeros(1, 3, 1, 4), one_pixel())
