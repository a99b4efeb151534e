"""A smoke run of the ablation, as the command runs it."""

from __future__ import annotations

import csv
import sys

from benchmarks import ablation


def test_quick_run_compares_the_default_with_one_change(comfyui, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ablation, "QUICK", tmp_path)
    monkeypatch.setattr(sys, "argv", ["ablation", "--quick"])
    ablation.main()
    with open(tmp_path / "ablation.csv", encoding="utf-8", newline="") as file:
        exact, default, changed = csv.DictReader(file)
    assert (exact["change"], default["change"], changed["change"]) == ("exact sampler", "balanced", "closed form only")
    assert float(exact["mask"]) < float(default["mask"])
    assert (float(default["forward"]), float(default["backward"])) == (16, 42)
    assert (float(changed["forward"]), float(changed["backward"])) == (16, 0)
    assert "| refiner | closed form only |" in (tmp_path / "ablation.md").read_text("utf-8")
