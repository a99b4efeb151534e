"""Masks against brute force: every operation on hard, soft and empty ones."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from vipaint_core.imaging.masks import snapped, tended


def mask_of(*boxes, height=40, width=50):
    """Boxes are (top, left, bottom, right, value)."""
    mask = torch.zeros(1, 1, height, width)
    for top, left, bottom, right, value in boxes:
        mask[..., top:bottom, left:right] = value
    return mask


def jpeg(mask, quality):
    """What a JPEG file holds of a mask (1, 1, H, W)."""
    stored = BytesIO()
    Image.fromarray((mask[0, 0].numpy() * 255).astype(np.uint8)).convert("RGB").save(stored, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(stored))[..., 0] / np.float32(255))[None, None]


def test_both_ends_are_snapped_and_greys_stay():
    values = torch.arange(256) / 255
    found = snapped(values)
    assert (found[:24] == 0).all() and (found[236:] == 1).all()
    assert torch.equal(found[24:236], values[24:236])
    assert torch.equal(snapped(found), found)
    # Products in place of quotients, and other precisions, are the same numbers to rounding.
    assert torch.equal(snapped(torch.arange(256) * (1 / 255)) == 1, found == 1)
    assert torch.equal(snapped(values.half()) == 0, found == 0)


def test_masks_saved_as_jpeg_are_black_and_white_again():
    mask = mask_of((60, 70, 190, 210, 1.0), (10, 10, 22, 200, 1.0), height=256, width=256)
    assert len(jpeg(mask, 95).unique()) > 2
    assert torch.equal(snapped(jpeg(mask, 95)), mask)
    # Of stronger compression something is left within a block of an edge, nothing elsewhere.
    near = torch.from_numpy(ndimage.binary_dilation(mask[0, 0].diff(dim=0, prepend=mask[0, 0, :1]).numpy() != 0))
    near |= mask[0, 0].diff(dim=1, prepend=mask[0, 0, :, :1]) != 0
    far = ~torch.from_numpy(ndimage.binary_dilation(near.numpy(), iterations=16))
    assert far.any() and torch.equal(snapped(jpeg(mask, 60))[0, 0, far], mask[0, 0, far])


def test_nothing_to_do_changes_nothing():
    mask = mask_of((5, 5, 20, 20, 1.0), (5, 20, 20, 30, 0.4))
    assert torch.equal(tended(mask), mask)


@pytest.mark.parametrize("grow", [1, 4, -1, -4])
def test_growing_is_by_distance_in_all_directions(grow):
    mask = mask_of((10, 12, 25, 30, 1.0))
    white = mask[0, 0] > 0
    inside, outside = white.nonzero().double(), (~white).nonzero().double()
    places = torch.ones_like(white).nonzero().double()
    far = torch.cdist(places, inside if grow > 0 else outside).amin(1).reshape(white.shape)
    expected = far <= grow if grow > 0 else far > -grow
    assert torch.equal(tended(mask, grow=grow)[0, 0] == 1, expected)


@pytest.mark.parametrize("grow", [3, -3])
def test_growing_a_soft_mask_moves_every_level(grow):
    """The highest, or lowest, value within the distance."""
    mask = mask_of((10, 12, 25, 30, 0.5), (14, 16, 20, 24, 1.0))
    y, x = np.mgrid[-3:4, -3:4]
    # Shrinking is by distance to black, which has to be farther away.
    disc = (y**2 + x**2) <= 9
    change = ndimage.grey_dilation if grow > 0 else ndimage.grey_erosion
    expected = change(mask[0, 0].numpy(), footprint=disc)
    assert np.array_equal(tended(mask, grow=grow)[0, 0].numpy(), expected)


def test_many_grey_levels_are_kept_to_a_step():
    ramp = torch.linspace(0.1, 0.9, 50).expand(1, 1, 40, 50).clone()
    found, expected = tended(ramp, grow=2), torch.from_numpy(ndimage.grey_dilation(ramp[0, 0].numpy(), (1, 5)))
    assert (found[0, 0] - expected).abs().max() <= 1 / 32 + 1e-6


def test_what_touches_the_border_is_not_shrunk_from_there():
    found = tended(mask_of((0, 20, 40, 50, 1.0)), grow=-5)
    assert torch.equal(found, mask_of((0, 25, 40, 50, 1.0)))


def test_enclosed_holes_are_filled_and_bays_are_not():
    ring = mask_of((5, 5, 30, 30, 1.0), (12, 12, 20, 20, 0.0))
    bay = mask_of((5, 5, 30, 30, 1.0), (12, 12, 20, 30, 0.0))
    assert torch.equal(tended(ring, fill_holes=True), mask_of((5, 5, 30, 30, 1.0)))
    assert torch.equal(tended(bay, fill_holes=True), bay)
    corner = mask_of((0, 0, 30, 30, 1.0), (0, 0, 8, 8, 0.0))
    assert torch.equal(tended(corner, fill_holes=True), corner)


def test_the_soft_rim_of_a_hole_is_filled_with_it():
    mask = mask_of((5, 5, 30, 30, 1.0), (11, 11, 21, 21, 0.6), (12, 12, 20, 20, 0.0))
    assert torch.equal(tended(mask, fill_holes=True), mask_of((5, 5, 30, 30, 1.0)))
    # Up to the lowest level that encloses it.
    grey = mask_of((5, 5, 30, 30, 0.6), (12, 12, 20, 20, 0.0))
    assert torch.equal(tended(grey, fill_holes=True), mask_of((5, 5, 30, 30, 0.6)))


def test_specks_are_spots_of_at_most_that_size():
    large, small, line = (5, 5, 20, 20, 1.0), (30, 30, 33, 33, 1.0), (36, 2, 37, 12, 1.0)
    mask = mask_of(large, small, line)
    assert torch.equal(tended(mask, specks=2), mask)
    assert torch.equal(tended(mask, specks=3), mask_of(large, line))
    assert torch.equal(tended(mask, specks=10), mask_of(large))
    diagonal = torch.eye(40)[None, None]
    assert torch.equal(tended(diagonal, specks=39), diagonal) and not tended(diagonal, specks=40).any()


def test_operations_are_in_their_order():
    """A white speck in the black of an inverted mask: found after inverting, before growing."""
    mask = 1 - mask_of((5, 5, 30, 30, 1.0), (35, 40, 37, 42, 1.0))
    assert torch.equal(tended(mask, invert=True, specks=2, grow=0), mask_of((5, 5, 30, 30, 1.0)))
    grown = tended(mask, invert=True, specks=2, grow=1)
    assert grown.sum() == 25 * 25 + 4 * 25


def test_blur_is_symmetric_about_the_edge_and_each_mask_is_its_own():
    masks = torch.cat([mask_of((0, 25, 40, 50, 1.0)), mask_of((0, 0, 40, 50, 1.0)), mask_of()])
    found = tended(masks, blur=3.0)
    torch.testing.assert_close(found[0, 0, :, :25], 1 - found[0, 0, :, 25:].flip(1))
    assert 0.05 < found[0, 0, 20, 20] < 0.5 and (found[1] == 1).all() and not found[2].any()
