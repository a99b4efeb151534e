"""What each part of the default preset is worth on the latents of 1024 pixels: it is changed alone, on the enlarged toy prior.

    python3 run.py benchmark ablation_sizes [--pictures 2] [--fills 8] [--changes NAME ...] [--quick]

The changes are those of `benchmark ablation`, the problems those of `benchmark sizes`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks import ablation, sizes
from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options
from benchmarks.harness.host import PACK
from benchmarks.harness.keys import digest, preset_settings
from benchmarks.harness.results import commit
from benchmarks.harness.tables import Column, sections
from benchmarks.portraits.prior import HELD_OUT, SEED, checkpoint

CELLS, QUICK_CELLS = 128, 32
HOLES = ("top", "border")


@dataclass(frozen=True)
class Row:
    """The default preset with one change, on one hole; shares are in [0, 1], passes per fill.

    tv: total variation of the hidden attributes above an exact sampler's.
    """

    change: str
    hole: str
    part: str
    cells: int
    pictures: int
    fills: int
    both: float
    tv: float
    forward: float
    backward: float
    commit: str
    key: str


def cells_of(options: Options) -> int:
    return QUICK_CELLS if options.quick else CELLS


def key(change: str, hole: str, options: Options) -> str:
    """A digest of what decides a row, but the code."""
    return digest(
        checkpoint=checkpoint(),
        settings=preset_settings(ablation.CHANGES[change]),
        hole=hole,
        cells=cells_of(options),
        pictures=options.pictures,
        fills=options.fills,
        seed=SEED,
    )


def score(change: str, hole: str, options: Options) -> Row:
    preset: Any = PACK.core.PRESETS[change]
    draw = sizes.preset_draw(preset)
    judged = sizes.painted(
        lambda denoiser, observation: draw(denoiser, observation, math.inf, options.fills),
        cells_of(options),
        hole,
        options.pictures,
        options.fills,
        preset.refiner.uses_crosstalk,
    )
    return Row(
        change,
        hole,
        ablation.PART_OF[change],
        cells_of(options),
        options.pictures,
        options.fills,
        both=judged.scores["both"],
        tv=judged.scores["tv"] - judged.scores["floor"],
        forward=judged.forward,
        backward=judged.backward,
        commit=commit(),
        key=key(change, hole, options),
    )


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Row]:
    with ablation.published():
        for place in product(options.changes, options.holes):
            if is_needed(*place):
                yield score(*place, options)


COLUMNS: tuple[Column[Row], ...] = (
    Column("part", lambda row: row.part),
    Column("change", lambda row: row.change),
    Column("both", lambda row: 100 * row.both, "{:.1f} %"),
    Column("TV above exact", lambda row: row.tv, "{:+.3f}"),
    Column("forward", lambda row: row.forward, "{:.0f}"),
    Column("backward", lambda row: row.backward, "{:.0f}"),
)

BENCHMARK = Benchmark(
    name="ablation_sizes",
    title="What each part of the default preset is worth at 1024 pixels",
    row=Row,
    measure=measure,
    tables=lambda rows: sections(rows, lambda row: f"{row.hole}, {row.cells} x {row.cells} cells", COLUMNS),
    axes=(
        Axis("change", list(ablation.CHANGES), "changes", quick=(ablation.DEFAULT.name, "closed form only")),
        Axis("hole", HOLES, "holes", quick=("top",)),
    ),
    counts=(Count("pictures", usual=2, quick=1, most=HELD_OUT), Count("fills", usual=8, quick=2)),
    explanation="""\
The toy prior enlarged to the latents of 1024 x 1024 pixels, as a model without a largest level; the preset's upper levels
grow with the latents. Fills that are valid and consistent, and the hidden attributes' total variation above an exact
sampler's.
""",
    facts=lambda options: f"{options.pictures} pictures, {options.fills} fills, seed {SEED}",
    is_done=lambda row, options: row.key == key(row.change, row.hole, options),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
