"""Noise levels beyond a model's largest one, reached on coarser grids.

The mean over blocks of f x f cells has its noise divided by f: a state of level `s` on the full grid is one of level
`s / f` on the grid of the blocks. A model that ends at `s_max` is therefore asked about higher levels on fewer cells.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F

from .denoiser import DIFFERENCE_STEP, Denoiser

# Latent cells for which the levels of presets are stated, 16 x 16.
REFERENCE_CELLS = 256
# Cells along the shorter side of the coarsest grid: networks with three halvings are left with one.
LEAST_SIDE = 8


def size_factor(shape: tuple[int, int, int]) -> float:
    """How many times higher the same alternatives are decided on latents (C, H, W) than on 16 x 16 cells.

    What is told apart at level s on n cells is told apart at s sqrt(N / n) on N, since a mean over cells has so much
    less noise. Not below 1: on smaller latents more noise than needed does no harm.
    """
    _, height, width = shape
    return max(1.0, (height * width / REFERENCE_CELLS) ** 0.5)


def coarsest_factor(shape: tuple[int, int, int]) -> int:
    """The largest power of two by which latents (C, H, W) are reduced: to 16 x 16 cells, or as many in other shapes."""
    _, height, width = shape
    factor = 1
    while size_factor(shape) >= 2 * factor and min(height, width) >= 2 * factor * LEAST_SIDE:
        factor *= 2
    return factor


def reachable_level(s_max: float, shape: tuple[int, int, int]) -> float:
    """The largest level for latents (C, H, W) of a model that ends at s_max, see `CoarseGridDenoiser`."""
    return s_max * coarsest_factor(shape)


class CoarseGridDenoiser:
    """A denoiser that answers at levels above its own largest one, s_max, on coarser grids.

    D(u, s) = up_f(D(mean_f(u), s / f)), with the smallest power of two f for which s / f <= s_max. Its Jacobian is
    symmetric where the inner one is. The details that blocks do not show are estimated as zero, their mean.

    denoiser: accepts latents of every size.
    """

    def __init__(self, denoiser: Denoiser, s_max: float) -> None:
        self._denoiser, self._s_max = denoiser, s_max

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        factor = 1
        # Levels are computed in float32: the largest one itself must not fall beyond.
        while float(s.max()) > factor * self._s_max * 1.0001:
            factor *= 2
        if factor == 1:
            return self._denoiser(u, s)
        height, width = u.shape[-2:]
        estimate = self._denoiser(F.avg_pool2d(u, factor), (s / factor).clamp_max(self._s_max))
        enlarged = F.interpolate(estimate, scale_factor=factor, mode="nearest")
        # Lines and columns that fill no block have the estimate of their neighbours.
        lines, columns = height - enlarged.shape[-2], width - enlarged.shape[-1]
        return F.pad(enlarged, (0, columns, 0, lines), mode="replicate") if lines or columns else enlarged

    @property
    def difference_step(self) -> float:
        """The inner denoiser's, see `denoiser`."""
        return float(getattr(self._denoiser, "difference_step", DIFFERENCE_STEP))

    def gradients(self) -> AbstractContextManager[object]:
        """The inner denoiser's context for differentiated calls."""
        opened: AbstractContextManager[object] = getattr(self._denoiser, "gradients", torch.enable_grad)()
        return opened
