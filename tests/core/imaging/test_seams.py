"""Fills put into originals."""

from __future__ import annotations

import pytest
import torch

from vipaint_core.imaging.seams import composite, membrane


def test_membrane_is_exact_on_linear_functions():
    """Linear functions are harmonic: the solution continues them into the hole."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 64), indexing="ij")
    known = (0.3 + 0.5 * x - 0.2 * y)[None, None]
    hidden = torch.zeros(1, 1, 48, 64, dtype=torch.bool)
    hidden[..., 12:36, 16:48] = True
    broken = torch.where(hidden, 9.0, known)
    torch.testing.assert_close(membrane(broken, hidden), known, rtol=0, atol=0.01)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_a_seam_the_original_or_the_fill_is_shown(value):
    original, fills = torch.rand(2, 37, 31, 3), torch.rand(2, 37, 31, 3)
    found = composite(fills, original, torch.full((2, 1, 37, 31), value), feather=4, colour_match=1.0)
    assert torch.equal(found, fills if value else original)


def test_a_crossfade_begins_at_the_visible_neighbour_and_ends_at_the_fill():
    original, fills = torch.zeros(1, 5, 12, 3), torch.ones(1, 5, 12, 3)
    hole = torch.zeros(1, 1, 5, 12)
    hole[..., 4:] = 1
    found = composite(fills, original, hole, feather=3, colour_match=0.0)[0, 2, :, 0]
    torch.testing.assert_close(found, torch.tensor([0.0] * 4 + [0.25, 0.5, 0.75] + [1.0] * 5))
