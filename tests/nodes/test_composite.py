"""VIPaint Composite as the host calls it."""

from __future__ import annotations

import pytest
import torch


def soft_mask(height=37, width=31):
    mask = torch.zeros(1, height, width)
    mask[:, 8:25, 10:] = 1
    mask[:, 6:8, 10:] = 0.4
    return mask


@pytest.mark.parametrize(("feather", "match"), [(0, 0.0), (5, 1.0), (200, 0.5)])
@pytest.mark.parametrize("pictures", [1, 2])
def test_keeps_visible_pixels_bit_identical(pack, feather, match, pictures):
    original, fills, mask = torch.rand(pictures, 37, 31, 3), torch.rand(3 * pictures, 37, 31, 3), soft_mask()
    (out,) = pack.composite.VIPaintComposite.execute(fills, original, mask, feather, match).result
    visible = (mask == 0).expand(3 * pictures, -1, -1)
    assert torch.equal(out[visible], original.repeat_interleave(3, 0)[visible])
    assert 0 <= out.min() and out.max() <= 1


def test_without_feather_and_match_is_the_fill(pack):
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


def test_shows_no_hidden_pixel(pack):
    original, fills, mask = torch.rand(1, 37, 31, 3), torch.rand(1, 37, 31, 3), (soft_mask() > 0).float()
    other = torch.where(mask[..., None] > 0, torch.rand_like(original), original)
    run = pack.composite.VIPaintComposite.execute
    assert torch.equal(run(fills, original, mask, 6, 1.0).result[0], run(fills, other, mask, 6, 1.0).result[0])


def test_colour_match_removes_a_constant_cast(pack):
    original, mask = torch.rand(1, 37, 31, 3) * 0.5 + 0.2, soft_mask()
    (out,) = pack.composite.VIPaintComposite.execute(original + 0.1, original, mask, 0, 1.0).result
    hidden = mask == 1
    torch.testing.assert_close(out[hidden], original[hidden], rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_of_empty_and_full_masks(pack, value):
    original, fills = torch.rand(1, 8, 9, 3), torch.rand(2, 8, 9, 3)
    (out,) = pack.composite.VIPaintComposite.execute(fills, original, torch.full((1, 8, 9), value), 4, 1.0).result
    assert torch.equal(out, fills if value else original.repeat(2, 1, 1, 1))


def with_alpha(picture):
    return torch.cat([picture, torch.rand(*picture.shape[:-1], 1)], -1)


@pytest.mark.parametrize("alpha", ["keep", "opaque where painted"])
def test_the_original_s_transparency_is_returned(pack, alpha):
    original, fills, mask = with_alpha(torch.rand(2, 37, 31, 3)), torch.rand(4, 37, 31, 3), soft_mask()
    run = pack.composite.VIPaintComposite.execute
    (out,) = run(fills, original, mask, 3, 1.0, alpha=alpha).result
    assert out.shape == (4, 37, 31, 4)
    assert torch.equal(out[..., :3], run(fills, original[..., :3], mask, 3, 1.0).result[0])
    expected = original[..., 3].repeat_interleave(2, 0)
    if alpha != "keep":
        expected = torch.maximum(expected, mask)
    assert torch.equal(out[..., 3], expected)
    opaque = run(fills, original[..., :3], mask, 3, 1.0, alpha=alpha).result[0]
    assert opaque.shape[-1] == 3
    # Fills may have one of their own, which says nothing.
    assert torch.equal(run(with_alpha(fills), original, mask, 3, 1.0, alpha=alpha).result[0], out)


def test_the_caller_s_picture_stays_as_it_is(pack):
    original, fills = with_alpha(torch.rand(1, 37, 31, 3)), torch.rand(2, 37, 31, 3)
    before = original.clone()
    pack.composite.VIPaintComposite.execute(fills, original, soft_mask(), alpha="opaque where painted")
    assert torch.equal(original, before)


def test_each_mask_of_one_picture_has_fills_of_its_own(pack):
    original, fills = torch.rand(1, 37, 31, 3), torch.rand(4, 37, 31, 3)
    masks = torch.cat([soft_mask(), 1 - soft_mask()])
    run = pack.composite.VIPaintComposite.execute
    (out,) = run(fills, original, masks).result
    for number in range(2):
        rows = slice(2 * number, 2 * number + 2)
        assert torch.equal(out[rows], run(fills[rows], original, masks[number : number + 1]).result[0])
