"""Observations of pixels behind a decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from gaussian import normal
from pictures import SHAPE, curved, decode, observe

from vipaint_core.problem.operators import Mask


@pytest.mark.parametrize(("decoder", "near"), [(decode, 1e-9), (curved, 0.1)])
def test_linearised_decoder_is_its_derivative(decoder: Callable[[torch.Tensor], torch.Tensor], near: float) -> None:
    observation, x = observe("reduced", images=2, decoder=decoder), normal(2, *SHAPE, seed=6)
    v, y = normal(2, *SHAPE, seed=7), normal(*observation.y.shape, seed=8)
    with observation.gradients():
        operator, residual = observation.linearise(x)
        exact = torch.autograd.functional.jvp(observation.predict, x, v)[1]
        assert (operator.A(v) - exact).square().mean() <= near**2 * exact.square().mean()
        assert torch.allclose((exact * y).sum(), (v * operator.A_adjoint(y)).sum())
    assert torch.allclose(residual, observation.residual(x))


def test_observations_that_do_not_fit() -> None:
    good = observe("all")
    for change in (
        {"y": good.y[0]},
        {"weight": good.weight[:, :, 1:]},
        {"weight": good.weight * 2},
        {"sigma_y": 0.0},
        {"y": good.y * torch.nan},
    ):
        with pytest.raises(ValueError, match=r"PixelObservation: expected"):
            replace(good, **change)


def test_a_mask_as_operator_is_the_same_as_hidden_pixels() -> None:
    observation = observe("all", images=2)
    masked, x0 = replace(observation, operator=Mask(observation.weight > 0)), normal(2, *SHAPE)
    assert torch.equal(masked.residual(x0), observation.residual(x0))
    # The mask's rows are those of the pictures.
    index = torch.tensor([1])
    torch.testing.assert_close(masked.rows(index).residual(x0[index]), masked.residual(x0)[index])
