"""What is known about a picture, and how likely an estimate makes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from .coordinate import Level, per_row
from .operators import Mask


@dataclass(frozen=True)
class Observation:
    """A latent seen through a mask: `y = A(x0) + sigma_y * n`.

    latent: (B, C, H, W) in model scale; its hidden cells may hold anything and are never used.
    seen: (B, 1, H, W) in [0, 1], the precision of each cell: 1 observed, 0 hidden.
    sigma_y: standard deviation of the observation noise where seen is 1.
    leak: (B, 1, H, W), variance of what seen cells owe to hidden content, or None: encoders look
    beyond their cell; see `softened`.

    Raises ValueError for shapes that do not fit, values outside [0, 1] or non-finite numbers.
    """

    latent: torch.Tensor
    seen: torch.Tensor
    sigma_y: float = 0.02
    leak: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.latent.ndim != 4:
            raise ValueError(f"Observation: expected a latent (B, C, H, W), found {tuple(self.latent.shape)}")
        batch, _, height, width = self.latent.shape
        if tuple(self.seen.shape) != (batch, 1, height, width):
            raise ValueError(
                f"Observation: expected seen of shape {(batch, 1, height, width)}, found {tuple(self.seen.shape)}"
            )
        if not self.sigma_y > 0:
            raise ValueError(f"Observation: expected sigma_y above 0, found {self.sigma_y}")
        if not bool(((self.seen >= 0) & (self.seen <= 1)).all()):
            raise ValueError("Observation: expected seen within [0, 1], found values outside or NaN")
        if self.leak is not None and (self.leak.shape != self.seen.shape or not bool((self.leak >= 0).all())):
            raise ValueError(f"Observation: expected leak of shape {tuple(self.seen.shape)} and at least 0")
        if not bool(torch.isfinite(self.latent).all()):
            raise ValueError("Observation: expected a finite latent, found NaN or infinity")

    @property
    def operator(self) -> Mask:
        return Mask(self.seen > 0)

    @property
    def y(self) -> torch.Tensor:
        """The observed latent with zeros where hidden, (B, C, H, W)."""
        return self.operator.A(self.latent)

    @property
    def nothing_to_paint(self) -> torch.Tensor:
        """Images in which every cell is observed, (B,) bool."""
        return (self.seen >= 1).flatten(1).all(1)

    def softened(self, together: int = 1) -> Observation:
        """The same with the leak as noise of the seen cells, `together` times.

        Taken for evidence of what is hidden, a leak gives every fill the same answer. Where evidence
        crosses cells, a cell's channels err together and count as one; where each cell speaks for
        itself alone they do not.
        """
        if self.leak is None:
            return self
        seen = self.seen / (1 + self.seen * together * self.leak / self.sigma_y**2)
        return replace(self, seen=seen, leak=None)

    def rows(self, index: torch.Tensor) -> Observation:
        leak = None if self.leak is None else self.leak[index]
        return replace(self, latent=self.latent[index], seen=self.seen[index], leak=leak)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Observation:
        leak = None if self.leak is None else self.leak.to(device, dtype)
        return replace(self, latent=self.latent.to(device, dtype), seen=self.seen.to(device, dtype), leak=leak)

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
        return 0.5 * (precision * (x0 - self.y).square() - normaliser).flatten(1).sum(1)

    def condition(self, x0: torch.Tensor, s: Level) -> torch.Tensor:
        """Mean of x0 given the estimate N(x0, r^2) and y, cell by cell, r as in `precision`."""
        level = per_row(s, self.seen)
        own = (1 + level**2) / level**2
        evidence = self.seen / self.sigma_y**2
        return (own * x0 + evidence * self.y) / (own + evidence)
