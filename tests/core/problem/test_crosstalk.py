"""What observed cells owe to hidden ones, measured with other fillers."""

from __future__ import annotations

import torch
from gaussian import normal

from vipaint_core import LatentObservation, measure_crosstalk, measure_cut_cells
from vipaint_core.problem.operators import Mask


def test_linear_crosstalk_is_found_and_leaves_nothing() -> None:
    observed = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    observed[:, :, :, 3:] = False
    kernel = 0.3 * normal(2, 3, 3, 3, 3)
    moved = torch.where(observed, 0.0, normal(24, 2, 3, 6, 6, seed=1))
    operator = Mask(observed, kernel)
    moved = torch.stack([torch.where(observed, -operator.A(rows), rows) for rows in moved])
    found, rest = measure_crosstalk(moved, observed)
    # The hidden cells are to the right: nothing is known of the kernel's other columns.
    assert torch.allclose(found[..., 2], kernel[..., 2], atol=0.02)
    assert found[..., :2].abs().max() < 1e-9
    assert rest[observed].max() < 1e-3 * moved[:, observed.expand(2, 3, 6, 6)].square().mean()


def test_what_nothing_predicts_is_variance_alone() -> None:
    observed = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    observed[..., ::2] = True
    moved = normal(40, 1, 2, 8, 8)
    found = measure_crosstalk(moved, observed)
    assert found.kernel.abs().max() == 0
    assert torch.allclose(found.variance, moved.square().mean((0, 2))[:, None])
    everything, nothing = torch.ones_like(observed), torch.zeros_like(observed)
    assert all((measure_crosstalk(moved, cover).kernel == 0).all() for cover in (everything, nothing))


def encoded(pixels: torch.Tensor) -> torch.Tensor:
    """(B, 1, 2 H, 2 W) to (B, 4, H, W): a cell's latent is a rotation of its four pixels."""
    rotation = torch.linalg.qr(normal(4, 4)).Q
    return torch.einsum("ij,njhw->nihw", rotation, torch.nn.functional.pixel_unshuffle(pixels, 2))


def test_cut_cells_tell_what_visible_pixels_tell() -> None:
    """The pixels of a cut cell's left column are known, those of its right column are as in hidden cells."""
    hidden = torch.zeros(1, 1, 24, 24, dtype=torch.bool)
    hidden[..., 11:] = True
    pictures = normal(60, 1, 24, 24)
    pictures = torch.where(hidden, pictures, pictures[:1])
    latents = encoded(pictures)
    found = measure_cut_cells((latents[1:] - latents[:1])[:, None], latents[:1], hidden)
    assert found.kind.shape == (1, 1, 12, 12)
    assert (found.kind[..., 5] == found.kind[0, 0, 0, 5]).all() and found.kind[0, 0, 0, 5] > 0
    assert (found.kind[..., :5] == 0).all() and (found.kind[..., 6:] == 0).all()
    # As pixels: (left above, right above, left below, right below).
    rotation = torch.linalg.qr(normal(4, 4)).Q
    maps = found.maps[0, int(found.kind[0, 0, 0, 5]) - 1].double() @ rotation
    precision = (maps.mT @ maps).diagonal()
    assert precision[[0, 2]].min() > 5 and precision[[1, 3]].max() < 0.2

    observation = LatentObservation.masked(latents[:1], (~hidden[..., ::2, 1::2]).double(), 0.1, cut=found)
    assert observation.operator.observed[0, 0, 0].tolist() == [column < 5 for column in range(12)]
    assert (observation.weight[0, 0, 0] > 0).tolist() == [column < 6 for column in range(12)]
    assert (observation.cell_weight == observation.operator.observed).all()
    # Another picture with the same visible pixels explains y as well as this one.
    noise = observation.residual(latents[7:8]) / 0.1
    assert noise.abs().max() < 3
    other = encoded(normal(1, 1, 24, 24, seed=9))
    assert observation.residual(other)[..., 5].norm() > 4 * observation.residual(latents[7:8])[..., 5].norm()


def test_holes_along_the_cells_cut_none() -> None:
    hidden = torch.zeros(2, 1, 24, 24, dtype=torch.bool)
    hidden[0, :, :, 12:] = True
    found = measure_cut_cells(normal(8, 2, 4, 12, 12), normal(2, 4, 12, 12), hidden)
    assert not found.kind.any()
    observation = LatentObservation.masked(normal(2, 4, 12, 12), (~hidden[..., ::2, ::2]).double(), cut=found)
    assert observation.operator.cut_kind is None


def test_flat_pictures_tell_nothing() -> None:
    """Where all fillers are alike nothing shows what hidden content would do."""
    hidden = torch.zeros(1, 1, 24, 24, dtype=torch.bool)
    hidden[..., 11:] = True
    found = measure_cut_cells(torch.zeros(8, 1, 4, 12, 12), torch.ones(1, 4, 12, 12), hidden)
    assert found.kind.any() and not found.maps.any()
