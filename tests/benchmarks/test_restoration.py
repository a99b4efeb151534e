"""A smoke run of the restoration benchmark, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import restoration
from benchmarks.harness import parts
from benchmarks.portraits.prior import held_out
from toy_prior import pictures


def test_quick_run_writes_table_and_pictures(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CACHE", tmp_path / "parts")
    monkeypatch.setattr(restoration, "widget_defaults", lambda: {"steps": 4, "attempts": 1})
    assert restoration.BENCHMARK.main("", ["--quick", "--out", str(tmp_path)]) == 0
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
    monkeypatch.setattr(restoration, "score", None)
    assert restoration.BENCHMARK.main("", ["--quick", "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize("name", restoration.PROBLEMS)
def test_the_truth_is_judged_right(name: str) -> None:
    truth = held_out(2)
    problem, shown = restoration.PROBLEMS[name], pictures.render(truth)
    score = restoration.judge(problem, shown, truth, fills=1)
    assert score["attributes"] == score["valid"] == 1
    assert score["psnr"] is None or score["psnr"] > 100
    assert score["seam"] == (None if problem.hole is None else 0)
    if problem.noise:
        assert score["data_fidelity"] == pytest.approx(33.98, abs=0.5)
    wrong = restoration.judge(problem, shown.roll(1, 0), truth, fills=1)
    assert wrong["attributes"] < 1 and wrong["data_fidelity"] < 25


def test_dps_goes_through_network_and_decoder(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CACHE", tmp_path)
    monkeypatch.setattr(restoration, "DPS", type(restoration.DPS)(steps=4, scale=1.0))
    score = restoration.score("super-resolution, x8", "dps", count=1, fills=1)
    assert (score.forward, score.backward) == (4, 4)
    assert score.psnr is not None and score.psnr > 0
