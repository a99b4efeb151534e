"""What all refiners keep, and what a step takes over from the one before."""

from __future__ import annotations

import pytest
import torch
from gaussian import CLOSED_FORM, GaussianPrior, normal

from vipaint_core import LatentObservation, Preset
from vipaint_core.diffusion.denoiser import CountingDenoiser
from vipaint_core.problem.operators import Blur
from vipaint_core.refiners import REFINERS
from vipaint_core.refiners.common import LevelStep, StepResult, correlated_score, extrapolated

SHAPE = (2, 3, 4)


def test_a_score_persists_as_its_noise_does() -> None:
    """Down from level 4 to 2; there once more, down to 1 and up again."""
    u = torch.ones(1, *SHAPE)
    previous = StepResult(u, 4.0, u, score=u)
    assert correlated_score(StepResult.start(u), 4.0, 2.0) is None
    assert correlated_score(StepResult(u, 4.0, u), 2.0, 1.0) is None
    assert torch.equal(correlated_score(previous, 2.0, 1.0), 0.5 * u)
    assert torch.equal(correlated_score(previous._replace(s=2.0), 2.0, 1.0), 0.25 * u)


def test_second_order_steps_are_nearer_to_the_flow() -> None:
    """A unit Gaussian's probability flow takes a state of level s to one of level 0 by a factor 1 / sqrt(1 + s^2)."""
    prior, u = GaussianPrior.unit(SHAPE), torch.ones(1, *SHAPE, dtype=torch.float64)
    hidden = LatentObservation.masked(torch.zeros_like(u), torch.zeros(1, 1, *SHAPE[1:], dtype=torch.float64))
    preset = CLOSED_FORM.with_changes(schedule={"steps": 16, "rho": 7.0}, sampler={"eta": 0.0})

    def error(preset: Preset) -> float:
        denoiser = CountingDenoiser(prior, "", 0, None)
        result = StepResult.start(u * (1 + 30.0**2) ** 0.5)
        for step in preset.descent(30.0):
            refine = REFINERS[step.refiner].refine
            result = refine(denoiser, result.u, step, hidden, lambda: torch.zeros_like(u), result)
        return float((result.u - 1).abs().max())

    first, second = error(preset), error(preset.with_changes(sampler={"second_order_below": 30.0}))
    assert second < 0.3 * first < 0.05
    # Below the last level there is no step.
    assert error(preset.with_changes(sampler={"second_order_below": 0.02})) == first


def test_what_is_extrapolated() -> None:
    """The change since the level before, by the ratio of the levels; half that of a resampling; nothing at first."""
    step = LevelStep(4.0, 2.0, second_order=True)
    x0, before = torch.full((1, *SHAPE), 2.0), torch.ones(1, *SHAPE)
    steps = {
        "level": StepResult(before, 16.0, before),
        "resampling": StepResult(before, 4.0, before),
        "first": StepResult.start(before),
    }
    found = {name: float(extrapolated(x0, step, previous)[0, 0, 0, 0]) for name, previous in steps.items()}
    assert found == pytest.approx({"level": 2.25, "resampling": 2.5, "first": 2.0})
    assert extrapolated(x0, LevelStep(4.0, 2.0), steps["level"]) is x0


@pytest.mark.parametrize("mixed", [False, True], ids=["mask", "blur"])
@pytest.mark.parametrize("name", sorted(REFINERS))
def test_refiners_take_soft_weights_and_rows_apart(name: str, mixed: bool) -> None:
    """A fill does not depend on the other rows; no row is broken by another's negative curvature."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    weight = torch.rand(2, 1, *SHAPE[1:], generator=generator, dtype=torch.float64)
    weight[0, 0, 0] = 0

    def odd(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """A network whose Jacobian is neither symmetric nor positive for the second row's signs."""
        return torch.sin(3 * u.flip(3)) - 0.3 * u * (u > 0)

    if mixed:
        operator = Blur(normal(3, 3).abs(), "replicate")
        observation = LatentObservation(operator.A(latents), weight, operator, SHAPE)
    else:
        observation = LatentObservation.masked(latents, weight)
    u = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)

    def refine(rows: list[int]) -> torch.Tensor:
        index = torch.tensor(rows)
        denoiser, step, first = CountingDenoiser(odd, "", 0, None), LevelStep(2.0, 1.0), StepResult.start(u[index])
        return REFINERS[name].refine(denoiser, first.u, step, observation.rows(index), lambda: noise[index], first).u

    both = refine([0, 1])
    assert torch.isfinite(both).all()
    assert torch.allclose(both, torch.cat([refine([0]), refine([1])]), atol=1e-9)
