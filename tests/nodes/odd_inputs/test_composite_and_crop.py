"""Odd fills, originals and crops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from odd_inputs import (
    AS_USUAL,
    BLACK_AND_WHITE,
    CHECKERS,
    COMPOSITE,
    CORNER,
    CROP,
    DOT,
    GREY,
    HEIGHT,
    MASK,
    PLACEHOLDER,
    WHITE,
    WIDTH,
    check,
    cropped,
    cut_of,
    given,
    numbers,
    pictures,
    rows,
    same_as,
)


def two_cuts(usual, node, result):
    """A cut for each of two masks."""
    assert result[0].shape == (2, 16, 16, 3) and result[1].shape == (2, 16, 16) and len(result[2].regions) == 2
    numbers(0, 1)(usual, node, result[:2])


# All of it transparent.
CLEAR = torch.zeros(1, HEIGHT, WIDTH, 4)
PIXEL = {"fills": torch.ones(1, 1, 1, 3), "original": torch.zeros(1, 1, 1, 3), "mask": torch.ones(1, 1, 1)}
ROWS = [
    *rows(
        COMPOSITE,
        [
            ("black", {"mask": WHITE * 0}, pictures(lambda usual: usual.image.expand(2, -1, -1, -1))),
            ("white", {"mask": WHITE, "feather": 0}, pictures(lambda usual: usual.fills)),
            ("white-feathered", {"mask": WHITE, "feather": 512}, pictures(lambda usual: usual.fills)),
            ("one-pixel", {"mask": DOT}, numbers(0, 1)),
            ("all-but-one-pixel", {"mask": 1 - DOT}, numbers(0, 1)),
            ("checkers", {"mask": CHECKERS, "feather": 512}, numbers(0, 1)),
            ("1-x-1", PIXEL, pictures(lambda usual: PIXEL["fills"])),
            ("1-x-1-seen", {**PIXEL, "mask": torch.zeros(1, 1, 1)}, pictures(lambda usual: PIXEL["original"])),
            ("one-line", {"fills": GREY[:, :1], "original": GREY[:, :1], "mask": DOT[:, 5:6]}, numbers(0, 1)),
            ("alpha", given("fills", lambda t: torch.cat([t, t[..., :1]], -1)), AS_USUAL),
            ("half", given("fills", lambda t: t.half()), same_as(given("fills", lambda t: t.half().float()))),
            ("bytes", given("fills", lambda t: (t * 255).byte()), "fills; torch.uint8"),
            ("original-bytes", {"original": (GREY * 255).byte()}, "original; torch.uint8"),
            ("nan", given("fills", lambda t: t * torch.nan), "fills; NaN"),
            ("original-nan", {"original": GREY * torch.nan}, "original; NaN"),
            ("mask-nan", given("mask", lambda t: t * torch.nan), "mask; NaN"),
            ("mask-bytes", given("mask", lambda t: (t * 255).byte()), "mask; up to 255"),
            ("mask-size", {"mask": torch.ones(1, 8, 8)}, "mask; 24 x 32 pixels; 8 x 8 pixels"),
            ("masks-of-2", {"mask": BLACK_AND_WHITE}, numbers(0, 1)),
            ("masks-of-3", {"mask": torch.ones(3, HEIGHT, WIDTH)}, "fills; multiple of 3; batch of 2"),
            (
                "masks-of-3-for-2",
                {"original": GREY.expand(2, -1, -1, -1), "mask": torch.ones(3, HEIGHT, WIDTH)},
                "mask; 1 mask or 2; 3 masks",
            ),
            ("placeholder", {"mask": PLACEHOLDER}, "mask; a painted mask; Open in Mask Editor"),
            ("alpha-other", {"alpha": "none"}, "alpha; one of keep"),
            ("fills-size", given("fills", lambda t: t[:, :20]), "fills; 24 x 32 pixels; 24 x 20 pixels"),
            (
                "fills-of-3",
                {"fills": GREY.expand(3, -1, -1, -1), "original": BLACK_AND_WHITE[..., None]},
                "fills; multiple of 2",
            ),
            ("no-fills", given("fills", lambda t: t[:0]), "fills; 0 x 32 x 24 x 3"),
            ("fills-latent", lambda usual: {"fills": usual.latent}, "fills; dict"),
            ("original-none", {"original": None}, "original; NoneType"),
            ("mask-none", {"mask": None}, "mask; NoneType"),
            ("feather-negative", {"feather": -1}, "feather; from 0 to 512; -1"),
            ("feather-huge", {"feather": 10**6}, "feather; 1000000"),
            ("feather-float", {"feather": 1.5}, "feather; 1.5"),
            ("match-nan", {"colour_match": torch.nan}, "colour_match; nan"),
            ("match-negative", {"colour_match": -0.1}, "colour_match; -0.1"),
            ("match-0", {"colour_match": 0}, numbers(0, 1)),
        ],
    ),
    *rows(
        CROP,
        [
            ("black", {"mask": WHITE * 0}, cut_of(16, 16)),
            ("white", {"mask": WHITE}, cut_of(16, 16)),
            ("one-pixel", {"mask": DOT}, cut_of(16, 16)),
            ("one-pixel-enlarged", {"mask": DOT, "enlarge": 16.0}, cut_of(16, 16)),
            ("corner", {"mask": CORNER, "width": 64}, cut_of(16, 64)),
            ("1-x-1", {"image": GREY[:, :1, :1], "mask": WHITE[:, :1, :1]}, cut_of(16, 16)),
            ("one-line", {"image": GREY[:, :1], "mask": WHITE[:, :1]}, cut_of(16, 16)),
            ("nan", given("image", lambda t: t * torch.nan), "image; NaN"),
            ("bytes", {"image": (GREY * 255).byte()}, "image; torch.uint8"),
            ("empty", {"image": GREY[:0]}, "image; 0 x 32 x 24 x 3"),
            ("none", {"image": None}, "image; NoneType"),
            ("mask-none", {"mask": None}, "mask; NoneType"),
            ("mask-size", {"mask": torch.ones(1, 8, 8)}, "mask; 24 x 32 pixels; 8 x 8 pixels"),
            ("masks-of-2", {"mask": BLACK_AND_WHITE}, two_cuts),
            ("placeholder", {"mask": PLACEHOLDER}, "mask; a painted mask; Open in Mask Editor"),
            ("context-placeholder", {"context_mask": PLACEHOLDER}, "context_mask; a painted mask"),
            ("context-of-2", {"context_mask": BLACK_AND_WHITE}, "context_mask; 1 mask; 2 masks"),
            ("context-size", {"context_mask": torch.ones(1, 8, 8)}, "context_mask; 24 x 32 pixels; 8 x 8"),
            ("context-black", {"context_mask": WHITE * 0}, cut_of(16, 16)),
            ("size-other", {"size": "free"}, "size; one of exact, area, at most"),
            ("multiple-other", {"multiple": 7}, "multiple; one of 8"),
            ("area-of-a-black-mask", {"mask": WHITE * 0, "size": "area"}, cut_of(16, 16)),
            ("area-in-64s", {"size": "area", "multiple": "64"}, cut_of(64, 64)),
            ("alpha", given("image", lambda t: torch.cat([t, t[..., :1]], -1)), AS_USUAL),
            ("width-0", {"width": 0}, "width; from 16 to 8192; 0"),
            ("height-huge", {"height": 10**6}, "height; 1000000"),
            ("height-text", {"height": "512"}, "height; '512'"),
            ("context-nan", {"context": torch.nan}, "context; nan"),
            ("context-below-1", {"context": 0.5}, "context; from 1.0 to 16.0; 0.5"),
            ("enlarge-infinity", {"enlarge": torch.inf}, "enlarge; inf"),
        ],
    ),
    *rows(
        MASK,
        [
            ("as-it-is", {}, pictures(lambda usual: usual.mask)),
            ("2-d", given("mask", lambda t: t[0]), pictures(lambda usual: usual.mask)),
            ("none", {"mask": None}, "mask; a mask, or an image with transparency; neither"),
            ("text", {"mask": "white"}, "mask; str"),
            ("bytes", given("mask", lambda t: (t * 255).byte()), "mask; up to 255"),
            ("nan", given("mask", lambda t: t * torch.nan), "mask; NaN"),
            ("grow-huge", {"grow": 10**6}, "grow; from -1024 to 1024; 1000000"),
            ("grow-float", {"grow": 1.5}, "grow; 1.5"),
            ("blur-negative", {"blur": -1.0}, "blur; -1.0"),
            ("specks-negative", {"specks": -1}, "specks; -1"),
            ("opaque-picture", lambda usual: {"image": usual.image}, "image; transparency; 3 channels"),
            ("placeholder", {"mask": PLACEHOLDER, "image": CLEAR}, "mask; a painted mask; Open in Mask Editor"),
            ("all-white-grown", {"mask": WHITE, "grow": 9, "fill_holes": True}, pictures(lambda usual: WHITE)),
            ("all-black-grown", {"mask": 0 * WHITE, "grow": 9, "specks": 3}, pictures(lambda usual: 0 * WHITE)),
            ("all-white-shrunk", {"mask": WHITE, "grow": -9}, pictures(lambda usual: WHITE)),
            ("blurred-far", {"blur": 256.0}, numbers(0, 1)),
            ("one-pixel", {"mask": torch.ones(1, 1, 1), "grow": 5, "blur": 2.0}, numbers(1, 1)),
        ],
    ),
    *rows(
        COMPOSITE,
        [
            ("usual", cropped(), numbers(0, 1)),
            ("one-pixel", lambda usual: {**cropped(mask=DOT)(usual), "mask": DOT}, numbers(0, 1)),
            ("of-a-black-mask", lambda usual: {**cropped(mask=WHITE * 0)(usual), "mask": WHITE * 0}, numbers(0, 1)),
            ("region", cropped(lambda crop: crop.regions), "crop; VIPaint Crop"),
            ("dict", cropped(lambda crop: {}), "crop; VIPaint Crop"),
            (
                "of-2-pictures",
                cropped(lambda crop: replace(crop, regions=crop.regions * 2)),
                "original; 2 of 24 x 32 pixels",
            ),
            (
                "of-a-larger-picture",
                cropped(lambda crop: replace(crop, picture=(64, 64))),
                "original; 1 of 64 x 64 pixels",
            ),
            ("other-fills", lambda usual: {"crop": cropped(width=96)(usual)["crop"]}, "fills; 96 x 16; 24 x 32"),
        ],
    ),
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_composites_and_crops(usual, node, changes, expected):
    check(usual, node, changes, expected)
