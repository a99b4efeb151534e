"""Pictures as observations of latents: what is known is in pixels, behind a decoder and an operator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from typing_extensions import Self

from .observation import SIGMA_Y, check_observed
from .operators import LinearOperator

Decoder = Callable[[torch.Tensor], torch.Tensor]

# Length of the decoder's secants, in latents of unit variance: short for its curvature, long for half precision.
SECANT = 0.05


@dataclass(frozen=True)
class PixelObservation:
    """Pixels seen through an operator: `y = A(decode(x0)) + sigma_y * n`; see `Observation` for the other fields.

    y: (B, c, h, w), of A's output size.
    operator: on pictures.
    decode: latents (N, C, H, W) in model scale to pictures, differentiable; a decoder with a method `gradients` is
        differentiated only inside the context that it returns.
    sigma_y: as elsewhere, with what the decoder cannot show.

    Raises ValueError for shapes that do not fit, weights outside [0, 1] or non-finite numbers.
    """

    y: torch.Tensor
    weight: torch.Tensor
    operator: LinearOperator
    decode: Decoder
    shape: tuple[int, int, int]
    sigma_y: float = SIGMA_Y

    def __post_init__(self) -> None:
        check_observed("PixelObservation", self.y, self.weight, self.sigma_y)

    @property
    def latents(self) -> torch.Tensor:
        return self.y.new_zeros(len(self.y), *self.shape)

    @property
    def complete(self) -> torch.Tensor:
        return torch.zeros(len(self.y), dtype=torch.bool, device=self.y.device)

    def rows(self, index: torch.Tensor) -> Self:
        return replace(self, y=self.y[index], weight=self.weight[index], operator=self.operator.rows(index))

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        operator = self.operator.to(device, dtype)
        return replace(self, y=self.y.to(device, dtype), weight=self.weight.to(device, dtype), operator=operator)

    def gradients(self) -> AbstractContextManager[object]:
        """The context for differentiated passes through the decoder."""
        opened: AbstractContextManager[object] = getattr(self.decode, "gradients", torch.enable_grad)()
        return opened

    def predict(self, x0: torch.Tensor) -> torch.Tensor:
        """A(decode(x0)), zeros where nothing is observed, (B, c, h, w)."""
        return torch.where(self.weight > 0, self.operator.A(self.decode(x0).to(self.y)), 0.0)

    def residual(self, x0: torch.Tensor) -> torch.Tensor:
        """y - A(decode(x0)), zeros where nothing is observed, (B, c, h, w)."""
        return torch.where(self.weight > 0, self.y, 0.0) - self.predict(x0)

    def linearise(self, x0: torch.Tensor) -> tuple[LinearisedDecoder, torch.Tensor]:
        """The derivative of `predict` at x0, and the residual there.

        Belongs inside `gradients()`, as do the calls of the derivative.
        """
        point = x0.detach().requires_grad_()
        output = self.predict(point)
        residual = torch.where(self.weight > 0, self.y, 0.0) - output.detach()
        return LinearisedDecoder(self.predict, point, output), residual


@dataclass(frozen=True)
class LinearisedDecoder(LinearOperator):
    """The derivative of `predict`, from latents to what is observed of them, at `point`, where it is `output`."""

    predict: Callable[[torch.Tensor], torch.Tensor]
    point: torch.Tensor
    output: torch.Tensor

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        """By a secant: costs one pass and asks nothing of the decoder's layers."""
        step = SECANT / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30)
        with torch.no_grad():
            return (self.predict(self.point + step * x) - self.output) / step

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        (product,) = torch.autograd.grad(self.output, self.point, y, retain_graph=True)
        return product
