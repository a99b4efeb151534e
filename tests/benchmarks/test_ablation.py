"""A smoke run of the ablation, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import ablation
from benchmarks.harness import parts
from benchmarks.harness.host import PACK
from vipaint_core import PRESETS


def test_quick_run_compares_the_default_with_one_change(
    comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "CACHE", tmp_path / "cache")
    assert ablation.BENCHMARK.main("", ["--quick", "--out", str(tmp_path)]) == 0
    with open(tmp_path / "ablation.csv", encoding="utf-8", newline="") as file:
        exact, default, changed = csv.DictReader(file)
    assert (exact["change"], default["change"], changed["change"]) == ("exact sampler", "balanced", "closed form only")
    assert float(exact["mask"]) < float(default["mask"])
    assert (float(default["forward"]), float(default["backward"])) == ((16 + 28) / 2, 26 / 2)
    assert (float(changed["forward"]), float(changed["backward"])) == (16, 0)
    assert "| refiner | closed form only |" in (tmp_path / "ablation.md").read_text("utf-8")
    # The node knows the changed presets for the time being only.
    assert list(PACK.core.PRESETS) == list(PRESETS)


def test_every_change_changes_the_default() -> None:
    presets = [preset for part, group in ablation.PARTS.items() if part for preset in group]
    for preset in presets:
        assert (preset.fit, preset.schedule, preset.sampler) != (
            ablation.DEFAULT.fit,
            ablation.DEFAULT.schedule,
            ablation.DEFAULT.sampler,
        ), preset.name
    assert len({preset.name for preset in presets}) == len(presets)
