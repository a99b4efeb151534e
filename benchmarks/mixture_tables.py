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


def difference(one: Summary, other: Summary) -> str:
    """Mean of one's distance less the other's; where the problems' own are known, its 95 % interval and who won."""
    mean = f"{one.distance - other.distance:+.3f}"
    own, its = ([float(word) for word in summary.distances.split()] for summary in (one, other))
    if len(own) < 2 or len(own) != len(its):
        return mean
    pairs = [a - b for a, b in zip(own, its, strict=True)]
    won = sum(pair < 0 for pair in pairs)
    return f"{mean} ± {half_width(statistics.stdev(pairs), len(pairs)):.3f}, {won} of {len(pairs)}"


def standings(
    results: Results, presets: Collection[str], baselines: Collection[str], particles: str, rival: str
) -> str:
    """Every cell's nearest baseline beside our presets, and our particles beside the exact distance and a rival's."""
    ahead, fairly = dict.fromkeys(presets, 0), dict.fromkeys(presets, 0)
    near, within, rows = 0, 0, []
    for cell in dict.fromkeys(cell for _, cell in results):
        own = {method: summary for (method, place), summary in results.items() if place == cell}
        rivals = [own[name] for name in baselines if name in own]
        if not rivals or not {EXACT, *presets, particles, rival} <= own.keys():
            continue
        nearest = min(rivals, key=lambda s: s.distance)
        for name in presets:
            nearer = [own[name].distance < s.distance for s in rivals]
            ahead[name] += all(nearer)
            fairly[name] += all(won for won, s in zip(nearer, rivals, strict=True) if s.passes <= own[name].passes)
        less = (difference(own[name], nearest) for name in presets)
        exact, ours, theirs = own[EXACT].distance, own[particles].distance, own[rival].distance
        near, within = near + (ours < theirs), within + (ours <= 1.5 * exact)
        price = f"{nearest.method}, {nearest.passes:.0f}"
        rows.append(
            (cell.name, price, f"{nearest.distance:.3f}", *less, f"{ours / exact:.2f}", f"{theirs / exact:.2f}")
        )
    if not rows:
        return ""
    header = ["cell", "nearest baseline, passes", "distance", *(f"{name} less that" for name in presets)]
    header += [f"{particles} / {EXACT}", f"{rival} / {EXACT}"]
    counts = [
        f"`{name}` is nearer than every baseline without particles in {ahead[name]}, and than every one that takes no "
        f"more passes in {fairly[name]}."
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
