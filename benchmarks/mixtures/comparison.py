"""Who is nearest on the mixtures: paired differences between methods, and their counts over all cells."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection
from dataclasses import dataclass

from scipy import stats

from benchmarks.harness.tables import markdown
from benchmarks.mixtures.methods import EXACT
from benchmarks.mixtures.problems import Cell


@dataclass(frozen=True)
class CellScore:
    """One method over the problems of one cell.

    distance, forward, backward, seconds: means of `methods.Result`.
    deviation: standard deviation of the distances, None for a single problem.
    distances: those of all problems in their order, with blanks between; empty in rows of old.
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
    def cell(self) -> Cell:
        return Cell(self.variant, self.dimension, self.measurements)

    @property
    def passes(self) -> float:
        return self.forward + self.backward

    @property
    def interval(self) -> str:
        """Mean and half width of its 95 % interval."""
        if self.deviation is None:
            return f"{self.distance:.2f}"
        return f"{self.distance:.2f} ± {half_width(self.deviation, self.problems):.2f}"


def half_width(deviation: float, count: int) -> float:
    """Half the width of the 95 % interval of a mean, by Student's t."""
    return float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)


@dataclass(frozen=True)
class Difference:
    """Of one method's distances and another's, on the problems that both have.

    mean: of the one minus the other.
    half_width: of its 95 % interval, NaN where the distances of single problems are not known or not finite.
    won: problems on which the one is nearer.
    problems: those compared, 0 where they are not known.
    """

    mean: float
    half_width: float = math.nan
    won: int = 0
    problems: int = 0

    @property
    def is_clear(self) -> bool:
        """Whether all of the interval is below 0."""
        return self.mean + self.half_width < 0

    def __str__(self) -> str:
        if not self.problems:
            return f"{self.mean:+.3f}"
        return f"{self.mean:+.3f} ± {self.half_width:.3f}, {self.won} of {self.problems}"


def difference(one: CellScore, other: CellScore) -> Difference:
    own, others = ([float(word) for word in score.distances.split()] for score in (one, other))
    # Who has more problems has the same ones first.
    pairs = [a - b for a, b in zip(own, others, strict=False)]
    if len(pairs) < 2 or not all(map(math.isfinite, pairs)):
        return Difference(one.distance - other.distance)
    won = sum(pair < 0 for pair in pairs)
    return Difference(statistics.mean(pairs), half_width(statistics.stdev(pairs), len(pairs)), won, len(pairs))


def standings(
    scores: Collection[CellScore], presets: Collection[str], baselines: Collection[str], particles: str, rival: str
) -> str:
    """Per cell the baseline nearest to the truth beside our presets, and our particles beside those of a rival.

    presets, baselines: names of the methods that are compared.
    particles, rival: names of our particles and of the other method with particles.
    """
    ahead, clearly, at_price = (dict.fromkeys(presets, 0) for _ in range(3))
    near, within, rows = 0, 0, []
    for cell in dict.fromkeys(score.cell for score in scores):
        own = {score.method: score for score in scores if score.cell == cell}
        rivals = [own[name] for name in baselines if name in own]
        if not rivals or not {EXACT, *presets, particles, rival} <= own.keys():
            continue
        nearest = min(rivals, key=lambda score: score.distance)
        to_nearest = []
        for name in presets:
            # Rows may have more problems than others: only those that both have compare.
            against = {score.method: difference(own[name], score) for score in rivals}
            to_nearest.append(against[nearest.method])
            ahead[name] += all(one.mean < 0 for one in against.values())
            clearly[name] += to_nearest[-1].is_clear
            at_price[name] += all(against[s.method].mean < 0 for s in rivals if s.passes <= own[name].passes)
        exact, ours, theirs = own[EXACT].distance, own[particles].distance, own[rival].distance
        near, within = near + (ours < theirs), within + (ours <= 1.5 * exact)
        baseline = (f"{nearest.method}, {nearest.passes:.0f}", f"{nearest.distance:.3f}")
        ratios = (f"{ours / exact:.2f}", f"{theirs / exact:.2f}")
        rows.append((cell.name, *baseline, *map(str, to_nearest), *ratios))
    if not rows:
        return ""
    header = ["cell", "nearest baseline, passes", "distance", *(f"{name} minus that" for name in presets)]
    header += [f"{particles} / {EXACT}", f"{rival} / {EXACT}"]
    counts = [
        f"`{name}` is nearer than every baseline without particles in {ahead[name]}, by more than the interval of the "
        f"difference in {clearly[name]}; and than every one that takes no more passes in {at_price[name]}."
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
