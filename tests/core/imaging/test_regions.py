"""Regions around holes: they hold the hole, in the shape that is asked for."""

from __future__ import annotations

import pytest
import torch

from vipaint_core.imaging.regions import (
    LEAST_CONTEXT,
    Crop,
    Region,
    enlarged,
    enlargement,
    extent,
    region_around,
    scaled,
    with_neighbours,
)


def mask_of(height, width, box):
    """A mask (H, W) that is 1 in the box (top, left, bottom, right)."""
    mask = torch.zeros(height, width)
    top, left, bottom, right = box
    mask[top:bottom, left:right] = 1
    return mask


HOLES = {
    "small": (100, 120, 110, 150),
    "corner": (0, 0, 20, 31),
    "lower right": (229, 290, 260, 300),
    "large": (30, 40, 220, 200),
    "a line across": (120, 0, 124, 300),
    "everything": (0, 0, 260, 300),
    "nothing": (0, 0, 0, 0),
}


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES)
@pytest.mark.parametrize("size", [(128, 128), (96, 160), (512, 512)])
@pytest.mark.parametrize(("context", "enlarge"), [(1.0, 1.0), (2.0, 1.0), (3.0, 8.0)])
def test_the_region_holds_the_hole_in_the_target_s_shape(hole, size, context, enlarge):
    mask = mask_of(260, 300, hole)
    left, top, width, height = region_around(mask, size, context, enlarge)
    if mask.any():
        assert top <= hole[0] and hole[2] <= top + height and left <= hole[1] and hole[3] <= left + width
    # One pixel of rounding, and at least a visible pixel on each side of a hole that is narrower than that.
    assert abs(height * size[1] - width * size[0]) <= 2 * max(size)
    assert 0 <= top < 260 and 0 <= left < 300
    grown = [LEAST_CONTEXT * (hole[i + 2] - hole[i]) for i in (0, 1)]
    if max(grown[0] / size[0], grown[1] / size[1]) <= min(260 / size[0], 300 / size[1]):
        assert top + height <= 260 and left + width <= 300


@pytest.mark.parametrize(
    ("context", "enlarge", "expected"),
    [
        (2.0, 1.0, (71, 41, 128, 128)),  # never enlarged: the target's own size
        (2.0, 2.0, (103, 73, 64, 64)),
        (2.0, 8.0, (105, 75, 60, 60)),  # twice the hole's 30 pixels
        (6.0, 1.0, (45, 15, 180, 180)),
        (16.0, 1.0, (5, 0, 260, 260)),  # all there is in this shape
    ],
)
def test_how_large_the_region_is(context, enlarge, expected):
    mask = mask_of(260, 300, HOLES["small"])
    assert region_around(mask, (128, 128), context, enlarge) == expected


def test_a_region_starts_inside_and_its_inside_is_that_of_the_picture():
    picture = torch.arange(20).reshape(4, 5)
    assert torch.equal(picture[Region(3, 1, 4, 9).inside], picture[1:, 3:])


def test_extent_is_that_of_the_hidden_lines():
    assert extent(torch.tensor([False, True, False, True, False])) == (1, 4)
    assert extent(torch.zeros(5, dtype=torch.bool)) == (2, 2)


def test_neighbours_are_one_pixel_around_the_hole_inside_the_picture():
    hidden = mask_of(10, 12, (3, 0, 5, 4)) > 0
    lines, columns = with_neighbours(hidden)
    assert (lines, columns) == (slice(2, 6), slice(0, 5))


def test_a_whole_picture_is_a_crop_of_itself():
    crop = Crop.of_whole(torch.rand(2, 6, 9, 3))
    assert crop == Crop((Region(0, 0, 9, 6),) * 2, (6, 9), (6, 9))


def test_scaling_to_the_same_size_is_no_scaling_and_constants_stay():
    pictures = torch.rand(2, 6, 9, 3)
    assert scaled(pictures, (6, 9)) is pictures
    torch.testing.assert_close(scaled(torch.full((1, 6, 9, 3), 0.3), (13, 4)), torch.full((1, 13, 4, 3), 0.3))


@pytest.mark.parametrize(
    ("size", "cell", "factor"),
    [
        ((512, 384), 8, 1.0),
        ((37, 31), 8, 1.0),
        ((37, 37), 8, 1.0),
        ((37, 31), 8, 2.0),
        ((37, 37), 16, 2.0),
        ((512, 384), 8, 1.5),
        ((121, 125), 8, 4.0),
        ((64, 64), 8, 1.25),
    ],
)
def test_enlargement_is_found_in_padded_pictures(size: tuple[int, int], cell: int, factor: float) -> None:
    high, wide = (round(factor * (-(-length // cell) * cell)) for length in size)
    assert enlargement((high, wide), size, 64) == factor


def test_other_pictures_are_not_enlarged_ones() -> None:
    assert enlargement((40, 48), (64, 64), 64) is None
    assert enlargement((128, 96), (64, 64), 64) is None


def test_enlarged_holes_cover_what_they_covered() -> None:
    pictures, hole = torch.rand(1, 6, 5, 3), torch.zeros(1, 1, 6, 5)
    hole[..., 2:4, 1:3] = 1
    larger, covers = enlarged(pictures, hole, (13, 11))
    assert larger.shape == (1, 13, 11, 3) and covers[..., 5:8, 3:6].min() == 1 and covers.sum() < 5 * 4 * 3
