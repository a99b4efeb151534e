"""A smoke run of the benchmark of worlds, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.harness import parts
from benchmarks.worlds import benchmark
from toy_prior import CHECKPOINT


def test_quick_run_writes_tables_and_pictures(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    monkeypatch.setattr(parts, "CACHE", tmp_path / "parts")

    def run() -> list[dict[str, str]]:
        assert benchmark.BENCHMARK.main("", ["--quick", "--out", str(tmp_path)]) == 0
        with open(tmp_path / "worlds.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    exact, sampler, ours = run()
    assert (exact["method"], exact["both"], exact["forward"]) == (benchmark.EXACT, "1.0", "0.0")
    assert (ours["method"], float(ours["forward"]), float(ours["backward"])) == ("fast", 16, 0)
    assert float(sampler["forward"]) == 30
    assert all(float(row["energy"]) > -0.2 and row["prompt"] == "empty" for row in (exact, ours, sampler))
    assert "| fast " in (tmp_path / "worlds.md").read_text("utf-8")
    assert (tmp_path / "worlds-portraits.png").is_file()
    # Finished rows stand: nothing is scored again.
    monkeypatch.setattr(benchmark, "score", None)
    run()
