"""Nodes on pictures: composite, uncertainty, masks."""

from __future__ import annotations

import math

import pytest
import torch


def soft_mask(height=37, width=31):
    mask = torch.zeros(1, height, width)
    mask[:, 8:25, 10:] = 1
    mask[:, 6:8, 10:] = 0.4
    return mask


@pytest.mark.parametrize(("feather", "match"), [(0, 0.0), (5, 1.0), (200, 0.5)])
@pytest.mark.parametrize("pictures", [1, 2])
def test_composite_keeps_visible_pixels_bit_identical(pack, feather, match, pictures):
    original, fills, mask = torch.rand(pictures, 37, 31, 3), torch.rand(3 * pictures, 37, 31, 3), soft_mask()
    (out,) = pack.composite.VIPaintComposite.execute(fills, original, mask, feather, match).result
    visible = (mask == 0).expand(3 * pictures, -1, -1)
    assert torch.equal(out[visible], original.repeat_interleave(3, 0)[visible])
    assert 0 <= out.min() and out.max() <= 1


def test_composite_without_feather_and_match_is_the_fill(pack):
    original, fills, mask = torch.rand(1, 37, 31, 3), torch.rand(2, 37, 31, 3), soft_mask()
    (out,) = pack.composite.VIPaintComposite.execute(fills, original, mask, 0, 0.0).result
    hidden = (mask == 1).expand(2, -1, -1)
    assert torch.equal(out[hidden], fills[hidden])


def test_grey_mixes_original_and_fill(pack):
    """A soft border is a crossfade, whatever is visible further in."""
    original, fills, mask = torch.rand(1, 37, 31, 3), torch.rand(1, 37, 31, 3), soft_mask()
    (out,) = pack.composite.VIPaintComposite.execute(fills, original, mask, 0, 0.0).result
    grey = mask == 0.4
    torch.testing.assert_close(out[grey], 0.6 * original[grey] + 0.4 * fills[grey])


def test_composite_shows_no_hidden_pixel(pack):
    original, fills, mask = torch.rand(1, 37, 31, 3), torch.rand(1, 37, 31, 3), (soft_mask() > 0).float()
    other = torch.where(mask[..., None] > 0, torch.rand_like(original), original)
    run = pack.composite.VIPaintComposite.execute
    assert torch.equal(run(fills, original, mask, 6, 1.0).result[0], run(fills, other, mask, 6, 1.0).result[0])


def test_colour_match_removes_a_constant_cast(pack):
    original, mask = torch.rand(1, 37, 31, 3) * 0.5 + 0.2, soft_mask()
    (out,) = pack.composite.VIPaintComposite.execute(original + 0.1, original, mask, 0, 1.0).result
    hidden = mask == 1
    torch.testing.assert_close(out[hidden], original[hidden], rtol=0, atol=1e-5)


