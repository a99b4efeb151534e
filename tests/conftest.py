"""Paths, what tests share for a whole session, and a repository root that pytest does not import."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
# Ours last: the host has top-level modules `nodes` and `tests` as well.
sys.path[:] = [entry for entry in sys.path if entry not in ("", str(ROOT))] + [str(ROOT)]
# The tests' own helpers are imported by name.
sys.path.append(str(ROOT / "tests" / "helpers"))

from tools import in_process  # noqa: E402  (needs the paths above)
from tools.comfy_server import ComfyServer  # noqa: E402
from toy_prior import CHECKPOINT  # noqa: E402

try:
    in_process.activate()
    if torch.cuda.is_available():
        from comfy.cli_args import args

        # As on the CPU: all digits of float32, the same ones in every run.
        args.force_fp32 = args.fp32_vae = args.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
    HOST_ERROR = None
except FileNotFoundError as error:
    # Tests of the core need no host; those that do fail with this message.
    HOST_ERROR = str(error)

# Shells start what runs in the background with SIGINT ignored, and processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The tensors of the tests are small: a second thread costs more than it brings, here and in servers.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# The same cases in every run, however slow the machine.
settings.register_profile("vipaint", derandomize=True, deadline=None)
settings.load_profile("vipaint")


class PlainRoot:
    """The root's `__init__.py` is ComfyUI's entry point; pytest would import it as a package of tests."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    # Not a hook of this file: those are not asked about folders above it.
    config.pluginmanager.register(PlainRoot(), "vipaint-plain-root")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The host's folder."""
    if HOST_ERROR:
        pytest.fail(HOST_ERROR)
    return in_process.path()


@pytest.fixture(scope="session")
def pack(comfyui: Path) -> SimpleNamespace:
    """The pack imported as the host imports it: `pack.inpaint`, `pack.host.memory`, `pack.core`, `pack.NODES`, ..."""
    loaded = in_process.load_pack()
    # Out of memory is answered with a collection, which would go through all that the host has imported.
    gc.collect()
    gc.freeze()
    return loaded


@pytest.fixture(scope="session")
def checkpoint(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a tiny checkpoint with an autoencoder, by the name of its family; each is written once."""
    import tiny_checkpoints
    from tiny_families import FAMILIES, WAN

    folder, families = tmp_path_factory.mktemp("checkpoints"), {**FAMILIES, "wan": WAN}
    return cache(lambda name: tiny_checkpoints.make(families[name], folder / f"{name}.safetensors"))


@pytest.fixture(scope="session")
def server(comfyui: Path) -> Iterator[ComfyServer]:
    """A server with this pack and the toy checkpoint, shared by all tests."""
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.relative_to(ROOT)}: train it with `python -m toy_prior.train`")
    with ComfyServer([CHECKPOINT]) as running:
        yield running
