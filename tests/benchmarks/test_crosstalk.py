"""A smoke run of the benchmark of crosstalk, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import crosstalk
from toy_prior import CHECKPOINT


def test_quick_run_measures_cells_near_and_far_from_the_hole(comfyui: Path, tmp_path: Path) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    choice = ["--quick", "--holes", "centre", "disc", "--out", str(tmp_path)]
    assert crosstalk.BENCHMARK.main("", choice) == 0
    with open(tmp_path / "crosstalk.csv", encoding="utf-8", newline="") as file:
        rows = {(row["hole"], row["place"]): row for row in csv.DictReader(file)}
    # The hole `centre` ends where cells do: none is cut.
    assert [place for hole, place in rows if hole == "centre"] == ["1", "2", "3", "4 and more"]
    owed = [float(rows["disc", place]["moved"]) for place in ("cut", "1", "2", "3")]
    assert owed == sorted(owed, reverse=True)
    assert float(rows["centre", "1"]["left"]) < float(rows["centre", "1"]["moved"])
    assert float(rows["disc", "cut"]["calibration"]) > 0
