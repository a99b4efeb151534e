"""Pixels of a Gaussian's draws, behind a decoder that is linear or curved."""

from __future__ import annotations

from collections.abc import Callable

import torch
from gaussian import GaussianPrior, normal

from vipaint_core import PixelObservation
from vipaint_core.problem.operators import Compose, Downsample

SHAPE, SIZE = (2, 3, 4), (3, 6, 8)
PRIOR = GaussianPrior.correlated(SHAPE)
DECODER = normal(144, 24, seed=5) / 24**0.5
# Of "all" the left half is observed.
OPERATORS = {"all": Compose(), "reduced": Downsample(2, "area")}


def decode(x: torch.Tensor) -> torch.Tensor:
    return (x.flatten(1) @ DECODER.T).unflatten(1, SIZE)


def curved(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(decode(x))


def observe(
    name: str,
    images: int = 1,
    sigma_y: float = 0.3,
    decoder: Callable[[torch.Tensor], torch.Tensor] = decode,
) -> PixelObservation:
    """Noisy pixels of prior draws, through the named operator."""
    x = PRIOR.draw(images, torch.Generator().manual_seed(1))
    y = OPERATORS[name].A(decoder(x))
    weight = torch.ones(images, 1, *y.shape[-2:], dtype=torch.float64)
    if name == "all":
        weight[..., 4:] = 0
    return PixelObservation(y + sigma_y * normal(*y.shape, seed=2), weight, OPERATORS[name], decoder, SHAPE, sigma_y)
