"""Odd pictures and VAEs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from odd_inputs import (
    AS_USUAL,
    CELLS,
    CHANNELS,
    DOT,
    GREY,
    HEIGHT,
    INPAINT,
    NO_PICTURE,
    WIDTH,
    check,
    given,
    of_size,
    rows,
    same_as,
    sized,
    taesd,
    vae,
)

ROWS = [
    *rows(
        INPAINT,
        [
            ("3-d", given("image", lambda t: t[0]), "image; (batch, height, width, 3); 32 x 24 x 3"),
            ("5-d", given("image", lambda t: t[None]), "image; 1 x 1 x 32 x 24 x 3"),
            ("2-channels", given("image", lambda t: t[..., :2]), "image; 1 x 32 x 24 x 2"),
            ("channels-first", given("image", lambda t: t.movedim(-1, 1)), "image; 1 x 3 x 32 x 24"),
            ("grey", {"image": GREY[..., :1]}, same_as({"image": GREY})),
            ("alpha", given("image", lambda t: torch.cat([t, t[..., :1]], -1)), AS_USUAL),
            ("bytes", given("image", lambda t: (t * 255).byte()), "image; from 0 to 1; torch.uint8; 255"),
            ("bytes-as-floats", given("image", lambda t: t * 255), "image; from 0 to 1; values up to 25; 255"),
            ("negative-bytes", given("image", lambda t: t * -255), "image; values up to 25"),
            ("integers", given("image", lambda t: t.round().long()), "image; torch.int64"),
            ("bools", given("image", lambda t: t > 0.5), "image; torch.bool"),
            ("complex", given("image", lambda t: t.to(torch.complex64)), "image; another kind; complex64"),
            ("sparse", given("image", lambda t: t.to_sparse()), "image; another kind; sparse"),
            ("meta", given("image", lambda t: t.to("meta")), "image; another kind; meta"),
            ("half", given("image", lambda t: t.half()), same_as(given("image", lambda t: t.half().float()))),
            (
                "bfloat16",
                given("image", lambda t: t.bfloat16()),
                same_as(given("image", lambda t: t.bfloat16().float())),
            ),
            ("double", given("image", lambda t: t.double()), AS_USUAL),
            ("strided", given("image", lambda t: t.mT.contiguous().mT), AS_USUAL),
            ("wants-gradient", given("image", lambda t: t.clone().requires_grad_()), AS_USUAL),
            ("a-little-bright", given("image", lambda t: t * 1.2 - 0.1), of_size(1, *CELLS)),
            ("nan", given("image", lambda t: t * torch.nan), "image; finite; NaN"),
            ("one-infinity", given("image", lambda t: t.masked_fill(DOT[..., None] > 0, torch.inf)), "image; infinity"),
            ("empty-batch", given("image", lambda t: t[:0]), "image; 0 x 32 x 24 x 3"),
            ("no-height", given("image", lambda t: t[:, :0]), "image; 1 x 0 x 24 x 3"),
            ("scalar", {"image": torch.tensor(1.0)}, "image; no size"),
            ("list", given("image", lambda t: t.tolist()), "image; list"),
            ("array", given("image", lambda t: np.ones((1, HEIGHT, WIDTH, 3))), "image; ndarray"),
            ("empty-string", {"image": ""}, "image; str"),
            ("none", {"image": None}, "image; neither"),
            ("nothing-at-all", NO_PICTURE, "image; neither"),
            ("twice", lambda usual: {"latent_image": usual.latent}, "image; both"),
            ("1-x-1", sized(1, 1), of_size(1, 1, 1)),
            ("1-x-1-seen", sized(1, 1, hole=0.0), of_size(1, 1, 1)),
            ("1-x-1-balanced", lambda usual: {**sized(1, 1), "preset": "balanced"}, of_size(1, 1, 1)),
            ("one-line", sized(1, 70), of_size(1, 1, 9)),
            ("odd-size", sized(37, 31), of_size(1, 5, 4)),
            ("larger-than-the-model", sized(8, 400), "model; stopped with; pictures of this size"),
            ("batch-of-3", {"image": GREY.expand(3, -1, -1, -1), "fills": 2}, of_size(6, *CELLS)),
        ],
    ),
    *rows(
        INPAINT,
        [
            ("none", {"vae": None}, "vae; no vae"),
            ("model", lambda usual: {"vae": usual.tiny.model}, "vae; ModelPatcher"),
            ("string", {"vae": "taesd"}, "vae; str"),
            ("without-weights", vae(nothing=torch.zeros(1)), "vae; holds no VAE; Load VAE"),
            ("4-channels", taesd(4), "vae; 16 channels; 4 channels"),
            ("of-pixels", vae(pixel_space_vae=torch.tensor(1.0)), "vae; 16 channels; 3 channels"),
            ("nan", taesd(CHANNELS, torch.nan), "vae; NaN; --fp32-vae"),
            ("blind", taesd(CHANNELS, 0.0), of_size(1, *CELLS)),
        ],
    ),
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_images_and_vaes(usual, node, changes, expected):
    check(usual, node, changes, expected)
