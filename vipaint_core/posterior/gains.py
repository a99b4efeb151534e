"""The structured posterior: gains of low rank that say how what is visible moves what is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..linalg import Pairs
from ..refiners.common import LevelStep, Tried

# Of directions and products in memory and in files: they are those of other states, which errs more than rounding.
PRECISION = torch.bfloat16


@dataclass(frozen=True)
class Gains:
    """What the first fills of every picture, its chains, have found on their way down.

    Transitions of the posterior are q(u_i | u_{i+1}) = N(m_i(x0 + G_i (y - A x0)), v_i), with the prior's mean m_i as a
    function of its estimate x0, and v_i. G_i = P (O^T O + ridge)^-1 O^T of the level's directions d, products
    P = C A^T d and outputs O = (A C A^T + R) d, is the gain C A^T (A C A^T + R)^-1 within them, shared by all fills of a
    picture.

    levels: falling noise levels.
    directions: of each level, (B, K, c, h, w) of norm 1, see `linalg.Pairs`.
    products: of each level, (B, K, C, H, W).
    fills: (M, B, C, H, W), the chains' latents, which are fills 0 to M - 1 of the fit's seed.

    Raises ValueError for shapes that do not fit.
    """

    levels: tuple[float, ...]
    directions: tuple[torch.Tensor, ...]
    products: tuple[torch.Tensor, ...]
    fills: torch.Tensor

    def __post_init__(self) -> None:
        if not len(self.levels) == len(self.directions) == len(self.products):
            raise ValueError(f"Gains: expected directions and products of {len(self.levels)} levels")
        if self.fills.ndim != 5 or not len(self.fills):
            raise ValueError(f"Gains: expected fills of shape (M, B, C, H, W), found {tuple(self.fills.shape)}")
        images, shape = self.fills.shape[1], self.fills.shape[2:]
        for direction, product in zip(self.directions, self.products, strict=True):
            fits = direction.ndim == 5 and product.shape == (images, direction.shape[1], *shape)
            if not fits or len(direction) != images or direction.shape[2:] != self.directions[0].shape[2:]:
                raise ValueError(
                    f"Gains: expected directions (B, K, c, h, w) and products {(images, 'K', *shape)}, "
                    f"found {tuple(direction.shape)} and {tuple(product.shape)}"
                )

    @property
    def chains(self) -> int:
        return len(self.fills)

    def at(self, s: float, image: torch.Tensor) -> Pairs | None:
        """What is known at level s for rows of the given images, (N,); None where nothing is."""
        if s not in self.levels:
            return None
        index = self.levels.index(s)
        images, rows = image.unique(return_inverse=True) if len(self.fills[0]) > 1 else (None, image)
        directions, products = self.directions[index], self.products[index]
        if images is not None:
            directions, products = directions[images], products[images]
        return Pairs(directions, products, rows)

    def joined(self, other: Gains) -> Gains:
        """With the chains of others, of the same levels, after these. Raises ValueError for other levels."""
        if self.levels != other.levels:
            raise ValueError(f"Gains: expected others of the levels {self.levels}, found {other.levels}")
        directions, products = (
            tuple(torch.cat(both, 1) for both in zip(own, others, strict=True))
            for own, others in ((self.directions, other.directions), (self.products, other.products))
        )
        return replace(self, directions=directions, products=products, fills=torch.cat([self.fills, other.fills]))

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Gains:
        """dtype: of the fills; directions and products keep theirs."""
        return replace(
            self,
            directions=tuple(part.to(device) for part in self.directions),
            products=tuple(part.to(device) for part in self.products),
            fills=self.fills.to(device, dtype),
        )


class Recorder:
    """Collects what chains find, batch by batch; an unfinished batch leaves nothing."""

    def __init__(self) -> None:
        self._batches: list[tuple[torch.Tensor, dict[float, list[Tried]]]] = []
        self._open: dict[float, list[Tried]] = {}

    def begin(self) -> None:
        """A batch of rows begins."""
        self._open = {}

    def add(self, step: LevelStep, tried: Tried | None) -> None:
        """What a step's solver has tried."""
        if tried is not None and tried.directions:
            lowered = (tuple(part.to(PRECISION) for part in parts) for parts in tried)
            self._open.setdefault(step.s, []).append(Tried(*lowered))

    def end(self, image: torch.Tensor) -> None:
        """The batch is whole; image: (N,) of its rows."""
        self._batches.append((image, self._open))
        self._open = {}

    def gains(self, fills: torch.Tensor) -> Gains:
        """Of all batches. fills: (M, B, C, H, W), those that were drawn; pictures without batches have gains of zero."""
        chains, images = fills.shape[:2]
        levels = sorted({s for _, found in self._batches for s in found}, reverse=True)
        rows = torch.cat([image for image, _ in self._batches]) if self._batches else torch.zeros(0, dtype=torch.long)

        def whole(part: int) -> tuple[torch.Tensor, ...]:
            found = ([[tried[part] for tried in batch[s]] for _, batch in self._batches] for s in levels)
            return tuple(self._whole(batches, rows, chains, images) for batches in found)

        directions, products = whole(0), whole(1)
        return Gains(tuple(levels), directions, products, fills)

    @staticmethod
    def _whole(
        batches: Sequence[Sequence[Sequence[torch.Tensor]]], rows: torch.Tensor, chains: int, images: int
    ) -> torch.Tensor:
        """(B, M * K, ...) of what every step of every batch has found; rows of one picture follow each other."""
        parts = torch.cat([torch.stack([part for step in steps for part in step], 1) for steps in batches])
        present = rows[::chains]
        whole = parts.new_zeros(images, chains * parts.shape[1], *parts.shape[2:])
        whole[present] = parts.reshape(len(present), -1, *parts.shape[2:])
        return whole
