"""What observed cells owe to hidden ones, measured with other fillers."""

from __future__ import annotations

import torch
from gaussian import normal

from vipaint_core import measure_crosstalk
from vipaint_core.problem.operators import Mask


def test_linear_crosstalk_is_found_and_leaves_nothing() -> None:
    observed = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    observed[:, :, :, 3:] = False
    kernel = 0.3 * normal(2, 3, 3, 3, 3)
    moved = torch.where(observed, 0.0, normal(24, 2, 3, 6, 6, seed=1))
    operator = Mask(observed, kernel)
    moved = torch.stack([torch.where(observed, -operator.A(rows), rows) for rows in moved])
    found, rest = measure_crosstalk(moved, observed)
    # The hidden cells are to the right: nothing is known of the kernel's other columns.
    assert torch.allclose(found[..., 2], kernel[..., 2], atol=0.02)
    assert found[..., :2].abs().max() < 1e-9
    assert rest[observed].max() < 1e-3 * moved[:, observed.expand(2, 3, 6, 6)].square().mean()


def test_what_nothing_predicts_is_variance_alone() -> None:
    observed = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    observed[..., ::2] = True
    moved = normal(40, 1, 2, 8, 8)
    found = measure_crosstalk(moved, observed)
    assert found.kernel.abs().max() == 0
    assert torch.allclose(found.variance, moved.square().mean((0, 2))[:, None])
    everything, nothing = torch.ones_like(observed), torch.zeros_like(observed)
    assert all((measure_crosstalk(moved, cover).kernel == 0).all() for cover in (everything, nothing))
