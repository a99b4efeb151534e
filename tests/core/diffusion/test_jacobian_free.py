"""Products with the Jacobian by one more forward pass."""

from __future__ import annotations

import pytest
import torch
from gaussian import GaussianPrior, half_observed, normal

from vipaint_core import PRESETS, JacobianFree, fit, sample
from vipaint_core.diffusion.denoiser import CountingDenoiser

SHAPE = (2, 3, 4)


def test_products_are_exact_for_a_linear_denoiser() -> None:
    """Whatever the step, row by row, in every pass over one graph; nothing in a direction of no length."""
    prior = GaussianPrior.correlated(SHAPE)
    u, v = normal(3, *SHAPE), normal(3, *SHAPE, seed=1)
    v *= torch.tensor([1e-6, 0.0, 1e6], dtype=torch.float64)[:, None, None, None]
    s = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    point = u.clone().requires_grad_()
    (expected,) = torch.autograd.grad(prior(point, s), point, v)
    for step in (1e-3, 1.0):
        x0 = JacobianFree(prior, step)(point, s)
        assert torch.equal(x0, prior(u, s))
        for _ in range(2):
            (found,) = torch.autograd.grad(x0, point, v, retain_graph=True)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_the_network_is_not_differentiated() -> None:
    calls = []

    def network(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        calls.append((torch.is_grad_enabled(), u.requires_grad))
        return u / 2

    denoiser = CountingDenoiser(JacobianFree(network), "sample", 0, None)
    with denoiser.gradients():
        point = torch.ones(2, *SHAPE).requires_grad_()
        torch.autograd.grad(denoiser(point, 1.0).sum(), point)
    assert calls == [(False, False)] * 2
    assert (denoiser.evaluations.forward, denoiser.evaluations.backward) == (2, 2)


@pytest.mark.parametrize("name", ["balanced", "paper-2"])
def test_presets_come_to_the_same_without_backward(name: str) -> None:
    """A Gaussian's denoiser is linear: fits and fills of the gradient modes differ by rounding."""
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_observed(prior)
    preset = PRESETS[name]
    preset = preset.with_changes(fit={"steps": min(preset.fit.steps, 10)}, schedule={"steps": 10})
    one, other = (
        sample(denoiser, fit(denoiser, observation, preset, 0), 0, 3).latents
        for denoiser in (prior, JacobianFree(prior))
    )
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
