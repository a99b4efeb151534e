"""The host's modules and the pack in one process, each under its own name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

from tools.in_process import ROOT


def test_every_module_of_the_pack_is_there(pack: SimpleNamespace) -> None:
    for folder, found in (("nodes", pack), ("nodes/host", pack.host)):
        names = {file.stem for file in (ROOT / folder).glob("*.py")} - {"__init__"}
        assert names and all(vars(found)[name].__name__.endswith(f".{name}") for name in names)
    assert {node.GET_SCHEMA().node_id for node in pack.NODES} >= {"VIPaintInpaint", "VIPaintRestore"}
    assert pack.core.PRESETS is pack.sampling.PRESETS


def test_the_host_s_modules_come_first(comfyui: Path) -> None:
    """The host has a top-level module `nodes` as this repository has a folder `nodes`."""
    import nodes

    assert nodes.__file__ is not None and Path(nodes.__file__).parent == comfyui
    assert sys.path.index(str(comfyui)) < sys.path.index(str(ROOT))
