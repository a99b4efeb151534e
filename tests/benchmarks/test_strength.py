"""A smoke run of the benchmark of strengths, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from benchmarks import strength
from benchmarks.harness import parts
from toy_prior import CHECKPOINT, pictures


def test_quick_run_keeps_less_at_higher_strength(
    comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    monkeypatch.setattr(parts, "CACHE", tmp_path / "cache")
    choice = ["--quick", "--methods", "fast", "--strengths", "0.3", "1.0", "--out", str(tmp_path)]
    assert strength.BENCHMARK.main("", choice) == 0
    with open(tmp_path / "strength.csv", encoding="utf-8", newline="") as file:
        low, high = csv.DictReader(file)
    assert (low["strength"], high["strength"]) == ("0.3", "1.0")
    assert float(low["content"]) == 1 and float(low["consistent"]) > 0
    # Two levels of the chain are above where 0.3 starts.
    assert float(low["forward"]) < float(high["forward"]) == 28
    assert not (tmp_path / "strength.png").exists()
    assert "| fast " in (tmp_path / "strength.md").read_text("utf-8")


def test_the_hole_has_another_portrait_s_part() -> None:
    visible, content, shown = strength.portraits("right", 2)
    hole = pictures.hole("right")
    assert torch.equal(shown[..., hole], pictures.render(content)[..., hole])
    assert torch.equal(shown[..., ~hole], pictures.render(visible)[..., ~hole])
    assert strength.share_of_content(pictures.render(content) + 1e-4, content, hole, 1) == 1


def test_keys_tell_runs_apart() -> None:
    places = [("right", "fast", 0.3, 4, 8), ("right", "fast", 0.6, 4, 8), ("top", "fast", 0.3, 4, 8)]
    places += [("right", "balanced", 0.3, 4, 8), ("right", strength.KSAMPLER, 0.3, 4, 8), ("right", "fast", 0.3, 2, 8)]
    assert len({strength.key(*place) for place in places}) == len(places)
