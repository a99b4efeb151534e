from __future__ import annotations

import pytest
import torch

from vipaint_core import HierarchicalPosterior, Observation, rectified_flow
from vipaint_core.levels import clip_levels, refine_levels


def test_flow_is_the_linear_path() -> None:
    x0, eps = torch.randn(2, 1, 2, 2, 2, dtype=torch.float64)
    for noise_scale in (1.0, 2.0):
        coordinate = rectified_flow(noise_scale)
        s = torch.tensor([1.7], dtype=torch.float64)
        z, sigma = coordinate.to_host(x0 + s * eps, s)
        time = sigma / noise_scale
        assert torch.allclose(z, (1 - time) * x0 + sigma * eps)


@pytest.mark.parametrize("levels", [(), (1.0, 0.5), (0.0, 1.0), (1.0, 1.0), (1.0, float("inf"))])
def test_bad_levels_are_named(levels) -> None:
    observation = Observation(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="s_1 < "):
        HierarchicalPosterior.initial(observation, levels)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_refine_levels_fall_to_zero(steps: int) -> None:
    levels = refine_levels(0.7, steps)
    assert len(levels) == steps + 1
    assert levels[0] == pytest.approx(0.7) and levels[-1] == 0
    assert all(a > b for a, b in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize(
    ("latent", "seen", "message"),
    [
        (torch.zeros(1, 2, 3), torch.zeros(1, 1, 2, 3), "B, C, H, W"),
        (torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), "seen of shape"),
        (torch.zeros(1, 2, 3, 3), torch.full((1, 1, 3, 3), 1.5), "within"),
        (torch.full((1, 2, 3, 3), float("nan")), torch.zeros(1, 1, 3, 3), "finite"),
    ],
)
def test_bad_observations_are_named(latent, seen, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Observation(latent, seen)


def test_a_leak_adds_to_the_noise_of_soft_cells() -> None:
    """A cell of precision `seen` has variance sigma_y^2 / seen + its leak, in every likelihood."""
    x0, y = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = torch.tensor([1.0, 0.5, 0.25, 0.0], dtype=torch.float64).expand(1, 1, 4, 4)
    observation = Observation(y, seen, 0.3, torch.full_like(seen, 0.7)).softened()
    noise, level = (0.09 / seen + 0.7).expand(1, 2, 4, 4), 1.5
    assert torch.equal(observation.seen > 0, seen > 0)
    own = level**2 / (1 + level**2)
    given = x0 + torch.where(seen > 0, own / (own + noise), 0.0) * (y - x0)
    assert torch.allclose(observation.condition(x0, level), given)
    for calibrated in (False, True):
        spread = (noise + own if calibrated else noise)[..., :3].sqrt()
        exact = -torch.distributions.Normal(x0[..., :3], spread).log_prob(y[..., :3]).sum()
        assert torch.allclose(observation.nll(x0, level, calibrated), exact)


def test_bad_leaks_are_named() -> None:
    latent, seen = torch.zeros(1, 2, 3, 3), torch.ones(1, 1, 3, 3)
    for leak in (torch.zeros(1, 2, 3, 3), torch.full((1, 1, 3, 3), -1.0), torch.full((1, 1, 3, 3), float("nan"))):
        with pytest.raises(ValueError, match="expected leak"):
            Observation(latent, seen, leak=leak)


def test_levels_beyond_the_model_are_clipped() -> None:
    assert clip_levels((0.5, 2.0, 10.0, 30.0), 14.6) == (0.5, 2.0, 10.0, 14.6)
    assert clip_levels((0.5, 2.0), 14.6) == (0.5, 2.0)
