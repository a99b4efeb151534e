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
from toy_prior import CHECKPOINT
from tools.comfy_server import ROOT


def alexnet(folder: Path) -> Path:
    """The real network with weights of no meaning: the published ones are the user's to bring."""
    pytest.importorskip("lpips")
    torch.manual_seed(0)
    torch.save(torchvision.models.AlexNet().features.state_dict(prefix="features."), folder / "alexnet.pth")
    return folder / "alexnet.pth"


def test_quick_run_writes_tables_and_pictures(comfyui: Path, tmp_path: Path) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    choice = ["--holes", "right", "--methods", "fast", "ding", "--quick", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.inpainting", *choice]
    subprocess.run([*command, "--fresh"], cwd=ROOT, check=True, timeout=300)
    with open(tmp_path / "inpainting.csv", encoding="utf-8", newline="") as file:
        ours, baseline = csv.DictReader(file)
    assert (ours["method"], ours["hole"], ours["pictures"], ours["fills"]) == ("fast", "right", "1", "2")
    assert (float(ours["forward"]), float(ours["backward"])) == (16, 0)
    assert (baseline["method"], float(baseline["forward"])) == ("ding", 55)
    assert ours["lpips"] == "" and float(ours["memory"]) > 0
    text = (tmp_path / "inpainting.md").read_text("utf-8")
    assert "| fast " in text and "| ding " in text
    assert (tmp_path / "inpainting.png").is_file()
    # One more column of what is finished, from the fills that are kept.
    subprocess.run([*command, "--lpips", str(alexnet(tmp_path))], cwd=ROOT, check=True, timeout=300)
    with open(tmp_path / "inpainting.csv", encoding="utf-8", newline="") as file:
        assert all(0 < float(row["lpips"]) < float("inf") for row in csv.DictReader(file))


def test_lpips_weights_without_alexnet_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"AlexNet in .*other\.pth, found no features\.0\.bias"):
        load_lpips(tmp_path / "other.pth")


def test_lpips_is_zero_for_equal_pictures_only(tmp_path: Path) -> None:
    distance = load_lpips(alexnet(tmp_path))
    pictures = torch.rand(40, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert distance(pictures, pictures).abs().max() == 0
    assert distance(pictures, pictures.flip(0)).min() > 0
