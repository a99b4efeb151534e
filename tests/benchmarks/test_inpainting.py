"""A smoke run of the toy benchmark, as the command runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.toy_prior import CHECKPOINT
from tools.comfy_server import ROOT


def test_quick_run_writes_tables_and_pictures(comfyui: Path, tmp_path: Path) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m benchmarks.toy_prior.train`")
    choice = ["--holes", "right", "--methods", "fast", "--quick", "--fresh", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.inpainting", *choice]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    (score,) = json.loads((tmp_path / "inpainting.json").read_text("utf-8"))
    assert (score["method"], score["hole"], score["pictures"], score["fills"]) == ("fast", "right", 1, 2)
    assert score["forward"] == 16 and score["backward"] == 0
    assert "| fast " in (tmp_path / "inpainting.md").read_text("utf-8")
    assert (tmp_path / "inpainting.png").is_file()
