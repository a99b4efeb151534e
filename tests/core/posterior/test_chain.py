"""The hierarchical posterior and its analytic start."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior, half_observed, normal

from vipaint_core import HierarchicalPosterior, LatentObservation
from vipaint_core.problem.operators import Downsample


@pytest.mark.parametrize("levels", [(), (1.0, 0.5), (0.0, 1.0), (1.0, 1.0), (1.0, float("inf"))])
def test_bad_levels_are_named(levels: tuple[float, ...]) -> None:
    observation = LatentObservation.masked(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="s_1 < "):
        HierarchicalPosterior.initial(observation, levels)


def test_bad_posteriors_are_named() -> None:
    good = HierarchicalPosterior.initial(half_observed(GaussianPrior.unit((2, 3, 4))), (1.0, 2.0))
    for change, message in (
        ({"eta": 1.5}, "eta from 0 to 1"),
        ({"eta": float("nan")}, "eta from 0 to 1"),
        ({"mu": good.mu[:1]}, "mu of shape"),
        ({"gamma": good.gamma[..., :3]}, "one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, **change)


def test_operators_that_mix_cells_start_from_the_prior() -> None:
    """No cell is observed for itself: the start is that of an observation in which all are hidden."""
    operator, shape = Downsample(2, "area"), (2, 4, 6)
    mixing = LatentObservation(normal(1, 2, 2, 3), torch.ones(1, 1, 2, 3).double(), operator, shape)
    nothing = LatentObservation.masked(torch.zeros(1, *shape).double(), torch.zeros(1, 1, 4, 6).double())
    found, expected = (HierarchicalPosterior.initial(case, (1.0, 30.0)) for case in (mixing, nothing))
    for name in ("mu", "log_tau", "gamma"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_hidden_cells_start_from_their_content_where_it_is_given() -> None:
    """Soft cells in between; observed cells and lower keypoints as without it."""
    observation = half_observed(GaussianPrior.unit((2, 3, 4)))
    weight = observation.weight.clone()
    weight[..., 0, 3] = 0.4
    observation = LatentObservation.masked(observation.y, weight, observation.sigma_y)
    content, plain = normal(1, 2, 3, 4, seed=4), HierarchicalPosterior.initial(observation, (0.5, 2.0))
    found = HierarchicalPosterior.initial(observation, (0.5, 2.0), content=content)
    observed = weight.expand_as(content)
    for part in ("mu", "log_tau", "gamma"):
        assert torch.equal(getattr(found, part)[0], getattr(plain, part)[0])
    torch.testing.assert_close(found.mu[1], observed * observation.y + (1 - observed) * content)
    torch.testing.assert_close((2 * found.log_tau[1]).exp(), 4.0 + observed * observation.sigma_y**2)
    assert torch.equal(found.mu[1][observed == 1], plain.mu[1][observed == 1])
