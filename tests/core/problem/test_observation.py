"""Observations of latents: what they take, what they refuse, and that hidden content has no part in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import normal

from vipaint_core import LatentObservation
from vipaint_core.problem.observation import CutCells
from vipaint_core.problem.operators import Downsample


@pytest.mark.parametrize(
    ("latents", "weight", "message"),
    [
        (torch.zeros(1, 2, 3), torch.zeros(1, 1, 2, 3), "B, C, H, W"),
        (torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), "weight of shape"),
        (torch.zeros(1, 2, 3, 3), torch.full((1, 1, 3, 3), 1.5), "within"),
        (torch.full((1, 2, 3, 3), float("nan")), torch.zeros(1, 1, 3, 3), "finite"),
    ],
)
def test_bad_observations_are_named(latents: torch.Tensor, weight: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentObservation.masked(latents, weight)
    with pytest.raises(ValueError, match=message):
        LatentObservation(latents, weight, Downsample(1), (2, 3, 3))


@pytest.mark.parametrize("sigma_y", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_noise_is_named(sigma_y: float) -> None:
    with pytest.raises(ValueError, match="sigma_y"):
        LatentObservation.masked(torch.zeros(1, 2, 3, 3), torch.ones(1, 1, 3, 3), sigma_y)


def test_bad_crosstalk_variances_are_named() -> None:
    latents, weight = torch.zeros(1, 2, 3, 3), torch.ones(1, 1, 3, 3)
    for bad in (torch.zeros(1, 2, 3, 3), torch.full((1, 1, 3, 3), -1.0), torch.full((1, 1, 3, 3), float("nan"))):
        with pytest.raises(ValueError, match="expected crosstalk_variance"):
            LatentObservation.masked(latents, weight, crosstalk_variance=bad)


def test_bad_kernels_are_named() -> None:
    for shape in ((1, 2, 2, 2, 2), (2, 2, 2, 3, 3), (1, 2, 1, 3, 3), (1, 3, 3, 3, 3)):
        with pytest.raises(ValueError, match="expected crosstalk"):
            LatentObservation.masked(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4), crosstalk=torch.zeros(shape))


def test_masks_of_other_sizes_are_named() -> None:
    found = LatentObservation.masked(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4))
    with pytest.raises(ValueError, match="expected a mask of shape"):
        replace(found, y=torch.zeros(1, 2, 4, 5), weight=torch.ones(1, 1, 4, 5))


def test_hidden_cells_take_no_part() -> None:
    """Whatever was encoded in the hole's place, the observation is the same; of crosstalk, what it changes is not."""
    weight = (normal(2, 1, 4, 4) > 0).double()
    latents = normal(2, 3, 4, 4, seed=1)
    other, x0 = torch.where(weight > 0, latents, 7.0), normal(2, 3, 4, 4, seed=2)
    first, second = (LatentObservation.masked(filled, weight) for filled in (latents, other))
    assert torch.equal(first.y, second.y) and torch.equal(first.latents, torch.where(weight > 0, latents, 0.0))
    assert torch.equal(first.residual(x0), second.residual(x0))
    assert (first.residual(x0)[(weight == 0).expand_as(x0)] == 0).all()
    kernel = normal(2, 3, 3, 3, 3, seed=3)
    first, second = (LatentObservation.masked(filled, weight, crosstalk=kernel) for filled in (latents, other))
    assert (first.y - second.y).abs().max() > 0.1


def test_what_is_complete() -> None:
    """Every cell of full weight; other operators never are, and hold no latents."""
    weight = torch.ones(3, 1, 4, 4)
    weight[1, 0, 2, 2] = 0.5
    weight[2, 0, 0] = 0
    latents = torch.randn(3, 2, 4, 4)
    observation = LatentObservation.masked(latents, weight)
    assert observation.complete.tolist() == [True, False, False] and torch.equal(observation.cell_weight, weight)
    assert torch.equal(observation.rows(torch.tensor([1, 0])).complete, torch.tensor([False, True]))
    operator = Downsample(2, "area")
    reduced = LatentObservation(operator.A(latents), torch.ones(3, 1, 2, 2), operator, (2, 4, 4))
    assert not reduced.complete.any() and not reduced.is_cellwise
    assert reduced.latents.shape == latents.shape and (reduced.latents == 0).all()
    assert reduced.cell_weight.shape == weight.shape and (reduced.cell_weight == 0).all()


