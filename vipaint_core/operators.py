"""Linear observation operators. They know nothing of diffusion."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Mask:
    """`A(x) = x` where seen, zero elsewhere; seen is bool and broadcasts to (B, C, H, W)."""

    seen: torch.Tensor

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802  (the field's name)
        return torch.where(self.seen, x, 0.0)

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        """The adjoint; a mask is its own."""
        return self.A(y)
