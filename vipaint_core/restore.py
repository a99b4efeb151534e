"""Pictures from a degraded one: blurred, reduced, or with a hole, all in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from .denoiser import Counted, Denoiser, Progress
from .levels import refine_levels
from .pixels import PixelObservation
from .sample import RowNoise, SampleResult, SampleState, draw_fills
from .solver import posterior_shift


@dataclass(frozen=True)
class Restoration:
    """How to restore.

    steps: noise levels from `top` down to 0.1, one network call each. guided_above: levels above it use the network's
    Jacobian, below it the estimates are as good as they get and are made to fit only. sweeps: so often at most is
    the decoder made linear anew at one level; solver_steps: products per sweep.
    spread_below: levels below it draw x0 given the state; above, where alternatives are still apart, draws of a
    Gaussian lie between them and its mean goes on. attempts: so often at most is a fill drawn; again where it leaves
    more than noise unexplained, and the best one counts.
    """

    steps: int = 15
    top: float = 50.0
    guided_above: float = 1.0
    sweeps: int = 3
    solver_steps: int = 2
    spread_below: float = 4.0
    attempts: int = 8


def restore(
    denoiser: Denoiser,
    observation: PixelObservation,
    seed: int,
    fills: int,
    *,
    settings: Restoration | None = None,
    s_max: float = math.inf,
    first: int = 0,
    batch: int = 4,
    state: SampleState | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> SampleResult:
    """Draws `fills` latents per picture that explain its pixels; see `draw_fills`.

    Every level estimates the picture given state and pixels and adds noise of the next level to it (Zhang et al. 2025,
    DAPS, arXiv 2407.01521): a state holds all of the last estimate, where the prior's own step would hold a part,
    and evidence that came late still counts. Some still end in an alternative that the pixels exclude, which their
    misfit shows: see `Restoration.attempts`. s_max: the largest level that the model knows.
    """
    chosen = settings if settings is not None else Restoration()
    levels = refine_levels(min(chosen.top, s_max), chosen.steps, s_min=0.1)

    def descend(counted: Counted, watched: PixelObservation, every: RowNoise, rows: torch.Tensor) -> torch.Tensor:
        def noise() -> torch.Tensor:
            # Drawn for the other rows as well: a fill does not depend on its batch.
            return every()[rows]

        u = math.sqrt(1 + levels[0] ** 2) * noise()
        for s, s_next in pairwise(levels):
            x0 = estimate(counted, u, s, watched, noise, chosen)
            u = x0 + s_next * noise() if s_next > 0 else x0
        return u

    def draw(counted: Counted, watched: PixelObservation, _image: torch.Tensor, noise: RowNoise) -> torch.Tensor:
        best, least = watched.latent, watched.y.new_full((len(watched.y), 1, 1, 1), math.inf)
        for _ in range(chosen.attempts):
            todo = (least > 1).flatten()
            if not bool(todo.any()):
                break
            part = watched.rows(todo)
            found = descend(counted, part, noise, todo)
            with torch.no_grad():
                misfit = part.misfit(part.residual(found))
            # What is no number shall be seen.
            better = ~(misfit >= least[todo])
            best[todo] = torch.where(better, found, best[todo])
            least[todo] = torch.where(better, misfit, least[todo])
        return best

    return draw_fills(
        denoiser,
        observation,
        seed,
        fills,
        draw,
        calls=chosen.attempts * chosen.steps,
        first=first,
        batch=batch,
        state=state,
        callback=callback,
    )


def estimate(
    denoiser: Counted,
    u: torch.Tensor,
    s: float,
    observation: PixelObservation,
    noise: Callable[[], torch.Tensor],
    settings: Restoration,
) -> torch.Tensor:
    """x0 given u and y, (N, C, H, W), as a Gaussian whose covariance is the network's own, C = s^2 J.

    As in `refine.moment_matching`, with the decoder made linear. A row whose residual stays larger than the noise
    explains is moved again from where it is: where alternatives are apart, C is that of one of them.
    """
    if s <= settings.guided_above:
        with torch.no_grad():
            x0 = denoiser(u, s)
        return observation.condition(x0, s, settings.solver_steps)
    with denoiser.gradients(), observation.gradients():
        point = u.detach().requires_grad_()
        estimated = denoiser(point, s)

        def covariance(v: torch.Tensor) -> torch.Tensor:
            (product,) = torch.autograd.grad(estimated, point, v, retain_graph=True)
            return s**2 * product

        x0 = estimated.detach()
        if s < settings.spread_below:
            # Its covariance is C^2 / s^2, see `refine.moment_matching`.
            x0 = x0 + covariance(noise() / s)
        for sweep in range(settings.sweeps):
            operator, residual = observation.linear(x0)
            unexplained = observation.misfit(residual) > 1
            if sweep and not bool(unexplained.any()):
                break
            shift = posterior_shift(covariance, observation.variance, residual, operator, settings.solver_steps)
            x0 = torch.where(unexplained, x0 + shift, x0) if sweep else x0 + shift
    return x0
