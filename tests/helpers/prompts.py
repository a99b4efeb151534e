"""Workflows in API format, changed and run on a server."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tools.comfy_server import ROOT, ComfyServer

Prompt = dict[str, Any]


def load(name: str) -> Prompt:
    """A shipped workflow."""
    prompt: Prompt = json.loads((ROOT / "workflows" / f"{name}_api.json").read_text("utf-8"))
    return prompt


def node(class_type: str, **inputs: Any) -> Prompt:
    return {"class_type": class_type, "inputs": inputs}


def changed(prompt: Prompt, **nodes: Mapping[str, Any]) -> Prompt:
    """The prompt with other inputs of the named nodes; None takes one away.

    A node of another class, or a new one, where `class_type` is among the inputs.
    """
    prompt = copy.deepcopy(prompt)
    for name, values in nodes.items():
        found = prompt.setdefault(name, {"inputs": {}})
        inputs = dict(values)
        found["class_type"] = inputs.pop("class_type", found.get("class_type"))
        found["inputs"] = {key: value for key, value in {**found["inputs"], **inputs}.items() if value is not None}
    return prompt


def renamed(prompt: Prompt, names: Mapping[str, str]) -> Prompt:
    """The prompt with other ids of its nodes, in links too."""

    def link(value: Any) -> Any:
        return [names.get(value[0], value[0]), value[1]] if isinstance(value, list) else value

    return {
        names.get(name, name): {**found, "inputs": {key: link(value) for key, value in found["inputs"].items()}}
        for name, found in prompt.items()
    }


def decoded(prompt: Prompt, latent: list[Any]) -> Prompt:
    """The given nodes and a decoder and a saver for a latent."""
    decode = node("VAEDecode", samples=latent, vae=["checkpoint", 2])
    return {**prompt, "decode": decode, "save": node("SaveImage", images=["decode", 0], filename_prefix="test")}


def upload(server: ComfyServer, folder: Path, name: str, picture: Image.Image) -> str:
    """The name for LoadImage."""
    picture.save(folder / f"{name}.png")
    return server.upload_image(folder / f"{name}.png")


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def saved(server: ComfyServer, entry: Mapping[str, Any], name: str = "save") -> np.ndarray:
    """Pixels of what a node of a finished prompt saved, (N, H, W, 3)."""
    return np.stack([pixels(data) for data in server.images(entry)[name]])


def was_cached(entry: Mapping[str, Any], name: str) -> bool:
    """Whether a node of a finished prompt was not run, but taken from the server's cache."""
    return any(event == "execution_cached" and name in data["nodes"] for event, data in entry["status"]["messages"])


def paint(server: ComfyServer, prompt: Prompt, name: str = "save") -> np.ndarray:
    return saved(server, server.run(prompt), name)
