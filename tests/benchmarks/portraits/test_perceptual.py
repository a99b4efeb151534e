"""LPIPS with weights that the user brings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.portraits.perceptual import load_lpips


def test_lpips_weights_without_alexnet_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"AlexNet in .*other\.pth, found no features\.0\.bias"):
        load_lpips(tmp_path / "other.pth")


def test_lpips_is_zero_for_equal_pictures_only(alexnet: Path) -> None:
    distance = load_lpips(alexnet)
    pictures = torch.rand(40, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert distance(pictures, pictures).abs().max() == 0
    assert distance(pictures, pictures.flip(0)).min() > 0
