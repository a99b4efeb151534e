"""VIPaint Uncertainty as the host calls it."""

from __future__ import annotations

import math

import pytest
import torch


def test_is_the_deviation_over_fills(pack):
    images = torch.zeros(4, 6, 5, 3)
    images[:2, 1, 1] = torch.tensor([0.0, 1.0])[:, None]
    images[2:, 2, 2] = torch.tensor([0.2, 0.6])[:, None]
    execute = pack.uncertainty.VIPaintUncertainty.execute
    heat, spread, shown = execute(images, 2, 0.0).result
    assert heat.shape == shown.shape == (2, 6, 5, 3) and spread.shape == (2, 6, 5)
    assert spread[0, 1, 1] == 1 and spread[1, 2, 2] == 1
    assert spread.sum() == 2
    assert heat[0, 1, 1].sum() > 2.5 and heat[0, 0, 0].sum() < 0.1
    _, absolute, _ = execute(images, 2, 0.5).result
    torch.testing.assert_close(absolute[:, [1, 2], [1, 2]].diagonal(), torch.tensor([1.0, 0.4]))


def of_pictures(count, each, seed=0):
    """Pictures with a hole at the right, (count, 48, 64, 3), and fills of each of them."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(count, 48, 64, 3, generator=generator)
    fills = pictures.repeat_interleave(each, 0)
    fills[:, :, 40:] = torch.rand(count * each, 48, 24, 3, generator=generator)
    return pictures, fills


@pytest.mark.parametrize("with_original", [True, False])
def test_pictures_of_a_batch_are_counted_by_themselves(pack, with_original):
    """Two pictures are not mixed into one map: where they are visible nothing differs."""
    pictures, fills = of_pictures(2, 3)
    original = pictures if with_original else None
    heat, spread, shown = pack.uncertainty.VIPaintUncertainty.execute(fills, 0, original=original).result
    assert heat.shape == shown.shape == (2, 48, 64, 3)
    assert not spread[:, :, :40].any() and spread[:, :, 40:].mean() > 0.5
    torch.testing.assert_close(spread[1], pack.uncertainty.VIPaintUncertainty.execute(fills[3:], 3).result[1][0])


def test_number_of_fills_contradicts_the_originals(pack):
    pictures, fills = of_pictures(2, 3)
    execute = pack.uncertainty.VIPaintUncertainty.execute
    with pytest.raises(ValueError, match=r"input `fills`: expected 0 or 3, .* found 2"):
        execute(fills, 2, original=pictures)


def test_the_scale_is_absolute(pack):
    """Nearly equal fills do not glow, and the same difference has the same colour in every picture."""
    execute = pack.uncertainty.VIPaintUncertainty.execute
    near = torch.full((2, 16, 16, 3), 0.5)
    near[1, 4:8] += 0.01
    assert execute(near).result[1].max() < 0.03
    # The smallest difference that an 8-bit picture can show is not brought to full brightness.
    alike = torch.full((2, 16, 16, 3), 0.5)
    alike[1, 4:8] += 1e-4
    assert execute(alike, full_scale=0.0).result[1].max() < 0.05


def test_the_overlay_shows_the_picture_and_a_legend(pack):
    pictures, fills = of_pictures(1, 4)
    execute = pack.uncertainty.VIPaintUncertainty.execute
    shown = execute(fills, original=pictures, opacity=1.0, outline=1.0).result[2]
    assert torch.equal(shown[0, :20, :38], pictures[0, :20, :38])
    assert not torch.equal(shown[0, :20, 42:], pictures[0, :20, 42:])
    # The scale in the lower left corner, on a dark ground: its colours go from black to yellow.
    corner = shown[0, 30:, :20]
    assert (corner - pictures[0, 30:, :20]).abs().max() > 0.2
    plain = execute(fills, original=pictures, opacity=0.0, outline=1.0).result[2]
    assert torch.equal(plain[0, :20], pictures[0, :20])
    outlined = execute(fills, original=pictures, opacity=0.0, outline=0.2).result[2]
    assert (outlined[0, :20] == 1).all(-1).any()


def test_one_fill_is_told_and_not_refused(pack):
    answer = pack.uncertainty.VIPaintUncertainty.execute(torch.rand(1, 8, 8, 3))
    assert not answer.result[1].any()
    assert answer.ui["text"] == ["one fill for each picture: nothing to compare with, the map is black"]


def test_of_equal_fills_is_dark(pack):
    image = torch.rand(1, 6, 5, 3).repeat(3, 1, 1, 1) + 1e-4 * torch.rand(3, 6, 5, 3)
    assert pack.uncertainty.VIPaintUncertainty.execute(image, 0).result[1].max() < 0.05


def test_heat_map_gets_lighter(pack):
    colours = pack.uncertainty.heat_map(torch.linspace(0, 1, 64)[None, None])
    luma = (colours * torch.tensor([0.2126, 0.7152, 0.0722])).sum(-1).flatten()
    assert (luma.diff() > 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pictures_that_are_not_finite(pack, bad):
    image = torch.rand(2, 8, 8, 3)
    image[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"VIPaint Uncertainty, input `images`.*NaN or infinity"):
        pack.uncertainty.VIPaintUncertainty.execute(image)
