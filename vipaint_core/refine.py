"""From a noisy state to a picture: refiners of one signature.

    refiner(denoiser, u, s, s_next, observation, noise, preset) -> u_next

u (N, C, H, W) at level s, s_next below it or 0. noise() gives a new standard normal tensor like u.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .denoiser import Counted
from .observation import Observation
from .operators import Mask
from .posterior import transition
from .presets import Preset

Noise = Callable[[], torch.Tensor]
Refiner = Callable[[Counted, torch.Tensor, float, float, Observation, Noise, Preset], torch.Tensor]


def _step(u: torch.Tensor, x0: torch.Tensor, s: float, s_next: float, noise: Noise, eta: float) -> torch.Tensor:
    if s_next == 0:
        return x0
    mean, variance = transition(u, x0, s, s_next, eta)
    return mean + variance.sqrt() * noise()


def closed_form(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation,
    noise: Noise,
    preset: Preset,
) -> torch.Tensor:
    """No gradient: seen cells of the estimate are conditioned on y exactly, then the prior's step.

    Given x0 in a seen cell, that cell's next state is the Gaussian bridge to it: exact as sigma_y
    goes to 0 (compare DING, arXiv 2512.18365).
    """
    with torch.no_grad():
        x0 = denoiser(u, s)
        return _step(u, observation.condition(x0, s), s, s_next, noise, preset.eta)


def pigdm(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation,
    noise: Noise,
    preset: Preset,
) -> torch.Tensor:
    """Evidence reaches hidden cells through the network's Jacobian (Song et al. 2023, PiGDM, eq. 8).

    x0 + guidance * s^2 J^T (y - x0) / (r^2 + sigma_y^2), then seen cells as in `closed_form`.
    """
    with torch.enable_grad():
        point = u.detach().requires_grad_()
        x0 = denoiser(point, s)
        weight = (observation.precision(s, True) * (observation.y - x0)).detach()
        (pull,) = torch.autograd.grad((x0 * weight).sum(), point)
    moved = x0.detach() + preset.guidance * s**2 * pull
    return _step(u, observation.condition(moved, s), s, s_next, noise, preset.eta)


def moment_matching(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation,
    noise: Noise,
    preset: Preset,
) -> torch.Tensor:
    """x0 given u and y as a Gaussian whose covariance is the network's own, C = s^2 J.

    The mean moves by C A^T (A C A^T + R)^-1 (y - A x0), solved by `preset.solver_steps` conjugate
    gradient steps of one vector-Jacobian product each (Rozet et al. 2024, MMPS, arXiv 2405.13712,
    eq. 10). PiGDM puts a diagonal in place of A C A^T and so counts correlated evidence many times.
    With `preset.spread` a draw takes the mean's place (Matheron's rule): the prior's draw
    x0 + C n / s has covariance C^2 / s^2, which is C where J is a projection, as near a manifold.
    """
    with torch.enable_grad():
        point = u.detach().requires_grad_()
        x0 = denoiser(point, s)

        def covariance(v: torch.Tensor) -> torch.Tensor:
            (product,) = torch.autograd.grad(x0, point, v, retain_graph=True)
            return s**2 * product

        moved = x0.detach()
        residual = observation.y - moved
        if preset.spread:
            draw = covariance(noise() / s)
            moved = moved + draw
            residual = residual - draw - observation.sigma_y * noise()
        # The noise of soft cells is larger by their precision; unseen cells take no part.
        variance = observation.sigma_y**2 / observation.seen.clamp_min(1e-6)
        moved = moved + _explain(covariance, variance, residual, observation.operator, preset.solver_steps)
    return _step(u, observation.condition(moved, s), s, s_next, noise, preset.eta)


def _explain(
    covariance: Callable[[torch.Tensor], torch.Tensor],
    variance: torch.Tensor,
    residual: torch.Tensor,
    operator: Mask,
    steps: int,
) -> torch.Tensor:
    """C A^T (A C A^T + variance)^-1 A residual, row by row, by conjugate gradients from 0; all (N, C, H, W).

    One product with C per step. A network's Jacobian is symmetric and positive only nearly: a row
    that meets negative curvature stops there.
    """

    def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).flatten(1).sum(1)[:, None, None, None]

    residual = operator.A(residual)
    explained, direction, size = torch.zeros_like(residual), residual, dot(residual, residual)
    for _ in range(steps):
        reach = covariance(direction)
        image = operator.A(reach) + variance * direction
        curvature = dot(direction, image)
        length = torch.where(curvature > 0, size / curvature.clamp_min(1e-30), 0.0)
        explained, residual = explained + length * reach, residual - length * image
        before, size = size, dot(residual, residual)
        direction = torch.where(curvature > 0, residual + size / before.clamp_min(1e-30) * direction, 0.0)
    return explained


def dps(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    s_next: float,
    observation: Observation,
    noise: Noise,
    preset: Preset,
) -> torch.Tensor:
    """The prior's step, then -guidance * grad_u ||A x0 - y|| (Chung et al. 2023, DPS, alg. 1)."""
    with torch.enable_grad():
        point = u.detach().requires_grad_()
        x0 = denoiser(point, s)
        distance = ((x0 - observation.y).square() * observation.seen).flatten(1).sum(1).add(1e-12).sqrt()
        (pull,) = torch.autograd.grad(distance.sum(), point)
    return _step(u, x0.detach(), s, s_next, noise, preset.eta) - preset.guidance * pull


REFINERS: dict[str, Refiner] = {
    "closed_form": closed_form,
    "pigdm": pigdm,
    "moment_matching": moment_matching,
    "dps": dps,
}


def refine_levels(s: float, steps: int, s_min: float = 0.03, rho: float = 3.0) -> list[float]:
    """`steps` + 1 levels from s to 0, denser towards 0 (Karras et al. 2022, eq. 5, with a smaller rho)."""
    if steps == 1:
        return [s, 0.0]
    low = min(s_min, 0.5 * s)
    ramp = [i / (steps - 1) for i in range(steps)]
    return [(s ** (1 / rho) + t * (low ** (1 / rho) - s ** (1 / rho))) ** rho for t in ramp] + [0.0]
