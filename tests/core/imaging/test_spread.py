"""How fills differ, and how it is drawn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vipaint_core.imaging import spread


def fills_of(pictures: int, each: int, hidden: int = 12, seed: int = 0) -> torch.Tensor:
    """Fills (pictures * each, 16, 24, 3) of random pictures of which `hidden` columns are painted."""
    generator = torch.Generator().manual_seed(seed)
    fills = torch.rand(pictures, 16, 24, 3, generator=generator).repeat_interleave(each, 0)
    fills[:, :, :hidden] = torch.rand(pictures * each, 16, hidden, 3, generator=generator)
    return fills


@given(st.integers(1, 4), st.integers(2, 6), st.integers(1, 22))
def test_fills_of_a_picture_are_found_by_what_they_share(pictures: int, each: int, hidden: int) -> None:
    assert spread.fills_per_picture(fills_of(pictures, each, hidden)) == each


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_that_share_nothing_are_taken_for_fills_of_one(count: int) -> None:
    """As fills of a whole picture are, or those that were not put back."""
    assert spread.fills_per_picture(torch.rand(count, 8, 8, 3)) == count


def test_fills_of_which_two_are_equal() -> None:
    fills = fills_of(1, 4)
    fills[1] = fills[0]
    assert spread.fills_per_picture(fills) == 4


def test_spread_is_the_standard_deviation_over_fills() -> None:
    fills = fills_of(2, 5).double()
    found = spread.spread(fills, 5)
    expected = fills[5:].var(0, correction=0).mean(-1).sqrt()
    torch.testing.assert_close(found[1], expected.float())
    assert found.shape == (2, 16, 24) and not found[:, :, 12:].any()


def test_an_edge_lies_just_outside() -> None:
    inside = torch.zeros(1, 9, 9, dtype=torch.bool)
    inside[:, 3:6, 3:6] = True
    line = spread.edge(inside, 1)
    assert int(line.sum()) == 25 - 9 and not (line & inside).any()


def test_an_outline_covers_nothing_inside_and_is_seen_on_any_ground() -> None:
    inside = torch.zeros(1, 12, 12, dtype=torch.bool)
    inside[:, 4:8, 4:8] = True
    line = spread.outline(inside, 1)
    assert line.shape == (1, 12, 12, 4) and not line[..., 3][inside].any()
    drawn = line[..., :3][line[..., 3] == 1]
    assert drawn.min() == 0 and drawn.max() == 1


def test_an_overlay_is_the_picture_where_nothing_differs() -> None:
    picture, values = torch.rand(1, 20, 20, 3), torch.zeros(1, 20, 20)
    values[:, 5:9, 5:9] = 1
    shown = spread.overlay(picture, values, 1.0, 1.0)
    assert torch.equal(shown[values == 0], picture[values == 0])
    torch.testing.assert_close(shown[values == 1], spread.heat_map(values)[values == 1])
    with_line = spread.overlay(picture, values, 0.0, 0.5)
    assert (with_line == 1).all(-1).sum() > 12 and torch.equal(with_line[:, 6:8, 6:8], picture[:, 6:8, 6:8])


def test_a_legend_is_drawn_where_there_is_room() -> None:
    small, large = torch.full((1, 40, 40, 3), 0.5), torch.full((2, 96, 96, 3), 0.5)
    assert torch.equal(spread.with_legend(small, torch.tensor([0.25])), small)
    shown = spread.with_legend(large, torch.tensor([0.25, 0.5]))
    assert shown.shape == large.shape and (shown[:, :60] - 0.5).abs().max() == 0
    # Each has its own number.
    assert (shown[0, 60:] != shown[1, 60:]).any() and shown[0, 60:].max() > 0.9
