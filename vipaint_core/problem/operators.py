"""Linear observation operators on latents or pictures (B, C, H, W). They know nothing of diffusion."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from typing_extensions import Self


class LinearOperator:
    """A linear map `A` with its adjoint, `(A(x) * y).sum() == (x * A_adjoint(y)).sum()`.

    A new operator defines `A`, `input_shape` where the size changes, `rows` and `to` where it holds tensors of single
    images, and stands in `OPERATORS`, which names it in posterior files.
    """

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802  (the field's name)
        raise NotImplementedError

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        """The adjoint, by the vector-Jacobian product of `A`."""
        with torch.enable_grad():
            x = torch.zeros(self.input_shape(y.shape), dtype=y.dtype, device=y.device, requires_grad=True)
            (product,) = torch.autograd.grad(self.A(x), x, y)
        return product

    def input_shape(self, output_shape: torch.Size) -> tuple[int, ...]:
        """Shape of x for a shape of A(x)."""
        return tuple(output_shape)

    @property
    def gram(self) -> float | torch.Tensor:
        """Diagonal of A A^T, for numbers of A(x) that owe nothing to each other; 1 for operators that mix cells."""
        return 1.0

    def rows(self, index: torch.Tensor) -> Self:
        """The operator of the given images, repeated as often as the index names them."""
        return self

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        return self


@dataclass(frozen=True)
class Mask(LinearOperator):
    """`A(x) = x` in observed cells, zero in hidden ones; observed is bool, (B, 1, H, W).

    crosstalk: (B, C, C, k, k), k odd, how an encoder mixes hidden content into the observed cells around it:
        `A(x) = x - crosstalk * (x where not observed)` where observed, a convolution as in
        `torch.nn.functional.conv2d`.
    cut_kind: (B, 1, H, W) uint8, the kind of each cell that the hole's edge cuts, from 1; 0 elsewhere. Not observed.
    cut_maps: (B, K, C, C), `A(x) = cut_maps[k - 1] x` in cut cells of kind k; rows of a map are orthogonal.

    Raises ValueError for kernels and maps of another shape.
    """

    observed: torch.Tensor
    crosstalk: torch.Tensor | None = None
    cut_kind: torch.Tensor | None = None
    cut_maps: torch.Tensor | None = None

    def __post_init__(self) -> None:
        batch = len(self.observed)
        if self.crosstalk is not None:
            size, shape = self.crosstalk.shape[-1], self.crosstalk.shape
            if shape != (batch, *2 * shape[1:2], size, size) or size % 2 == 0:
                raise ValueError(
                    f"Mask: expected crosstalk of shape {(batch, 'C', 'C', 'k', 'k')} with k odd, found {tuple(shape)}"
                )
        if (self.cut_kind is None) != (self.cut_maps is None):
            raise ValueError("Mask: expected both of cut_kind and cut_maps or neither, found one")
        if self.cut_kind is not None and self.cut_maps is not None:
            kinds, maps = self.cut_kind.shape, self.cut_maps.shape
            if kinds != self.observed.shape or len(maps) != 4 or maps[0] != batch or maps[2] != maps[3]:
                raise ValueError(
                    f"Mask: expected cut_kind of shape {tuple(self.observed.shape)} and cut_maps of shape "
                    f"{(batch, 'K', 'C', 'C')}, found {tuple(kinds)} and {tuple(maps)}"
                )

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        shown = x
        if self.crosstalk is not None:
            shown = x - self._convolved(F.conv2d, torch.where(self.observed, 0.0, x))
        return self._with_cut_cells(torch.where(self.observed, shown, 0.0), x, self.cut_maps)

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        """The adjoint without autograd; a mask alone is its own."""
        shown = torch.where(self.observed, y, 0.0)
        if self.crosstalk is not None:
            shown = torch.where(self.observed, shown, -self._convolved(F.conv_transpose2d, shown))
        return shown + self.cut_adjoint(y)

    def cut_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """The adjoint in cut cells, zeros elsewhere."""
        maps = None if self.cut_maps is None else self.cut_maps.mT
        return self._with_cut_cells(torch.zeros_like(y), y, maps)

    @property
    def gram(self) -> float | torch.Tensor:
        if self.cut_maps is None or self.cut_kind is None:
            return 1.0
        squares = self.cut_maps.square().sum(-1)[..., None, None]
        found = torch.ones_like(squares[:, 0]).expand(-1, -1, *self.observed.shape[-2:])
        for kind, own in enumerate(squares.unbind(1), 1):
            found = torch.where(self.cut_kind == kind, own, found)
        return found

    def rows(self, index: torch.Tensor) -> Self:
        return self._with(lambda tensor: tensor[index])

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        return self._with(lambda tensor: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device))

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        def changed(part: torch.Tensor | None) -> torch.Tensor | None:
            return None if part is None else change(part)

        return replace(
            self,
            observed=change(self.observed),
            crosstalk=changed(self.crosstalk),
            cut_kind=changed(self.cut_kind),
            cut_maps=changed(self.cut_maps),
        )

    def _with_cut_cells(self, shown: torch.Tensor, x: torch.Tensor, maps: torch.Tensor | None) -> torch.Tensor:
        """shown, with the mapped x in cut cells."""
        if maps is None or self.cut_kind is None:
            return shown
        for kind, own in enumerate(maps.unbind(1), 1):
            shown = torch.where(self.cut_kind == kind, torch.einsum("bij,bjhw->bihw", own, x), shown)
        return shown

    def _convolved(self, convolution: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Every row of x with its own kernel."""
        assert self.crosstalk is not None
        rows = convolution(
            x.flatten(0, 1)[None], self.crosstalk.flatten(0, 1), padding=self.crosstalk.shape[-1] // 2, groups=len(x)
        )
        return rows.unflatten(1, x.shape[:2])[0]


