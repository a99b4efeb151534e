"""A smoke run of the benchmark of further fills, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import fills
from benchmarks.harness import parts
from toy_prior import CHECKPOINT


def test_quick_run_writes_tables(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    monkeypatch.setattr(parts, "CACHE", tmp_path / "parts")
    choice = ["--methods", "1 chain", "--fills", "1", "--quick", "--out", str(tmp_path)]
    assert fills.BENCHMARK.main("", choice) == 0
    with open(tmp_path / "fills.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["method"], row["hole"]) == ("1 chain", "centre")
    # A further fill is not differentiated; a chain has 16 forward and 42 backward passes.
    assert (float(row["forward"]), float(row["backward"]), float(row["chain"])) == (24, 0, 100)
    assert "| 1 chain " in (tmp_path / "fills.md").read_text("utf-8")


def test_the_price_of_a_run() -> None:
    row = fills.Score("", "", 1, 1, 1.0, 1.0, None, None, 3, 100.0, 20.0, 2.0, "", "")
    assert row.further == 24
    assert [row.of_run(count) for count in (1, 2, 4, 8)] == [100, 100, 81, 52.5]


def test_keys_tell_runs_apart() -> None:
    places = [("1 chain", "top", 5, 16), ("2 chains", "top", 5, 16), ("1 chain", "cut", 5, 16)]
    places += [("1 chain", "top", 4, 16), ("1 chain", "top", 5, 8), ("3 chains, no corrections", "top", 5, 16)]
    assert len({fills.key(*place) for place in places}) == len(places)
