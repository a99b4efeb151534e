"""Pictures from a degraded one: blurred, reduced, or with a hole, all in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from .. import linalg
from ..diffusion.denoiser import CountingDenoiser, Denoiser, Progress
from ..diffusion.levels import karras_levels
from ..problem.likelihood import condition_pixels, misfit, noise_variance
from ..problem.pixels import PixelObservation
from .driver import DrawMethod, RowNoise, SampleResult, SampleState, draw_fills

# Rows that are restored together: each holds the decoder's graph.
BATCH = 4


@dataclass(frozen=True)
class RestorationConfig:
    """How to restore.

    steps: noise levels from `top` down to 0.1, one network call each.
    guided_above: levels above it use the network's Jacobian; below it the estimates are as good as they get and are
        made to fit only.
    sweeps: so often at most is the decoder made linear anew at one level.
    solver_steps: products per sweep.
    spread_below: levels below it draw x0 given the state; above, where alternatives are still apart, draws of a
        Gaussian lie between them and its mean goes on.
    attempts: so often at most is a fill drawn; again where it leaves more than noise unexplained, and the best one
        counts.
    """

    steps: int = 15
    top: float = 50.0
    guided_above: float = 1.0
    sweeps: int = 3
    solver_steps: int = 2
    spread_below: float = 4.0
    attempts: int = 8


def restoration_method(config: RestorationConfig, s_max: float = math.inf) -> DrawMethod[PixelObservation]:
    """Latents that explain the pixels of a picture.

    Every level estimates the picture given state and pixels and adds noise of the next level to it (Zhang et al. 2025,
    DAPS, arXiv 2407.01521): a state holds all of the last estimate, where the prior's own step would hold a part,
    and evidence that came late still counts. Some still end in an alternative that the pixels exclude, which their
    misfit shows: see `RestorationConfig.attempts`.

    s_max: the largest level that the model knows.
    """
    levels = karras_levels(min(config.top, s_max), config.steps, s_min=0.1)

    def attempt(
        denoiser: CountingDenoiser, observation: PixelObservation, every: RowNoise, rows: torch.Tensor
    ) -> torch.Tensor:
        def noise() -> torch.Tensor:
            # Drawn for the other rows as well: a fill does not depend on its batch.
            return every()[rows]

        u = math.sqrt(1 + levels[0] ** 2) * noise()
        for s, s_next in pairwise(levels):
            x0 = estimate(denoiser, u, s, observation, noise, config)
            u = x0 + s_next * noise() if s_next > 0 else x0
        return u

    def draw(
        denoiser: CountingDenoiser, observation: PixelObservation, _image: torch.Tensor, noise: RowNoise
    ) -> torch.Tensor:
        best, least = observation.latents, observation.y.new_full((len(observation.y), 1, 1, 1), math.inf)
        for _ in range(config.attempts):
            todo = (least > 1).flatten()
            if not bool(todo.any()):
                break
            part = observation.rows(todo)
            found = attempt(denoiser, part, noise, todo)
            with torch.no_grad():
                unexplained = misfit(part, part.residual(found))
            # NaN is kept, so that it surfaces.
            better = ~(unexplained >= least[todo])
            best[todo] = torch.where(better, found, best[todo])
            least[todo] = torch.where(better, unexplained, least[todo])
        return best

    return DrawMethod(draw, config.attempts * config.steps, needs_gradient=True)


def restore(
    denoiser: Denoiser,
    observation: PixelObservation,
    seed: int,
    fills: int,
    *,
    config: RestorationConfig | None = None,
    s_max: float = math.inf,
    first: int = 0,
    batch: int = BATCH,
    state: SampleState | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> SampleResult:
    """Draws `fills` latents per picture that explain its pixels; see `restoration_method` and `draw_fills`."""
    method = restoration_method(config if config is not None else RestorationConfig(), s_max)
    return draw_fills(
        denoiser, observation, method, seed, fills, first=first, batch=batch, state=state, callback=callback
    )


def estimate(
    denoiser: CountingDenoiser,
    u: torch.Tensor,
    s: float,
    observation: PixelObservation,
    noise: Callable[[], torch.Tensor],
    config: RestorationConfig,
) -> torch.Tensor:
    """x0 given u and y, (N, C, H, W), as a Gaussian whose covariance is the network's own, C = s^2 J.

    As in `refiners.moment_matching`, with the decoder made linear. A row whose residual stays larger than the noise
    explains is moved again from where it is: where alternatives are apart, C is that of one of them.
    """
    if s <= config.guided_above:
        with torch.no_grad():
            x0 = denoiser(u, s)
        return condition_pixels(observation, x0, s, config.solver_steps)
    with denoiser.gradients(), observation.gradients():
        point = u.detach().requires_grad_()
        estimated = denoiser(point, s)

        def covariance(v: torch.Tensor) -> torch.Tensor:
            (product,) = torch.autograd.grad(estimated, point, v, retain_graph=True)
            return s**2 * product

        x0 = estimated.detach()
        if s < config.spread_below:
            # Its covariance is C^2 / s^2, see `refiners.moment_matching`.
            x0 = x0 + covariance(noise() / s)
        variance = noise_variance(observation)
        for sweep in range(config.sweeps):
            operator, residual = observation.linearise(x0)
            unexplained = misfit(observation, residual) > 1
            if sweep and not bool(unexplained.any()):
                break
            shift = linalg.map_update(covariance, variance, residual, operator, config.solver_steps)
            x0 = torch.where(unexplained, x0 + shift, x0) if sweep else x0 + shift
    return x0
