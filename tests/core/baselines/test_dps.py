"""DPS in the paper's coordinate, and through a decoder."""

from __future__ import annotations

from dataclasses import replace

import torch
from gaussian import GaussianPrior, half_observed, normal
from pictures import PRIOR, curved, observe

from vipaint_core.baselines import BASELINES, Settings, run_baseline
from vipaint_core.baselines.dps import scaled_step
from vipaint_core.diffusion.denoiser import CountingDenoiser
from vipaint_core.problem.likelihood import distance

SHAPE = (1, 2, 4)


def test_dps_moves_in_the_coordinate_of_the_paper() -> None:
    """z_next = DDIM's step in z minus scale * grad_z ||A x0(z) - y||, by hand."""
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_observed(prior, images=2)
    s, s_next, scale = 2.0, 1.5, 0.3
    u, denoiser = normal(2, *SHAPE), CountingDenoiser(prior, "", 0, None)
    found = scaled_step(denoiser, u, s, s_next, observation, lambda: 0 * u, scale, eta=0.0)
    alpha, alpha_next = 1 / (1 + s**2), 1 / (1 + s_next**2)
    z = (u * alpha**0.5).requires_grad_()
    x0 = prior(z / alpha**0.5, torch.full((2,), s, dtype=torch.float64))
    residual = ((x0 - observation.y) * observation.weight).flatten(1).norm(dim=1)
    (gradient,) = torch.autograd.grad(residual.sum(), z)
    noise = (z - alpha**0.5 * x0) / (1 - alpha) ** 0.5
    z_next = alpha_next**0.5 * x0 + (1 - alpha_next) ** 0.5 * noise - scale * gradient
    assert torch.allclose(found, (z_next / alpha_next**0.5).detach(), atol=1e-6)


def test_dps_takes_pixels() -> None:
    """The published gradient, through the decoder: its fills explain the pixels better than the prior's."""
    observation = observe("reduced", sigma_y=0.02, decoder=curved)
    settings = replace(BASELINES["dps"].settings(), steps=60)

    def misfit(settings: Settings) -> float:
        fills = run_baseline("dps", PRIOR, observation, 0, 8, settings=settings).latents
        return float(distance(observation.rows(torch.zeros(8, dtype=torch.long)), fills).mean())

    assert misfit(settings) < 0.5 * misfit(replace(settings, scale=0.0))
