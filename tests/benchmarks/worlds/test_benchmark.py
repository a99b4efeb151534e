"""A smoke run of the benchmark of worlds, as the command runs it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.harness import parts
from benchmarks.harness.results import RESULTS, read_rows
from benchmarks.worlds import benchmark
from benchmarks.worlds.registry import WORLDS
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
    assert (ours["method"], float(ours["forward"]), float(ours["backward"])) == ("fast", 28, 0)
    assert float(sampler["forward"]) == 30
    assert all(float(row["energy"]) > -0.2 and row["prompt"] == "empty" for row in (exact, ours, sampler))
    assert "| fast " in (tmp_path / "worlds.md").read_text("utf-8")
    assert (tmp_path / "worlds-portraits.jpg").is_file()
    # Finished rows stand: nothing is scored again.
    monkeypatch.setattr(benchmark, "score", None)
    run()


@pytest.mark.parametrize("name", [name for name in WORLDS if name != "portraits"])
def test_other_worlds_paint_and_judge(
    name: str, comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = WORLDS[name]
    if not all(file.is_file() for file in world.files):
        pytest.skip(f"no {', '.join(file.name for file in world.files)}: train it with `{world.maker}`")
    monkeypatch.setattr(parts, "CACHE", tmp_path / "parts")
    options = ["--quick", "--out", str(tmp_path), "--worlds", name, "--prompts", "empty", "--methods", "fast"]
    assert benchmark.BENCHMARK.main("", options) == 0
    (row,) = read_rows(tmp_path / "worlds.csv", benchmark.Row)
    assert (row.world, row.forward, row.fills) == (name, 28, 2)
    # Fills continue what is visible: they are nearer than a colour for all of the hole.
    assert 0 < row.energy < 0.15
    assert (tmp_path / f"worlds-{name}.jpg").is_file()


def row(world: str, method: str, hole: str, both: float, energy: float, crps: float | None = None) -> benchmark.Row:
    (first, *_) = read_rows(RESULTS / "worlds.csv", benchmark.Row)
    return replace(
        first, world=world, method=method, hole=hole, both=both, energy=energy / 255, crps=crps, tv=0.3, floor=0.2
    )


def test_the_summary_compares_on_the_same_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {"scenes": 0.8, "portraits-unet": 0.1}
    monkeypatch.setattr(benchmark, "own_samples", shares.get)
    rows = [
        row("portraits-unet", "balanced", "right", 0.5, 9.0),
        row("scenes", benchmark.EXACT, "right", 1.0, 4.0),
        row("scenes", benchmark.EXACT, "bottom", 1.0, 6.0, crps=5.0),
        row("scenes", "balanced", "right", 0.9, 5.0),
        row("scenes", "balanced", "bottom", 0.5, 8.0, crps=7.0),
        row("scenes", "fast", "right", 0.2, 7.0),
    ]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in benchmark.summary(rows).splitlines()]
    samples, balanced, fast = (line for line in lines if line and line[0] == "scenes")
    assert samples[4] == "80 %"
    assert balanced[3:10] == ["2 of 2", "70 %", "70 %", "50 %", "+0.10", "+2.0", "+1.5"]
    assert fast[3:10] == ["1 of 2", "20 %", "90 %", "20 %", "+0.10", "-", "+3.0"]
    assert "portraits-unet: in worlds.md alone" in benchmark.summary(rows)
    assert "10 % are valid. Rows compare methods on a prior that is far from trained" in benchmark.note(rows[:1])
