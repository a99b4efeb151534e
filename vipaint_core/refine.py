"""From a noisy state to a picture: refiners of one signature.

    refiner(denoiser, u, s, s_next, observation, noise, eta, guidance) -> u_next

u (N, C, H, W) at level s, s_next below it or 0, noise standard normal like u.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .denoiser import Counted
from .observation import Observation
from .posterior import transition

Refiner = Callable[
    [Counted, torch.Tensor, float, float, Observation, torch.Tensor, float, float],
    torch.Tensor,
]


def _step(u: torch.Tensor, x0: torch.Tensor, s: float, s_next: float, noise: torch.Tensor, eta: float) -> torch.Tensor:
    if s_next == 0:
        return x0
    mean, variance = transition(u, x0, s, s_next, eta)
    return mean + variance.sqrt() * noise


def closed_form(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation,
    noise: torch.Tensor,
    eta: float,
    guidance: float,
) -> torch.Tensor:
    """No gradient: seen cells of the estimate are conditioned on y exactly, then the prior's step.

    Given x0 in a seen cell, that cell's next state is the Gaussian bridge to it: exact as sigma_y
    goes to 0 (compare DING, arXiv 2512.18365). guidance is unused.
    """
    with torch.no_grad():
        x0 = denoiser(u, s)
        return _step(u, observation.condition(x0, s), s, s_next, noise, eta)


def pigdm(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation,
    noise: torch.Tensor,
    eta: float,
    guidance: float,
) -> torch.Tensor:
    """Evidence reaches hidden cells through the network's Jacobian (Song et al. 2023, PiGDM, eq. 8).

    x0 + guidance * s^2 J^T (y - x0) / (r^2 + sigma_y^2), then seen cells as in `closed_form`.
    """
    with torch.enable_grad():
        point = u.detach().requires_grad_()
        x0 = denoiser(point, s)
        weight = (observation.precision(s, True) * (observation.y - x0)).detach()
        (pull,) = torch.autograd.grad((x0 * weight).sum(), point)
    moved = x0.detach() + guidance * s**2 * pull
    return _step(u, observation.condition(moved, s), s, s_next, noise, eta)


def dps(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation,
    noise: torch.Tensor,
    eta: float,
    guidance: float,
) -> torch.Tensor:
    """The prior's step, then -guidance * grad_u ||A x0 - y|| (Chung et al. 2023, DPS, alg. 1)."""
    with torch.enable_grad():
        point = u.detach().requires_grad_()
        x0 = denoiser(point, s)
        distance = ((x0 - observation.y).square() * observation.seen).flatten(1).sum(1).add(1e-12).sqrt()
        (pull,) = torch.autograd.grad(distance.sum(), point)
    return _step(u, x0.detach(), s, s_next, noise, eta) - guidance * pull


REFINERS: dict[str, Refiner] = {"closed_form": closed_form, "pigdm": pigdm, "dps": dps}


def refine_levels(s: float, steps: int, s_min: float = 0.03, rho: float = 3.0) -> list[float]:
    """`steps` + 1 levels from s to 0, denser towards 0 (Karras et al. 2022, eq. 5, with a smaller rho)."""
    if steps == 1:
        return [s, 0.0]
    low = min(s_min, 0.5 * s)
    ramp = [i / (steps - 1) for i in range(steps)]
    return [(s ** (1 / rho) + t * (low ** (1 / rho) - s ** (1 / rho))) ** rho for t in ramp] + [0.0]
