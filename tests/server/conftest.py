"""The server with tiny checkpoints of families, and the shipped workflow on a small picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from prompts import changed, load, paint, upload

from tools.comfy_server import ComfyServer, has_cuda, link
from toy_prior.demo import draw_input

# Width and height.
SIZE = 48, 32


@pytest.fixture(scope="session")
def served(server: ComfyServer, checkpoint: Callable[[str], Path]) -> Callable[[str], str]:
    """Gives the server a family's tiny checkpoint; the name by which the server knows it."""

    @cache
    def give(family: str) -> str:
        assert server.base is not None
        file = checkpoint(family)
        link(file, server.base / "models" / "checkpoints" / file.name)
        return file.name

    return give


@pytest.fixture(scope="session")
def small(
    server: ComfyServer, served: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """The shipped workflow with a tiny model on a small picture: `prompt`; `picture` and `mask` are its pixels."""
    folder, prompt = tmp_path_factory.mktemp("small"), load("inpaint")
    drawn = [image.resize(SIZE, Image.Resampling.NEAREST) for image in draw_input(7, "right")]
    for name, image in zip(("picture", "mask"), drawn, strict=True):
        prompt[name]["inputs"]["image"] = upload(server, folder, f"small-{name}", image)
    prompt["checkpoint"]["inputs"]["ckpt_name"] = served("sd3")
    prompt["inpaint"]["inputs"].update(preset="fast", fills=2)
    if has_cuda(server.python):
        # There the first attention of a process is rounded in another way than all others.
        paint(server, changed(prompt, inpaint={"seed": 2}))
    picture, mask = (np.asarray(image) for image in drawn)
    return SimpleNamespace(prompt=prompt, picture=picture, mask=mask)