@dataclass(frozen=True)
class Blur(LinearOperator):
    """Convolution of every channel with a kernel (k, l), k and l odd; the size stays.

    padding: what lies beyond the border; "reflect" needs pictures larger than half the kernel.

    Raises ValueError for kernels of even size.
    """

    kernel: torch.Tensor
    padding: Literal["reflect", "replicate", "circular"] = "reflect"

    def __post_init__(self) -> None:
        if self.kernel.ndim != 2 or any(size % 2 == 0 for size in self.kernel.shape):
            raise ValueError(f"Blur: expected a kernel of odd height and width, found {tuple(self.kernel.shape)}")

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        height, width = (size // 2 for size in self.kernel.shape)
        padded = F.pad(x, (width, width, height, height), mode=self.padding)
        return F.conv2d(padded.flatten(0, 1)[:, None], self.kernel.to(x)[None, None])[:, 0].unflatten(0, x.shape[:2])

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        return replace(self, kernel=self.kernel.to(device, dtype))


@dataclass(frozen=True)
class Downsample(LinearOperator):
    """Pictures of 1 / factor of the size: means of blocks ("area") or low-pass and bicubic ("bicubic").

    Raises ValueError for other kinds and for pictures whose size is no multiple of the factor.
    """

    factor: int
    kind: Literal["bicubic", "area"] = "bicubic"

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

    def input_shape(self, output_shape: torch.Size) -> tuple[int, ...]:
        *rows, height, width = output_shape
        return (*rows, self.factor * height, self.factor * width)


@dataclass(frozen=True)
class Compose(LinearOperator):
    """One operator after the other, the first one first; none is the identity."""

    operators: tuple[LinearOperator, ...] = ()

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        for operator in self.operators:
            x = operator.A(x)
        return x

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        for operator in reversed(self.operators):
            y = operator.A_adjoint(y)
        return y

    def rows(self, index: torch.Tensor) -> Self:
        return replace(self, operators=tuple(operator.rows(index) for operator in self.operators))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        return replace(self, operators=tuple(operator.to(device, dtype) for operator in self.operators))


OPERATORS: dict[str, type[LinearOperator]] = {
    "mask": Mask,
    "blur": Blur,
    "downsample": Downsample,
    "compose": Compose,
}


def gaussian_kernel(sigma: float) -> torch.Tensor:
    """Kernel (k, k) of a Gaussian of `sigma` pixels, cut at four of them, of sum 1."""
    radius = max(1, math.ceil(4 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    line = line / line.sum()
    return line[:, None] * line


def motion_kernel(length: float, angle: float) -> torch.Tensor:
    """Kernel (k, k) of a straight move over `length` pixels, of sum 1.

    angle: degrees from the horizontal, counterclockwise. Points on the path are shared among the four pixels around.
    """
    radius = max(1, math.ceil(length / 2))
    along = torch.linspace(-0.5, 0.5, 16 * radius + 1, dtype=torch.float64) * length
    across = torch.arange(-radius, radius + 1, dtype=torch.float64)

    def shares(position: torch.Tensor) -> torch.Tensor:
        return (1 - (position[:, None] - across).abs()).clamp_min(0)

    turn = math.radians(angle)
    kernel = shares(-math.sin(turn) * along).T @ shares(math.cos(turn) * along)
    return kernel / kernel.sum()
