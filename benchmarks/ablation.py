"""What each part of the default preset is worth: it is changed alone, on mixtures and on the toy prior.

    python3 run.py benchmark ablation [--problems 8] [--samples 500] [--pictures 5] [--fills 16] [--quick]

Every mixture and every fill is kept in .cache/benchmarks; rows are put together from them.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks import toy
from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options
from benchmarks.harness.host import PACK
from benchmarks.harness.tables import Column, table
from benchmarks.mixtures.methods import EXACT, METHODS, Method, evaluate_once, preset_method
from benchmarks.mixtures.problems import MEASUREMENTS, Cell
from benchmarks.portraits.methods import methods
from vipaint_core import PRESETS, Preset

DEFAULT = PRESETS["balanced"]
DEEP = (0.7, 1.6, 4.0, 10.0, 30.0)
EXACT_SAMPLER = "exact sampler"


def change(
    name: str,
    fit: Mapping[str, Any] | None = None,
    schedule: Mapping[str, Any] | None = None,
    sampler: Mapping[str, Any] | None = None,
) -> Preset:
    """The default preset with other fields in its configurations."""
    return DEFAULT.with_changes(name, fit=fit, schedule=schedule, sampler=sampler)


def fitted(name: str, **fit: Any) -> Preset:
    """Fifty Adam steps on keypoints that reach down to where the refinement has little left to do."""
    return change(name, fit={"keypoints": DEEP, "steps": 50, "upper_evidence": 1.0, **fit})


def resampled_below(name: str, level: float) -> Preset:
    """Resampling and steps of second order begin at another level."""
    return change(name, schedule={"resample_below": level}, sampler={"second_order_below": level})


PARTS: dict[str, tuple[Preset, ...]] = {
    "": (DEFAULT,),
    "keypoints": (
        change("at 10", fit={"keypoints": (10.0,)}),
        change("at 3", fit={"keypoints": (3.0,)}),
        change("at 1 and 3, as published", fit={"keypoints": (1.0, 3.0)}),
        change("at 1, 1.5, 2.2 and 3", fit={"keypoints": (1.0, 1.5, 2.2, 3.0)}),
        change("five from 30 to 0.7", fit={"keypoints": DEEP}),
    ),
    "fit": (
        fitted("five keypoints, 50 steps"),
        fitted("evidence at the lowest only", upper_evidence=0.0),
        fitted("no prior term", beta_prior=0.0),
        fitted("no hierarchy term", beta_hierarchy=0.0),
        fitted("likelihood without the estimate's variance", calibrated=False),
        fitted("top term by the diffusion loss", v_range=(0.01, 100.0)),
        fitted("at 1 and 3, as published, 50 steps", keypoints=(1.0, 3.0)),
    ),
    "refiner": (
        change("closed form only", sampler={"refiner": "closed_form"}),
        change("diagonal, as PiGDM", sampler={"refiner": "pigdm"}),
        change("moment matching to 0", schedule={"guided_above": 0.0}),
        change("moment matching to 1", schedule={"guided_above": 1.0}),
        change("two solver steps", sampler={"solver_steps": 2}),
        change("without recycling", sampler={"recycles": False}),
        change("every fill alone", fit={"chains": 0}),
        change("one chain", fit={"chains": 1}),
        change("every level's solver from nothing", sampler={"warm_start": False}),
        change("without resampling", schedule={"resamplings": 1}),
        change("three resamplings", schedule={"resamplings": 3}),
        resampled_below("resampling and second order below 3", 3.0),
        resampled_below("resampling and second order below 20", 20.0),
        change("first order", sampler={"second_order_below": 0.0}),
        change("noise to the end", sampler={"final_eta": 1.0}),
        change("twice the levels", schedule={"steps": 22}),
        change("levels at the top farther apart", schedule={"rho": 7.0}),
        change("down to 0.03", schedule={"s_min": 0.03}),
        PRESETS["thorough"],
    ),
}
PART_OF = {preset.name: part for part, presets in PARTS.items() for preset in presets}
CHANGES = {preset.name: preset for presets in PARTS.values() for preset in presets}


@dataclass(frozen=True)
class Row:
    """The default preset with one change; what a run has not measured is None.

    mask, linear, apart: mean sliced Wasserstein distance to the exact posterior of these mixtures.
    top_both, border_both: share of valid and consistent fills on these holes.
    top_tv, border_tv: total variation of their hidden attributes above an exact sampler's.
    forward, backward: passes through the network per fill, on the last hole.
    """

    part: str
    change: str
    mask: float | None
    linear: float | None
    apart: float | None
    top_both: float | None = None
    top_tv: float | None = None
    forward: float | None = None
    backward: float | None = None
    border_both: float | None = None
    border_tv: float | None = None


def distances(name: str, method: Method, options: Options) -> dict[str, float]:
    """Mean distance on the mixtures of each variant."""
    found = {}
    for variant in ("mask", "linear", "apart"):
        cells = [Cell(variant, *place) for place in product((8,) if options.quick else (8, 80), MEASUREMENTS)]
        found[variant] = statistics.mean(
            evaluate_once(name, method, cell, index, options.samples).distance
            for cell in cells
            for index in range(options.problems)
        )
    return found


def on_portraits(name: str, options: Options) -> dict[str, float]:
    """Scores on the toy prior."""
    found: dict[str, float] = {}
    for hole in ("top",) if options.quick else ("top", "border"):
        score = toy.score(name, hole, options.pictures, options.fills, options.fresh)
        excess = (score.tv or 0) - (score.floor or 0)
        found |= {f"{hole}_both": score.both, f"{hole}_tv": excess}
        found |= {"forward": score.forward, "backward": score.backward}
    return found


@contextmanager
def published() -> Iterator[None]:
    """Within it the node, which takes presets by name, knows the changed ones.

    Raises ValueError where another method of the toy benchmark has the name of a change.
    """
    core = PACK.core
    changed = {name: preset for name, preset in CHANGES.items() if name not in core.PRESETS}
    if clash := changed.keys() & methods().keys():
        raise ValueError(f"ablation: the toy benchmark has other methods named {sorted(clash)}")
    for name, preset in changed.items():
        # The pack has classes of its own.
        fit, schedule = core.FitConfig(**vars(preset.fit)), core.ScheduleConfig(**vars(preset.schedule))
        sampler = core.SamplerConfig(**vars(preset.sampler))
        core.PRESETS[name] = core.Preset(name, preset.description, fit, schedule, sampler)
    try:
        yield
    finally:
        for name in changed:
            del core.PRESETS[name]


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Row]:
    with published():
        for name in filter(is_needed, options.changes):
            if name == EXACT_SAMPLER:
                yield Row("", name, **distances(EXACT, METHODS[EXACT], options))
            else:
                found = distances(name, preset_method(CHANGES[name]), options)
                yield Row(PART_OF[name], name, **found, **on_portraits(name, options))


def share(label: str, field: str) -> Column[Row]:
    def percent(row: Row) -> float | None:
        value = getattr(row, field)
        return None if value is None else 100 * value

    return Column(label, percent, "{:.1f} %", missing="")


def number(label: str, form: str) -> Column[Row]:
    return Column(label, lambda row: getattr(row, label.lower().replace(" ", "_")), form, missing="")


COLUMNS = (
    number("part", "{}"),
    number("change", "{}"),
    *(number(variant, "{:.2f}") for variant in ("mask", "linear", "apart")),
    share("top both", "top_both"),
    number("top TV", "{:+.3f}"),
    number("forward", "{:.0f}"),
    number("backward", "{:.0f}"),
    share("border both", "border_both"),
    number("border TV", "{:+.3f}"),
)


def facts(options: Options) -> str:
    on_mixtures = f"{options.problems} problems, {options.samples} samples"
    return f"{on_mixtures}; {options.pictures} pictures, {options.fills} fills"


BENCHMARK = Benchmark(
    name="ablation",
    title="What each part of the default preset is worth: it is changed alone, on mixtures and on the toy prior.",
    row=Row,
    measure=measure,
    tables=lambda rows: table(rows, COLUMNS),
    axes=(
        Axis("change", [EXACT_SAMPLER, *CHANGES], "changes", quick=(EXACT_SAMPLER, DEFAULT.name, "closed form only")),
    ),
    counts=(
        Count("problems", usual=8, quick=1),
        Count("samples", usual=500, quick=200),
        Count("pictures", usual=5, quick=1),
        Count("fills", usual=16, quick=2),
    ),
    explanation="""\
`mask`, `linear`, `apart`: mean sliced Wasserstein distance to the exact posterior over the mixtures of
`benchmark gmm` with 8 and 80 dimensions; lower is better. Then per hole of `benchmark toy`: fills that
are valid and consistent, and the hidden attributes' total variation above an exact sampler's.
""",
    facts=facts,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