def test_membrane_is_exact_on_linear_functions(pack):
    """Linear functions are harmonic: the solution continues them into the hole."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 64), indexing="ij")
    known = (0.3 + 0.5 * x - 0.2 * y)[None, None]
    hidden = torch.zeros(1, 1, 48, 64, dtype=torch.bool)
    hidden[..., 12:36, 16:48] = True
    broken = torch.where(hidden, 9.0, known)
    torch.testing.assert_close(pack.composite.membrane(broken, hidden), known, rtol=0, atol=0.01)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_composite_of_empty_and_full_masks(pack, value):
    original, fills = torch.rand(1, 8, 9, 3), torch.rand(2, 8, 9, 3)
    (out,) = pack.composite.VIPaintComposite.execute(fills, original, torch.full((1, 8, 9), value), 4, 1.0).result
    assert torch.equal(out, fills if value else original.repeat(2, 1, 1, 1))


def test_uncertainty_is_the_deviation_over_fills(pack):
    images = torch.zeros(4, 6, 5, 3)
    images[:2, 1, 1] = torch.tensor([0.0, 1.0])[:, None]
    images[2:, 2, 2] = torch.tensor([0.2, 0.6])[:, None]
    execute = pack.uncertainty.VIPaintUncertainty.execute
    heat, spread = execute(images, 2, 0.0).result
    assert heat.shape == (2, 6, 5, 3) and spread.shape == (2, 6, 5)
    assert spread[0, 1, 1] == 1 and spread[1, 2, 2] == 1
    assert spread.sum() == 2
    assert heat[0, 1, 1].sum() > 2.5 and heat[0, 0, 0].sum() < 0.1
    _, absolute = execute(images, 2, 0.5).result
    torch.testing.assert_close(absolute[:, [1, 2], [1, 2]].diagonal(), torch.tensor([1.0, 0.4]))
    _, together = execute(images, 0, 1.0).result
    assert together.shape == (1, 6, 5)


def test_uncertainty_of_equal_fills_is_dark(pack):
    image = torch.rand(1, 6, 5, 3).repeat(3, 1, 1, 1) + 1e-4 * torch.rand(3, 6, 5, 3)
    assert pack.uncertainty.VIPaintUncertainty.execute(image, 0).result[1].max() < 0.05


def test_heat_map_gets_lighter(pack):
    colours = pack.uncertainty.heat_map(torch.linspace(0, 1, 64)[None, None])
    luma = (colours * torch.tensor([0.2126, 0.7152, 0.0722])).sum(-1).flatten()
    assert (luma.diff() > 0).all()


def test_a_latent_cell_is_as_hidden_as_its_most_hidden_pixel(pack):
    hole = torch.zeros(1, 1, 32, 24)
    hole[0, 0, 9, 8] = 1
    hole[0, 0, 0, 0] = 0.3
    cells = pack.observe.latent_hole(hole, (4, 3))
    expected = torch.zeros(4, 3)
    expected[1, 1], expected[0, 0] = 1, 0.3
    torch.testing.assert_close(cells[0, 0], expected)


def test_hole_is_filled_from_the_nearest_visible_pixel(pack):
    picture = torch.rand(1, 10, 12, 3)
    hole = torch.zeros(1, 1, 10, 12)
    hole[..., 6:] = 1
    filled = pack.observe.fill_from_nearest(picture, hole)
    assert torch.equal(filled[:, :, :6], picture[:, :, :6])
    assert torch.equal(filled[:, :, 6:], picture[:, :, 5:6].expand(-1, -1, 6, -1))
    full = pack.observe.fill_from_nearest(picture, torch.ones_like(hole))
    assert torch.equal(full, torch.full_like(picture, 0.5))


def test_a_soft_border_is_encoded_as_it_is(pack):
    picture, hole = torch.rand(1, 10, 12, 3), torch.zeros(1, 1, 10, 12)
    hole[..., 5:] = torch.tensor([0.2, 0.5, 0.75, 0.9, 1.0, 1.0, 1.0])
    filled = pack.observe.fill_from_nearest(picture, hole)
    assert torch.equal(filled[:, :, :7], picture[:, :, :7])
    torch.testing.assert_close(filled[:, :, 7], (picture[:, :, 6] + picture[:, :, 7]) / 2)
    assert torch.equal(filled[:, :, 9:], picture[:, :, 6:7].expand(-1, -1, 3, -1))
    for other in pack.observe.fill_from_elsewhere(filled, hole):
        assert torch.equal(other[:, :, :7], filled[:, :, :7])
        assert not (other == filled)[:, :, 9:].all()


@pytest.mark.parametrize("feathering", [0, 9])
def test_the_host_s_padded_picture_is_taken_up_to_its_border(pack, feathering):
    """Outpainting: the feathered border is the picture's own, and no grey of the padding reaches the encoder."""
    import nodes

    picture = torch.rand(1, 22, 23, 3) * 0.2
    padded, mask = nodes.ImagePadForOutpaint().expand_image(picture, 5, 3, 0, 7, feathering)
    filled = pack.observe.fill_from_nearest(padded, mask[:, None])
    assert filled.max() < 0.2
    kept = mask <= 0.5
    assert kept[:, 6:22, 8:].all() and torch.equal(filled[kept], padded[kept])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pictures_that_are_not_finite(pack, bad):
    image = torch.rand(2, 8, 8, 3)
    image[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"VIPaintUncertainty, input `images`.*NaN or infinity"):
        pack.uncertainty.VIPaintUncertainty.execute(image)
