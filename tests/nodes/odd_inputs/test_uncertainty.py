"""Odd fills of VIPaint Uncertainty."""

from __future__ import annotations

import pytest
import torch
from odd_inputs import GREY, UNCERTAINTY, check, numbers, rows

ROWS = [
    *rows(
        UNCERTAINTY,
        [
            ("one", {"images": GREY}, "images; at least 2"),
            ("one-each", {"fills": 1}, "images; at least 2"),
            ("odd-number", {"images": GREY.expand(3, -1, -1, -1), "fills": 2}, "images; multiple of 2; batch of 3"),
            ("more-than-there-are", {"fills": 5}, "images; multiple of 5; batch of 2"),
            ("negative", {"fills": -2}, "fills; from 0; -2"),
            ("float", {"fills": 2.5}, "fills; 2.5"),
            ("alike", {"images": GREY.expand(4, -1, -1, -1)}, numbers(0, 0.02)),
            ("1-x-1", {"images": torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 1, 3)}, numbers(0, 1)),
            ("scale-1", {"full_scale": 1.0}, numbers(0, 1)),
            ("scale-smallest", {"full_scale": 1e-30}, numbers(0, 1)),
            ("scale-nan", {"full_scale": torch.nan}, "full_scale; nan"),
            ("scale-infinity", {"full_scale": torch.inf}, "full_scale; inf"),
            ("scale-negative", {"full_scale": -1.0}, "full_scale; -1.0"),
            ("nan", {"images": GREY * torch.nan}, "images; NaN"),
            ("bytes", {"images": (GREY * 255).byte().expand(2, -1, -1, -1)}, "images; torch.uint8"),
            ("3-d", {"images": GREY[0]}, "images; 32 x 24 x 3"),
            ("empty", {"images": GREY[:0]}, "images; 0 x 32 x 24 x 3"),
            ("none", {"images": None}, "images; NoneType"),
            ("latent", lambda usual: {"images": usual.latent}, "images; dict"),
        ],
    ),
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_maps(usual, node, changes, expected):
    check(usual, node, changes, expected)
