"""Masks as files, painters and segmentation leave them, and the care that they need.

Masks are (B, 1, H, W) in [0, 1], 1 is painted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy import ndimage

# JPEG leaves up to 23 of 255 where a mask was black, and 236 or more where it was white; half a step for rounding.
BLACK, WHITE = 23.5 / 255, 235.5 / 255
# Grey levels that a soft mask is taken apart into.
LEVELS = 32


def snapped(mask: torch.Tensor) -> torch.Tensor:
    """The mask with what is nearly black as 0 and what is nearly white as 1; greys between stay as they are."""
    return torch.where(mask <= BLACK, 0.0, torch.where(mask >= WHITE, 1.0, mask))


def tended(
    mask: torch.Tensor,
    *,
    invert: bool = False,
    specks: int = 0,
    fill_holes: bool = False,
    grow: int = 0,
    blur: float = 0.0,
) -> torch.Tensor:
    """The mask after these operations, in this order.

    invert: black and white change places.
    specks: white spots at most so many pixels wide and high go.
    fill_holes: black areas that white encloses become white.
    grow: pixels by which white grows in all directions; below 0 it shrinks.
    blur: standard deviation of a Gaussian in pixels.
    """
    mask = snapped(mask)
    if invert:
        mask = 1 - mask
    if specks > 0:
        mask = _by_level(mask, partial(without_specks, size=specks))
    if fill_holes:
        mask = _by_level(mask, without_holes)
    if grow:
        mask = _by_level(mask, partial(grown, pixels=grow))
    if blur > 0:
        smooth = [ndimage.gaussian_filter(row.cpu().numpy(), blur, mode="nearest") for row in mask[:, 0]]
        mask = torch.from_numpy(np.stack(smooth))[:, None].to(mask).clamp(0, 1)
    return mask


def _by_level(mask: torch.Tensor, change: Callable[[np.ndarray], np.ndarray]) -> torch.Tensor:
    """A change of black-and-white masks, (H, W) bool, made of every grey level: a pixel has the highest that shows it.

    change: of two masks of which one lies inside the other, so do the results.
    """
    rows = []
    for row in mask[:, 0]:
        values = row.cpu().numpy()
        levels = np.unique(values[values > 0])
        if len(levels) > LEVELS:
            levels = np.linspace(0, 1, LEVELS + 1, dtype=values.dtype)[1:]
        found = np.zeros_like(values)
        for level in levels:
            found[change(values >= level)] = level
        rows.append(torch.from_numpy(found))
    return torch.stack(rows)[:, None].to(mask)


def without_specks(white: np.ndarray, size: int) -> np.ndarray:
    """White, (H, W) bool, less the spots that are at most `size` pixels wide and high; diagonals connect."""
    labels, _ = ndimage.label(white, np.ones((3, 3)))
    spots = ndimage.find_objects(labels)
    large = [max(lines.stop - lines.start, columns.stop - columns.start) > size for lines, columns in spots]
    kept: np.ndarray = np.array([False, *large])[labels]
    return kept


def without_holes(white: np.ndarray) -> np.ndarray:
    """White, (H, W) bool, and what of the rest does not reach the picture's border."""
    labels, _ = ndimage.label(~white)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    filled: np.ndarray = ~np.isin(labels, border[border > 0])
    return filled


def grown(white: np.ndarray, pixels: int) -> np.ndarray:
    """White, (H, W) bool, and all within so many pixels of it; below 0 what is farther than that from black.

    Beyond the picture's border there is neither: an area that touches it is not shrunk from there.
    """
    if white.all() or not white.any():
        return white
    far: np.ndarray = ndimage.distance_transform_edt(~white if pixels > 0 else white)
    within: np.ndarray = far <= pixels if pixels > 0 else far > -pixels
    return within
