"""The host and this pack in one process, loaded once for all benchmarks that run networks."""

from __future__ import annotations

import argparse
import asyncio
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools import in_process

in_process.activate()

# The host's module: its folder comes first on sys.path.
stock: Any = importlib.import_module("nodes")
PACK: Any = in_process.load_pack()


def sampling_inputs(model: Any, conditioning: Any, cfg: float = 1.0, seed: int = 0) -> Any:
    """The inputs that this pack's nodes share, with one prompt and gradients in full."""
    return PACK.sampling.sampling_inputs(model, conditioning, conditioning, cfg, seed, "full")


def add_packs_option(parser: argparse.ArgumentParser) -> None:
    """See `load_packs`."""
    parser.add_argument(
        "--packs", nargs="+", type=Path, default=[], help="folders of packs with samplers that take part"
    )


def load_packs(folders: Sequence[Path]) -> None:
    """Makes the nodes of other packs known to the host. Raises ValueError for folders without nodes."""
    for folder in folders:
        if not asyncio.run(stock.load_custom_node(str(folder.resolve()))):
            raise ValueError(f"expected a pack with nodes in {folder}, found none; the host's message is above")
