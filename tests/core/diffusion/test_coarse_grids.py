"""Levels beyond a model's largest, and presets at larger latents, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from gaussian import CLOSED_FORM, GaussianPrior

from benchmarks.mixtures.problems import Mixture
from vipaint_core import CoarseGridDenoiser, LatentObservation, fit, reachable_level, sample
from vipaint_core.diffusion.coarse_grids import coarsest_factor, size_factor


@pytest.mark.parametrize(
    ("shape", "factor", "coarsest"),
    [
        ((4, 16, 16), 1.0, 1),
        ((4, 8, 8), 1.0, 1),
        ((4, 32, 32), 2.0, 2),
        ((4, 64, 64), 4.0, 4),
        ((16, 128, 128), 8.0, 8),
        # As many cells in another shape; 90 x 160 cells are 7.5 times 16 x 16.
        ((4, 8, 512), 4.0, 1),
        ((4, 16, 256), 4.0, 2),
        ((4, 90, 160), 7.5, 4),
    ],
)
def test_factors_count_cells(shape: tuple[int, int, int], factor: float, coarsest: int) -> None:
    assert size_factor(shape) == pytest.approx(factor) and coarsest_factor(shape) == coarsest
    assert reachable_level(14.6, shape) == 14.6 * coarsest and reachable_level(math.inf, shape) == math.inf


class Blocks:
    """Latents that are constant over the blocks of the coarsest grid, whose means are a correlated Gaussian's."""

    def __init__(self, prior: GaussianPrior) -> None:
        self.prior, self.sides, self.largest = prior, set[int](), 0.0

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        self.sides.add(u.shape[-1])
        self.largest = max(self.largest, float(s.max()))
        factor = u.shape[-1] // self.prior.shape[-1]
        means = self.prior(F.avg_pool2d(u, factor), s / factor)
        return F.interpolate(means, scale_factor=factor, mode="nearest")


PRIOR = GaussianPrior.correlated((1, 3, 4))


@pytest.mark.parametrize("level", [1.0, 14.6, 20.0, 29.2, 50.0])
def test_beyond_the_largest_level_the_estimate_is_that_of_a_coarser_grid(level: float) -> None:
    inner, u = Blocks(PRIOR), torch.randn(2, 1, 12, 16, dtype=torch.float64)
    s = torch.full((2,), level, dtype=torch.float64)
    found = CoarseGridDenoiser(inner, 14.6)(u, s)
    assert inner.largest <= 14.6
    assert inner.sides == {16 if level <= 14.6 else 8 if level <= 29.2 else 4}
    torch.testing.assert_close(found, Blocks(PRIOR)(u, s), rtol=1e-12, atol=1e-12)


def test_the_jacobian_on_a_coarser_grid_is_symmetric() -> None:
    denoiser = CoarseGridDenoiser(Blocks(PRIOR), 14.6)
    u = torch.randn(1, 1, 12, 16, dtype=torch.float64)
    s = torch.tensor([50.0], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: denoiser(x, s), u).reshape(192, 192)
    torch.testing.assert_close(jacobian, jacobian.T, rtol=1e-10, atol=1e-12)


def test_sizes_that_no_block_divides_are_filled_from_the_neighbours() -> None:
    found = CoarseGridDenoiser(lambda u, s: u, 1.0)(torch.arange(35.0).reshape(1, 1, 5, 7), torch.tensor([2.0]))
    assert found.shape == (1, 1, 5, 7)
    assert torch.equal(found[..., 4, :], found[..., 3, :]) and torch.equal(found[..., 6], found[..., 5])
    assert found[0, 0, 0, 0] == 4.0


def two_modes(level: float | None, relative: bool) -> float:
    """Share of the rarer mode among fills of 64 x 64 cells; the modes are far apart and weigh 1 to 2.

    level: the largest of the model, or None.
    """
    mixture = Mixture(torch.tensor([1.0, 2.0]).log(), torch.tensor([[1.0], [-1.0]]), torch.tensor([0.01]))

    def enlarged(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """All cells of a picture are alike: 16 x 16 blocks whose mean has the noise of as many cells."""
        cells = u[0, 0].numel()
        mean = u.mean((2, 3), keepdim=True)
        return mixture(mean.reshape(-1, 1, 1, 1), s / cells**0.5).reshape(-1, 1, 1, 1).expand_as(u).clone()

    observation = LatentObservation.masked(torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64))
    preset = CLOSED_FORM.with_changes(fit={"keypoints": (10.0, 30.0)}, schedule={"steps": 25})
    if not relative:
        preset = preset.with_changes(fit={"keypoints": (2.5, 7.5)})
    denoiser, top = enlarged, math.inf
    if level is not None:
        denoiser, top = CoarseGridDenoiser(enlarged, level), reachable_level(level, observation.shape)
    drawn = sample(denoiser, fit(denoiser, observation, preset, 0, s_max=top), 1, 500, batch=500).latents
    return float((drawn.mean((1, 2, 3)) > 0).float().mean())


def test_levels_that_grow_with_the_latents_weigh_modes_right() -> None:
    """Exact: a third. Levels of 16 x 16 cells start where the modes are decided already, between them.

    A model that ends at 14.6 reaches 58 on 16 x 16 cells, where little is decided.
    """
    for level in (None, 30.0):
        assert abs(two_modes(level, relative=True) - 1 / 3) < 0.04
    assert two_modes(14.6, relative=True) < 0.42 < 0.44 < two_modes(14.6, relative=False)
