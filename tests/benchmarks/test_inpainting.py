"""A smoke run of the toy benchmark, as the command runs it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.toy_prior import CHECKPOINT
from tools.comfy_server import ROOT


def test_quick_run_writes_tables_and_pictures(comfyui: Path, tmp_path: Path) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m benchmarks.toy_prior.train`")
    choice = ["--holes", "right", "--methods", "fast", "ding", "--quick", "--fresh", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.inpainting", *choice]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    with open(tmp_path / "inpainting.csv", encoding="utf-8", newline="") as file:
        ours, baseline = csv.DictReader(file)
    assert (ours["method"], ours["hole"], ours["pictures"], ours["fills"]) == ("fast", "right", "1", "2")
    assert (float(ours["forward"]), float(ours["backward"])) == (16, 0)
    assert (baseline["method"], float(baseline["forward"])) == ("ding", 55)
    text = (tmp_path / "inpainting.md").read_text("utf-8")
    assert "| fast " in text and "| ding " in text
    assert (tmp_path / "inpainting.png").is_file()
