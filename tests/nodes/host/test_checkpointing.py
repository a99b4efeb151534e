"""Blocks that are computed again in backward give what they gave before."""

from __future__ import annotations

import pytest
import torch
from family_cases import opened, with_control, with_lora


def products(pack, open_denoiser, case, mode, count=3):
    """x0 and products of its Jacobian with `count` random latents, of one graph."""
    generator = torch.Generator().manual_seed(2)
    u, *given = (torch.randn(case.shape(2), generator=generator) for _ in range(1 + count))

    def work(denoiser):
        denoiser = pack.core.diffusion.denoiser.CountingDenoiser(denoiser, "sample", 1, None)
        with denoiser.gradients():
            point = u.clone().requires_grad_()
            x0 = denoiser(point, 1.5)
            return x0.detach(), [torch.autograd.grad(x0, point, v, retain_graph=True)[0] for v in given]

    return opened(open_denoiser, case, work, gradient=True, rows=2, mode=mode)


WRITES_INTO_INPUTS = {"sd15": with_control, "flux": with_control}


def test_checkpointed_gradients_are_exact(pack, open_denoiser, family):
    """In every pass over the same graph, also where networks write into what they got."""
    with torch.inference_mode():
        case = WRITES_INTO_INPUTS.get(family.name, with_lora)(family)
    x0, expected = products(pack, open_denoiser, case, "full")
    again, found = products(pack, open_denoiser, case, "checkpointed")
    torch.testing.assert_close(again, x0)
    torch.testing.assert_close(found, expected)
    assert not any("forward" in vars(module) for network in case.networks for module in network.modules())


@pytest.mark.parametrize(
    ("mode", "share"),
    [
        ("checkpointed", 1e-8),
        # The Jacobian of a network with random weights is not symmetric.
        ("jacobian_free", 0.1),
    ],
)
def test_modes_agree_on_fills(paint, mode, share):
    """share: of the fills' variance."""
    expected, found = (paint(preset="balanced", gradients=wanted)[0]["samples"] for wanted in ("full", mode))
    assert (found - expected).square().mean() < share * expected.var()
