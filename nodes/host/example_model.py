"""The small model that the templates open with: it lies in the pack, and the host's loaders are told where."""

from __future__ import annotations

from pathlib import Path

import folder_paths

FOLDER = Path(__file__).resolve().parents[2] / "toy_prior"


def register_example_model() -> None:
    """Adds the pack's folder to those that Load Checkpoint lists, after the user's own."""
    if any(FOLDER.glob("*.safetensors")):
        folder_paths.add_model_folder_path("checkpoints", str(FOLDER))
