"""Attributes of scenes, their joint distribution, and exact conditionals of what is hidden."""

from __future__ import annotations

from dataclasses import dataclass

import torch

TIMES = ("noon", "dusk", "night")
WALLS = ("plaster", "stripes", "bricks")
GROUNDS = ("tiles", "planks", "carpet")
SHAPES = ("sphere", "box", "cylinder")
COLOURS = ("red", "green", "blue", "yellow")
MATERIALS = ("matte", "glossy", "banded")
FRONTS = ("none", "ball", "cube")

# Number of values of every discrete attribute.
ATTRIBUTES = {
    "time": len(TIMES),
    "wall": len(WALLS),
    "ground": len(GROUNDS),
    "left_shape": len(SHAPES),
    "left_colour": len(COLOURS),
    "left_material": len(MATERIALS),
    "right_shape": len(SHAPES),
    "right_colour": len(COLOURS),
    "right_material": len(MATERIALS),
    "front": len(FRONTS),
}
# What an attribute depends on; the others are independent.
PARENTS = {"wall": "time", "ground": "wall", "right_colour": "left_colour", "right_material": "left_material"}
# Probabilities of an attribute's values, by those of its parent in rows.
TABLES: dict[str, tuple[tuple[float, ...], ...]] = {
    "time": ((0.4, 0.35, 0.25),),
    "wall": ((0.6, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6)),
    "ground": ((0.7, 0.15, 0.15), (0.15, 0.7, 0.15), (0.15, 0.15, 0.7)),
    "left_shape": ((1 / 3, 1 / 3, 1 / 3),),
    "left_colour": ((0.25, 0.25, 0.25, 0.25),),
    "left_material": ((0.4, 0.3, 0.3),),
    "right_shape": ((1 / 3, 1 / 3, 1 / 3),),
    # Red goes with green, green with blue, blue with yellow, yellow with red.
    "right_colour": ((0.1, 0.7, 0.1, 0.1), (0.1, 0.1, 0.7, 0.1), (0.1, 0.1, 0.1, 0.7), (0.7, 0.1, 0.1, 0.1)),
    "right_material": ((0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)),
    "front": ((0.4, 0.3, 0.3),),
}
# The lamp's azimuth in degrees, positive from the right, is uniform between these, by time of day.
AZIMUTHS = ((-30.0, 30.0), (4.0, 52.0), (-52.0, 52.0))


@dataclass(frozen=True)
class Attributes:
    """Attributes of N scenes.

    azimuth: (N,), of the lamp, degrees.
    values: by name of `ATTRIBUTES`, (N,) indices.
    number: (N,), of which the noise of textures and sensor is made.
    """

    azimuth: torch.Tensor
    values: dict[str, torch.Tensor]
    number: torch.Tensor

    def __len__(self) -> int:
        return len(self.azimuth)

    def __getitem__(self, index: slice | torch.Tensor) -> Attributes:
        values = {name: value[index] for name, value in self.values.items()}
        return Attributes(self.azimuth[index], values, self.number[index])

    def to(self, device: torch.device | str) -> Attributes:
        values = {name: value.to(device) for name, value in self.values.items()}
        return Attributes(self.azimuth.to(device), values, self.number.to(device))


def sample_attributes(count: int, generator: torch.Generator) -> Attributes:
    """Draws attributes from their joint distribution, on the generator's device."""
    device = generator.device
    values: dict[str, torch.Tensor] = {}
    for name, size in ATTRIBUTES.items():
        table = torch.tensor(TABLES[name], device=device)
        row = values[PARENTS[name]] if name in PARENTS else torch.zeros(count, dtype=torch.long, device=device)
        draws = torch.rand(count, 1, generator=generator, device=device)
        values[name] = (draws > table.cumsum(1)[row]).sum(1).clamp(max=size - 1)
    low, high = torch.tensor(AZIMUTHS, device=device)[values["time"]].T
    azimuth = low + (high - low) * torch.rand(count, generator=generator, device=device)
    number = torch.randint(2**40, (count,), generator=generator, device=device)
    return Attributes(azimuth, values, number)


def chains() -> list[list[str]]:
    """Attributes in groups that are independent of each other, parents first."""
    found: dict[str, list[str]] = {}
    for name in ATTRIBUTES:
        root = name
        while root in PARENTS:
            root = PARENTS[root]
        found.setdefault(root, []).append(name)
    return list(found.values())


def joint(chain: list[str]) -> torch.Tensor:
    """The joint distribution of a chain's attributes, one dimension each."""
    whole = torch.ones([ATTRIBUTES[name] for name in chain], dtype=torch.float64)
    for name in chain:
        shape = [ATTRIBUTES[other] if other in (name, PARENTS.get(name)) else 1 for other in chain]
        # A parent stands before its child, as the rows of a table before its columns.
        whole = whole * torch.tensor(TABLES[name], dtype=torch.float64).reshape(shape)
    return whole


def posterior(names: list[str], values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Exact distributions of hidden attributes given the visible ones.

    names: of the hidden attributes.
    values: by name, (N,); those of hidden attributes are not looked at.

    Returns (N, size) by name, float64.
    """
    found = {}
    count = len(next(iter(values.values())))
    for chain in chains():
        for name in set(chain) & set(names):
            seen = [other for other in chain if other not in names]
            order = [chain.index(other) for other in (*seen, name)]
            rest = [axis for axis in range(len(chain)) if axis not in order]
            table = joint(chain).sum(rest) if rest else joint(chain)
            kept = sorted(order)
            table = table.permute([kept.index(axis) for axis in order])
            rows = table[tuple(values[other].cpu() for other in seen)] if seen else table.expand(count, -1)
            found[name] = rows / rows.sum(-1, keepdim=True)
    return {name: found[name] for name in ATTRIBUTES if name in found}
