"""Holes in scenes, and what is visible beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from toy_prior.scenes.attributes import ATTRIBUTES, Attributes
from toy_prior.scenes.renderer import SIZE, render

HOLES = ("right", "left", "top", "bottom", "centre", "blocks", "border", "strip")
# A change of an attribute is invisible where no colour changes by more than this,
INVISIBLE = 0.02
# and plain where the squares of all changes of visible pixels add up to this.
PLAIN = 1.0
# By how much the lamp is turned to see whether its azimuth is visible, degrees.
TURN = 12.0


def hole(name: str) -> torch.Tensor:
    """The named mask of the benchmark, (256, 256) bool, True where pixels are hidden.

    Raises ValueError for names that are not in `HOLES`.
    """
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    if name == "right":
        mask[:, 128:] = True
    elif name == "left":
        mask[:, :128] = True
    elif name == "top":
        # Wall and both solids; what stands in front is visible.
        mask[:176] = True
    elif name == "bottom":
        # All but the wall.
        mask[96:] = True
    elif name == "centre":
        mask[160:224, 80:176] = True
    elif name == "blocks":
        # 70 % of the blocks.
        covered = torch.randperm(64, generator=torch.Generator().manual_seed(BLOCKS_SEED))[:45]
        mask.view(8, 32, 8, 32)[covered // 8, :, covered % 8] = True
    elif name == "border":
        mask[:] = True
        mask[96:216, 128:248] = False
    elif name == "strip":
        # A line of latent cells of the ground is left, before everything that stands on it.
        mask[:] = True
        mask[224:232] = False
    else:
        raise ValueError(f"hole: expected one of {', '.join(HOLES)}, found {name!r}")
    return mask


BLOCKS_SEED = 71


@dataclass(frozen=True)
class Evidence:
    """What a hole leaves visible of N scenes, by attribute and for `azimuth`; what is neither is told in part.

    hidden: (N,) bool, no visible pixel tells it.
    determined: (N,) bool, visible pixels tell it plainly.
    """

    hidden: dict[str, torch.Tensor]
    determined: dict[str, torch.Tensor]


@torch.no_grad()
def evidence(truth: Attributes, mask: torch.Tensor) -> Evidence:
    """Compares the visible part of scenes with that of scenes of which one attribute is another.

    mask: (256, 256) bool, True where pixels are hidden.
    """
    visible = ~mask.to(truth.azimuth.device)
    shown = render(truth, grain=False)[:, :, visible]
    hidden: dict[str, torch.Tensor] = {}
    determined: dict[str, torch.Tensor] = {}
    for name in (*ATTRIBUTES, "azimuth"):
        changes = [render(other, grain=False)[:, :, visible] - shown for other in _others(truth, name)]
        largest = torch.stack([change.abs().amax((1, 2)) for change in changes])
        total = torch.stack([change.square().sum((1, 2)) for change in changes])
        hidden[name] = largest.amax(0) <= INVISIBLE
        determined[name] = total.amin(0) >= PLAIN
    return Evidence(hidden, determined)


def _others(truth: Attributes, name: str) -> list[Attributes]:
    """The scenes with every other value of an attribute."""
    if name == "azimuth":
        return [replace(truth, azimuth=truth.azimuth + turn) for turn in (-TURN, TURN)]
    size = ATTRIBUTES[name]
    shifted = [(truth.values[name] + step) % size for step in range(1, size)]
    return [replace(truth, values=truth.values | {name: values}) for values in shifted]
