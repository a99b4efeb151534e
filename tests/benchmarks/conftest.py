"""What several benchmarks are tested with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture
def alexnet(tmp_path: Path) -> Path:
    """A file of the real network with weights of no meaning: the published ones are the user's to bring."""
    pytest.importorskip("lpips")
    torchvision = pytest.importorskip("torchvision")
    torch.save(torchvision.models.AlexNet().features.state_dict(prefix="features."), tmp_path / "alexnet.pth")
    return tmp_path / "alexnet.pth"
