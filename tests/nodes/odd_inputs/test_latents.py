"""Odd encoded pictures and their noise masks."""

from __future__ import annotations

import pytest
import torch
from odd_inputs import CELLS, INPAINT, NO_PICTURE, check, hidden, latent, of_size, rows, same_as

ROWS = [
    *rows(
        INPAINT,
        [
            ("usual", latent(), of_size(1, *CELLS)),
            ("half", latent(lambda t: t.half()), same_as(latent(lambda t: t.half().float()))),
            ("double", latent(lambda t: t.double()), same_as(latent())),
            ("integers", latent(lambda t: t.long()), "latent_image; floating-point; torch.int64"),
            ("complex", latent(lambda t: t.to(torch.complex64)), "latent_image; another kind"),
            ("meta", latent(lambda t: t.to("meta")), "latent_image; another kind"),
            ("3-d", latent(lambda t: t[0]), "latent_image; 16 x 4 x 3"),
            ("5-d", latent(lambda t: t[:, :, None]), "latent_image; SD3; 1 x 16 x 1 x 4 x 3; video"),
            ("film", latent(lambda t: t[:, :, None].expand(-1, -1, 9, -1, -1)), "latent_image; 1 x 16 x 9 x 4 x 3"),
            ("4-channels", latent(lambda t: t[:, :4]), "latent_image; 16 channels; 4 channels"),
            ("empty-batch", latent(lambda t: t[:0]), "latent_image; 0 x 16 x 4 x 3"),
            ("no-width", latent(lambda t: t[..., :0]), "latent_image; 1 x 16 x 4 x 0"),
            ("nan", latent(lambda t: t * torch.nan), "latent_image; NaN; --fp32-vae"),
            ("infinity", latent(lambda t: t / 0), "latent_image; infinity"),
            ("zeros", latent(torch.zeros_like), of_size(1, *CELLS)),
            ("1-x-1", latent(lambda t: t[..., :1, :1]), of_size(1, 1, 1)),
            (
                "larger-than-the-model",
                latent(lambda t: t[..., :1].expand(-1, -1, -1, 50)),
                "model; pictures of this size",
            ),
            ("batch-of-2", latent(lambda t: t.expand(2, -1, -1, -1)), of_size(2, *CELLS)),
            (
                "nested",
                latent(lambda t: torch.nested.nested_tensor([t[0], t[0]], layout=torch.jagged)),
                "latent_image; another structure",
            ),
            ("no-samples", latent(samples=None), "latent_image; another structure"),
            ("samples-list", latent(lambda t: t.tolist()), "latent_image; another structure"),
            ("tensor", lambda usual: {**NO_PICTURE, "latent_image": usual.latent["samples"]}, "latent_image"),
            ("list", {**NO_PICTURE, "latent_image": []}, "latent_image; another structure"),
            ("no-mask", latent(noise_mask=None), "mask; Set Latent Noise Mask"),
            ("mask-connected", lambda usual: {**latent(noise_mask=None)(usual), "mask": usual.mask}, same_as(latent())),
            (
                "mask-replaces",
                lambda usual: {**latent(noise_mask=torch.ones(1, 1, 9, 9))(usual), "mask": usual.mask},
                hidden(8),
            ),
            ("mask-of-latent-size", latent(noise_mask=torch.ones(1, 1, *CELLS)), hidden(12)),
            ("mask-larger", latent(noise_mask=torch.ones(1, 1, 99, 77)), hidden(12)),
            ("mask-smaller", latent(noise_mask=torch.ones(1, 1, 1, 1)), hidden(12)),
            ("masks-of-3", latent(noise_mask=torch.ones(3, 1, 8, 6)), of_size(3, *CELLS)),
            (
                "masks-of-3-for-2",
                latent(lambda t: t.expand(2, -1, -1, -1), noise_mask=torch.ones(3, 1, 8, 6)),
                "latent_image; 1 mask or 2; 3 masks",
            ),
            ("mask-nan", latent(noise_mask=torch.full((1, 1, 8, 6), torch.nan)), "latent_image; NaN"),
            ("mask-string", latent(noise_mask="white"), "latent_image; str"),
            ("batch-index", latent(batch_index=[7]), same_as(latent())),
            ("with-vae", lambda usual: {**latent()(usual), "vae": usual.tiny.vae}, same_as(latent())),
        ],
    ),
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_latents(usual, node, changes, expected):
    check(usual, node, changes, expected)
