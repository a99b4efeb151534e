"""Small portraits as a world of a model in pixel space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks.worlds.portraits import NEAR, OURS, Portraits
from benchmarks.worlds.world import EXACT, Prior
from toy_prior import PIXELS, pictures, pixels


@cache
def _prior(file: Path) -> Prior:
    return Prior(*pixels.load(file))


@dataclass(frozen=True)
class SmallPortraits(Portraits):
    """Portraits of 32 x 32 pixels. Pixels are hidden or visible, none is a part of a larger latent cell."""

    def load(self) -> Prior:
        return _prior(self.file)

    def render(self, truths: pictures.Attributes) -> torch.Tensor:
        return pictures.render(truths, pixels.SIDE)

    def hole(self, name: str) -> torch.Tensor:
        return pictures.hole(name, pixels.SIDE)


PIXEL_WORLD = SmallPortraits(
    name="portraits-pixels",
    tuned="nothing was tuned on it",
    file=PIXELS,
    methods=(EXACT, *OURS, *NEAR, "paper-2", "paper-4"),
    latent_shape=(pixels.CHANNELS, pixels.SIDE, pixels.SIDE),
)
