"""What several tests of the host adapter read and load."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture
def messages(caplog) -> Callable[[], list[str]]:
    """What the pack has logged so far."""
    caplog.set_level(logging.INFO, "vipaint_pack")
    return lambda: [record.getMessage() for record in caplog.records if "VIPaint" in record.getMessage()]


@pytest.fixture
def load_model(comfyui) -> Callable[..., Any]:
    """A file's MODEL, loaded anew."""
    import comfy.sd

    def load(path, **options):
        with torch.inference_mode():
            return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False, **options)[0]

    return load
