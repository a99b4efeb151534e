"""Makes the host's modules, this repository and the pack importable in one process.

The host has a top-level module `nodes` as this repository has a folder `nodes`: the host's
folder must come first on `sys.path`, ours last.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

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


def load_module(name: str, file: Path) -> ModuleType:
    """Imports a file under a name of its own, a package where the file is an `__init__.py`."""
    folders = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_pack() -> SimpleNamespace:
    """The pack as the host imports it; needs `activate`.

    `NODES`, `core`, `root`, its node modules by name, and those of `nodes/host` in `host`.
    """
    root = load_module("vipaint_pack", ROOT / "__init__.py")

    def modules(package: str, folder: Path) -> dict[str, ModuleType]:
        names = [file.stem for file in folder.glob("*.py") if file.stem != "__init__"]
        return {name: importlib.import_module(f"vipaint_pack.{package}.{name}") for name in names}

    nodes = importlib.import_module("vipaint_pack.nodes").NODES
    core = importlib.import_module("vipaint_pack.vipaint_core")
    host = SimpleNamespace(**modules("nodes.host", ROOT / "nodes" / "host"))
    return SimpleNamespace(root=root, NODES=nodes, core=core, host=host, **modules("nodes", ROOT / "nodes"))
