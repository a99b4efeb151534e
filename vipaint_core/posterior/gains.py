"""The structured posterior: gains of low rank that say how what is visible moves what is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..diffusion.levels import remaining_variance
from ..linalg import Pairs, Tried
from ..refiners.common import LevelStep

# Of directions and products in memory and in files: they are those of other states, which errs more than rounding.
PRECISION = torch.bfloat16
# Of so many levels above, too, what chains have found serves a fill.
LEVELS_ABOVE = 3


@dataclass(frozen=True)
class Gains:
    """What the first fills of every picture, its chains, have found on their way down.

    Transitions of the posterior are q(u_i | u_{i+1}) = N(m_i(x0 + G_i (y - A x0)), v_i), with the prior's mean m_i as a
    function of its estimate x0, and v_i. G_i = P (O^T O + ridge)^-1 O^T of directions d, those of
    the level and of `LEVELS_ABOVE` above, products P = C A^T d and outputs O = (A C A^T + R) d, is the gain
    C A^T (A C A^T + R)^-1 within them, shared by all fills of a picture.

    levels: falling noise levels.
    directions: of each level, (B, K, c, h, w) of norm 1, see `linalg.Pairs`.
    products: of each level, (B, K, C, H, W).
    fills: (M, B, C, H, W), the chains' latents, which are fills 0 to M - 1 of the fit's seed; M = 0 where the gains are those
        of other pictures.

    Raises ValueError for shapes that do not fit.
    """

    levels: tuple[float, ...]
    directions: tuple[torch.Tensor, ...]
    products: tuple[torch.Tensor, ...]
    fills: torch.Tensor

    def __post_init__(self) -> None:
        if not len(self.levels) == len(self.directions) == len(self.products):
            raise ValueError(f"Gains: expected directions and products of {len(self.levels)} levels")
        if self.fills.ndim != 5:
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
        """What is known at level s for rows of the given images, (N,); None where nothing is.

        Of levels above products are less by as much as less is open at s, see `remaining_variance`.
        """
        if s not in self.levels:
            return None
        index = self.levels.index(s)
        near = slice(max(0, index - LEVELS_ABOVE), index + 1)
        images, rows = image.unique(return_inverse=True) if self.fills.shape[1] > 1 else (slice(None), image)
        shares = [remaining_variance(s) / remaining_variance(level) for level in self.levels[near]]
        directions = torch.cat([part[images] for part in self.directions[near]], 1)
        scaled = [share * part[images].float() for share, part in zip(shares, self.products[near], strict=True)]
        products = torch.cat(scaled, 1)
        return Pairs(directions, products, rows)

    def rows(self, index: torch.Tensor) -> Gains:
        """The gains of the given images."""
        directions, products = (tuple(part[index] for part in parts) for parts in (self.directions, self.products))
        return Gains(self.levels, directions, products, self.fills[:, index])

    def lent(self, weight: torch.Tensor) -> Gains:
        """What all images have found, together, for each of other images of the same size, in as many directions as before.

        weight: (N, 1, h, w), of the others' observations: what they do not show directions leave out.
        """
        pooled = []
        for directions, products in zip(self.directions, self.products, strict=True):
            shown = [directions.flatten(0, 1) * (own > 0).to(directions) for own in weight]
            pairs = [_principal(one, products.flatten(0, 1), directions.shape[1]) for one in shown]
            pooled.append(tuple(map(torch.stack, zip(*pairs, strict=True))))
        fills = self.fills.new_zeros(0, len(weight), *self.fills.shape[2:])
        return Gains(self.levels, tuple(pair[0] for pair in pooled), tuple(pair[1] for pair in pooled), fills)

    def joined(self, other: Gains) -> Gains:
        """With the chains of others, of the same levels, after these. Raises ValueError for other levels."""
        fills = torch.cat([self.fills, other.fills])
        if not other.levels:
            # Fills without products of their own have found nothing.
            return replace(self, fills=fills)
        if self.levels != other.levels:
            raise ValueError(f"Gains: expected others of the levels {self.levels}, found {other.levels}")
        directions, products = (
            tuple(torch.cat(both, 1) for both in zip(own, others, strict=True))
            for own, others in ((self.directions, other.directions), (self.products, other.products))
        )
        return replace(self, directions=directions, products=products, fills=fills)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Gains:
        """dtype: of the fills; directions and products keep theirs."""
        return replace(
            self,
            directions=tuple(part.to(device) for part in self.directions),
            products=tuple(part.to(device) for part in self.products),
            fills=self.fills.to(device, dtype),
        )


class Recorder:
    """Collects what a chain of every picture finds, batch by batch; an unfinished batch leaves nothing.

    rank: directions that it leaves at a level, at most.
    """

    def __init__(self, rank: int) -> None:
        self._rank = rank
        # Of every batch its images and, by level, (N, K, ...) of directions and products.
        self._batches: list[tuple[torch.Tensor, dict[float, tuple[torch.Tensor, torch.Tensor]]]] = []
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
        self._batches.append((image, {s: _reduced(found, self._rank) for s, found in self._open.items()}))
        self._open = {}

    def gains(self, fills: torch.Tensor) -> Gains:
        """Of all batches. fills: (B, C, H, W), those that were drawn; pictures without batches have gains of zero."""
        levels = sorted({s for _, found in self._batches for s in found}, reverse=True)

        def whole(part: int, s: float) -> torch.Tensor:
            """(B, K, ...)."""
            found = torch.cat([batch[s][part] for _, batch in self._batches])
            image = torch.cat([rows for rows, _ in self._batches])
            return found.new_zeros(len(fills), *found.shape[1:]).index_copy(0, image, found)

        directions, products = (tuple(whole(part, s) for s in levels) for part in (0, 1))
        return Gains(tuple(levels), directions, products, fills[None])


def _reduced(found: Sequence[Tried], rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the steps of a level have found, directions and products, each (N, K, ...) with K up to rank.

    Of more, those that the solvers have tried first: these tell most.
    """
    tried = [(turn, *pair) for steps in found for turn, pair in enumerate(zip(*steps, strict=True))]
    first = sorted(tried, key=lambda entry: entry[0])[:rank]
    return torch.stack([entry[1] for entry in first], 1), torch.stack([entry[2] for entry in first], 1)


def _principal(directions: torch.Tensor, products: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Combinations of norm 1 of directions (K, ...) along their principal axes, and the same ones of products (K, ...).

    rank: how many there are, at most.
    """
    if len(directions) <= rank:
        return directions, products
    flat = directions.flatten(1).float()
    values, axes = torch.linalg.eigh((flat @ flat.mT).double())
    # The largest come last. Axes along which hardly anything lies would be rounding alone.
    values, axes = values[-rank:, None], axes[:, -rank:].mT
    smallest = 1e-4 * values[-1]
    weights = torch.where(values > smallest, axes / values.clamp_min(smallest).sqrt(), 0.0).float()

    def combined(parts: torch.Tensor) -> torch.Tensor:
        return (weights @ parts.flatten(1).float()).unflatten(1, parts.shape[1:]).to(parts.dtype)

    return combined(directions), combined(products)
