"""Recovers the attributes of pictures of scenes by matching the renderer's own templates.

Wall, ground and time of day are read where no solid and no shadow can be; then every place for itself, by templates of
all solids under all lamps, rendered before what was read behind it. Distances as a function of the lamp's azimuth have
their minimum between the templates' azimuths by a parabola. All is done on means over blocks of 4 x 4 pixels, which the
sensor's noise hardly reaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from toy_prior.scenes.attributes import ATTRIBUTES, Attributes
from toy_prior.scenes.renderer import SHAPE_OF, SIZE, SLOTS, WINDOWS, render

BLOCK = 4
# Azimuths of the templates, degrees.
STEP = 7.0
AZIMUTHS = torch.arange(-56.0, 56.1, STEP)
# What is behind all solids, and the attributes of what stands at a place.
BEHIND = ("time", "wall", "ground")
_OWN = {
    "left": ("left_shape", "left_colour", "left_material"),
    "right": ("right_shape", "right_colour", "right_material"),
    "front": ("front",),
}
PARTS = ("behind", *SLOTS)
# The largest distance of a part of a rendered picture from the best template, root mean square, at which it counts as
# matched. An autoencoder has its own, see `measured_tolerance`.
TOLERANCE = {"behind": 0.04, "left": 0.035, "right": 0.035, "front": 0.04}
# Of the metadata of a checkpoint, where it keeps its own.
TOLERANCE_KEY = "scenes.tolerance"
# A difference between the azimuths of two solids, in degrees, beyond which they are lit by different lamps.
AZIMUTH_TOLERANCE = 10.0


@dataclass(frozen=True)
class Reading:
    """What the reader found in N pictures.

    attributes: with the azimuth that fits all solids best.
    azimuths: by place, (N,), the azimuth that fits its solid best; NaN where nothing stands.
    error: by part of `PARTS`, (N,), root mean square distance to the best template.
    tolerance: the largest distances that count as matched.
    """

    attributes: Attributes
    azimuths: dict[str, torch.Tensor]
    error: dict[str, torch.Tensor]
    tolerance: Mapping[str, float]

    @property
    def matched(self) -> torch.Tensor:
        """Pictures of which every part matches a template, (N,) bool."""
        return torch.stack([self.error[part] <= self.tolerance[part] for part in PARTS]).all(0)

    @property
    def lamps_agree(self) -> torch.Tensor:
        """Pictures whose solids are lit by one lamp, (N,) bool."""
        away = torch.stack([self.azimuths[slot] for slot in SLOTS]) - self.attributes.azimuth
        return (away.nan_to_num().abs() <= AZIMUTH_TOLERANCE).all(0)

    @property
    def valid(self) -> torch.Tensor:
        """Pictures of the generator, (N,) bool."""
        return self.matched & self.lamps_agree


def _blocks(pictures: torch.Tensor) -> torch.Tensor:
    """Means over blocks of pixels."""
    return F.avg_pool2d(pictures.float(), BLOCK)


@lru_cache(maxsize=None)
def _templates(slot: str, behind: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Windows of a place with every solid under every lamp, before what is behind it, (values, azimuths, 3, h, w)."""
    own = torch.cartesian_prod(*(torch.arange(ATTRIBUTES[name]) for name in _OWN[slot])).reshape(-1, len(_OWN[slot]))
    count = len(AZIMUTHS)
    values = {name: torch.zeros(len(own) * count, dtype=torch.long, device=device) for name in ATTRIBUTES}
    for name, value in zip(BEHIND, behind, strict=True):
        values[name] += value
    for name, column in zip(_OWN[slot], own.T, strict=True):
        values[name] += column.repeat_interleave(count).to(device)
    azimuth = AZIMUTHS.to(device).repeat(len(own))
    rows = Attributes(azimuth, values, torch.zeros_like(values["time"]))
    shown = [_blocks(render(rows[first : first + 256], slot=slot)) for first in range(0, len(rows), 256)]
    return torch.cat(shown).unflatten(0, (len(own), count))


@lru_cache(maxsize=None)
def _behind_templates(device: torch.device) -> torch.Tensor:
    """Pictures without solids, (27, 3, 64, 64)."""
    own = torch.cartesian_prod(*(torch.arange(ATTRIBUTES[name], device=device) for name in BEHIND))
    values = {name: torch.full((len(own),), -1, device=device) for name in ATTRIBUTES}
    values |= dict(zip(BEHIND, own.T, strict=True))
    rows = Attributes(torch.zeros(len(own), device=device), values, torch.zeros_like(values["time"]))
    return _blocks(render(rows, grain=False))


