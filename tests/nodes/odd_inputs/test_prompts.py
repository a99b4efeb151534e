"""Odd conditioning."""

from __future__ import annotations

import pytest
import torch
from odd_inputs import AS_USUAL, CELLS, INPAINT, check, of_size, prompted, rows

ROW, TWO = torch.zeros(1, 16, *CELLS), torch.zeros(2, 16, *CELLS)


def added(changes):
    """Settings of the conditioning beside its own."""
    return lambda t, settings: [[t, {**settings, **changes}]]


ROWS = [
    *rows(
        INPAINT,
        [
            ("none", {"positive": None}, "positive; NoneType"),
            ("empty", {"positive": []}, "positive; none; VIPaint Unconditional"),
            ("empty-negative", {"negative": []}, "negative; none"),
            ("text", {"positive": "a cat"}, "positive; str"),
            ("bare-tensor", prompted(lambda t, _: t), "positive; Tensor"),
            ("list-of-tensors", prompted(lambda t, _: [t]), "positive; another structure"),
            ("no-settings", prompted(lambda t, _: [[t]]), "positive; another structure"),
            ("settings-none", prompted(lambda t, _: [[t, None]]), "positive; another structure"),
            ("tuple", prompted(lambda t, s: [(t, s)]), AS_USUAL),
            ("batch-of-2", prompted(lambda t, s: [[t.expand(2, -1, -1), s]]), "positive; batch of 2"),
            ("2-d", prompted(lambda t, s: [[t[0], s]]), "positive; 1 x 64"),
            ("no-tokens", prompted(lambda t, s: [[t[:, :0], s]]), "positive; 1 x 0 x 64"),
            ("nan", prompted(lambda t, s: [[t * torch.nan, s]]), "positive; NaN"),
            ("pooled-nan", prompted(lambda t, s: [[t, {"pooled_output": s["pooled_output"] / 0}]]), "positive; NaN"),
            ("string-inside", prompted(lambda t, s: [["a cat", s]]), "positive; str"),
            ("of-another-encoder", prompted(lambda t, s: [[t[..., :32], s]]), "model; mat1 and mat2; text encoder"),
            ("no-pooled", prompted(lambda t, s: [[t, {}]]), "model; stopped with; text encoder"),
            ("two", prompted(lambda t, s: [[t, s], [t, s]]), AS_USUAL),
            *(
                (f"{name}-of-2", prompted(added(changes)), f"positive; batch of 2 {words}")
                for name, changes, words in (
                    ("references", {"reference_latents": [ROW, TWO]}, "reference pictures"),
                    ("masks", {"mask": TWO[:, 0]}, "masks"),
                    ("inpainting-masks", {"concat_mask": TWO}, "inpainting masks"),
                    ("inpainting-pictures", {"concat_latent_image": TWO}, "inpainting pictures"),
                    ("attention-masks", {"attention_mask": torch.ones(2, 3)}, "`attention_mask`"),
                    ("nested", {"of_another_pack": {"a": [(0, TWO)]}}, "`of_another_pack`"),
                )
            ),
            *(
                (f"{name}-of-1", prompted(added(changes)), of_size(1, *CELLS))
                for name, changes in (
                    ("references", {"reference_latents": [ROW, ROW]}),
                    ("flat-mask", {"mask": torch.ones(CELLS)}),
                    ("token-numbers", {"t5xxl_ids": torch.arange(4)}),
                    ("settings", {"guidance": 3.5, "area_hint": (1, 2), "of_another_pack": None}),
                )
            ),
            ("many-tokens", prompted(lambda t, s: [[t.expand(-1, 300, -1), s]]), of_size(1, *CELLS)),
        ],
    ),
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_prompts(usual, node, changes, expected):
    check(usual, node, changes, expected)