def test_more_cells_are_evidence_and_what_was_visible_stays() -> None:
    """Of any x that agrees with them, the residual is that of before, and 0 in these cells."""
    weight = torch.zeros(2, 1, 5, 6)
    weight[..., :3] = 1
    weight[:, :, 0, 2] = 0.4
    kind = torch.zeros(2, 1, 5, 6, dtype=torch.uint8)
    kind[..., 3] = 1
    parts = {"crosstalk": 0.2 * normal(2, 3, 3, 3, 3, seed=1).float(), "crosstalk_variance": torch.rand(2, 1, 5, 6)}
    cut = CutCells(kind, normal(2, 1, 3, 3, seed=2).float())
    before = LatentObservation.masked(normal(2, 3, 5, 6).float(), weight, cut=cut, **parts)
    added = torch.zeros(2, 1, 5, 6)
    # A visible cell, a soft one, a cut one, hidden ones, one of them softly.
    added[:, :, 0, :5], added[:, :, 1, 4] = 1, 0.5
    fill, x0 = normal(2, 3, 5, 6, seed=3).float(), normal(2, 3, 5, 6, seed=4).float()
    found = before.with_cells(fill, added)
    taken = added > before.cell_weight
    assert taken.sum() == 2 * 4
    assert torch.equal(found.cell_weight, torch.maximum(added, before.cell_weight))
    plain = LatentObservation.masked(normal(2, 3, 5, 6).float(), weight).with_cells(fill, added)
    assert torch.equal(plain.latents[taken.expand_as(fill)], fill[taken.expand_as(fill)])
    agreeing, elsewhere = torch.where(taken, fill, x0), ~taken.expand_as(fill)
    assert torch.allclose(found.residual(agreeing)[elsewhere], before.residual(agreeing)[elsewhere], atol=1e-6)
    # They owe something to what is hidden beside them, as cells of an encoded picture do.
    assert found.residual(fill)[~elsewhere].abs().max() < 1e-6 < found.residual(agreeing)[~elsewhere].abs().max()
    assert found.crosstalk_variance is not None and before.crosstalk_variance is not None
    measured = before.crosstalk_variance > 0
    mean = before.crosstalk_variance.sum((1, 2, 3)) / measured.sum((1, 2, 3))
    # Beside hidden cells, and where all cells around are observed.
    assert torch.allclose(found.crosstalk_variance[:, 0, 0, 4], mean)
    assert torch.equal(found.crosstalk_variance[:, 0, 0, 0], before.crosstalk_variance[:, 0, 0, 0])
    everything = before.with_cells(fill, torch.ones_like(added))
    assert torch.equal(everything.latents[:, :, :, 3:], fill[:, :, :, 3:]) and everything.complete.all()
    assert torch.equal(everything.rows(torch.tensor([1])).complete, torch.tensor([True]))


def test_more_cells_that_do_not_fit_are_refused() -> None:
    found = LatentObservation.masked(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
    for latents, weight, message in (
        (torch.zeros(1, 2, 4, 5), torch.ones(1, 1, 4, 5), "latents of shape"),
        (torch.zeros(1, 2, 4, 4), torch.full((1, 1, 4, 4), 2.0), "within"),
        (torch.full((1, 2, 4, 4), float("nan")), torch.ones(1, 1, 4, 4), "finite"),
    ):
        with pytest.raises(ValueError, match=f"with_cells: .*{message}"):
            found.with_cells(latents, weight)
    operator = Downsample(2, "area")
    mixing = LatentObservation(torch.zeros(1, 2, 2, 2), torch.ones(1, 1, 2, 2), operator, (2, 4, 4))
    with pytest.raises(ValueError, match="single cells, found Downsample"):
        mixing.with_cells(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4))
