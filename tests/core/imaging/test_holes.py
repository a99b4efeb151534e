"""What is put into holes, and which latent cells they hide."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from vipaint_core.imaging.holes import (
    covered,
    distance_to_visible,
    fill_from_nearest,
    fill_with_noise,
    latent_hole,
    pad_to_cells,
)


def test_a_latent_cell_is_as_hidden_as_its_most_hidden_pixel():
    hole = torch.zeros(1, 1, 32, 24)
    hole[0, 0, 9, 8] = 1
    hole[0, 0, 0, 0] = 0.3
    cells = latent_hole(hole, (4, 3))
    expected = torch.zeros(4, 3)
    expected[1, 1], expected[0, 0] = 1, 0.3
    torch.testing.assert_close(cells[0, 0], expected)


def test_hole_is_filled_from_the_nearest_visible_pixel():
    picture = torch.rand(1, 10, 12, 3)
    hole = torch.zeros(1, 1, 10, 12)
    hole[..., 6:] = 1
    filled = fill_from_nearest(picture, hole)
    assert torch.equal(filled[:, :, :6], picture[:, :, :6])
    assert torch.equal(filled[:, :, 6:], picture[:, :, 5:6].expand(-1, -1, 6, -1))
    full = fill_from_nearest(picture, torch.ones_like(hole))
    assert torch.equal(full, torch.full_like(picture, 0.5))


def test_a_soft_border_is_encoded_as_it_is():
    picture, hole = torch.rand(1, 10, 12, 3), torch.zeros(1, 1, 10, 12)
    hole[..., 5:] = torch.tensor([0.2, 0.5, 0.75, 0.9, 1.0, 1.0, 1.0])
    filled = fill_from_nearest(picture, hole)
    assert torch.equal(filled[:, :, :7], picture[:, :, :7])
    torch.testing.assert_close(filled[:, :, 7], (picture[:, :, 6] + picture[:, :, 7]) / 2)
    assert torch.equal(filled[:, :, 9:], picture[:, :, 6:7].expand(-1, -1, 3, -1))
    for other in fill_with_noise(filled, hole, 1):
        assert torch.equal(other[:, :, :7], filled[:, :, :7])
        assert not (other == filled)[:, :, 9:].all()


def test_fillers_vary_as_what_is_visible_whatever_else_is_in_the_batch():
    cell, hole = 8, torch.zeros(2, 1, 128, 96)
    hole[..., 16:] = 1
    pictures = torch.rand(2, 128, 96, 3)
    pictures[1] = torch.tensor([0.3, 0.5, 0.6])
    others = torch.stack(fill_with_noise(pictures, hole, cell))
    assert torch.equal(others[:, :, :, :16], pictures[:, :, :16].expand(len(others), -1, -1, -1, -1))
    assert torch.equal(others[:, 1:], torch.stack(fill_with_noise(pictures[1:], hole[1:], cell)))
    assert all(not torch.equal(one, two) for one, two in pairwise(others))
    # Flat surroundings say little of what is hidden.
    varied, flat = others[:, :, :, 16:].unbind(1)
    assert float(varied.std()) == pytest.approx(float(pictures[0, :, :16].std()), rel=0.2)
    assert float(flat.std((0, 1, 2)).mean()) == pytest.approx(0.15, rel=0.2)
    torch.testing.assert_close(flat.mean((0, 1, 2)), pictures[1, 0, 0], atol=0.05, rtol=0)
    # As in natural pictures, pixels beside each other are alike; what is cells apart is not.
    deviation = flat - flat.mean((0, 1, 2))

    def correlation(apart: int) -> float:
        product = deviation[:, :, apart:] * deviation[:, :, : deviation.shape[2] - apart]
        return float(product.mean() / deviation.square().mean())

    assert correlation(1) > 0.8 and abs(correlation(6 * cell)) < 0.2


def test_of_a_picture_without_visible_pixels_fillers_are_grey_in_the_mean():
    hole = torch.ones(1, 1, 64, 64)
    others = torch.stack(fill_with_noise(fill_from_nearest(torch.rand(1, 64, 64, 3), hole), hole, 8))
    assert float(others.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(others.std()) == pytest.approx(0.15, rel=0.1)


def test_a_half_hidden_pixel_is_kept_up_to_a_half():
    hole = torch.tensor([0.0, 0.5, 0.75, 1.0])
    torch.testing.assert_close(covered(hole), torch.tensor([0.0, 0.0, 0.5, 1.0]))


@pytest.mark.parametrize(("size", "padded"), [((37, 31), (40, 32)), ((32, 24), (32, 24)), ((1, 1), (8, 8))])
def test_padding_repeats_the_last_line_and_column(size, padded):
    picture = torch.rand(2, 3, *size)
    found = pad_to_cells(picture, 8)
    assert found.shape == (2, 3, *padded)
    assert torch.equal(found[..., : size[0], : size[1]], picture)
    assert torch.equal(found[..., -1, -1], picture[..., -1, -1])


def test_distances_count_from_the_nearest_visible_pixel():
    hole = torch.zeros(3, 1, 5, 7)
    hole[0, 0, 1:4, 2:6] = 0.3
    hole[1] = 1
    found = distance_to_visible(hole)
    assert found[0, 0, 2].tolist() == [0, 0, 1, 2, 2, 1, 0]
    assert torch.isinf(found[1]).all() and not found[2].any()
