"""What every sampler runs in: batches, seeds and unfinished draws."""

from __future__ import annotations

import copy

import pytest
import torch
from gaussian import GaussianPrior, half_observed

from vipaint_core import (
    PRESETS,
    FitConfig,
    LatentObservation,
    Preset,
    Progress,
    SampleState,
    ScheduleConfig,
    fit,
    sample,
)

SHAPE = (2, 3, 4)
SHORT = Preset("short", "", FitConfig((10.0, 30.0), steps=2, draws=2, learning_rate=0.01), ScheduleConfig(steps=4))


def test_fills_do_not_depend_on_company() -> None:
    """More fills, later fills and other batch sizes give the same fill for the same number."""
    prior = GaussianPrior.correlated(SHAPE)
    fitted = fit(prior, half_observed(prior, images=2), SHORT, 0)
    many = sample(prior, fitted, 5, 6).latents.reshape(2, 6, *SHAPE)
    few = sample(prior, fitted, 5, 2, batch=3).latents.reshape(2, 2, *SHAPE)
    later = sample(prior, fitted, 5, 2, first=4).latents.reshape(2, 2, *SHAPE)
    assert torch.allclose(many[:, :2], few, atol=1e-9)
    assert torch.allclose(many[:, 4:], later, atol=1e-9)
    assert not torch.allclose(many[:, 0], many[:, 1])


def test_nothing_hidden_returns_the_input_without_a_call() -> None:
    def forbidden(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the network was called")

    latents = torch.randn(2, 3, 5, 5)
    observation = LatentObservation.masked(latents, torch.ones(2, 1, 5, 5))
    assert observation.complete.all()
    fitted = fit(forbidden, observation, PRESETS["fast"], 0)
    assert torch.equal(sample(forbidden, fitted, 0, 2).latents, latents.repeat_interleave(2, 0))


class Stop(Exception):
    pass


def test_unfinished_draws_go_on_to_the_same_result() -> None:
    """After the first of three batches, in batches of another size; the calls go on where they were."""
    prior = GaussianPrior.correlated(SHAPE)
    fitted = fit(prior, half_observed(prior, images=2), SHORT, 0)
    whole = sample(prior, fitted, 5, 3, batch=2)
    state, heard = SampleState(), []

    def stop(progress: Progress) -> None:
        heard.append(progress)
        if progress.call == 7:
            raise Stop

    with pytest.raises(Stop):
        sample(prior, fitted, 5, 3, batch=2, state=state, callback=stop)
    assert (state.done, state.calls, heard[-1].calls) == (2, 5, 15)
    for unfinished, batch in ((copy.deepcopy(state), 2), (state, 4)):
        heard.clear()
        resumed = sample(prior, fitted, 5, 3, batch=batch, state=unfinished, callback=heard.append)
        assert torch.allclose(resumed.latents, whole.latents, atol=1e-9)
        assert resumed.evaluations == whole.evaluations
        assert heard[0].call == 6 and heard[-1].call == heard[-1].calls == (15 if batch == 2 else 10)


@pytest.mark.parametrize("bad", [{"fills": 0}, {"fills": 1, "first": -1}, {"fills": 1, "batch": 0}])
def test_bad_counts_are_named(bad: dict[str, int]) -> None:
    prior = GaussianPrior.unit(SHAPE)
    with pytest.raises(ValueError, match="expected fills >= 1, first >= 0, batch >= 1"):
        sample(prior, fit(prior, half_observed(prior), PRESETS["fast"], 0), 0, **bad)
