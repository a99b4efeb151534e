"""A smoke run of the benchmark of sizes, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import sizes
from benchmarks.harness import parts
from toy_prior import CHECKPOINT


def test_quick_run_writes_tables(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    monkeypatch.setattr(parts, "CACHE", tmp_path / "parts")
    choice = ["--cells", "32", "--methods", "fast", "langevin", "--quick", "--out", str(tmp_path)]
    assert sizes.BENCHMARK.main("", choice) == 0
    with open(tmp_path / "sizes.csv", encoding="utf-8", newline="") as file:
        ours, baseline = csv.DictReader(file)
    assert (ours["family"], ours["cells"], ours["hole"], ours["method"]) == ("s <= 14.6", "32", "top", "fast")
    assert (float(ours["forward"]), float(ours["backward"])) == (30, 0)
    assert 0 <= float(ours["both"]) <= float(ours["valid"]) <= 1
    assert baseline["method"] == "langevin" and float(baseline["forward"]) > float(ours["forward"])
    assert "| fast " in (tmp_path / "sizes.md").read_text("utf-8")


def test_keys_tell_runs_apart() -> None:
    places = [("s <= 14.6", 32, "top", "fast", 4, 16), ("no largest level", 32, "top", "fast", 4, 16)]
    places += [("s <= 14.6", 64, "top", "fast", 4, 16), ("s <= 14.6", 32, "top", sizes.FIXED, 4, 16)]
    places += [("s <= 14.6", 32, "top", "balanced", 4, 16), ("s <= 14.6", 32, "top", "fast", 2, 16)]
    assert len({sizes.key(*place) for place in places}) == len(places)
