"""What the mixture benchmark has found, for people: tables, a chart, and who is nearest where."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection
from dataclasses import dataclass

from scipy import stats

from benchmarks import plots
from benchmarks.mixture import Cell
from benchmarks.report import markdown

EXACT = "exact"


@dataclass(frozen=True)
class Summary:
    """One method over the problems of one cell: means, and the distances' standard deviation.

    distances: those of all problems, in their order, with blanks between; none in rows of old.
    """

    method: str
    variant: str
    dimension: int
    measurements: int
    problems: int
    samples: int
    distance: float
    deviation: float | None
    forward: float
    backward: float
    seconds: float
    commit: str
    distances: str = ""

    @property
    def passes(self) -> float:
        return self.forward + self.backward

    @property
    def interval(self) -> str:
        """Mean and half width of its 95 % interval."""
        if self.deviation is None:
            return f"{self.distance:.2f}"
        return f"{self.distance:.2f} ± {half_width(self.deviation, self.problems):.2f}"


Results = dict[tuple[str, Cell], Summary]


def half_width(deviation: float, count: int) -> float:
    """Of the 95 % interval of a mean, by Student's t."""
    return float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)


@dataclass(frozen=True)
class Difference:
    """Mean of one distance less another; half the width of its 95 % interval, and on how many problems it is negative.

    Without the problems' own distances, or where one is infinite, only the mean is known.
    """

    mean: float
    half_width: float = math.nan
    won: int = 0
    problems: int = 0

    @property
    def clear(self) -> bool:
        """Whether all of the interval is below 0."""
        return self.mean + self.half_width < 0

    def __str__(self) -> str:
        if not self.problems:
            return f"{self.mean:+.3f}"
        return f"{self.mean:+.3f} ± {self.half_width:.3f}, {self.won} of {self.problems}"


def difference(one: Summary, other: Summary) -> Difference:
    """Of two methods on the problems that both have."""
    own, its = ([float(word) for word in summary.distances.split()] for summary in (one, other))
    # Who has more has the same ones first.
    pairs = [a - b for a, b in zip(own, its, strict=False)]
    if len(pairs) < 2 or not all(map(math.isfinite, pairs)):
        return Difference(one.distance - other.distance)
    won = sum(pair < 0 for pair in pairs)
    return Difference(statistics.mean(pairs), half_width(statistics.stdev(pairs), len(pairs)), won, len(pairs))


def standings(
    results: Results, presets: Collection[str], baselines: Collection[str], particles: str, rival: str
) -> str:
    """Every cell's nearest baseline beside our presets, and our particles beside the exact distance and a rival's."""
    ahead, clearly, fairly = (dict.fromkeys(presets, 0) for _ in range(3))
    near, within, rows = 0, 0, []
    for cell in dict.fromkeys(cell for _, cell in results):
        own = {method: summary for (method, place), summary in results.items() if place == cell}
        rivals = [own[name] for name in baselines if name in own]
        if not rivals or not {EXACT, *presets, particles, rival} <= own.keys():
            continue
        nearest = min(rivals, key=lambda s: s.distance)
        less = {}
        for name in presets:
            # Rows may have more problems than others: only those that both have compare.
            against = {s.method: difference(own[name], s) for s in rivals}
            less[name] = against[nearest.method]
            ahead[name] += all(one.mean < 0 for one in against.values())
            clearly[name] += less[name].clear
            fairly[name] += all(against[s.method].mean < 0 for s in rivals if s.passes <= own[name].passes)
        exact, ours, theirs = own[EXACT].distance, own[particles].distance, own[rival].distance
        near, within = near + (ours < theirs), within + (ours <= 1.5 * exact)
        baseline = (f"{nearest.method}, {nearest.passes:.0f}", f"{nearest.distance:.3f}")
        ratios = (f"{ours / exact:.2f}", f"{theirs / exact:.2f}")
        rows.append((cell.name, *baseline, *map(str, less.values()), *ratios))
    if not rows:
        return ""
    header = ["cell", "nearest baseline, passes", "distance", *(f"{name} less that" for name in presets)]
    header += [f"{particles} / {EXACT}", f"{rival} / {EXACT}"]
    counts = [
        f"`{name}` is nearer than every baseline without particles in {ahead[name]}, by more than the interval of the "
        f"difference in {clearly[name]}; and than every one that takes no more passes in {fairly[name]}."
        for name in presets
    ]
    counts.append(
        f"`{particles}` are nearer than `{rival}` in {near}, and within 1.5 times the distance of exact sets in {within}."
    )
    return (
        f"## Who is nearest\n\nOf {len(rows)} cells:\n\n"
        + "".join(f"- {count}\n" for count in counts)
        + "\nBehind a difference: its 95 % interval, and on how many problems the preset is the nearer one, where rows keep "
        f"their problems' distances.\n\n{markdown(header, rows)}\n"
    )


def table(results: Results, variant: str) -> str:
    """Methods by cells of one variant."""
    cells = [cell for cell in dict.fromkeys(cell for _, cell in results) if cell.variant == variant]
    names = (f"d {cell.dimension}, d_y {cell.measurements}" for cell in cells)
    dimensions = list(dict.fromkeys(cell.dimension for cell in cells))
    header = ("method", *names, f"problems in d {', '.join(map(str, dimensions))}", "forward", "backward")
    rows = []
    for method in dict.fromkeys(method for method, _ in results):
        own = [results[method, cell] for cell in cells if (method, cell) in results]
        price = [f"{statistics.mean(getattr(s, kind) for s in own):.0f}" for kind in ("forward", "backward")]
        shown = (results[method, cell].interval if (method, cell) in results else "" for cell in cells)
        counts = {summary.dimension: str(summary.problems) for summary in own}
        rows.append((method, *shown, ", ".join(counts.get(dimension, "-") for dimension in dimensions), *price))
    return markdown(header, rows)


def panel(results: Results, variant: str) -> plots.Panel:
    """Methods by passes and by their distance, the geometric mean over the cells of one variant."""
    methods = list(dict.fromkeys(method for method, _ in results))
    cells = [cell for cell in dict.fromkeys(cell for _, cell in results) if cell.variant == variant]
    cells = [cell for cell in cells if all((method, cell) in results for method in methods)]
    points, best = [], None
    for method in methods:
        own = [results[method, cell] for cell in cells]
        distance = statistics.geometric_mean(s.distance for s in own) if own else math.inf
        if method == EXACT:
            best = distance
        elif math.isfinite(distance):
            points.append(plots.Point(method, statistics.mean(s.passes for s in own), distance))
    return plots.Panel(f"{variant}: sliced Wasserstein distance", points, best, logarithmic=True)
