"""One fit, many fills: what a further fill costs and is worth, by the chains that the fit has drawn.

    python3 run.py benchmark fills [--pictures 5] [--fills 16] [--holes NAME ...] [--methods NAME ...] [--quick]

Every fill that is judged is a further one, drawn from a posterior that another seed has fitted. What a run of 1 to 16
fills takes follows from what chains and further fills take, which is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary
from benchmarks.harness.host import PACK
from benchmarks.harness.keys import digest, preset_settings
from benchmarks.harness.results import commit
from benchmarks.harness.tables import Column, legend, markdown, sections
from benchmarks.portraits.prior import HELD_OUT, SEED, checkpoint
from benchmarks.portraits.scores import JUDGED_COLUMNS, judged_cells
from benchmarks.sizes import SIDE, painted
from toy_prior import pictures

core: Any = PACK.core
BALANCED = core.PRESETS["balanced"]
ALONE = "every fill alone"
METHODS: dict[str, Any] = {
    ALONE: BALANCED.with_changes(fit={"chains": 0}),
    **{f"{chains} chain{'s' * (chains > 1)}": BALANCED.with_changes(fit={"chains": chains}) for chains in (1, 2, 3, 4)},
    "3 chains, no corrections": BALANCED.with_changes(fit={"chains": 3}, sampler={"corrections": 0}),
    "3 chains, 4 corrections": BALANCED.with_changes(fit={"chains": 3}, sampler={"corrections": 4}),
}
COUNTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Score:
    """Further fills of one hole; shares are in [0, 1], passes per fill. See `COLUMNS`.

    chain: passes of a chain, forward and backward, where a backward one counts twice.
    """

    method: str
    hole: str
    pictures: int
    fills: int
    valid: float
    both: float
    tv: float | None
    floor: float | None
    chains: int
    chain: float
    forward: float
    backward: float
    commit: str
    key: str

    @property
    def further(self) -> float:
        return self.forward + 2 * self.backward

    def of_run(self, fills: int) -> float:
        """What each of so many fills takes, the fit included."""
        chains = min(self.chains, fills)
        return (chains * self.chain + (fills - chains) * self.further) / fills


def score(method: str, hole: str, count: int, fills: int) -> Score:
    preset, spent = METHODS[method], []

    def work(denoiser: Any, observation: Any) -> Any:
        fitted = core.fit_gains(denoiser, core.fit(denoiser, observation, preset, SEED))
        spent.append(fitted.evaluations)
        return core.sample(denoiser, fitted, SEED + 1, fills)

    found = painted(work, SIDE, hole, count, fills, with_crosstalk=True)
    (fit,), further = spent, found.forward + 2 * found.backward
    chain = (fit.forward + 2 * fit.backward) / (count * preset.chains) if preset.chains else further
    names = ("valid", "both", "tv", "floor")
    return Score(
        method,
        hole,
        count,
        fills,
        **{name: found.scores[name] for name in names},
        chains=preset.chains,
        chain=chain,
        forward=found.forward,
        backward=found.backward,
        commit=commit(),
        key=key(method, hole, count, fills),
    )


def key(method: str, hole: str, count: int, fills: int) -> str:
    """A digest of what decides a row, but the code."""
    settings = preset_settings(METHODS[method])
    return digest(checkpoint=checkpoint(), settings=settings, hole=hole, pictures=count, fills=fills, seed=SEED)


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Score]:
    for hole, method in product(options.holes, options.methods):
        if is_needed(hole, method):
            yield score(method, hole, options.pictures, options.fills)


def is_done(row: Score, options: Options) -> bool:
    return row.key == key(row.method, row.hole, options.pictures, options.fills)


COLUMNS: tuple[Column[Score], ...] = (
    Column("method", lambda s: s.method),
    *JUDGED_COLUMNS,
    Column("forward", lambda s: s.forward, "{:.0f}", "passes of a further fill"),
    Column("backward", lambda s: s.backward, "{:.0f}"),
    Column("chain", lambda s: s.chain, "{:.0f}", "passes of a chain, backward ones counted twice"),
)
EXPLANATION = f"""\
`{ALONE}` solves for each fill by itself. Chains are the first fills, which do so too; further ones are drawn by what chains
have found, with `corrections` products of their own.

{legend(COLUMNS)}
"""


def tables(scores: list[Score]) -> str:
    return sections(scores, lambda row: row.hole, COLUMNS)


def summary(scores: list[Score]) -> str:
    """A row per method: further fills by hole, and passes of each fill in runs of 1 to 16."""
    holes = [hole for hole in pictures.MASKS if any(row.hole == hole for row in scores)]
    header = ("further fills by", *holes, "TV above exact", "a further fill", *(f"of {count}" for count in COUNTS))
    rows = []
    for method in dict.fromkeys(row.method for row in scores):
        own = {row.hole: row for row in scores if row.method == method}
        one = next(iter(own.values()))
        prices = (f"{one.of_run(count):.0f}" for count in COUNTS)
        rows.append((method, *judged_cells(own, holes), f"{one.further:.0f}", *prices))
    return markdown(header, rows)


BENCHMARK = Benchmark(
    name="fills",
    title="One fit, many fills",
    row=Score,
    measure=measure,
    tables=tables,
    axes=(
        Axis("hole", pictures.MASKS, "holes", quick=("centre",)),
        Axis("method", list(METHODS), "methods", quick=(ALONE, "3 chains")),
    ),
    counts=(Count("pictures", usual=5, quick=1, most=HELD_OUT), Count("fills", usual=16, quick=2)),
    explanation=EXPLANATION,
    facts=lambda options: f"{options.pictures} pictures, {options.fills} fills, seed {SEED}",
    is_done=is_done,
    summary=Summary("fills", summary),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
