"""A smoke run of the toy benchmark, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import toy
from benchmarks.harness import parts
from benchmarks.portraits.prior import held_out
from toy_prior import CHECKPOINT, pictures


def test_quick_run_writes_tables_and_pictures(
    comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alexnet: Path
) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    monkeypatch.setattr(parts, "CACHE", tmp_path / "parts")

    def run(*arguments: str) -> list[dict[str, str]]:
        choice = ["--holes", "right", "--methods", "fast", "ding", "--quick", "--out", str(tmp_path)]
        assert toy.BENCHMARK.main("", [*choice, *arguments]) == 0
        with open(tmp_path / "toy.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    ours, baseline = run()
    assert (ours["method"], ours["hole"], ours["pictures"], ours["fills"]) == ("fast", "right", "1", "2")
    assert (float(ours["forward"]), float(ours["backward"])) == (28, 0)
    assert (baseline["method"], float(baseline["forward"])) == ("ding", 55)
    assert ours["lpips"] == "" and float(ours["memory"]) > 0
    text = (tmp_path / "toy.md").read_text("utf-8")
    assert "| fast " in text and "| ding " in text
    assert (tmp_path / "toy.png").is_file() and (tmp_path / "toy.svg").is_file()
    # One more column of what is finished, from the fills that are kept.
    monkeypatch.setattr(toy, "measured", None)
    assert all(0 < float(row["lpips"]) < float("inf") for row in run("--lpips", str(alexnet)))
    # Finished rows stand: nothing is scored again.
    monkeypatch.setattr(toy, "score", None)
    run()


@pytest.mark.parametrize("name", pictures.MASKS)
def test_the_truth_is_judged_right(name: str) -> None:
    truth, hole = held_out(3), pictures.hole(name)
    shown = pictures.render(truth)
    score = toy.judge(shown + 1e-4, truth, shown, hole, fills=1)
    assert score["valid"] == score["consistent"] == score["both"] == 1
    assert score["psnr"] > 75 and abs(score["seam"]) < 0.1
    wrong = toy.judge(shown.roll(1, 0), truth, shown, hole, fills=1)
    assert wrong["consistent"] < 1 and wrong["psnr"] < 30


def test_fills_that_are_all_alike_have_one_mode() -> None:
    truth, hole = held_out(2), pictures.hole("right")
    shown = pictures.render(truth)
    same = toy.judge(shown.repeat_interleave(4, 0) + 1e-4, truth, shown, hole, fills=4)
    # One of three accessories in all fills.
    assert same["tv"] == pytest.approx(2 / 3, abs=1e-6)
    assert same["modes"] < 0.6
    assert same["floor"] < same["tv"]


def test_keys_tell_runs_apart() -> None:
    places = [("fast", "right", 0, 5, 16), ("ding", "right", 0, 5, 16), ("fast", "top", 0, 5, 16)]
    places += [("fast", "right", 5, 10, 16), ("fast", "right", 0, 4, 16), ("fast", "right", 0, 5, 8)]
    assert len({toy.key(*place) for place in places}) == len(places)
