"""Linear observation operators on latents or pictures (B, C, H, W). They know nothing of diffusion."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F


class Operator(Protocol):
    """A linear map and its adjoint: `(A(x) * y).sum() == (x * A_adjoint(y)).sum()`."""

    def A(self, x: torch.Tensor) -> torch.Tensor: ...  # noqa: N802  (the field's name)

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor: ...  # noqa: N802


@dataclass(frozen=True)
class Mask:
    """`A(x) = x` where seen, zero elsewhere; seen is bool and broadcasts to (B, C, H, W).

    spill: (B, C, C, k, k), k odd, how an encoder mixes hidden content into the seen cells around it:
    `A(x) = x - spill * (x where hidden)` where seen, a convolution as in `torch.nn.functional.conv2d`.
    """

    seen: torch.Tensor
    spill: torch.Tensor | None = None

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
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


@dataclass(frozen=True)
class Blur:
    """Convolution of every channel with a kernel (k, l), k and l odd; the size stays.

    padding: what lies beyond the border, "reflect", "replicate" or "circular"; "reflect" needs pictures larger
    than half the kernel. Raises ValueError for kernels of even size.
    """

    kernel: torch.Tensor
    padding: str = "reflect"

    def __post_init__(self) -> None:
        if self.kernel.ndim != 2 or any(size % 2 == 0 for size in self.kernel.shape):
            raise ValueError(f"Blur: expected a kernel of odd height and width, found {tuple(self.kernel.shape)}")

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        height, width = (size // 2 for size in self.kernel.shape)
        padded = F.pad(x, (width, width, height, height), mode=self.padding)
        return F.conv2d(padded.flatten(0, 1)[:, None], self.kernel.to(x)[None, None])[:, 0].unflatten(0, x.shape[:2])

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        return _transposed(self.A, y, y.shape)


@dataclass(frozen=True)
class Downsample:
    """Pictures of 1 / factor of the size: means of blocks ("area") or low-pass and bicubic ("bicubic").

    Raises ValueError for other kinds and for pictures whose size is no multiple of the factor.
    """

    factor: int
    kind: str = "bicubic"

    def __post_init__(self) -> None:
        if self.factor < 1 or self.kind not in ("area", "bicubic"):
            raise ValueError(
                f"Downsample: expected a factor above 0, area or bicubic, found {self.factor}, {self.kind}"
            )

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"Downsample: expected multiples of {self.factor}, found {height} x {width}")
        if self.kind == "area":
            return F.avg_pool2d(x, self.factor)
        size = (height // self.factor, width // self.factor)
        return F.interpolate(x, size, mode="bicubic", antialias=True)

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        return _transposed(self.A, y, (*y.shape[:2], *(self.factor * size for size in y.shape[-2:])))


@dataclass(frozen=True)
class Compose:
    """One operator after the other, the first one first; none is the identity."""

    operators: tuple[Operator, ...] = ()

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        for operator in self.operators:
            x = operator.A(x)
        return x

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        for operator in reversed(self.operators):
            y = operator.A_adjoint(y)
        return y


def gaussian_kernel(sigma: float) -> torch.Tensor:
    """Kernel (k, k) of a Gaussian of `sigma` pixels, cut at four of them, of sum 1."""
    reach = max(1, math.ceil(4 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    line = line / line.sum()
    return line[:, None] * line


def motion_kernel(length: float, angle: float) -> torch.Tensor:
    """Kernel (k, k) of a straight move over `length` pixels, of sum 1.

    angle: degrees from the horizontal, counterclockwise. Points on the path are shared among the four pixels around.
    """
    reach = max(1, math.ceil(length / 2))
    along = torch.linspace(-0.5, 0.5, 16 * reach + 1, dtype=torch.float64) * length
    across = torch.arange(-reach, reach + 1, dtype=torch.float64)

    def shares(position: torch.Tensor) -> torch.Tensor:
        return (1 - (position[:, None] - across).abs()).clamp_min(0)

    turn = math.radians(angle)
    kernel = shares(-math.sin(turn) * along).T @ shares(math.cos(turn) * along)
    return kernel / kernel.sum()


def _transposed(
    A: Callable[[torch.Tensor], torch.Tensor],  # noqa: N803
    y: torch.Tensor,
    shape: tuple[int, ...],
) -> torch.Tensor:
    """The adjoint of a linear A on tensors of `shape`, by its vector-Jacobian product."""
    with torch.enable_grad():
        x = torch.zeros(shape, dtype=y.dtype, device=y.device, requires_grad=True)
        (product,) = torch.autograd.grad(A(x), x, y)
    return product
