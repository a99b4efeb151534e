"""The one coordinate of the core and its maps to the coordinates of model families.

The core works in `u = x0 + s * eps` with noise-to-signal ratio `s`, whatever the model. A host
model is queried at `z = alpha * x0 + sigma * eps`, hence `u = z / alpha` and `s = sigma / alpha`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

Level = torch.Tensor | float


def per_row(value: Level, like: torch.Tensor) -> torch.Tensor:
    """A level as a tensor that broadcasts over (B, C, H, W): scalars and (B,) become (B, 1, 1, 1)."""
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return value.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Coordinate:
    """Maps between (u, s) and a family's (z, sigma).

    flow: the family interpolates, `z = (1 - t) * x0 + t * eps` with `sigma = noise_scale * t` (SD3, Flux);
        otherwise it is variance exploding, `z = x0 + sigma * eps`, where both coordinates agree.
    noise_scale: standard deviation of a flow's noise at time 1.
    """

    flow: bool = False
    noise_scale: float = 1.0

    def s_of_sigma(self, sigma: Level) -> Level:
        """Noise-to-signal ratio of a family's sigma."""
        if not self.flow:
            return sigma
        time = sigma / self.noise_scale
        return sigma / (1 - time)

    def sigma_of_s(self, s: Level) -> Level:
        """A family's sigma of a noise-to-signal ratio."""
        return s / (1 + s / self.noise_scale) if self.flow else s

    def to_host(self, u: torch.Tensor, s: Level) -> tuple[torch.Tensor, Level]:
        """(u, s) to (z, sigma); u is (B, C, H, W), s a scalar or (B,)."""
        if not self.flow:
            return u, s
        alpha = 1 / (1 + per_row(s, u) / self.noise_scale)
        return alpha * u, self.sigma_of_s(s)

    def from_host(self, z: torch.Tensor, sigma: Level) -> tuple[torch.Tensor, Level]:
        """(z, sigma) to (u, s), the inverse of `to_host` for sigma below `noise_scale`."""
        if not self.flow:
            return z, sigma
        alpha = 1 - per_row(sigma, z) / self.noise_scale
        return z / alpha, self.s_of_sigma(sigma)


VARIANCE_EXPLODING = Coordinate()


def rectified_flow(noise_scale: float = 1.0) -> Coordinate:
    """The coordinate of rectified-flow families."""
    return Coordinate(flow=True, noise_scale=noise_scale)
