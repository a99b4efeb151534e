"""Random holes as models that are trained to inpaint see them: rectangles, strokes, everything and nothing."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

# Shares of pictures; the rest has one to four rectangles.
ALL, NONE, STROKES = 0.1, 0.03, 0.4


def random_holes(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 1, size, size) bool, True where pixels are hidden."""
    return torch.stack([_hole(size, generator) for _ in range(count)])[:, None]


def _hole(size: int, generator: torch.Generator) -> torch.Tensor:
    def numbers(count: int) -> list[float]:
        return torch.rand(count, generator=generator).tolist()

    (kind,) = numbers(1)
    if kind < ALL + NONE:
        return torch.full((size, size), kind < ALL)
    image = Image.new("1", (size, size))
    pen = ImageDraw.Draw(image)
    if kind < ALL + NONE + STROKES:
        (many, width), (x, y) = numbers(2), numbers(2)
        path = [(x * size, y * size)]
        for _ in range(2 + int(8 * many)):
            x, y = (min(max(at + step - 0.5, 0.0), 1.0) for at, step in zip((x, y), numbers(2), strict=True))
            path.append((x * size, y * size))
        pen.line(path, fill=1, width=int(size * (0.06 + 0.18 * width)), joint="curve")
    else:
        # Beyond the border, so that every second one cuts a side or a corner off.
        for _ in range(1 + int(4 * numbers(1)[0])):
            x, y, width, height = numbers(4)
            left, top = (x * 1.2 - 0.3) * size, (y * 1.2 - 0.3) * size
            pen.rectangle([left, top, left + (0.2 + 0.7 * width) * size, top + (0.2 + 0.7 * height) * size], fill=1)
    return torch.from_numpy(np.array(image))


def cells(holes: torch.Tensor, size: int) -> torch.Tensor:
    """Holes (N, 1, H, W) at the size of latents, as the host's inpainting models get them, (N, 1, size, size) of 0, 1."""
    return torch.nn.functional.interpolate(holes.float(), size=(size, size), mode="bilinear").round()
