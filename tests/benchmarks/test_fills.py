"""A smoke run of the benchmark of further fills, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from benchmarks import fills
from benchmarks.harness import parts
from toy_prior import CHECKPOINT


def test_quick_run_writes_tables(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    monkeypatch.setattr(parts, "CACHE", tmp_path / "parts")
    choice = ["--methods", "balanced", "--quick", "--out", str(tmp_path)]
    assert fills.BENCHMARK.main("", choice) == 0
    with open(tmp_path / "fills.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["world"], row["method"], row["hole"]) == ("portraits", "balanced", "centre")
    # Alone 16 forward and 26 backward passes; later ones are not differentiated.
    assert (float(row["each"]), float(row["chain"]), float(row["last"])) == (68, 28, 23)
    # Of one picture there is no standard error.
    assert row["both_error"] == ""
    assert "| balanced " in (tmp_path / "fills.md").read_text("utf-8")


def row(hole: str, both: float, error: float | None) -> fills.Score:
    alone = {"alone_both": 0.5, "alone_tv": None, "alone_energy": 0.1}
    leads = {"both_lead": both - 0.5, "both_error": error, "energy_lead": -0.01, "energy_error": error}
    spent = {"each": 100.0, "chain": 30.0, "last": 20.0, "commit": "", "key": ""}
    return fills.Score("portraits", "balanced", hole, 1, 2, **alone, **leads, **spent, both=both, tv=None, energy=0.09)


def test_the_price_of_a_run() -> None:
    one = row("centre", 1.0, None)
    assert [one.of_run(count) for count in (1, 2, 4, 8)] == [100, 65, 45, 32.5]


def test_the_lead_is_that_of_pictures() -> None:
    alone, further = torch.tensor([0.2, 0.4, 0.9]), torch.tensor([0.3, 0.5, 1.0])
    mean, error = fills.lead(further, alone)
    assert mean == pytest.approx(0.1)
    assert error == pytest.approx(0, abs=1e-6)
    assert fills.lead(further[:1], alone[:1])[1] is None


def test_the_summary_has_means_over_holes() -> None:
    table = fills.summary([row("centre", 0.7, 0.03), row("right", 0.9, 0.04)])
    # Errors of means of two holes: half of sqrt(.03^2 + .04^2).
    assert "50.0 %" in table and "80.0 %" in table and "+30.0 +- 2.5" in table


def test_keys_tell_runs_apart() -> None:
    places = [("portraits", "balanced", "top", 5, 16), ("scenes", "balanced", "top", 5, 16)]
    places += [("portraits", "thorough", "top", 5, 16), ("portraits", "balanced", "cut", 5, 16)]
    places += [("portraits", "balanced", "top", 4, 16), ("portraits", "balanced", "top", 5, 8)]
    assert len({fills.key(*place) for place in places}) == len(places)
