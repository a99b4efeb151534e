"""Recovers the attributes of pictures of scenes by matching the renderer's own templates.

Wall, ground and time of day are read where no solid and no shadow can be; then every place for itself, by templates of
all solids under all lamps, rendered before what was read behind it. Distances as a function of the lamp's azimuth have
their minimum between the templates' azimuths by a parabola. All is done on means over blocks of 4 x 4 pixels, which the
sensor's noise hardly reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F

from toy_prior import scenes
from toy_prior.scenes import ATTRIBUTES, SHAPE_OF, SIZE, SLOTS, WINDOWS, Attributes

BLOCK = 4
# Azimuths of the templates, degrees.
STEP = 4.0
AZIMUTHS = torch.arange(-56.0, 56.1, STEP)
# What is behind all solids, and the attributes of what stands at a place.
BEHIND = ("time", "wall", "ground")
_OWN = {
    "left": ("left_shape", "left_colour", "left_material"),
    "right": ("right_shape", "right_colour", "right_material"),
    "front": ("front",),
}
PARTS = ("behind", *SLOTS)
# The largest distance of a part of a picture from the best template, root mean square, at which it counts as matched:
# above that of 99.5 % of held-out pictures, rendered or after the autoencoder.
TOLERANCE = {"behind": 0.05, "left": 0.05, "right": 0.05, "front": 0.05}
# A difference between the azimuths of two solids, in degrees, beyond which they are lit by different lamps.
AZIMUTH_TOLERANCE = 10.0


@dataclass(frozen=True)
class Reading:
    """What the reader found in N pictures.

    attributes: with the azimuth that fits all solids best.
    azimuths: by place, (N,), the azimuth that fits its solid best; NaN where nothing stands.
    error: by part of `PARTS`, (N,), root mean square distance to the best template.
    """

    attributes: Attributes
    azimuths: dict[str, torch.Tensor]
    error: dict[str, torch.Tensor]

    @property
    def matched(self) -> torch.Tensor:
        """Pictures of which every part matches a template, (N,) bool."""
        return torch.stack([self.error[part] <= TOLERANCE[part] for part in PARTS]).all(0)

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
def _support(slot: str, device: torch.device) -> torch.Tensor:
    """Blocks of a place's window that its solids and their shadows can change, alone, (h, w) bool."""
    top, left, bottom, right = WINDOWS[slot]
    own, others = (_reach(name, device) for name in (slot, None))
    shared = torch.stack([_reach(name, device) for name in SLOTS if name != slot]).any(0)
    del others
    window = slice(top // BLOCK, bottom // BLOCK), slice(left // BLOCK, right // BLOCK)
    return (own & ~shared)[window]


@lru_cache(maxsize=None)
def _reach(slot: str, device: torch.device) -> torch.Tensor:
    """Blocks of the picture that a place's solids and their shadows can change, (64, 64) bool."""
    top, left, bottom, right = WINDOWS[slot]
    shown = _templates(slot, (0, 0, 0), device, everywhere=True)
    changed = (shown.flatten(0, 1).amax(0) - shown.flatten(0, 1).amin(0)).amax(0) > 0.01
    whole = torch.zeros(SIZE // BLOCK, SIZE // BLOCK, dtype=torch.bool, device=device)
    whole[top // BLOCK : bottom // BLOCK, left // BLOCK : right // BLOCK] = changed
    return whole
