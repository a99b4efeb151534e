"""Makes the host's modules and this repository importable in one process.

The host has a top-level module `nodes` as this repository has a folder `nodes`: the host's
folder must come first on `sys.path`, ours last.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent


def path() -> Path:
    """Folder of the ComfyUI host: `COMFYUI_PATH`, or the one that `run.py` has set up."""
    found = Path(os.environ.get("COMFYUI_PATH", ROOT / ".host" / "ComfyUI"))
    if not (found / "comfy").is_dir():
        raise FileNotFoundError(f"no ComfyUI at {found}: run `python3 run.py test` once, or set COMFYUI_PATH")
    return found


def activate() -> None:
    """Puts the host first on `sys.path`, selects the CPU where there is no GPU, plain attention everywhere."""
    sys.path[:] = [str(path())] + [p for p in sys.path if p not in ("", str(ROOT))] + [str(ROOT)]
    from comfy.cli_args import args

    args.use_pytorch_cross_attention = True
    if not torch.cuda.is_available():
        args.cpu = True
