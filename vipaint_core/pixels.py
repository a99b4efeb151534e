"""Pictures as observations of latents: what is known is in pixels, behind a decoder and an operator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from .coordinate import Level, per_row
from .operators import Operator
from .solver import posterior_shift

Decoder = Callable[[torch.Tensor], torch.Tensor]

# Length of the decoder's secants, in latents of unit variance: short for its curvature, long for half precision.
SECANT = 0.05


@dataclass(frozen=True)
class PixelObservation:
    """Pixels seen through an operator: `y = A(decode(x0)) + sigma_y * n`.

    y: (B, c, h, w), of A's output size. seen: (B, 1, h, w) in [0, 1], the precision of its pixels: 1 observed,
    0 hidden. shape: (C, H, W) of the latents. decode: latents (N, C, H, W) in model scale to pictures, differentiable;
    a decoder with a method `gradients` is differentiated only inside the context that it returns.
    sigma_y: standard deviation of the observation noise where seen is 1, with what the decoder cannot show.

    Raises ValueError for shapes that do not fit, values outside [0, 1] or non-finite numbers.
    """

    y: torch.Tensor
    seen: torch.Tensor
    operator: Operator
    decode: Decoder
    shape: tuple[int, int, int]
    sigma_y: float = 0.02

    def __post_init__(self) -> None:
        if self.y.ndim != 4:
            raise ValueError(f"PixelObservation: expected pixels (B, c, h, w), found {tuple(self.y.shape)}")
        batch, _, height, width = self.y.shape
        if tuple(self.seen.shape) != (batch, 1, height, width):
            raise ValueError(
                f"PixelObservation: expected seen of shape {(batch, 1, height, width)}, found {tuple(self.seen.shape)}"
            )
        if not self.sigma_y > 0:
            raise ValueError(f"PixelObservation: expected sigma_y above 0, found {self.sigma_y}")
        if not bool(((self.seen >= 0) & (self.seen <= 1)).all()):
            raise ValueError("PixelObservation: expected seen within [0, 1], found values outside or NaN")
        if not bool(torch.isfinite(self.y).all()):
            raise ValueError("PixelObservation: expected finite pixels, found NaN or infinity")

    @property
    def latent(self) -> torch.Tensor:
        """No latent is known: zeros (B, C, H, W)."""
        return self.y.new_zeros(len(self.y), *self.shape)

    @property
    def nothing_to_paint(self) -> torch.Tensor:
        """Whether the latents are known, (B,) bool: they never are."""
        return torch.zeros(len(self.y), dtype=torch.bool, device=self.y.device)

    def rows(self, index: torch.Tensor) -> PixelObservation:
        return replace(self, y=self.y[index], seen=self.seen[index])

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> PixelObservation:
        return replace(self, y=self.y.to(device, dtype), seen=self.seen.to(device, dtype))

    def gradients(self) -> AbstractContextManager[object]:
        """The context for differentiated passes through the decoder."""
        opened: AbstractContextManager[object] = getattr(self.decode, "gradients", torch.enable_grad)()
        return opened

    def show(self, x0: torch.Tensor) -> torch.Tensor:
        """A(decode(x0)), zeros where nothing is observed, (B, c, h, w)."""
        return torch.where(self.seen > 0, self.operator.A(self.decode(x0).to(self.y)), 0.0)

    def residual(self, x0: torch.Tensor) -> torch.Tensor:
        """y - A(decode(x0)), zeros where nothing is observed, (B, c, h, w)."""
        return torch.where(self.seen > 0, self.y, 0.0) - self.show(x0)

    def distance(self, x0: torch.Tensor) -> torch.Tensor:
        """||y - A(decode(x0))|| over seen pixels, soft ones by their precision, (B,)."""
        return (self.residual(x0).square() * self.seen).flatten(1).sum(1).add(1e-12).sqrt()

    @property
    def variance(self) -> torch.Tensor:
        """Of the observation noise, (B, 1, h, w): larger for soft pixels; hidden ones are not asked."""
        return self.sigma_y**2 / torch.where(self.seen > 0, self.seen, 1.0)

    def misfit(self, residual: torch.Tensor) -> torch.Tensor:
        """Mean square of the residual in units of the noise, over what is observed, (B, 1, 1, 1): 1 is expected."""
        counted = (self.seen > 0).expand_as(residual).sum((1, 2, 3), keepdim=True).clamp_min(1)
        return (residual.square() / self.variance).sum((1, 2, 3), keepdim=True) / counted

    def linear(self, x0: torch.Tensor) -> tuple[Linearised, torch.Tensor]:
        """A(decode(.)) around x0, and y - A(decode(x0)); belongs inside `gradients()`, as do the operator's calls."""
        point = x0.detach().requires_grad_()
        image = self.show(point)
        return Linearised(self.show, point, image), torch.where(self.seen > 0, self.y, 0.0) - image.detach()

    def condition(self, x0: torch.Tensor, s: Level, steps: int) -> torch.Tensor:
        """Mean of x0 given the estimate N(x0, r^2) and y: one Gauss-Newton step, see `posterior_shift`.

        r^2 is as large as makes the residual likely, up to s^2 / (1 + s^2): what a sharp prior has right must not
        be moved by noise.
        """
        level = per_row(s, x0)
        with self.gradients():
            operator, residual = self.linear(x0)
            own = torch.minimum(self._own_variance(operator, residual), level**2 / (1 + level**2))
            return x0 + posterior_shift(lambda v: own * v, self.variance, residual, operator, steps)

    def _own_variance(self, operator: Linearised, residual: torch.Tensor) -> torch.Tensor:
        """r^2 of an estimate that leaves this residual, (N, 1, 1, 1): E |y - A x0|^2 = tr(r^2 A A^T + R)."""
        probe = torch.randn(operator.point.shape[1:], generator=torch.Generator().manual_seed(0)).to(residual)
        gain = self.misfit(operator.A(probe.expand_as(operator.point)))
        return (self.misfit(residual) - 1).clamp_min(1e-6) / gain.clamp_min(1e-30)


@dataclass(frozen=True)
class Linearised:
    """The derivative of `show` (latents to what is seen of them) at `point`, whose image is `image`."""

    show: Callable[[torch.Tensor], torch.Tensor]
    point: torch.Tensor
    image: torch.Tensor

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        """By a secant: costs one pass and asks nothing of the decoder's layers."""
        step = SECANT / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30)
        with torch.no_grad():
            return (self.show(self.point + step * x) - self.image) / step

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        (product,) = torch.autograd.grad(self.image, self.point, y, retain_graph=True)
        return product
