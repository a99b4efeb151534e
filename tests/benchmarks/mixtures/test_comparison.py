"""Who is nearest: paired differences, and counts over cells."""

from __future__ import annotations

import math
from dataclasses import replace

from benchmarks.mixtures.comparison import CellScore, difference, standings


def score(method: str, distances: list[float], kept: bool = True) -> CellScore:
    words = " ".join(map(str, distances)) if kept else ""
    mean = sum(distances) / len(distances)
    return CellScore(method, "mask", 8, 1, len(distances), 50, mean, None, 3.0, 4.0, 0.1, "abc", words)


def test_differences_are_paired_where_problems_are_known() -> None:
    ours, theirs = score("balanced", [1.0, 2.0, 6.0]), score("dps", [2.0, 3.0, 3.0])
    # -1, -1 and 3: standard deviation 4 / sqrt(3); half width 4.303 (Student's t, two degrees of freedom) * 4 / 3.
    assert str(difference(ours, theirs)) == "+0.333 ± 5.737, 2 of 3"
    assert str(difference(ours, score("dps", [2.0, 3.0, 3.0], kept=False))) == "+0.333"
    assert str(difference(ours, score("dps", [2.0, 3.5]))) == "-1.250 ± 3.177, 2 of 2"
    assert str(difference(ours, score("dps", [2.0, 3.0, math.inf]))) == "-inf"
    assert not difference(ours, theirs).is_clear and difference(ours, score("dps", [2.0, 3.1, 7.0])).is_clear


def test_standings_name_the_nearest_baseline_and_count_cells() -> None:
    found = {"exact": [1.0], "balanced": [2.0], "blended": [2.5], "dps": [1.8], "tds": [1.4], "particles": [1.2]}
    scores = {name: score(name, distances) for name, distances in found.items()}
    scores["dps"] = replace(scores["dps"], forward=100.0)
    text = standings(scores.values(), ["balanced"], {"blended", "dps"}, "particles", "tds")
    assert "Of 1 cells" in text
    for words in (
        "`balanced` is nearer than every baseline without particles in 0, by more than the interval of the difference in 0;",
        " and than every one that takes no more passes in 1.",
        "`particles` are nearer than `tds` in 1, and within 1.5 times the distance of exact sets in 1.",
    ):
        assert words in text
    row = [word.strip() for word in text.rstrip().splitlines()[-1].strip("|").split("|")]
    assert row == ["mask-8-1", "dps, 104", "1.800", "+0.200", "1.20", "1.40"]
    del scores["tds"]
    assert standings(scores.values(), ["balanced"], {"blended", "dps"}, "particles", "tds") == ""


def test_who_has_fewer_problems_is_compared_on_those() -> None:
    """Ahead of the nearest baseline, and behind another on the problems that it has."""
    found = {"exact": [1.0], "balanced": [3.0, 3.0, 0.0, 0.0], "dps": [2.0] * 4, "tds": [1.0], "particles": [1.0]}
    scores = [score(name, distances) for name, distances in found.items()]
    for rival, count in ([], 1), ([2.5, 2.5], 0):
        if rival:
            scores.append(score("blended", rival))
        text = standings(scores, ["balanced"], {"blended", "dps"}, "particles", "tds")
        assert f"`balanced` is nearer than every baseline without particles in {count}," in text
        assert f"takes no more passes in {count}." in text
