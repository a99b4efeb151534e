"""Odd models, and models that fail."""

from __future__ import annotations

import pytest
from odd_inputs import (
    BASELINE,
    CELLS,
    FIT,
    INPAINT,
    UNCONDITIONAL,
    as_fitted,
    check,
    discrete,
    fails,
    films,
    loses_numbers,
    model,
    of_size,
    rows,
)

ROWS = [
    *rows(
        INPAINT,
        [
            ("none", {"model": None}, "model; NoneType"),
            ("string", {"model": "sd3.safetensors"}, "model; str"),
            ("vae", lambda usual: {"model": usual.tiny.vae}, "model; VAE"),
            ("films", model(films), "model; SD3 (FLOW)"),
            ("loses-numbers", model(loses_numbers), "model; NaN or infinity"),
            ("fails", model(fails), "model; RuntimeError: the network is broken"),
            ("other-levels", model(discrete), of_size(1, *CELLS)),
        ],
    ),
    *rows(
        UNCONDITIONAL,
        [
            ("none", {"model": None}, "model; NoneType"),
            ("films", model(films), "model; SD3 (FLOW)"),
        ],
    ),
    *rows(
        FIT,
        [
            ("fails-unasked", model(fails), as_fitted),
        ],
    ),
    *rows(
        BASELINE,
        [
            ("fails", model(fails), "model; the network is broken"),
            ("loses-numbers", model(loses_numbers), "model; NaN"),
        ],
    ),
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_models(usual, node, changes, expected):
    check(usual, node, changes, expected)
