"""A smoke run of the toy benchmark, as the command runs it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from benchmarks.perceptual import load_lpips
from benchmarks.toy_prior import CHECKPOINT
from tools.comfy_server import ROOT


def test_quick_run_writes_tables_and_pictures(comfyui: Path, tmp_path: Path) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m benchmarks.toy_prior.train`")
    # The real network with weights of no meaning: the published ones are the user's to bring.
    alexnet = tmp_path / "alexnet.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.AlexNet().features.state_dict(prefix="features."), alexnet)
    choice = ["--holes", "right", "--methods", "fast", "ding", "--quick", "--fresh", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.inpainting", *choice, "--lpips", str(alexnet)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    with open(tmp_path / "inpainting.csv", encoding="utf-8", newline="") as file:
        ours, baseline = csv.DictReader(file)
    assert (ours["method"], ours["hole"], ours["pictures"], ours["fills"]) == ("fast", "right", "1", "2")
    assert (float(ours["forward"]), float(ours["backward"])) == (16, 0)
    assert (baseline["method"], float(baseline["forward"])) == ("ding", 55)
    assert 0 < float(ours["lpips"]) < float("inf") and float(ours["memory"]) > 0
    text = (tmp_path / "inpainting.md").read_text("utf-8")
    assert "| fast " in text and "| ding " in text
    assert (tmp_path / "inpainting.png").is_file()


def test_lpips_weights_without_alexnet_are_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"AlexNet in .*other\.pth, found no features\.0\.bias"):
        load_lpips(tmp_path / "other.pth")


def test_lpips_is_zero_for_equal_pictures_only(tmp_path: Path) -> None:
    torch.save(torchvision.models.AlexNet().features.state_dict(prefix="features."), tmp_path / "alexnet.pth")
    distance = load_lpips(tmp_path / "alexnet.pth")
    pictures = torch.rand(40, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert distance(pictures, pictures).abs().max() == 0
    assert distance(pictures, pictures.flip(0)).min() > 0
