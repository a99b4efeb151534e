"""A posterior's file goes from one server to another."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prompts import Prompt, changed, decoded, node, paint, saved, was_cached

from tools.comfy_server import ComfyServer

pytestmark = pytest.mark.host


def sample(posterior: list[Any]) -> Prompt:
    conditioning = {"positive": ["conditioning", 0], "negative": ["conditioning", 0]}
    settings = {"seed": 5, "cfg": 1.0, "fills": 2, "first_fill": 0}
    return node("VIPaintSample", model=["checkpoint", 0], **conditioning, posterior=posterior, **settings)


def has_ended(pid: int, patience: float = 10.0) -> bool:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_another_server_draws_the_same_from_a_saved_posterior(
    server: ComfyServer, small: SimpleNamespace, checkpoint: Any, comfyui: Path, tmp_path: Path
) -> None:
    """When it ends it leaves nothing behind, and the host as it was."""
    fit = {**small.prompt["inpaint"]["inputs"], "preset": "balanced"}
    del fit["fills"]
    given = {name: small.prompt[name] for name in ("checkpoint", "conditioning", "picture", "mask")}
    given["fit"] = node("VIPaintFit", **fit)
    given["keep"] = node("VIPaintSavePosterior", posterior=["fit", 0], filename_prefix="moved")
    before = paint(server, decoded({**given, "sample": sample(["fit", 0])}, ["sample", 0]))
    assert server.base is not None
    (file,) = (server.base / "models" / "vipaint").glob("moved*.safetensors")
    (tmp_path / file.name).write_bytes(file.read_bytes())
    host = {entry.name for entry in comfyui.iterdir()}
    with ComfyServer([checkpoint("sd3")], models_dir=tmp_path) as second:
        base, pid = second.base, second.pid
        given = {name: small.prompt[name] for name in ("checkpoint", "conditioning")}
        given["load"] = node("VIPaintLoadPosterior", file=file.name)
        after = paint(second, decoded({**given, "sample": sample(["load", 0])}, ["sample", 0]))
    assert np.array_equal(before, after)
    assert base is not None and not base.exists()
    assert pid is not None and has_ended(pid)
    assert {entry.name for entry in comfyui.iterdir()} - host <= {"__pycache__"}


def test_a_posterior_is_fitted_once(server: ComfyServer, small: SimpleNamespace) -> None:
    """Other fills, and another seed to draw them with, do not fit again; fills of the fit's own seed are told so."""
    fit = {**small.prompt["inpaint"]["inputs"], "preset": "balanced", "seed": 5}
    del fit["fills"]
    given = {name: small.prompt[name] for name in ("checkpoint", "conditioning", "picture", "mask")}
    given["fit"] = node("VIPaintFit", **fit)
    given["sample"] = sample(["fit", 0])
    prompt = decoded(given, ["sample", 0])
    first = server.run(prompt)
    assert not was_cached(first, "fit")
    (words,) = first["outputs"]["fit"]["text"][-1:]
    assert "log p(y) is at least" in words
    more = server.run(changed(prompt, sample={"fills": 4}))
    assert was_cached(more, "fit") and not was_cached(more, "sample")
    other = server.run(changed(prompt, sample={"seed": 6}))
    assert was_cached(other, "fit") and not was_cached(other, "sample")
    two, four, others = (saved(server, entry) for entry in (first, more, other))
    assert np.array_equal(two, four[:2]) and len(four) == 4
    assert (two.astype(int) - others).any()
