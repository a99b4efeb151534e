"""A smoke run of the benchmark of variations, as the command runs it, and its exact answers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from benchmarks import variations
from benchmarks.harness import parts
from toy_prior import CHECKPOINT, pictures


@pytest.fixture(autouse=True)
def _checkpoint(comfyui: Path) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")


def test_quick_run_keeps_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CACHE", tmp_path / "cache")
    choice = ["--quick", "--variations", "0.3", "1.0", "--out", str(tmp_path)]
    assert variations.BENCHMARK.main("", choice) == 0
    with open(tmp_path / "variations.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["way"], row["variation"]) for row in rows] == [
        (way, v) for way in variations.WAYS for v in ("0.3", "1.0")
    ]
    near, far, kept_near, kept_far = rows
    assert float(near["same"]) == 1 and not near["part"]
    assert float(kept_near["part"]) == float(kept_far["part"]) == 1
    # Two levels of the chain are above where 0.3 starts.
    assert float(near["forward"]) < float(far["forward"]) == 28
    assert float(near["exact"]) > 0.95
    assert "| keep a part of one |" in (tmp_path / "variations.md").read_text("utf-8")


def test_exact_shares_by_definition() -> None:
    """Of an eye under a hole all twelve are possible once everything is drawn anew; little noise tells which it is."""
    fills, hole = variations.held_out(3), pictures.hole("centre")
    eyes = ["eye_shape", "eye_colour"]
    given = variations.alternatives(fills, ~hole, eyes)
    assert variations.exact_share(fills, given, 1.0, eyes) == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert variations.exact_share(fills, given, 0.05, eyes) == pytest.approx(1)
    assert 0.3 < variations.exact_share(fills, given, 0.8, eyes) < 1
    # A hair's colour that is visible beside the hole leaves its style open.
    given = variations.alternatives(fills, ~pictures.hole("border"), ["hair_style"])
    assert variations.exact_share(fills, given, 1.0, ["hair_style"]) == pytest.approx(1 / 3)


def test_what_is_kept_shows_what_is_said() -> None:
    for hole, (name, _) in variations.KEPT.items():
        region, box = pictures.hole(hole), variations.box_of(hole)
        still = pictures.hidden_attributes(region & ~box)
        shown = [one for one in pictures.hidden_attributes(region) if one not in still]
        assert still and shown and all(one.startswith(name.removesuffix("s")) for one in shown)


def test_keys_tell_runs_apart() -> None:
    places = [(hole, way, "fast", 0.3, 4, 8) for hole in variations.KEPT for way in variations.WAYS]
    places += [("centre", "start", "fast", 0.3, 4, 8), (*places[0][:2], "balanced", 0.3, 4, 8)]
    places += [(*places[0][:3], 0.6, 4, 8), (*places[0][:4], 2, 8)]
    assert len({variations.key(*place) for place in places}) == len(places)
    assert torch.equal(variations.box_of("centre"), variations.box_of("centre") & pictures.hole("centre"))
