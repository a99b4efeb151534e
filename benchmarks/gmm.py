"""Samplers against exact posteriors: linear measurements of a 25-component Gaussian mixture.

    python3 run.py benchmark gmm [--problems 20] [--samples 1000] [--methods NAME ...] [--quick]

The problems are those of Cardoso et al. 2023 (MCGDiff, arXiv 2308.07983, app. B.3): identity
covariance, means (-8i, -8j, -8i, -8j, ...) for i, j in -2..2, squared normal weights; y = A x + noise
with A = U diag(s) V^T of random rotations, s sorted uniforms, noise level uniform in (0, max s).

Two variants stand beside them: `mask`, where A selects coordinates as inpainting does, and `apart`,
a mask over three far and unequal modes. All is computed in the basis of V and divided by the prior's
standard deviation: there A is a mask whose cells are seen with different precision, and the prior
has about the unit variance that samplers expect; distances are given in the original scale.

Every number is the sliced Wasserstein-1 distance of a method's samples to as many exact ones (mean
over problems, 95 % interval); `exact` is the distance of two exact sets. A finished row of gmm.csv over at least as many
problems is not computed again, but with `--fresh`; single problems are computed again where the core has changed.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path

from benchmarks.harness import plots
from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options
from benchmarks.harness.results import commit
from benchmarks.harness.tables import markdown
from benchmarks.mixtures.comparison import CellScore, standings
from benchmarks.mixtures.methods import EXACT, METHODS, OURS, PARTICLES, Method, Result, evaluate_once
from benchmarks.mixtures.problems import DIMENSIONS, MEASUREMENTS, VARIANTS, Cell
from vipaint_core.baselines import BASELINES


def score(name: str, method: Method, cell: Cell, problems: int, samples: int) -> CellScore:
    """A method on the first problems of a cell."""
    results = [evaluate_once(name, method, cell, index, samples) for index in range(problems)]
    means = {field: statistics.mean(getattr(result, field) for result in results) for field in Result.__annotations__}
    has_deviation = problems > 1 and math.isfinite(means["distance"])
    return CellScore(
        name,
        **asdict(cell),
        problems=problems,
        samples=samples,
        deviation=statistics.stdev(result.distance for result in results) if has_deviation else None,
        **means,
        commit=commit(),
        distances=" ".join(f"{result.distance:.5g}" for result in results),
    )


def measure(options: Options, is_needed: IsNeeded) -> Iterator[CellScore]:
    for place in product(options.variants, options.dimensions, options.measurements, options.methods):
        *cell, name = place
        if is_needed(*place):
            yield score(name, METHODS[name], Cell(*cell), options.problems, options.samples)


def is_done(row: CellScore, options: Options) -> bool:
    return row.samples == options.samples and row.problems >= options.problems


def table(scores: list[CellScore]) -> str:
    """Methods by the cells of one variant."""
    by = {(score.method, score.cell): score for score in scores}
    cells = list(dict.fromkeys(score.cell for score in scores))
    dimensions = list(dict.fromkeys(cell.dimension for cell in cells))
    names = (f"d {cell.dimension}, d_y {cell.measurements}" for cell in cells)
    header = ("method", *names, f"problems in d {', '.join(map(str, dimensions))}", "forward", "backward")
    rows = []
    for method in METHODS:
        own = [by[method, cell] for cell in cells if (method, cell) in by]
        if not own:
            continue
        shown = (by[method, cell].interval if (method, cell) in by else "" for cell in cells)
        counts = {score.dimension: str(score.problems) for score in own}
        passes = [f"{statistics.mean(getattr(score, kind) for score in own):.0f}" for kind in ("forward", "backward")]
        rows.append((method, *shown, ", ".join(counts.get(dimension, "-") for dimension in dimensions), *passes))
    return markdown(header, rows)


def by_variant(scores: list[CellScore]) -> dict[str, list[CellScore]]:
    variants = dict.fromkeys(score.variant for score in scores)
    return {variant: [score for score in scores if score.variant == variant] for variant in variants}


def tables(scores: list[CellScore]) -> str:
    baselines = [name for name, baseline in BASELINES.items() if not baseline.coupled]
    return standings(scores, ("balanced", "thorough"), baselines, PARTICLES.name, "tds") + "\n".join(
        f"## {variant}\n\n{table(own)}" for variant, own in by_variant(scores).items()
    )


def panel(variant: str, scores: list[CellScore]) -> plots.Panel:
    """Methods by passes and by distance, the geometric mean over the cells that all methods have."""
    by = {(score.method, score.cell): score for score in scores}
    methods = list(dict.fromkeys(score.method for score in scores))
    cells = [cell for cell in dict.fromkeys(s.cell for s in scores) if all((method, cell) in by for method in methods)]
    points, best = [], None
    for method in methods:
        own = [by[method, cell] for cell in cells]
        distance = statistics.geometric_mean(score.distance for score in own) if own else math.inf
        if method == EXACT:
            best = distance
        elif math.isfinite(distance):
            points.append(plots.Point(method, statistics.mean(score.passes for score in own), distance))
    return plots.Panel(f"{variant}: sliced Wasserstein distance", points, best, logarithmic=True)


def illustrate(scores: list[CellScore], stem: Path) -> None:
    plots.save([panel(*own) for own in by_variant(scores).items()], stem.with_suffix(".svg"), list(OURS))


BENCHMARK = Benchmark(
    name="gmm",
    title="Mixtures with exact posteriors",
    row=CellScore,
    measure=measure,
    tables=tables,
    axes=(
        Axis("variant", VARIANTS, "variants"),
        Axis("dimension", DIMENSIONS, "dimensions", quick=(8,)),
        Axis("measurements", MEASUREMENTS, "measurements", quick=(1,)),
        Axis("method", list(METHODS), "methods"),
    ),
    counts=(Count("problems", usual=20, quick=1), Count("samples", usual=1000, quick=200)),
    facts=lambda options: f"{options.samples} samples, mean over problems and 95 % interval",
    is_done=is_done,
    illustrate=illustrate,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
