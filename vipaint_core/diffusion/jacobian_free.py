"""Products with a denoiser's Jacobian without a backward pass through the network."""

from __future__ import annotations

from typing import Any

import torch

from .coordinate import Level, per_row
from .denoiser import DIFFERENCE_STEP, Denoiser


def step_for(precision: torch.dtype) -> float:
    """Size of a step, root mean square over a row's cells in units of the row's noise s, for a network's precision.

    Where rounding and curvature are about as large. Measured on the toy prior: with float32 0.001 to 0.01 are as
    good as each other and 0.1 is worse, with bfloat16 0.03 to 0.3 are and 0.01 is worse.
    """
    return max(DIFFERENCE_STEP, torch.finfo(precision).eps ** 0.5)


def jacobian_product(
    denoiser: Denoiser, u: torch.Tensor, s: Level, x0: torch.Tensor, v: torch.Tensor, step: float
) -> torch.Tensor:
    """J v = (D(u + h v) - D(u)) / h, (N, C, H, W), with x0 = D(u, s) and h so that h v has the size `step`."""
    size = v.square().flatten(1).mean(1).sqrt()
    h = step * per_row(s, v) / per_row(size.clamp_min(torch.finfo(v.dtype).tiny), v)
    moved = denoiser(u + h * v, per_row(s, u).flatten().expand(len(u)))
    return torch.where(per_row(size, v) > 0, (moved - x0) / h, 0.0)


class JacobianFree:
    """A denoiser whose backward pass is one more forward pass: the network itself is never differentiated.

    The Jacobian of a posterior mean is symmetric, s^2 J = Cov(x0 | u), so that J^T v = J v, and that is the
    difference (D(u + h v) - D(u)) / h. Exact for a linear denoiser with a symmetric Jacobian; for a network
    as near as the two are. Runs with weights that autograd cannot follow, in the memory of a plain pass.
    """

    def __init__(self, denoiser: Denoiser, step: float = step_for(torch.float32)) -> None:
        self._denoiser, self._step = denoiser, step

    @property
    def difference_step(self) -> float:
        """See `denoiser`."""
        return self._step

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        x0: torch.Tensor = _Difference.apply(u, s, self._denoiser, self._step)
        return x0


class _Difference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: torch.Tensor, s: torch.Tensor, denoiser: Denoiser, step: float) -> torch.Tensor:
        x0 = denoiser(u.detach(), s)
        ctx.save_for_backward(u, s, x0)
        ctx.denoiser, ctx.step = denoiser, step
        return x0

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        u, s, x0 = ctx.saved_tensors
        return jacobian_product(ctx.denoiser, u, s, x0, v, ctx.step), None, None, None
