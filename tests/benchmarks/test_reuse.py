"""A smoke run of the benchmark of gains of other pictures, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from benchmarks import reuse
from benchmarks.harness import parts
from toy_prior import CHECKPOINT


def test_quick_run_writes_tables(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    monkeypatch.setattr(parts, "CACHE", tmp_path / "parts")
    choice = ["--methods", "one other's", "--fills", "1", "--quick", "--out", str(tmp_path)]
    assert reuse.BENCHMARK.main("", choice) == 0
    with open(tmp_path / "reuse.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["method"], row["scene"]) == ("one other's", "border")
    # The first fill is a further one.
    assert (float(row["first"]), float(row["further"])) == (23, 23)
    assert "| one other's " in (tmp_path / "reuse.md").read_text("utf-8")


def test_the_hole_of_the_film_moves_by_a_cell() -> None:
    film = reuse.scene(reuse.FILM, 3)
    columns = film.holes.any(1)
    assert [int(row.nonzero().min()) for row in columns] == [16, 24, 32]
    assert torch.equal(film.holes.sum((1, 2)), film.holes[0].sum().expand(3))
    assert len(set(film.truth.hue.tolist())) == 3 and len(set(film.truth.groups["hair"].tolist())) == 1


def test_the_nearest_pictures_come_first() -> None:
    assert [reuse.nearest(index, 4, 2) for index in range(4)] == [[1, 2], [0, 2], [1, 3], [2, 1]]


def test_keys_tell_runs_apart() -> None:
    places = [("one other's", "right", 4, 8), ("three others'", "right", 4, 8), ("one other's", "film", 4, 8)]
    places += [("one other's", "right", 5, 8), ("one other's", "right", 4, 9)]
    assert len({reuse.key(*place) for place in places}) == len(places)
