"""Odd masks."""

from __future__ import annotations

import pytest
import torch
from odd_inputs import (
    AS_USUAL,
    BLACK_AND_WHITE,
    CELLS,
    CHECKERS,
    DOT,
    GREY,
    HEIGHT,
    INPAINT,
    PLACEHOLDER,
    WHITE,
    WIDTH,
    check,
    given,
    hidden,
    kept,
    latent,
    of_size,
    rows,
    soft,
)

ROWS = [
    *rows(
        INPAINT,
        [
            ("2-d", given("mask", lambda t: t[0]), AS_USUAL),
            ("4-d", given("mask", lambda t: t[:, None]), AS_USUAL),
            ("0-d", {"mask": torch.tensor(1.0)}, "mask; (batch, height, width); no size"),
            ("1-d", {"mask": torch.ones(WIDTH)}, "mask; found 24"),
            ("5-d", given("mask", lambda t: t[None, None]), "mask; 1 x 1 x 1 x 32 x 24"),
            ("3-channels", given("mask", lambda t: t.expand(1, 3, -1, -1)), "mask; 1 x 3 x 32 x 24"),
            ("smaller", {"mask": torch.ones(1, 16, WIDTH)}, "mask; 24 x 32 pixels; 24 x 16 pixels; Resize"),
            ("turned", given("mask", lambda t: t.mT), "mask; 24 x 32 pixels; 32 x 24 pixels"),
            ("batch-of-3", {"mask": torch.ones(3, HEIGHT, WIDTH)}, of_size(3, *CELLS)),
            (
                "3-for-2-pictures",
                {"image": GREY.expand(2, -1, -1, -1), "mask": torch.ones(3, HEIGHT, WIDTH)},
                "mask; 1 mask or 2; 3 masks",
            ),
            ("placeholder", {"mask": PLACEHOLDER}, "mask; a painted mask; Load Image; Open in Mask Editor"),
            ("placeholder-latent", latent(noise_mask=PLACEHOLDER), "latent_image; a painted mask; Open in Mask Editor"),
            ("placeholders", {"mask": PLACEHOLDER.expand(2, -1, -1)}, "mask; a painted mask"),
            ("64-x-64-white", {"mask": PLACEHOLDER + 1}, "mask; 24 x 32 pixels; 64 x 64 pixels; Resize"),
            ("two-masks-latent", latent(noise_mask=BLACK_AND_WHITE), hidden(12)),
            ("one-for-two", {"image": GREY.expand(2, -1, -1, -1)}, of_size(2, *CELLS)),
            ("one-black-one-white", {"image": GREY.expand(2, -1, -1, -1), "mask": BLACK_AND_WHITE}, hidden(12)),
            ("empty-batch", given("mask", lambda t: t[:0]), "mask; 0 x 32 x 24"),
            ("none", {"mask": None}, "mask; no mask"),
            ("list", {"mask": [1, 0]}, "mask; list"),
            ("string", {"mask": "mask.png"}, "mask; str"),
            ("bools", given("mask", lambda t: t > 0), AS_USUAL),
            ("integers", given("mask", lambda t: t.long()), AS_USUAL),
            ("bytes", given("mask", lambda t: (t * 255).byte()), "mask; from 0 to 1; up to 255"),
            ("half", given("mask", lambda t: t.half()), AS_USUAL),
            ("beyond-0-to-1", given("mask", lambda t: t * 3 - 1), AS_USUAL),
            ("complex", given("mask", lambda t: t.to(torch.complex64)), "mask; another kind"),
            ("meta", given("mask", lambda t: t.to("meta")), "mask; another kind"),
            ("nan", given("mask", lambda t: t * torch.nan), "mask; NaN"),
            ("infinity", given("mask", lambda t: t / 0), "mask; infinity"),
            ("ones", given("mask", torch.ones_like), hidden(12)),
            ("ones-balanced", lambda usual: {"mask": WHITE, "preset": "balanced"}, hidden(12)),
            ("zeros", given("mask", torch.zeros_like), kept),
            ("zeros-balanced", lambda usual: {"mask": 0 * WHITE, "preset": "balanced"}, kept),
            ("one-pixel", {"mask": DOT}, hidden(1)),
            ("one-pixel-balanced", {"mask": DOT, "preset": "balanced"}, hidden(1)),
            ("all-but-one-pixel", {"mask": 1 - DOT}, hidden(12)),
            ("checkers", {"mask": CHECKERS}, hidden(12)),
            ("grey", {"mask": torch.full_like(DOT, 0.5)}, soft),
            ("grey-balanced", {"mask": torch.full_like(DOT, 0.5), "preset": "balanced"}, soft),
            ("nearly-black", {"mask": torch.full_like(DOT, 1e-45)}, kept),
            ("nearly-white", {"mask": torch.full_like(DOT, 236 / 255)}, hidden(12)),
            ("jpeg-black", {"mask": torch.full_like(DOT, 23 / 255)}, kept),
            ("dark-grey", {"mask": torch.full_like(DOT, 24 / 255)}, soft),
            ("light-grey", {"mask": torch.full_like(DOT, 235 / 255)}, soft),
        ],
    ),
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_masks(usual, node, changes, expected):
    check(usual, node, changes, expected)
