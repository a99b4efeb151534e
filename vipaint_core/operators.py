"""Linear observation operators. They know nothing of diffusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Mask:
    """`A(x) = x` where seen, zero elsewhere; seen is bool and broadcasts to (B, C, H, W).

    spill: (B, C, C, k, k), k odd, how an encoder mixes hidden content into the seen cells around it:
    `A(x) = x - spill * (x where hidden)` where seen, a convolution as in `torch.nn.functional.conv2d`.
    """

    seen: torch.Tensor
    spill: torch.Tensor | None = None

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802  (the field's name)
        if self.spill is not None:
            x = x - self._convolved(F.conv2d, torch.where(self.seen, 0.0, x))
        return torch.where(self.seen, x, 0.0)

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        """The adjoint; a mask without spill is its own."""
        y = torch.where(self.seen, y, 0.0)
        if self.spill is None:
            return y
        return torch.where(self.seen, y, -self._convolved(F.conv_transpose2d, y))

    def _convolved(self, convolution: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Every row of x with its own kernel."""
        assert self.spill is not None
        rows = convolution(
            x.flatten(0, 1)[None], self.spill.flatten(0, 1), padding=self.spill.shape[-1] // 2, groups=len(x)
        )
        return rows.unflatten(1, x.shape[:2])[0]
