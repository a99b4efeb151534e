"""What other nodes leave on the GPU."""

from __future__ import annotations

import pytest
import torch
from odd_inputs import (
    AS_USUAL,
    COMPOSITE,
    CROP,
    INPAINT,
    SAMPLE,
    UNCERTAINTY,
    check,
    cut_of,
    given,
    latent,
    numbers,
    posterior,
    prompted,
    rows,
    same_as,
)

ROWS = [
    *rows(
        INPAINT,
        [
            ("image", given("image", lambda t: t.cuda()), AS_USUAL),
            ("mask", given("mask", lambda t: t.cuda()), AS_USUAL),
            ("latent", latent(lambda t: t.cuda()), same_as(latent())),
            ("latent-mask", lambda usual: latent(noise_mask=usual.mask[:, None].cuda())(usual), same_as(latent())),
            ("prompt", prompted(lambda t, s: [[t.cuda(), s]]), AS_USUAL),
        ],
    ),
    *rows(
        SAMPLE,
        [
            ("posterior", posterior(lambda usual, f: f.to("cuda")), AS_USUAL),
        ],
    ),
    *rows(
        CROP,
        [
            ("image", given("image", lambda t: t.cuda()), cut_of(16, 16)),
        ],
    ),
    *rows(
        COMPOSITE,
        [
            ("fills", given("fills", lambda t: t.cuda()), numbers(0, 1)),
            ("original", lambda usual: {"original": usual.image.cuda()}, AS_USUAL),
        ],
    ),
    *rows(
        UNCERTAINTY,
        [
            ("images", lambda usual: {"images": usual.fills.cuda()}, numbers(0, 1)),
        ],
    ),
]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_tensors_of_another_device(usual, node, changes, expected):
    check(usual, node, changes, expected)
