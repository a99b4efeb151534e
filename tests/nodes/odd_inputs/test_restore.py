"""Odd degradations, and what else VIPaint Restore is given."""

from __future__ import annotations

import pytest
import torch
from odd_inputs import (
    AS_USUAL,
    BLACK_AND_WHITE,
    CELLS,
    CHANNELS,
    DOT,
    GREY,
    HEIGHT,
    RESTORE,
    WIDTH,
    check,
    degraded,
    fails,
    given,
    loses_numbers,
    model,
    of_size,
    rows,
    sized,
    taesd,
    unlike,
    vae,
)

ROWS = [
    *rows(
        RESTORE,
        [
            ("no-mask", {"mask": None, "noise": 0.1}, of_size(1, *CELLS)),
            ("white-mask", {"mask": torch.ones(1, HEIGHT, WIDTH)}, of_size(1, *CELLS)),
            ("grey-mask", {"mask": torch.full_like(DOT, 0.5)}, unlike({"mask": torch.full_like(DOT, 0.0)})),
            ("one-pixel", {"mask": 1 - DOT}, of_size(1, *CELLS)),
            ("mask-size", {"mask": torch.ones(1, 8, 8)}, "mask; 24 x 32 pixels; 8 x 8 pixels"),
            ("mask-nan", given("mask", lambda t: t * torch.nan), "mask; NaN"),
            ("1-x-1", {**sized(1, 1, 0.0), **degraded("super-resolution", factor="8", kind="area")}, of_size(1, 1, 1)),
            (
                "odd-size",
                {**sized(9, 7, 0.0), **degraded("super-resolution", factor="2", kind="bicubic")},
                of_size(1, 3, 2),
            ),
            (
                "batch-of-2",
                {"image": GREY.expand(2, -1, -1, -1), "mask": BLACK_AND_WHITE, "fills": 3},
                of_size(6, *CELLS),
            ),
            ("double", given("image", lambda t: t.double()), AS_USUAL),
            ("nan", given("image", lambda t: t * torch.nan), "image; NaN"),
            ("bytes", given("image", lambda t: (t * 255).byte()), "image; torch.uint8"),
            ("none", {"image": None}, "image; NoneType"),
            ("larger-than-the-model", {**sized(8, 400), "mask": None, "noise": 0.1}, "model; pictures of this size"),
            ("noise-nan", {"noise": torch.nan}, "noise; a number; nan"),
            ("noise-negative", {"noise": -0.1}, "noise; -0.1"),
            ("noise-largest", {"noise": 1.0}, unlike({})),
            ("steps-0", {"steps": 0}, "steps; from 4 to 200; 0"),
            ("attempts-0", {"attempts": 0}, "attempts; from 1 to 20; 0"),
            ("attempts-float", {"attempts": 1.5}, "attempts; 1.5"),
            ("fills-text", {"fills": "2"}, "fills; '2'"),
            ("unknown", degraded("rain"), "degradation; one of none; 'rain'"),
            ("text", {"degradation": "none"}, "degradation; one of none; 'none'"),
            ("nothing", {"degradation": {}}, "degradation; None"),
            ("no-setting", degraded("gaussian blur"), "degradation; sigma to be a number from 0.1 to 32.0; None"),
            ("sigma-nan", degraded("gaussian blur", sigma=torch.nan), "degradation; sigma; nan"),
            (
                "wide",
                degraded("gaussian blur", sigma=6.0),
                "degradation; less than 24 pixels; reaches 24; smaller blur",
            ),
            ("long", degraded("motion blur", length=48.0, angle=0.0), "degradation; less than 24 pixels; reaches 24"),
            ("nearly-wide", degraded("motion blur", length=46.0, angle=45.0), of_size(1, *CELLS)),
            (
                "factor",
                degraded("super-resolution", factor="3", kind="area"),
                "degradation; factor; one of 2, 4, 8; '3'",
            ),
            ("factor-number", degraded("super-resolution", factor=2, kind="area"), "degradation; factor; found 2"),
            ("kind", degraded("super-resolution", factor="2", kind="lanczos"), "degradation; kind; 'lanczos'"),
            ("vae-none", {"vae": None}, "vae; NoneType"),
            ("vae-4-channels", taesd(4), "vae; 16 latent channels; 4 channels"),
            ("vae-of-pixels", vae(pixel_space_vae=torch.tensor(1.0)), "vae; 16 latent channels; 3 channels"),
            ("vae-without-weights", vae(nothing=torch.zeros(1)), "vae; holds no VAE"),
            ("vae-nan", taesd(CHANNELS, torch.nan), "model; NaN"),
            ("vae-blind", taesd(CHANNELS, 0.0), of_size(1, *CELLS)),
            ("model-fails", model(fails), "model; the network is broken"),
            ("model-loses-numbers", model(loses_numbers), "model; NaN or infinity"),
        ],
    ),
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_restore(usual, node, changes, expected):
    check(usual, node, changes, expected)
