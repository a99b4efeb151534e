"""What is known about a picture, and how likely an estimate makes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .coordinate import Level, per_row
from .operators import Mask


@dataclass(frozen=True)
class Observation:
    """A latent seen through a mask: `y = A(x0) + sigma_y * n`.

    latent: (B, C, H, W) in model scale; its hidden cells hold what was encoded in the hole's place and
    matter only together with `spill`.
    seen: (B, 1, H, W) in [0, 1], the precision of each cell: 1 observed, 0 hidden.
    sigma_y: standard deviation of the observation noise where seen is 1.
    leak: (B, 1, H, W), variance of what seen cells owe to hidden content, or None: encoders look
    beyond their cell; see `softened`.
    spill: (B, C, C, k, k), the part of that which is linear in the hidden cells, or None; see
    `operators.Mask`. `leak` is then the variance of the rest.

    Raises ValueError for shapes that do not fit, values outside [0, 1] or non-finite numbers.
    """

    latent: torch.Tensor
    seen: torch.Tensor
    sigma_y: float = 0.02
    leak: torch.Tensor | None = None
    spill: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.latent.ndim != 4:
            raise ValueError(f"Observation: expected a latent (B, C, H, W), found {tuple(self.latent.shape)}")
        batch, channels, height, width = self.latent.shape
        if tuple(self.seen.shape) != (batch, 1, height, width):
            raise ValueError(
                f"Observation: expected seen of shape {(batch, 1, height, width)}, found {tuple(self.seen.shape)}"
            )
        if not 0 < self.sigma_y < math.inf:
            raise ValueError(f"Observation: expected sigma_y above 0 and finite, found {self.sigma_y}")
        if not bool(((self.seen >= 0) & (self.seen <= 1)).all()):
            raise ValueError("Observation: expected seen within [0, 1], found values outside or NaN")
        if self.leak is not None and (self.leak.shape != self.seen.shape or not bool((self.leak >= 0).all())):
            raise ValueError(f"Observation: expected leak of shape {tuple(self.seen.shape)} and at least 0")
        if self.spill is not None:
            size = self.spill.shape[-1]
            if self.spill.shape != (batch, channels, channels, size, size) or size % 2 == 0:
                raise ValueError(
                    f"Observation: expected spill of shape {(batch, channels, channels, 'k', 'k')} with k odd, "
                    f"found {tuple(self.spill.shape)}"
                )
        if not bool(torch.isfinite(self.latent).all()):
            raise ValueError("Observation: expected a finite latent, found NaN or infinity")

    @property
    def operator(self) -> Mask:
        return Mask(self.seen > 0, self.spill)

    @property
    def y(self) -> torch.Tensor:
        """What is observed, A(latent): zeros where hidden, (B, C, H, W)."""
        return self.operator.A(self.latent)

    def residual(self, x0: torch.Tensor) -> torch.Tensor:
        """y - A(x0), (B, C, H, W)."""
        return self.operator.A(self.latent - x0)

    def distance(self, x0: torch.Tensor) -> torch.Tensor:
        """||y - x0|| over seen cells, soft ones by their precision, (B,)."""
        return ((x0 - self.y).square() * self.seen).flatten(1).sum(1).add(1e-12).sqrt()

    @property
    def nothing_to_paint(self) -> torch.Tensor:
        """Images in which every cell is observed, (B,) bool."""
        return (self.seen >= 1).flatten(1).all(1)

    def softened(self) -> Observation:
        """The same with the leak as noise of the seen cells.

        Taken for evidence of what is hidden, a leak gives every fill the same answer.
        """
        if self.leak is None:
            return self
        return replace(self, seen=self.seen / (1 + self.seen * self.leak / self.sigma_y**2), leak=None)

    def rows(self, index: torch.Tensor) -> Observation:
        return self._each(lambda tensor: tensor[index])

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Observation:
        return self._each(lambda tensor: tensor.to(device, dtype))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Observation:
        leak, spill = (None if tensor is None else change(tensor) for tensor in (self.leak, self.spill))
        return replace(self, latent=change(self.latent), seen=change(self.seen), leak=leak, spill=spill)

    def precision(self, s: Level, calibrated: bool) -> torch.Tensor:
        """Precision of y given the estimate from noise level s, (B, 1, H, W).

        calibrated adds the estimator's own variance r^2 = s^2 / (1 + s^2), as for data of unit
        variance (Song et al. 2023, PiGDM, eq. 7); otherwise the observation noise alone counts.
        """
        precision = self.seen / self.sigma_y**2
        if calibrated:
            level = per_row(s, self.seen)
            precision = precision / (1 + precision * level**2 / (1 + level**2))
        return precision

    def nll(self, x0: torch.Tensor, s: Level, calibrated: bool) -> torch.Tensor:
        """-log p(y | u) in nats from the estimate x0 = D(u, s), summed over seen cells, (B,).

        Hidden cells are marginalised: they do not appear (VIPaint, arXiv 2411.18929, sec. 4).
        """
        precision = self.precision(s, calibrated)
        normaliser = torch.where(precision > 0, torch.log(precision.clamp_min(1e-30) / (2 * math.pi)), 0.0)
        return 0.5 * (precision * self.residual(x0).square() - normaliser).flatten(1).sum(1)

    def condition(self, x0: torch.Tensor, s: Level) -> torch.Tensor:
        """Mean of x0 given the estimate N(x0, r^2) and y, cell by cell, r as in `precision`."""
        level = per_row(s, self.seen)
        own = (1 + level**2) / level**2
        evidence = self.seen / self.sigma_y**2
        return x0 + evidence / (own + evidence) * self.residual(x0)
