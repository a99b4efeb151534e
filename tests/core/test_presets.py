"""Presets: what they decide, level by level, and what they refuse."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from vipaint_core import PRESETS, FitConfig, SamplerConfig, ScheduleConfig
from vipaint_core.refiners import REFINERS
from vipaint_core.refiners.common import LevelStep


def test_steps_below_the_guided_levels_have_their_own_noise() -> None:
    """Levels 4 (guided), 3 and 2 (guided and resampled), 1 (not guided); the solver's steps are shared."""
    preset = PRESETS["balanced"].with_changes(
        schedule={"steps": 4, "s_min": 1.0, "rho": 1.0, "guided_above": 1.0, "resample_below": 3.0, "resamplings": 4},
        sampler={"eta": 0.5, "final_eta": 0.25, "solver_steps": 6, "second_order_below": 2.0, "warm_start": False},
    )
    guided = {"refiner": "moment_matching", "eta": 0.5, "warm_start": False, "recycles": True}
    resampled = {**guided, "solver_steps": 2}
    last = {
        "refiner": "closed_form",
        "eta": 0.25,
        "solver_steps": 6,
        "warm_start": False,
        "second_order": True,
        "recycles": True,
    }
    assert preset.descent(4.0) == [
        LevelStep(4.0, 3.0, **guided, solver_steps=6),
        LevelStep(3.0, 2.0, **resampled),
        *[LevelStep(3.0, 2.0, **resampled, renew=True)] * 3,
        LevelStep(2.0, 1.0, **resampled, second_order=True),
        *[LevelStep(2.0, 1.0, **resampled, second_order=True, renew=True)] * 3,
        LevelStep(1.0, 0.0, **last),
    ]


def test_further_fills_ask_in_the_last_steps_at_every_guided_level() -> None:
    preset = PRESETS["balanced"].with_changes(
        schedule={"steps": 4, "s_min": 1.0, "rho": 1.0, "guided_above": 1.0, "resample_below": 3.0, "resamplings": 3}
    )
    steps = preset.further_descent(4.0)
    asked = [(step.s, step.solver_steps) for step in steps[:-1]]
    assert asked == [(4, 1), (3, 0), (3, 0), (3, 1), (2, 0), (2, 0), (2, 1)]
    assert all(step.differences for step in steps[:-1])
    assert steps[-1] == preset.descent(4.0)[-1]
    for corrections, expected in ((0, [0] * 7), (2, [1, 0, 1, 1, 0, 1, 1]), (3, [1] * 7)):
        changed = preset.with_changes(sampler={"corrections": corrections}).further_descent(4.0)
        assert [step.solver_steps for step in changed[:-1]] == expected


def test_particles_take_every_level_once() -> None:
    preset = PRESETS["balanced"].with_changes(sampler={"smc": True})
    steps = preset.descent(30.0)
    assert len(steps) == preset.schedule.steps and not any(step.renew for step in steps)
    assert {step.solver_steps for step in steps} == {preset.sampler.solver_steps}


@pytest.mark.parametrize("change", [{"refiner": "dps"}, {"eta": 0.0}])
def test_particles_need_weights_that_can_be_had(change: dict[str, Any]) -> None:
    preset = PRESETS["fast"].with_changes(sampler={"refiner": "moment_matching", "smc": True})
    with pytest.raises(ValueError, match="smc"):
        preset.with_changes(sampler=change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FitConfig(keypoints=()), "s_1 < "),
        (lambda: FitConfig((1.0,), steps=1.5), "steps"),
        (lambda: FitConfig((1.0,), steps=True), "steps"),
        (lambda: FitConfig((1.0,), draws=0), "draws"),
        (lambda: FitConfig((1.0,), learning_rate=float("inf")), "finite"),
        (lambda: FitConfig((1.0,), v_range=(0.1, float("nan"))), "finite"),
        (lambda: ScheduleConfig(steps=10**12), "steps"),
        (lambda: ScheduleConfig(resamplings=0), "resamplings"),
        (lambda: ScheduleConfig(s_min=0.0), "s_min"),
        (lambda: ScheduleConfig(rho=0), "rho"),
        (lambda: ScheduleConfig(resample_below=float("nan")), "finite"),
        (lambda: SamplerConfig(refiner="magic"), "refiner of closed_form"),
        (lambda: SamplerConfig(solver_steps=-1), "solver_steps"),
        (lambda: SamplerConfig(guidance_scale=float("inf")), "finite"),
    ],
)
def test_bad_numbers_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_changes_leave_the_rest() -> None:
    preset = PRESETS["paper-2"]
    changed = preset.with_changes("mine", fit={"steps": 7}, schedule={"rho": 2.0}, sampler={"guidance_scale": 3.0})
    expected = asdict(preset)
    expected["name"] = "mine"
    expected["fit"]["steps"], expected["schedule"]["rho"], expected["sampler"]["guidance_scale"] = 7, 2.0, 3.0
    assert asdict(changed) == expected and changed != preset and preset.with_changes() == preset


def test_who_differentiates_the_network() -> None:
    assert {name for name, preset in PRESETS.items() if not preset.needs_gradient} == {"fast"}
    assert PRESETS["fast"].with_changes(fit={"steps": 1}).needs_gradient
    assert {name for name, refiner in REFINERS.items() if refiner.uses_crosstalk} == {"moment_matching"}