def _window(slot: str) -> tuple[slice, slice]:
    top, left, bottom, right = WINDOWS[slot]
    return slice(top // BLOCK, bottom // BLOCK), slice(left // BLOCK, right // BLOCK)


@lru_cache(maxsize=None)
def reach(slot: str, device: torch.device) -> torch.Tensor:
    """Blocks of the picture that a place's solids and their shadows can change, (64, 64) bool."""
    shown = _templates(slot, (0, 0, 0), device).flatten(0, 1)
    whole = torch.zeros(SIZE // BLOCK, SIZE // BLOCK, dtype=torch.bool, device=device)
    whole[_window(slot)] = (shown.amax(0) - shown.amin(0)).amax(0) > 0.01
    return whole


@lru_cache(maxsize=None)
def _support(slot: str, device: torch.device) -> torch.Tensor:
    """Those of them that no other place can change, (64, 64) bool."""
    others = [reach(other, device) for other in SLOTS if other != slot]
    return reach(slot, device) & ~torch.stack(others).any(0)


def read(pictures: torch.Tensor, tolerance: Mapping[str, float] = TOLERANCE) -> Reading:
    """Recovers attributes of pictures by matching rendered templates, on their device.

    pictures: (N, 3, 256, 256) in [0, 1].
    tolerance: by part of `PARTS`, the largest distance that counts as matched.

    Raises ValueError for another shape.
    """
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (3, SIZE, SIZE):
        raise ValueError(f"read: expected pictures of shape (N, 3, {SIZE}, {SIZE}), found {tuple(pictures.shape)}")
    blocks, device, count = _blocks(pictures), pictures.device, len(pictures)
    seen = ~torch.stack([reach(slot, device) for slot in SLOTS]).any(0)
    squares = _square_distances(blocks[:, :, seen], _behind_templates(device)[:, :, seen])
    behind, error = squares.argmin(1), {"behind": squares.amin(1).sqrt()}
    digits = torch.cartesian_prod(*(torch.arange(ATTRIBUTES[name], device=device) for name in BEHIND))[behind]
    values = {name: digits[:, column] for column, name in enumerate(BEHIND)}
    values |= {name: torch.zeros_like(behind) for slot in SLOTS for name in _OWN[slot]}
    found = {name: torch.full((count,), torch.nan, device=device) for name in SLOTS}
    error |= {slot: torch.zeros(count, device=device) for slot in SLOTS}
    # Sums of squares of the best solid of every place by azimuth: places with more blocks count more.
    by_azimuth = torch.zeros(count, len(AZIMUTHS), device=device)
    for context in behind.unique().tolist():
        rows = (behind == context).nonzero()[:, 0]
        place = tuple(digits[rows[0]].tolist())
        for slot in SLOTS:
            pixels = _support(slot, device)
            templates = _templates(slot, place, device)[..., pixels[_window(slot)]]
            squares = _square_distances(blocks[rows][:, :, pixels], templates.flatten(0, 1))
            squares = squares.unflatten(1, templates.shape[:2])
            best = squares.amin(2).argmin(1)
            profile = squares[torch.arange(len(rows), device=device), best]
            error[slot][rows] = profile.amin(1).sqrt()
            for name in reversed(_OWN[slot]):
                values[name][rows] = best % ATTRIBUTES[name]
                best = best // ATTRIBUTES[name]
            azimuth = _lowest(profile)
            stands = values[SHAPE_OF[slot]][rows] > 0 if slot == "front" else torch.ones_like(rows, dtype=torch.bool)
            found[slot][rows] = torch.where(stands, azimuth, torch.nan)
            by_azimuth[rows] += pixels.sum() * profile
    attributes = Attributes(_lowest(by_azimuth), {name: values[name] for name in ATTRIBUTES}, torch.zeros_like(behind))
    return Reading(attributes, found, error, tolerance)


def measured_tolerance(pictures: torch.Tensor) -> dict[str, float]:
    """Distances that 99.5 % of pictures of the world keep to, and a tenth more, by part.

    pictures: held-out ones, after the autoencoder of which fills will be read.
    """
    return {part: 1.1 * float(error.quantile(0.995)) for part, error in read(pictures).error.items()}


def _square_distances(shown: torch.Tensor, templates: torch.Tensor) -> torch.Tensor:
    """Mean squares of differences of (N, 3, pixels) and (M, 3, pixels), (N, M)."""
    # In double precision: what is left of large squares is small.
    shown, templates = shown.flatten(1).double(), templates.flatten(1).double()
    squares = shown.square().sum(1)[:, None] + templates.square().sum(1) - 2 * shown @ templates.T
    return (squares.clamp_min(0) / shown.shape[1]).float()


def _lowest(profile: torch.Tensor) -> torch.Tensor:
    """The azimuth at which a curve over `AZIMUTHS` is lowest, by the parabola through its lowest three, (N, A) -> (N,)."""
    middle = profile.argmin(1, keepdim=True).clamp(1, len(AZIMUTHS) - 2)
    before, at, after = (profile.gather(1, middle + step) for step in (-1, 0, 1))
    bend = (before - 2 * at + after).clamp_min(1e-12)
    shift = (0.5 * (before - after) / bend).clamp(-1, 1)
    return (AZIMUTHS.to(profile.device)[middle] + STEP * shift)[:, 0]
