"""Rectangles around holes: where a picture is cut, and how a cut is scaled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange

from .holes import fill_from_nearest

# Of the hole's size: surroundings that are kept at the price of a cut that reaches over the picture's border.
LEAST_CONTEXT = 1.25
# Times its width or height a cut may be long: models know no longer pictures.
LONGEST = 4.0


class Region(NamedTuple):
    """A rectangle in pixels that starts inside the picture and may reach over its right and lower border."""

    left: int
    top: int
    width: int
    height: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """Lines and columns of the picture."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Crop:
    """Where each picture of a batch was cut.

    picture: height and width of the pictures.
    size: height and width that every cut was scaled to.
    """

    regions: tuple[Region, ...]
    picture: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of_whole(cls, pictures: torch.Tensor) -> Crop:
        """Pictures (B, H, W, C) that are not cut."""
        height, width = pictures.shape[1:3]
        return cls((Region(0, 0, width, height),) * len(pictures), (height, width), (height, width))


def extent(hidden: torch.Tensor) -> tuple[int, int]:
    """First and one past the last of the lines or columns, (N,) bool, that are hidden; the middle where none is."""
    at = hidden.nonzero()
    return (int(at.min()), int(at.max()) + 1) if len(at) else (len(hidden) // 2, len(hidden) // 2)


def with_neighbours(hidden: torch.Tensor) -> tuple[slice, slice]:
    """Lines and columns of the hidden pixels, (H, W) bool, and of their visible neighbours: all that a seam needs."""
    (top, bottom), (left, right) = extent(hidden.any(1)), extent(hidden.any(0))
    return slice(max(0, top - 1), bottom + 1), slice(max(0, left - 1), right + 1)


class Box(NamedTuple):
    """Along one side of a picture of `pixels`: from where to where its hole is, and what a region must include."""

    start: int
    end: int
    first: int
    last: int
    pixels: int

    def length(self, factor: float) -> float:
        """Of the smallest stretch with `factor` times the hole's length, where there is so much, and all it must
        include."""
        return max(min((self.end - self.start) * factor, self.pixels), self.last - self.first)


def boxes_of(hole: torch.Tensor, include: torch.Tensor | None = None) -> tuple[Box, Box]:
    """Along the lines and the columns of a picture; hole, include: (H, W), above 0 where they are."""
    wanted = hole if include is None else torch.maximum(hole, include)
    found = []
    for axis in (1, 0):
        start, end = extent((hole > 0).any(axis))
        first, last = extent((wanted > 0).any(axis))
        if not (hole > 0).any():
            start, end = first, last
        found.append(Box(start, end, first, last, hole.shape[1 - axis]))
    return found[0], found[1]


def region_around(
    hole: torch.Tensor, size: tuple[int, int], context: float, enlarge: float, include: torch.Tensor | None = None
) -> Region:
    """The part of a picture to work on, around the pixels where `hole` (H, W) is above 0.

    It has the shape of `size` (height, width) and is `context` times as large as the hole's bounding box, but at
    least 1 / `enlarge` of `size`. It lies inside the picture as long as that leaves some context around the hole.
    Without a hole it is in the middle.

    include: (H, W), above 0 on what the region must hold beside the hole.
    """
    boxes = boxes_of(hole, include)

    def scale(factor: float) -> float:
        """Of the smallest region of this shape that holds the hole with so much context, where there is any."""
        return max(box.length(factor) / side for box, side in zip(boxes, size, strict=True))

    largest = min(box.pixels / side for box, side in zip(boxes, size, strict=True))
    chosen = max(scale(min(context, LEAST_CONTEXT)), min(largest, max(scale(context), 1 / enlarge)))
    places = []
    for (start, end, first, last, pixels), side in zip(boxes, size, strict=True):
        # A visible pixel on each side: the seam is made there.
        length = max(round(chosen * side), last - first, min(end - start + 2, pixels))
        place = max(last - length, min((start + end - length) // 2, first))
        places.append((max(0, min(place, pixels - length)), length))
    (top, height), (left, width) = places
    return Region(left, top, width, height)


def size_around(
    holes: torch.Tensor,
    pixels: int,
    context: float,
    most_enlarged: float,
    multiple: int,
    include: torch.Tensor | None = None,
) -> tuple[int, int]:
    """Height and width for cuts around all holes (B, H, W) in the shape that their context has.

    pixels: in all, about, and not more.
    most_enlarged: how far the context may be enlarged to have so many.
    multiple: of which height and width are multiples.
    include: (B, H, W), see `region_around`.
    """
    others = [None] * len(holes) if include is None else list(include)
    boxes = [boxes_of(hole, other) for hole, other in zip(holes, others, strict=True)]
    height, width = (max(1.0, *(pair[axis].length(context) for pair in boxes)) for axis in (0, 1))
    height, width = max(height, width / LONGEST), max(width, height / LONGEST)
    wanted = (pixels / (height * width)) ** 0.5
    units = [min(wanted, most_enlarged) * side / multiple for side in (height, width)]
    # Where room is left a cut is not scaled rather than scaled by a little.
    sides = [multiple * max(1, math.ceil(n) if most_enlarged < wanted else math.floor(n)) for n in units]
    return sides[0], sides[1]


def scaled(pictures: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pictures (B, H, W, C) in another size (height, width), without offset: outer borders stay outer borders."""
    if tuple(pictures.shape[1:3]) == tuple(size):
        return pictures
    channels = rearrange(pictures, "b h w c -> b c h w")
    resized = F.interpolate(channels, size, mode="bicubic", antialias=True).clamp(0, 1)
    return rearrange(resized, "b c h w -> b h w c")


def cut(
    picture: torch.Tensor, hole: torch.Tensor, crop: Crop, number: int, keep_content: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Picture (1, H, W, 3) and hole (1, 1, H, W) of one region in the crop's size, hidden pixels covered.

    What is outside the picture is hidden: nothing is known of it.

    keep_content: hidden pixels stay; visible ones still owe nothing to them.
    """
    region = crop.regions[number]
    lines, columns = region.inside
    part, cover = rearrange(picture[:, lines, columns], "b h w c -> b c h w"), hole[..., lines, columns]
    beyond = (0, region.width - part.shape[-1], 0, region.height - part.shape[-2])
    outside = F.pad(torch.zeros_like(cover), beyond, value=1.0)
    part, cover = rearrange(F.pad(part, beyond), "b c h w -> b h w c"), F.pad(cover, beyond, value=1.0)
    reduced = F.adaptive_max_pool2d(cover, crop.size)
    # Filled before it is scaled, which would mix hidden pixels into visible ones.
    found = scaled(fill_from_nearest(part, cover), crop.size)
    if keep_content:
        content = scaled(fill_from_nearest(part, outside), crop.size)
        found = torch.where(rearrange(reduced, "b 1 h w -> b h w 1") > 0, content, found)
    return found, reduced
