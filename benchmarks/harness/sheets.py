"""Pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from PIL import Image


def to_pillow(picture: torch.Tensor) -> Image.Image:
    """A picture (3, H, W) in [0, 1] for Pillow."""
    return Image.fromarray(rearrange(picture, "c h w -> h w c").mul(255).round().byte().numpy())


def sheet(rows: Sequence[Sequence[torch.Tensor]], tile: int) -> Image.Image:
    """Rows of pictures (3, H, W) in [0, 1], each in a square of `tile` pixels."""
    out = Image.new("RGB", (tile * max(map(len, rows)), tile * len(rows)), "white")
    for line, row in enumerate(rows):
        for column, picture in enumerate(row):
            shown = to_pillow(picture).resize((tile, tile), Image.Resampling.LANCZOS)
            out.paste(shown, (column * tile, line * tile))
    return out
