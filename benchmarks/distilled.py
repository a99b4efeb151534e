"""A model that was distilled for four steps: what presets and samplers make of it, and of its teacher.

    python3 run.py benchmark distilled [--pictures 4] [--fills 8] [--quick]

The student is made by `python -m toy_prior.distil` and is not a part of the repository. Everything runs through the
host, as in `benchmark toy`; every part is kept in .cache/benchmarks.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary
from benchmarks.harness.cost import Drawn, measured
from benchmarks.harness.keys import digest, files_digest
from benchmarks.harness.parts import kept, part_file
from benchmarks.harness.results import commit
from benchmarks.harness.tables import Column, legend, markdown, sections
from benchmarks.portraits.methods import Method, Task, preset_method, sampler_method
from benchmarks.portraits.prior import HELD_OUT, SEED, held_out
from benchmarks.portraits.scores import BACKWARD, FORWARD, VALID
from benchmarks.toy import judge
from toy_prior import CHECKPOINT, DISTILLED, pictures
from toy_prior import model as toy

TEACHER, STUDENT = "teacher", "distilled"
FILES = {TEACHER: CHECKPOINT, STUDENT: DISTILLED}
HOLES = ("right", "centre")
# Of the distillation, and twice as many.
FEW, TWICE = 4, 8


def stock_method(sampler: str, steps: int) -> Method:
    """KSampler with a noise mask."""

    def draw(task: Task) -> torch.Tensor:
        latent = task.latent_input
        inputs = latent["samples"], task.seed, latent["noise_mask"]
        return toy.ksampler(task.model, task.conditioning, *inputs, steps=steps, sampler=sampler)

    return Method(draw, {"sampler": sampler, "steps": steps})


# By the words of the table.
METHODS = {
    "KSampler euler, 4 steps": partial(stock_method, "euler", FEW),
    "KSampler lcm, 4 steps": partial(stock_method, "lcm", FEW),
    "KSampler lcm, 8 steps": partial(stock_method, "lcm", TWICE),
    "fast": partial(preset_method, "fast"),
    "balanced": partial(preset_method, "balanced"),
    "Sampler, fast, 4 steps": partial(sampler_method, "fast", FEW),
    "Sampler, fast, 8 steps": partial(sampler_method, "fast", TWICE),
    "Sampler, balanced, 4 steps": partial(sampler_method, "balanced", FEW),
    "Sampler, balanced, 8 steps": partial(sampler_method, "balanced", TWICE),
}


@dataclass(frozen=True)
class Row:
    """One method with one model on one hole; shares are in [0, 1], counts and seconds per fill. See `COLUMNS`."""

    hole: str
    model: str
    method: str
    pictures: int
    fills: int
    valid: float
    consistent: float
    both: float
    tv: float
    floor: float
    forward: float
    backward: float
    seconds: float
    commit: str
    key: str


@cache
def prior(model: str) -> toy.ToyPrior:
    return toy.load(FILES[model])


@cache
def checkpoint(model: str) -> str:
    return files_digest([FILES[model]])


def key(hole: str, model: str, method: str, count: int, fills: int) -> str:
    """A digest of what decides the fills, but the code."""
    inputs = {"checkpoint": checkpoint(model), "method": method, "settings": METHODS[method]().settings, "seed": SEED}
    return digest(**inputs, hole=hole, count=count, fills=fills)


def paint(hole: str, model: str, method: str, count: int, fills: int, fresh: bool) -> Drawn:
    def draw(metered: Any) -> torch.Tensor:
        shown = pictures.render(held_out(count))
        return METHODS[method]().draw(Task(metered, prior(model).vae, shown, pictures.hole(hole), fills, SEED))

    file: Path = part_file("distilled", model, method, hole, key=key(hole, model, method, count, fills))
    return kept(file, Drawn, lambda: measured(draw, prior(model).model, toy.LATENT_SHAPE), fresh)


def score(hole: str, model: str, method: str, count: int, fills: int, fresh: bool) -> Row:
    part, truth, region = paint(hole, model, method, count, fills, fresh), held_out(count), pictures.hole(hole)
    with torch.inference_mode():
        painted = toy.decode(prior(model).vae, part.latents)
    scores, each = judge(painted, truth, pictures.render(truth), region, fills), count * fills
    return Row(
        hole,
        model,
        method,
        count,
        fills,
        **{name: scores[name] for name in ("valid", "consistent", "both", "tv", "floor")},
        forward=part.forward / each,
        backward=part.backward / each,
        seconds=part.seconds / each,
        commit=commit(),
        key=key(hole, model, method, count, fills),
    )


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Row]:
    for place in product(options.holes, options.models, options.methods):
        if is_needed(*place):
            yield score(*place, options.pictures, options.fills, options.fresh)


COLUMNS: tuple[Column[Row], ...] = (
    Column("model", lambda r: r.model),
    Column("method", lambda r: r.method),
    Column("valid", lambda r: 100 * r.valid, "{:.0f} %", VALID),
    Column("consistent", lambda r: 100 * r.consistent, "{:.0f} %", "every attribute that is visible is right"),
    Column("both", lambda r: 100 * r.both, "{:.0f} %", "valid and consistent"),
    Column("TV", lambda r: r.tv, "{:.2f}", "total variation of the hidden attributes from uniform ones"),
    Column("forward", lambda r: r.forward, "{:.0f}", FORWARD),
    Column("backward", lambda r: r.backward, "{:.0f}", BACKWARD),
    Column("s", lambda r: r.seconds, "{:.2f}", "seconds per fill"),
)


def summary(rows: list[Row]) -> str:
    """A row per method, means over the holes."""
    header = ("method", "teacher: both", "TV above exact", "distilled: both", "TV above exact", "forward", "backward")
    found = []
    for method in dict.fromkeys(row.method for row in rows):
        cells = []
        for model in FILES:
            own = [row for row in rows if (row.method, row.model) == (method, model)]
            cells.append(f"{100 * statistics.mean(row.both for row in own):.0f} %" if own else "-")
            cells.append(f"{statistics.mean(row.tv - row.floor for row in own):+.2f}" if own else "-")
        own = [row for row in rows if row.method == method]
        passes = (statistics.mean(getattr(row, kind) for row in own) for kind in ("forward", "backward"))
        found.append((method, *cells, *(f"{count:.0f}" for count in passes)))
    return markdown(header, found)


def note(rows: Sequence[Row]) -> str:
    return f"TV of an exact sampler {rows[0].floor:.2f}"


BENCHMARK = Benchmark(
    name="distilled",
    title="A model that was distilled for four steps",
    row=Row,
    measure=measure,
    tables=lambda rows: sections(rows, lambda row: row.hole, COLUMNS, note),
    axes=(
        Axis("hole", HOLES, "holes", quick=("right",)),
        Axis("model", tuple(FILES), "models"),
        Axis("method", tuple(METHODS), "methods", quick=("fast", "Sampler, fast, 4 steps")),
    ),
    counts=(Count("pictures", usual=4, quick=1, most=HELD_OUT), Count("fills", usual=8, quick=2)),
    explanation=f"""\
The student has learnt where its teacher's paths end, at the four levels of a four-step schedule. `Sampler` is VIPaint
Sampler with the host's schedule `simple`.

{legend(COLUMNS)}
""",
    facts=lambda options: f"{options.pictures} pictures, {options.fills} fills",
    is_done=lambda row, options: row.key == key(row.hole, row.model, row.method, options.pictures, options.fills),
    summary=Summary("distilled", summary),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
