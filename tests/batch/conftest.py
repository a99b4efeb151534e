"""Folders of small pictures, stub servers, and the command called in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batch import client, dispatch, worker
from batch.__main__ import main
from tools.comfy_stub import Stub


def draw(number: int, width: int = 16, height: int = 12) -> Image.Image:
    """A picture that no other number has."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8))


def mask(width: int = 16, height: int = 12) -> Image.Image:
    """White on the right half."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, width // 2 :] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path: Path) -> SimpleNamespace:
    """`pictures`, `masks`, `out`; `fill(n)` draws n pairs, `add(name, ...)` one."""
    made = SimpleNamespace(pictures=tmp_path / "pictures", masks=tmp_path / "masks", out=tmp_path / "fills")
    for path in (made.pictures, made.masks):
        path.mkdir()

    def add(name: str, number: int = 0, width: int = 16, height: int = 12) -> None:
        for place, image in ((made.pictures, draw(number, width, height)), (made.masks, mask(width, height))):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            image.save(place / name)

    made.add = add
    made.fill = lambda count: [add(f"p{number}.png", number) for number in range(count)]
    return made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are looked for at once, and answers are not waited for long."""
    monkeypatch.setattr(dispatch, "FIRST_LOOK", 0.05)
    monkeypatch.setattr(dispatch, "LAST_LOOK", 0.1)
    monkeypatch.setattr(client, "ANSWER", 2.0)
    monkeypatch.setattr(worker, "LOOK", 0.2)


@pytest.fixture
def call(folder: SimpleNamespace, quick: None, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Runs the command on the folder; returns `code`, `said` and the `lines` of its list by name."""

    def run(*arguments: str, masks: bool = True) -> SimpleNamespace:
        paths = [str(folder.pictures), "--out", str(folder.out), *(["--masks", str(folder.masks)] if masks else [])]
        capsys.readouterr()
        code = main([*paths, "--set", "fills=1", *arguments])
        file = folder.out / "batch.jsonl"
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
        return SimpleNamespace(
            code=code, said=capsys.readouterr().err, lines={row["name"]: row for row in rows}, rows=rows
        )

    return run


@pytest.fixture
def stubs() -> Iterator[Callable[..., Stub]]:
    """Starts stub servers, which end after the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Stub(**options))


@pytest.fixture
def picture() -> Callable[..., Any]:
    return draw


@pytest.fixture
def right_half() -> Callable[..., Any]:
    return mask
