"""The toy prior at larger latents, exactly: every cell repeated, with independent detail.

    z_big = up_k(z) + d,   d of standard deviation `DETAIL` and zero mean over every block of k x k cells

Block means carry noise s / k, so the optimal denoiser of z_big follows from that of z:

    D_big(u, s) = up_k(D(mean_k(u), s / k)) + DETAIL^2 / (DETAIL^2 + s^2) (u - up_k(mean_k(u)))
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import repeat

from benchmarks.harness.host import PACK

DETAIL = 0.1
Mask: Any = PACK.core.problem.operators.Mask


def enlarged(cells: torch.Tensor, factor: int) -> torch.Tensor:
    """(..., H, W) with every cell repeated factor x factor times."""
    return repeat(cells, "... h w -> ... (h k) (w l)", k=factor, l=factor)


def block_means(cells: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, C, H, W) as means over blocks of factor x factor cells."""
    return F.avg_pool2d(cells, factor)


class EnlargedPrior:
    """The denoiser of enlarged latents, at any size that `side` cells divide.

    denoiser: of latents with `side` lines and columns.
    """

    def __init__(self, denoiser: Any, side: int) -> None:
        self._denoiser, self._side = denoiser, side

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        factor = u.shape[-1] // self._side
        means = block_means(u, factor)
        gain = DETAIL**2 / (DETAIL**2 + s.reshape(-1, 1, 1, 1) ** 2)
        return enlarged(self._denoiser(means, s / factor), factor) + gain * (u - enlarged(means, factor))

    def gradients(self) -> AbstractContextManager[object]:
        context: AbstractContextManager[object] = self._denoiser.gradients()
        return context


@dataclass(frozen=True)
class EnlargedMask(Mask):
    """A mask whose encoder crosstalk is between blocks: that of the small latents, carried over."""

    factor: int = 1

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        if self.crosstalk is not None:
            hidden = block_means(torch.where(self.observed, 0.0, x), self.factor)
            x = x - enlarged(self._convolved(F.conv2d, hidden), self.factor)
        return torch.where(self.observed, x, 0.0)

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        y = torch.where(self.observed, y, 0.0)
        if self.crosstalk is None:
            return y
        # The adjoint of means is a repetition divided by the cells of a block, that of a repetition the sum over one.
        blocks = self._convolved(F.conv_transpose2d, block_means(y, self.factor))
        return torch.where(self.observed, y, -enlarged(blocks, self.factor))


def enlarged_observation(small: Any, factor: int, seed: int) -> Any:
    """The observation of enlarged latents whose blocks have the small observation's y, with detail of their own."""
    if factor == 1:
        return small
    y = enlarged(small.y, factor)
    detail = DETAIL * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    detail = detail - enlarged(block_means(detail, factor), factor)
    observed = enlarged(small.operator.observed, factor)
    variance = small.crosstalk_variance
    channels, height, width = small.shape
    return replace(
        small,
        y=torch.where(observed, y + detail, 0.0),
        weight=enlarged(small.weight, factor),
        operator=EnlargedMask(observed, small.operator.crosstalk, factor=factor),
        shape=(channels, factor * height, factor * width),
        crosstalk_variance=None if variance is None else enlarged(variance, factor),
    )
