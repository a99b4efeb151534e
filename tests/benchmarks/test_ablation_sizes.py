"""A smoke run of the ablation on larger latents, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import ablation_sizes
from toy_prior import CHECKPOINT


def test_quick_run_paints_larger_latents_with_the_changed_preset(comfyui: Path, tmp_path: Path) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    choice = ["--quick", "--changes", "closed form only", "diagonal, as PiGDM", "--out", str(tmp_path)]
    assert ablation_sizes.BENCHMARK.main("", choice) == 0
    with open(tmp_path / "ablation_sizes.csv", encoding="utf-8", newline="") as file:
        diagonal, closed = sorted(csv.DictReader(file), key=lambda row: row["change"], reverse=True)
    assert (closed["change"], closed["hole"], closed["cells"]) == ("closed form only", "top", "32")
    assert (float(closed["forward"]), float(closed["backward"])) == (16, 0)
    assert float(diagonal["backward"]) > 0 and float(diagonal["both"]) >= float(closed["both"])
