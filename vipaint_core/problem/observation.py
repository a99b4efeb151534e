"""What is known about a picture's latents: data, operator and noise, `y = A(x0) + noise`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from typing_extensions import Self

from .operators import LinearOperator, Mask

SIGMA_Y = 0.02


class Observation(Protocol):
    """What samplers and the likelihood ask of an observation of B images, in latents or in pixels.

    y: (B, c, h, w), what was observed, zeros where nothing was.
    weight: (B, 1, h, w) in [0, 1], the precision of y's numbers in units of 1 / sigma_y^2: 1 observed, 0 hidden.
    sigma_y: standard deviation of the observation noise where the weight is 1.
    shape: (C, H, W) of the latents x0.
    latents: (B, C, H, W), the latents as far as y holds them, zeros elsewhere.
    complete: (B,) bool, whether y holds all latents of an image: nothing is to be painted.
    """

    @property
    def y(self) -> torch.Tensor: ...

    @property
    def weight(self) -> torch.Tensor: ...

    @property
    def sigma_y(self) -> float: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def latents(self) -> torch.Tensor: ...

    @property
    def complete(self) -> torch.Tensor: ...

    def residual(self, x0: torch.Tensor) -> torch.Tensor:
        """y - A(x0), zeros where nothing is observed, (B, c, h, w)."""

    def rows(self, index: torch.Tensor) -> Self:
        """The observation of the given images, repeated as often as the index names them."""

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self: ...


def check_observed(kind: str, y: torch.Tensor, weight: torch.Tensor, sigma_y: float) -> None:
    """Raises ValueError for shapes that do not fit, weights outside [0, 1] or non-finite numbers."""
    if y.ndim != 4:
        raise ValueError(f"{kind}: expected y of shape (B, C, H, W), found {tuple(y.shape)}")
    batch, _, height, width = y.shape
    if tuple(weight.shape) != (batch, 1, height, width):
        raise ValueError(f"{kind}: expected weight of shape {(batch, 1, height, width)}, found {tuple(weight.shape)}")
    if not 0 < sigma_y < math.inf:
        raise ValueError(f"{kind}: expected sigma_y above 0 and finite, found {sigma_y}")
    if not bool(((weight >= 0) & (weight <= 1)).all()):
        raise ValueError(f"{kind}: expected weight within [0, 1], found values outside or NaN")
    if not bool(torch.isfinite(y).all()):
        raise ValueError(f"{kind}: expected finite numbers in y, found NaN or infinity")


class CutCells(NamedTuple):
    """What the visible pixels of cells that a hole's edge cuts tell of their latents x: maps[kind - 1] x, with unit noise.

    kind: (B, 1, H, W) uint8, from 1 where a cell is cut, 0 elsewhere. maps: (B, K, C, C).
    """

    kind: torch.Tensor
    maps: torch.Tensor


@dataclass(frozen=True)
class LatentObservation:
    """Latents seen through a linear operator: `y = A(x0) + sigma_y * n`; see `Observation` for the fields.

    operator: from latents (B, C, H, W) to y. `masked` makes the observation of an inpainting problem.
    crosstalk_variance: (B, 1, h, w), variance of what y owes to hidden content beyond the operator, or None; see
        `with_crosstalk_as_noise`.

    Raises ValueError for shapes that do not fit, weights outside [0, 1] or non-finite numbers.
    """

    y: torch.Tensor
    weight: torch.Tensor
    operator: LinearOperator
    shape: tuple[int, int, int]
    sigma_y: float = SIGMA_Y
    crosstalk_variance: torch.Tensor | None = None

    def __post_init__(self) -> None:
        check_observed("LatentObservation", self.y, self.weight, self.sigma_y)
        variance = self.crosstalk_variance
        if variance is not None and (variance.shape != self.weight.shape or not bool((variance >= 0).all())):
            raise ValueError(
                f"LatentObservation: expected crosstalk_variance of shape {tuple(self.weight.shape)} and at least 0"
            )
        if isinstance(self.operator, Mask) and self.operator.observed.shape != self.weight.shape:
            raise ValueError(
                f"LatentObservation: expected a mask of shape {tuple(self.weight.shape)}, "
                f"found {tuple(self.operator.observed.shape)}"
            )

    @classmethod
    def masked(
        cls,
        latents: torch.Tensor,
        weight: torch.Tensor,
        sigma_y: float = SIGMA_Y,
        crosstalk: torch.Tensor | None = None,
        crosstalk_variance: torch.Tensor | None = None,
        cut: CutCells | None = None,
    ) -> Self:
        """The observed cells of encoded pictures.

        latents: (B, C, H, W) in model scale; hidden cells hold what was encoded in the hole's place and matter only
            together with `crosstalk` and `cut`.
        weight: (B, 1, H, W) in [0, 1], the precision of each cell: 1 observed, 0 hidden.
        crosstalk: (B, C, C, k, k), see `operators.Mask`.
        cut: what is told of hidden cells that hold visible pixels.
        """
        check_observed("LatentObservation", latents, weight, sigma_y)
        if crosstalk is not None and crosstalk.shape[1] != latents.shape[1]:
            raise ValueError(
                f"LatentObservation: expected crosstalk of {latents.shape[1]} channels, found {tuple(crosstalk.shape)}"
            )
        observed, kind, maps = weight > 0, None, None
        if cut is not None and bool((cut.kind > 0).any()):
            kind, maps = torch.where(observed, 0, cut.kind), sigma_y * cut.maps
            weight = torch.where(kind > 0, 1.0, weight)
            if crosstalk_variance is not None:
                crosstalk_variance = torch.where(kind > 0, 0.0, crosstalk_variance)
        operator = Mask(observed, crosstalk, kind, maps)
        _, channels, height, width = latents.shape
        shape = channels, height, width
        return cls(operator.A(latents), weight, operator, shape, sigma_y, crosstalk_variance)

    @property
    def is_cellwise(self) -> bool:
        """Whether y holds cells of the latents, each for itself, as a mask does."""
        return isinstance(self.operator, Mask)

    @property
    def cell_weight(self) -> torch.Tensor:
        """Precision of single latent cells, (B, 1, H, W): that of a mask, 0 in cut cells and for operators that mix
        cells.
        """
        if isinstance(self.operator, Mask):
            return torch.where(self.operator.observed, self.weight, 0.0)
        return self.weight.new_zeros(len(self.y), 1, *self.shape[1:])

    @property
    def latents(self) -> torch.Tensor:
        if isinstance(self.operator, Mask):
            return torch.where(self.operator.observed, self.y, 0.0)
        return self.y.new_zeros(len(self.y), *self.shape)

    @property
    def complete(self) -> torch.Tensor:
        return (self.cell_weight >= 1).flatten(1).all(1)

    def residual(self, x0: torch.Tensor) -> torch.Tensor:
        """y - A(x0), zeros where nothing is observed, (B, c, h, w)."""
        return torch.where(self.weight > 0, self.y - self.operator.A(x0), 0.0)

    def with_crosstalk_as_noise(self) -> LatentObservation:
        """The same with `crosstalk_variance` as additional noise of the observed cells.

        Taken for evidence of what is hidden, what the encoder's filler left in observed cells gives every fill the
        same answer.
        """
        if self.crosstalk_variance is None:
            return self
        weight = self.weight / (1 + self.weight * self.crosstalk_variance / self.sigma_y**2)
        return replace(self, weight=weight, crosstalk_variance=None)

    def with_cells(self, latents: torch.Tensor, weight: torch.Tensor) -> LatentObservation:
        """The same with evidence on more cells: those on which less is known so far; others stay as they are.

        latents: (B, C, H, W) in model scale, of a whole fill: what remains hidden matters only with crosstalk. As cells of
            an encoded picture, those that are added owe something to what is beside them.
        weight: (B, 1, H, W) in [0, 1], the precision of each cell, 0 where nothing is added.

        Raises ValueError for operators that mix cells and shapes that do not fit.
        """
        old = self.operator
        if not isinstance(old, Mask):
            raise ValueError(f"with_cells: expected an observation of single cells, found {type(old).__name__}")
        check_observed("with_cells", latents, weight, self.sigma_y)
        if latents.shape != self.y.shape:
            raise ValueError(
                f"with_cells: expected latents of shape {tuple(self.y.shape)}, found {tuple(latents.shape)}"
            )
        added = weight > self.cell_weight
        kind = None if old.cut_kind is None else torch.where(added, 0, old.cut_kind)
        operator = replace(old, observed=old.observed | added, cut_kind=kind)
        # What visible cells owe to the added ones is no longer part of what the operator shows.
        y = self.y - old.A(torch.where(added, latents, 0.0))
        variance = self.crosstalk_variance
        if variance is not None and old.crosstalk is not None:
            variance = torch.where(added, _variance_beside(variance, operator), variance)
        return replace(
            self,
            y=torch.where(added, operator.A(latents), y),
            weight=torch.where(added, weight, self.weight),
            operator=operator,
            crosstalk_variance=variance,
        )

    def rows(self, index: torch.Tensor) -> Self:
        return self._with(self.operator.rows(index), lambda tensor: tensor[index])

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        return self._with(self.operator.to(device, dtype), lambda tensor: tensor.to(device, dtype))

    def _with(self, operator: LinearOperator, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        variance = None if self.crosstalk_variance is None else change(self.crosstalk_variance)
        return replace(
            self, y=change(self.y), weight=change(self.weight), operator=operator, crosstalk_variance=variance
        )


def _variance_beside(variance: torch.Tensor, operator: Mask) -> torch.Tensor:
    """The picture's mean crosstalk variance in cells that the kernel's reach brings beside hidden ones, (B, 1, H, W).

    variance: of the cells for which it was measured, 0 elsewhere.
    """
    assert operator.crosstalk is not None
    measured = (variance > 0).sum((1, 2, 3), keepdim=True).clamp_min(1)
    mean = variance.sum((1, 2, 3), keepdim=True) / measured
    reach = operator.crosstalk.shape[-1]
    hidden = (~operator.observed).to(variance)
    return torch.where(F.max_pool2d(hidden, reach, 1, reach // 2) > 0, mean, 0.0)
