"""The command's own server, with a stub in ComfyUI's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from batch.errors import BatchError
from batch.local import LocalServer, has_pack, model_paths, toy_checkpoints
from batch.options import addresses

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = """
import asyncio, os, sys
sys.path.append({root!r})
from tools.comfy_stub import Stub
async def main():
    await Stub(seconds=0.05, port=int(sys.argv[sys.argv.index("--port") + 1])).start()
    open({log!r}, "a").write(f"{{os.getpid()}}\\n")
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A ComfyUI folder whose main.py is a stub; `started()` gives the process ids of all starts."""
    folder, log = tmp_path / "ComfyUI", tmp_path / "started"
    (folder / "custom_nodes").mkdir(parents=True)
    (folder / "models" / "vae").mkdir(parents=True)
    (folder / "main.py").write_text(HOST.format(root=str(ROOT), log=str(log)), "utf-8")
    monkeypatch.setenv("COMFYUI_PATH", str(folder))
    # Not asked for a GPU, which would import torch.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *torch.cuda*) exit 10;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("COMFYUI_PYTHON", str(python))
    read = lambda: [int(line) for line in log.read_text().split()] if log.is_file() else []  # noqa: E731
    return SimpleNamespace(folder=folder, started=read)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_server_that_ends_is_started_again(folder: SimpleNamespace, host: SimpleNamespace, tmp_path: Path) -> None:
    folder.fill(120)
    command = [sys.executable, "-m", "batch", str(folder.pictures), "--masks", str(folder.masks)]
    command += ["--out", str(folder.out), "--set", "fills=1"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while len(list(folder.out.glob("p*"))) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(host.started()[0], signal.SIGKILL)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 0 and "is back" in said
    lines = [json.loads(line) for line in (folder.out / "batch.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 120 and len({line["server"] for line in lines}) == 1
    assert len(host.started()) == 2 and not any(alive(pid) for pid in host.started())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_no_server_outlives_the_command(folder: SimpleNamespace, host: SimpleNamespace, name: str) -> None:
    folder.fill(100)
    command = [sys.executable, "-m", "batch", str(folder.pictures), "--masks", str(folder.masks)]
    child = subprocess.Popen([*command, "--out", str(folder.out)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(folder.out.glob("p*")) and time.monotonic() < end:
        time.sleep(0.02)
    child.send_signal(getattr(signal, name))
    child.communicate(timeout=30)
    (pid,) = host.started()
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(pid)


def test_a_server_that_does_not_start_is_reported_with_its_words(
    folder: SimpleNamespace, host: SimpleNamespace, call: Callable[..., SimpleNamespace]
) -> None:
    folder.fill(1)
    (host.folder / "main.py").write_text("import sys\nprint('no torch here')\nsys.exit(3)\n")
    found = call()
    assert found.code == 2 and "expected a ComfyUI that starts here" in found.said and "no torch here" in found.said
    (host.folder / "main.py").unlink()
    assert "run `python3 run.py setup`, or set COMFYUI_PATH" in call().said
    assert "expected a folder of models, found none" in call("--models", "nowhere").said


def test_models_and_packs_are_comfyui_s_own(host: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "mine" / "checkpoints").mkdir(parents=True)
    paths = model_paths(host.folder, tmp_path / "mine")
    assert paths == {
        "models_0": {"base_path": str(tmp_path / "mine"), "checkpoints": "checkpoints"},
        "models_1": {"base_path": str(host.folder / "models"), "vae": "vae"},
        "packs": {"base_path": str(host.folder), "custom_nodes": "custom_nodes"},
    }
    assert not has_pack(host.folder)
    (host.folder / "custom_nodes" / "any").mkdir()
    (host.folder / "custom_nodes" / "any" / "pyproject.toml").write_text('[project]\nname = "vipaint"\n')
    assert has_pack(host.folder)
    node = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "vipaint_toy.safetensors"}}
    assert len(toy_checkpoints({"a": node})) == 1
    assert not toy_checkpoints({"a": {**node, "inputs": {"ckpt_name": "sd15.safetensors"}}})


def test_addresses_are_urls_each_once() -> None:
    found = addresses(["host:8188", "http://host:8188/", "https://far.example/comfy", "[::1]:8188"])
    assert found == ["http://host:8188", "https://far.example/comfy", "http://[::1]:8188"]
    with pytest.raises(BatchError, match="expected a server as http://HOST:8188"):
        addresses(["host:0x"])


def test_an_unstarted_server_can_be_left(tmp_path: Path) -> None:
    import asyncio

    async def use() -> None:
        with pytest.raises(BatchError, match="expected a folder of models"):
            async with LocalServer({}, tmp_path / "nowhere"):
                pass

    asyncio.run(use())
