"""How the fills of a picture differ: groups of fills, their spread, and how it is drawn."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw

# Anchors of matplotlib's "inferno" (CC0) at equal distances: lightness rises evenly from black.
ANCHORS = np.array(
    [
        [0.001, 0.000, 0.014],
        [0.121, 0.047, 0.282],
        [0.341, 0.062, 0.429],
        [0.550, 0.134, 0.412],
        [0.736, 0.216, 0.330],
        [0.894, 0.354, 0.204],
        [0.978, 0.557, 0.035],
        [0.975, 0.796, 0.240],
        [0.988, 0.998, 0.645],
    ],
    dtype=np.float32,
)
# Of the pixels that neighbours share as a rule, how many all of a group share at least; and the fewest that tell anything.
SHARED, FEWEST = 0.9, 0.01


def fills_per_picture(images: torch.Tensor) -> int:
    """How many of a batch of fills (N, H, W, 3) belong to each picture, all of the first one first.

    Fills of one picture have its visible pixels in common, bit for bit: the largest groups of equal size in which all
    share nearly as much as neighbours do as a rule. N where neighbours share nothing.
    """
    count = len(images)
    equal = torch.stack([(a == b).all(-1) for a, b in zip(images[:-1], images[1:], strict=True)]) if count > 1 else None
    if equal is None or float(equal.flatten(1).float().mean(1).max()) < FEWEST:
        return count
    # The median: two fills may happen to be equal, and most neighbours are fills of one picture.
    usual = float(equal.flatten(1).float().mean(1).median())
    for fills in range(count, 1, -1):
        if count % fills:
            continue
        groups = [equal[start : start + fills - 1] for start in range(0, count, fills)]
        pairs = min(float(group.flatten(1).float().mean(1).min()) for group in groups)
        whole = min(float(group.all(0).float().mean()) for group in groups)
        if pairs >= FEWEST and whole >= SHARED * usual:
            return fills
    return 1


def spread(images: torch.Tensor, fills: int) -> torch.Tensor:
    """Standard deviation over the fills of each picture, root mean square over colours, (B, H, W)."""
    rows = rearrange(images.float(), "(b fills) h w c -> b fills h w c", fills=fills)
    return rows.var(1, correction=0).mean(-1).sqrt()


def heat_map(values: torch.Tensor) -> torch.Tensor:
    """Colours (B, H, W, 3) of values in [0, 1]."""
    at = values.cpu().numpy()
    places = np.linspace(0, 1, len(ANCHORS))
    channels = [np.interp(at, places, ANCHORS[:, c]) for c in range(3)]
    return torch.from_numpy(np.stack(channels, -1).astype(np.float32))


def edge(inside: torch.Tensor, width: int) -> torch.Tensor:
    """The line of `width` pixels around an area (B, H, W) bool, just outside of it."""
    grown = F.max_pool2d(inside[:, None].float(), 2 * width + 1, 1, width)[:, 0] > 0
    return grown & ~inside


def line_width(size: tuple[int, int]) -> int:
    """Pixels of a line that is seen in a picture (height, width) that is shown smaller."""
    return max(1, round(min(size) / 256))


def overlay(pictures: torch.Tensor, values: torch.Tensor, opacity: float, outline_above: float) -> torch.Tensor:
    """Pictures (B, H, W, 3) under the heat map of values (B, H, W), the more of it the higher they are.

    outline_above: areas above this value get a line; 1 or more: none.
    """
    weight = opacity * values.clamp(0, 1).sqrt()[..., None].to(pictures)
    shown = torch.lerp(pictures, heat_map(values).to(pictures), weight)
    width = line_width((pictures.shape[1], pictures.shape[2]))
    # A single pixel apart would be all line.
    areas = F.max_pool2d((values > outline_above)[:, None].float(), 2 * width + 1, 1, width)[:, 0] > 0
    line = edge(areas, width)[..., None].to(pictures.device)
    return torch.where(line, torch.tensor([1.0, 1.0, 1.0], device=pictures.device, dtype=pictures.dtype), shown)


def with_legend(pictures: torch.Tensor, full_scale: torch.Tensor) -> torch.Tensor:
    """Pictures (B, H, W, 3) with the heat map's scale and its numbers in the lower left corner.

    full_scale: (B,), the standard deviation of the brightest colour. Pictures below 48 pixels have no room for it.
    """
    height, width = pictures.shape[1:3]
    if min(height, width) < 48:
        return pictures
    out: list[torch.Tensor] = []
    bar = max(36, width // 4), max(5, height // 64)
    for picture, scale in zip(pictures.cpu(), full_scale.tolist(), strict=True):
        shown = Image.fromarray((picture.clamp(0, 1).numpy() * 255).round().astype(np.uint8))
        pen, left, text = ImageDraw.Draw(shown, "RGBA"), 4, max(9, height // 40)
        top = height - text - bar[1] - 8
        pen.rectangle([0, top - 4, left + bar[0] + 4, height], fill=(0, 0, 0, 160))
        colours: np.ndarray = (heat_map(torch.linspace(0, 1, bar[0])[None, None])[0, 0].numpy() * 255).astype(np.uint8)
        shown.paste(Image.fromarray(np.tile(colours[None], (bar[1], 1, 1))), (left, top))
        for word, place, anchor in (("0", left, "la"), (f"{scale:.2g}", left + bar[0], "ra")):
            pen.text((place, top + bar[1] + 2), word, fill="white", font_size=text, anchor=anchor)
        # The picture beside it keeps all its digits.
        box = slice(top - 4, height), slice(0, left + bar[0] + 5)
        drawn = picture.clone()
        drawn[box] = torch.from_numpy(np.asarray(shown)[box].astype(np.float32) / 255).to(picture)
        out.append(drawn)
    return torch.stack(out).to(pictures)


def outline(inside: torch.Tensor, width: int) -> torch.Tensor:
    """A line around an area (B, H, W) bool, white in black, on transparent ground, (B, H, W, 4).

    It is seen on any picture, and covers nothing inside.
    """
    inner = edge(inside, width)
    outer = edge(inside | inner, width)
    colour = inner.float()[..., None].expand(-1, -1, -1, 3)
    return torch.cat([colour, (inner | outer).float()[..., None]], -1)
