"""Cut around the hole, paint, put back: nothing else changes and nothing moves."""

from __future__ import annotations

import pytest
import torch


def mask_of(height, width, *boxes):
    """One mask for each box (top, left, bottom, right)."""
    mask = torch.zeros(len(boxes), height, width)
    for row, (top, left, bottom, right) in zip(mask, boxes, strict=True):
        row[top:bottom, left:right] = 1
    return mask


def coordinates(height, width, pictures=1):
    """A picture whose colours are the place of each pixel, from 0.25 to 0.75."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    return (0.25 + 0.5 * torch.stack([x, y, (x + y) / 2], -1)).repeat(pictures, 1, 1, 1)


HOLES = {
    "small": (100, 120, 110, 150),
    "large": (30, 40, 220, 200),
    "corner": (0, 0, 20, 31),
}


def test_a_cut_at_the_model_s_resolution_is_the_picture(pack):
    """No resampling; the hole is covered, as the node that paints will cover it."""
    image, mask = torch.rand(1, 260, 300, 3), mask_of(260, 300, HOLES["small"])
    part, cover, crop = pack.crop.VIPaintCrop.execute(image, mask, 128, 128, 2.0, 1.0).result
    left, top, width, height = crop.regions[0]
    assert (width, height) == (128, 128)
    window = slice(top, top + 128), slice(left, left + 128)
    assert torch.equal(cover[0], mask[0][window])
    assert torch.equal(part[cover == 0], image[0][window][cover[0] == 0])
    other = torch.where(mask[..., None] > 0, 1 - image, image)
    assert torch.equal(part, pack.crop.VIPaintCrop.execute(other, mask, 128, 128, 2.0, 1.0).result[0])


@pytest.mark.parametrize("size", [(128, 128), (64, 72), (333, 300)])
@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES)
def test_nothing_is_shifted(pack, size, hole):
    """Colours that are coordinates: the cut shows those of its own places, and they come back to them."""
    image, mask = coordinates(260, 300), mask_of(260, 300, hole)
    height, width = size
    part, cover, crop = pack.crop.VIPaintCrop.execute(image, mask, width, height, 2.0, 4.0).result
    assert part.shape == (1, height, width, 3) and cover.shape == (1, height, width)
    (region,) = crop.regions
    y = region.top + (torch.arange(height) + 0.5) * region.height / height - 0.5
    x = region.left + (torch.arange(width) + 0.5) * region.width / width - 0.5
    y, x = (0.25 + 0.5 * at / pixels for at, pixels in ((y, 260), (x, 300)))
    y, x = y[:, None].expand(size), x[None].expand(size)
    truth = torch.stack([x, y, (x - 0.25 + y - 0.25) / 2 + 0.25], -1)[None]
    # Kernels at the border and beside the hole mix in what is outside; a pixel is at least 0.0016.
    margin = 4 * max(1, round(height / region.height))
    away = -torch.nn.functional.max_pool2d(cover[:, None], 2 * margin + 1, 1, margin)[:, 0] + 1
    away[:, :margin], away[:, -margin:], away[:, :, :margin], away[:, :, -margin:] = 0, 0, 0, 0
    assert away.any()
    torch.testing.assert_close(part[away > 0], truth[away > 0], rtol=0, atol=2e-4)
    (back,) = pack.composite.VIPaintComposite.execute(truth, image, mask, 0, 0.0, crop).result
    inner = mask.clone()
    inner[:, :margin], inner[:, -margin:], inner[:, :, :margin], inner[:, :, -margin:] = 0, 0, 0, 0
    torch.testing.assert_close(back[inner > 0], image[inner > 0], rtol=0, atol=2e-4)


@pytest.mark.parametrize("size", [(24, 16), (40, 48)])
@pytest.mark.parametrize("shape", [(37, 31), (31, 37)])
def test_visible_pixels_come_back_bit_for_bit(pack, size, shape):
    """Several pictures with holes in different places, of different sizes, with two fills each."""
    high, wide = shape
    boxes = [(3, 4, 9, 7), (0, 0, high, 5), (20, 20, high, wide), (0, 0, 0, 0), (0, 0, high, wide)]
    image, mask = torch.rand(len(boxes), *shape, 3), mask_of(*shape, *boxes)
    mask[0, 10, 4:7] = 0.3
    part, _, crop = pack.crop.VIPaintCrop.execute(image, mask, *size, 2.0, 2.0).result
    assert part.shape == (5, size[1], size[0], 3) and len(set(crop.regions)) > 2
    fills = torch.rand(10, *part.shape[1:])
    (out,) = pack.composite.VIPaintComposite.execute(fills, image, mask, 2, 1.0, crop).result
    images, masks = image.repeat_interleave(2, 0), mask.repeat_interleave(2, 0)
    assert torch.equal(out[masks == 0], images[masks == 0])
    assert not (out == images).all(-1)[masks == 1].any()
    assert 0 <= out.min() and out.max() <= 1


def test_a_panorama_is_cut_over_its_border(pack):
    """A hole wider than the picture is high: what is beyond the picture is painted and thrown away."""
    image, mask = coordinates(50, 400), mask_of(50, 400, (10, 100, 40, 200))
    part, cover, crop = pack.crop.VIPaintCrop.execute(image, mask, 64, 64, 2.0, 1.0).result
    assert crop.regions == (pack.core.imaging.regions.Region(87, 0, 125, 125),)
    assert (cover[0, 26:] == 1).all() and not cover[0, :4].any()
    (out,) = pack.composite.VIPaintComposite.execute(torch.zeros_like(part), image, mask, 0, 0.0, crop).result
    assert torch.equal(out == 0, (mask > 0)[..., None].expand_as(out))


def test_a_black_mask_changes_nothing(pack, caplog):
    image, mask = torch.rand(1, 37, 31, 3), torch.zeros(1, 37, 31)
    part, cover, crop = pack.crop.VIPaintCrop.execute(image, mask, 16, 16, 2.0, 1.0).result
    assert "nothing to paint" in caplog.text and not cover.any()
    (out,) = pack.composite.VIPaintComposite.execute(part, image, mask, 4, 1.0, crop).result
    assert torch.equal(out, image)


def test_the_seam_is_that_of_the_whole_picture(pack):
    """A cut changes where fills come from, not how they are blended."""
    image, mask, fill = torch.rand(1, 60, 70, 3), mask_of(60, 70, (20, 30, 40, 45)), torch.rand(1, 60, 70, 3)
    _, _, crop = pack.crop.VIPaintCrop.execute(image, mask, 40, 40, 2.0, 1.0).result
    lines, columns = crop.regions[0].inside
    run = pack.composite.VIPaintComposite.execute
    (whole,), (cut,) = (
        run(*a).result for a in ((fill, image, mask, 4, 1.0), (fill[:, lines, columns], image, mask, 4, 1.0, crop))
    )
    assert torch.equal(whole, cut)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop": "region"}, ["`crop`", "str"]),
        (
            {"original": torch.rand(1, 60, 64, 3), "mask": torch.zeros(1, 60, 64)},
            ["`original`", "1 of 70 x 60", "64 x 60"],
        ),
        ({"original": torch.rand(2, 60, 70, 3)}, ["`original`", "2 of 70 x 60"]),
        ({"mask": torch.ones(1, 60, 70)}, ["`mask`", "picture 1", "outside"]),
        ({"fills": torch.rand(1, 60, 70, 3)[:, :30]}, ["`fills`", "40 x 40", "70 x 30"]),
    ],
)
def test_crops_of_other_pictures_are_refused(pack, changes, words):
    image, mask = torch.rand(1, 60, 70, 3), mask_of(60, 70, (20, 30, 40, 45))
    part, _, crop = pack.crop.VIPaintCrop.execute(image, mask, 40, 40, 2.0, 1.0).result
    arguments = {"fills": part, "original": image, "mask": mask, "crop": crop}
    with pytest.raises(ValueError, match=r"^VIPaint Composite, input .*: expected .*, found ") as caught:
        pack.composite.VIPaintComposite.execute(**{**arguments, **changes})
    assert all(word in str(caught.value) for word in words), caught.value


def test_each_mask_of_one_picture_is_cut_and_put_back(pack):
    """As SAM and CLIPSeg give them; fills of the first mask first."""
    image, mask = torch.rand(1, 90, 80, 3), mask_of(90, 80, (10, 8, 20, 20), (50, 60, 80, 75), (70, 5, 85, 30))
    part, cover, crop = pack.crop.VIPaintCrop.execute(image, mask, 32, 32, 2.0, 1.0).result
    assert part.shape == (3, 32, 32, 3) and cover.shape == (3, 32, 32)
    for number in range(3):
        alone = pack.crop.VIPaintCrop.execute(image, mask[number : number + 1], 32, 32, 2.0, 1.0).result
        assert torch.equal(part[number], alone[0][0]) and crop.regions[number] == alone[2].regions[0]
    fills = torch.arange(6).reshape(6, 1, 1, 1).expand(6, 32, 32, 3) / 6
    (out,) = pack.composite.VIPaintComposite.execute(fills, image, mask, 0, 0.0, crop).result
    masks = mask.repeat_interleave(2, 0)
    for row, own, fill in zip(out, masks, fills, strict=True):
        assert torch.equal(row[own == 0], image[0][own == 0]) and (row[own == 1] - fill[0, 0]).abs().max() < 1e-6


def test_a_context_mask_is_inside_the_cut(pack):
    """In one corner of the cut, as far as it must; the mask itself stays as it is."""
    image, mask, other = (
        torch.rand(1, 260, 300, 3),
        mask_of(260, 300, HOLES["small"]),
        mask_of(260, 300, (5, 9, 40, 30)),
    )
    run = pack.crop.VIPaintCrop.execute
    (plain,) = run(image, mask, 128, 128, 2.0, 1.0).result[2].regions
    part, cover, crop = run(image, mask, 128, 128, 2.0, 1.0, context_mask=other).result
    (region,) = crop.regions
    lines, columns = region.inside
    assert part.shape == (1, 128, 128, 3)
    assert other[0, lines, columns].sum() == other.sum() and mask[0, lines, columns].sum() == mask.sum()
    assert plain.left > 30 and region.width == region.height < 160
    assert cover.sum() < run(image, mask, 128, 128, 2.0, 1.0).result[1].sum()
    inside = mask_of(260, 300, (90, 100, 120, 160))
    assert run(image, mask, 128, 128, 2.0, 1.0, context_mask=inside).result[2].regions == (plain,)


@pytest.mark.parametrize(
    ("rule", "multiple", "hole", "size", "scale"),
    [
        # Twice the hole's box, 20 x 60 pixels, has the shape of the cut.
        ("area", "8", (100, 120, 110, 150), (48, 160), None),
        ("area", "64", (100, 120, 110, 150), (64, 128), None),
        ("at most", "8", (100, 120, 110, 150), (24, 64), 1.0),
        ("at most", "32", (100, 120, 110, 150), (32, 64), 1.0),
        # More context than that number of pixels: scaled down.
        ("at most", "8", (40, 40, 220, 220), (88, 96), None),
        # No longer than models know.
        ("area", "8", (100, 10, 102, 290), (48, 192), None),
    ],
)
def test_the_cut_has_the_shape_of_the_hole(pack, rule, multiple, hole, size, scale):
    image, mask = coordinates(260, 300), mask_of(260, 300, hole)
    options = {"size": rule, "multiple": multiple}
    part, cover, crop = pack.crop.VIPaintCrop.execute(image, mask, 128, 72, 2.0, 1.0, **options).result
    (region,) = crop.regions
    assert part.shape[1:3] == cover.shape[1:] == crop.size == size
    assert size[0] * size[1] <= 128 * 72 or multiple != "8"
    assert abs(region.height / size[0] - region.width / size[1]) < 0.1
    if scale is not None:
        assert (region.height, region.width) == size
        lines, columns = region.inside
        window, visible = image[:, lines, columns], mask[:, lines, columns] == 0
        assert torch.equal(part[visible], window[visible])
    (out,) = pack.composite.VIPaintComposite.execute(torch.zeros_like(part), image, mask, 0, 0.0, crop).result
    assert torch.equal(out == 0, (mask > 0)[..., None].expand_as(out))


def test_cuts_of_one_batch_share_a_size_that_suits_all(pack):
    image = torch.rand(2, 260, 300, 3)
    mask = mask_of(260, 300, (20, 20, 30, 60), (100, 100, 160, 120))
    part, _, crop = pack.crop.VIPaintCrop.execute(image, mask, 512, 512, 2.0, 1.0, size="at most").result
    assert part.shape == (2, 120, 80, 3) and all((r.height, r.width) == (120, 80) for r in crop.regions)


def test_content_of_the_hole_stays_where_it_is_wanted(pack):
    """Visible pixels are the same in both."""
    image, mask = torch.rand(1, 260, 300, 3), mask_of(260, 300, HOLES["large"])
    run = pack.crop.VIPaintCrop.execute
    covered, cover, _ = run(image, mask, 96, 96, 2.0, 1.0).result
    kept, _, _ = run(image, mask, 96, 96, 2.0, 1.0, keep_content=True).result
    assert torch.equal(kept[cover == 0], covered[cover == 0])
    assert (kept - covered)[cover == 1].abs().mean() > 0.05
    small, region = mask_of(260, 300, HOLES["small"]), run(image, mask_of(260, 300, HOLES["small"]), 96, 96, 2.0, 1.0)
    lines, columns = region.result[2].regions[0].inside
    found, _, _ = run(image, small, 96, 96, 2.0, 1.0, keep_content=True).result
    assert torch.equal(found, image[:, lines, columns])


def test_what_is_beyond_the_picture_has_no_content(pack):
    image, mask = coordinates(50, 400), mask_of(50, 400, (10, 100, 40, 200))
    part, cover, _ = pack.crop.VIPaintCrop.execute(image, mask, 64, 64, 2.0, 1.0, keep_content=True).result
    assert (cover[0, 26:] == 1).all() and part[0, 27:].min() > 0.24


def test_a_pixel_that_is_nearly_black_is_no_hole(pack):
    """Far from the hole it would stretch the cut over the whole picture."""
    picture, mask = torch.rand(1, 300, 300, 3), torch.zeros(1, 300, 300)
    mask[:, 20:60, 20:60] = 1
    alone = pack.crop.VIPaintCrop.execute(picture, mask, 64, 64, 1.5, 1.0).result
    mask[:, -1, -1] = 1 / 255
    for found, expected in zip(
        pack.crop.VIPaintCrop.execute(picture, mask, 64, 64, 1.5, 1.0).result[:2], alone, strict=False
    ):
        assert torch.equal(found, expected)
