"""A ComfyUI of the command's own, for a machine on which none runs."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from types import TracebackType

from batch.errors import BatchError, Unsuitable
from batch.workflow import Prompt
from tools.comfy_server import ROOT, ComfyServer, locate_host

# A server that ends so often, however, is not started again.
STARTS = 5
TOY = "vipaint_toy.safetensors"


class LocalServer:
    """Asynchronous context manager. Its files lie in a temporary folder; models and other packs are ComfyUI's own.

    models: another folder of models, with checkpoints/, vae/ and so on in it.
    """

    def __init__(self, prompt: Prompt, models: Path | None = None) -> None:
        self._prompt, self._models, self._starts = prompt, models, 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._server: ComfyServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    async def __aenter__(self) -> LocalServer:
        if self._models is not None and not self._models.is_dir():
            raise BatchError(f"expected a folder of models, found none at {self._models} (--models)")
        self._folder = tempfile.TemporaryDirectory(prefix="vipaint-batch-")
        try:
            await asyncio.to_thread(self._start)
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.stop)
        if self._folder is not None:
            self._folder.cleanup()

    async def revive(self) -> None:
        """Starts the server again where it has ended. Raises Unsuitable where that happened too often."""
        if self._server is None or self._server.is_running():
            return
        if self._starts >= STARTS:
            raise Unsuitable(f"{self.url} has ended {self._starts} times. Its last words:\n{self._server.tail(15)}")
        await asyncio.to_thread(self._restart)

    def _restart(self) -> None:
        assert self._server is not None
        port = self._server.port
        self._server.stop()
        try:
            self._start(port)
        except BatchError as error:
            raise Unsuitable(str(error)) from error

    def _start(self, port: int | None = None) -> None:
        assert self._folder is not None
        self._starts += 1
        comfyui, _ = locate_host()
        paths = Path(self._folder.name) / "models.yaml"
        # JSON is YAML, too.
        paths.write_text(json.dumps(model_paths(comfyui, self._models)), "utf-8")
        pack = None if has_pack(comfyui) else ROOT
        server = ComfyServer(
            toy_checkpoints(self._prompt), pack=pack, port=port, args=["--extra-model-paths-config", str(paths)]
        )
        try:
            self._server = server.__enter__()
        except (RuntimeError, OSError) as error:
            raise BatchError(
                f"expected a ComfyUI that starts here, found: {error}. Or name one with --server"
            ) from error


def model_paths(comfyui: Path, models: Path | None) -> dict[str, dict[str, str]]:
    """What ComfyUI's extra_model_paths.yaml would hold: model folders, and the packs that are installed."""
    sources = [folder for folder in (models, comfyui / "models") if folder is not None and folder.is_dir()]
    found = {}
    for number, source in enumerate(sources):
        names = sorted(folder.name for folder in source.iterdir() if folder.is_dir())
        found[f"models_{number}"] = {"base_path": str(source.resolve()), **{name: name for name in names}}
    found["packs"] = {"base_path": str(comfyui), "custom_nodes": "custom_nodes"}
    return found


def has_pack(comfyui: Path) -> bool:
    """Whether this pack is among those installed in a ComfyUI."""
    files = (comfyui / "custom_nodes").glob("*/pyproject.toml")
    return any('name = "vipaint"' in file.read_text("utf-8", errors="replace") for file in files)


def toy_checkpoints(prompt: Prompt) -> list[Path]:
    """The toy model of the repository where a workflow names it."""
    if not any(node["inputs"].get("ckpt_name") == TOY for node in prompt.values()):
        return []
    return [file for depth in ("*", "*/*") for file in ROOT.glob(f"{depth}/{TOY}")][:1]
