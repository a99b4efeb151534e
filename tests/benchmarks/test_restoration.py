"""A smoke run of the restoration benchmark, as the command runs it."""

from __future__ import annotations

import csv
import sys

import pytest

from benchmarks import parts, restoration
from benchmarks.inpainting import held_out
from toy_prior import pictures


def test_quick_run_writes_table_and_pictures(comfyui, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "CACHE", tmp_path / "parts")
    short = {"steps": 4, "attempts": 1}
    monkeypatch.setattr(restoration, "knobs", lambda: short)
    monkeypatch.setattr(sys, "argv", ["restoration", "--quick", "--out", str(tmp_path)])
    restoration.main()
    with open(tmp_path / "restoration.csv", encoding="utf-8", newline="") as file:
        rows = {(row["problem"], row["method"]): row for row in csv.DictReader(file)}
    small, hole = "super-resolution, x8", "hole, disc"
    assert list(rows) == [(small, "given"), (small, "restore"), (hole, "latent"), (hole, "restore")]
    # One pass more tells how much memory the network needs.
    assert float(rows[small, "restore"]["forward"]) == 4 + 1 and float(rows[small, "restore"]["backward"]) > 4
    assert rows[small, "restore"]["seam"] == "" and rows[hole, "latent"]["seam"]
    assert "| restore " in (tmp_path / "restoration.md").read_text("utf-8")
    assert (tmp_path / "restoration.png").is_file()
    # Finished rows stand: nothing is painted again.
    monkeypatch.setattr(restoration, "run", None)
    restoration.main()


@pytest.mark.parametrize("name", restoration.PROBLEMS)
def test_the_truth_is_judged_right(name: str) -> None:
    truth = held_out(2)
    problem, shown = restoration.PROBLEMS[name], pictures.render(truth)
    score = restoration.judge(problem, shown, truth, fills=1)
    assert score["attributes"] == score["valid"] == 1
    assert score["psnr"] is None or score["psnr"] > 100
    assert score["seam"] == (None if problem.hole is None else 0)
    if problem.noise:
        assert score["explained"] == pytest.approx(33.98, abs=0.5)
    wrong = restoration.judge(problem, shown.roll(1, 0), truth, fills=1)
    assert wrong["attributes"] < 1 and wrong["explained"] < 25
