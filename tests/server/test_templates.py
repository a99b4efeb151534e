"""The templates on a real server: they run as they are shipped, or, where their model is a download, with the toy model."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prompts import Prompt, changed, load, node, saved, upload, was_cached

from tools import templates
from tools.comfy_server import ROOT, ComfyServer
from toy_prior.demo import SCENES, draw_input

pytestmark = pytest.mark.host

EXAMPLES = ROOT / "web" / "examples"
TEMPLATES = {template.name: template for template in templates.TEMPLATES}
# What a graph with downloads is given instead.
MODELS = {"CheckpointLoaderSimple": 0, "UNETLoader": 0, "VAELoader": 2}
CONDITIONINGS = ("CLIPTextEncode", "ControlNetApplyAdvanced", "FluxGuidance", "ReferenceLatent")
DROPPED = (*MODELS, *CONDITIONINGS, "DualCLIPLoader", "ControlNetLoader", "VAEEncode", "Canny")


@pytest.fixture(scope="module")
def pictures(server: ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image.Image]:
    """The pack's example pictures in the input folder, as the editor copies them; photographs no larger than the toy
    model's pictures."""
    folder, found = tmp_path_factory.mktemp("examples"), {}
    for file in EXAMPLES.glob("*.png"):
        with Image.open(file) as picture:
            shown = picture.copy()
        if file.stem == "vipaint_espresso":
            shown = shown.resize((128, 96), Image.Resampling.NEAREST)
        shown.save(folder / file.name)
        server.upload_image(folder / file.name, file.name)
        found[file.name] = shown
    return found


def as_the_editor_sends(name: str) -> Prompt:
    """The template with its chooser."""
    return {
        key: {"class_type": entry.kind, "inputs": copy.deepcopy(entry.inputs)}
        for key, entry in TEMPLATES[name].nodes.items()
    }


def with_toy(prompt: Prompt) -> Prompt:
    """The toy model without prompts in the place of what has to be downloaded."""
    dropped = {key: entry["class_type"] for key, entry in prompt.items() if entry["class_type"] in DROPPED}

    def value(given: Any) -> Any:
        if not isinstance(given, list) or given[0] not in dropped:
            return given
        kind = dropped[given[0]]
        if kind in CONDITIONINGS:
            return ["none", 0]
        return ["toy", given[1] if kind == "CheckpointLoaderSimple" else MODELS[kind]]

    kept = {
        key: {**entry, "inputs": {name: value(given) for name, given in entry["inputs"].items()}}
        for key, entry in prompt.items()
        if key not in dropped
    }
    kept["toy"] = node("CheckpointLoaderSimple", ckpt_name=templates.TOY)
    kept["none"] = node("VIPaintUnconditional", model=["toy", 0])
    return kept


def quick(prompt: Prompt) -> Prompt:
    for entry in prompt.values():
        inputs = entry["inputs"]
        inputs.update({name: given for name, given in {"preset": "fast", "steps": 4}.items() if name in inputs})
        if entry["class_type"] == "VIPaintRestore":
            inputs.update(attempts=1, fills=1)
        if entry["class_type"] == "VIPaintCrop":
            inputs.update(width=128, height=128)
        if entry["class_type"] in ("VIPaintInpaint", "VIPaintSample"):
            inputs["fills"] = 2
        if entry["class_type"] == "RepeatLatentBatch":
            inputs["amount"] = 2
    return prompt


@pytest.mark.parametrize("name", TEMPLATES)
def test_runs(server: ComfyServer, pictures: dict[str, Image.Image], name: str) -> None:
    prompt = quick(as_the_editor_sends(name))
    if any(entry.models for entry in TEMPLATES[name].nodes.values()):
        prompt = with_toy(prompt)
    assert "mask" not in prompt
    entry = server.run(prompt)
    output = entry["outputs"]["choose"]
    original = np.asarray(pictures[prompt["picture"]["inputs"]["image"]])
    assert len(output["vipaint_fills"]) == output["vipaint_each"][0] == (1 if "restore" in prompt else 2)
    (fill,) = saved(server, entry)
    if name in ("outpaint", "deblur", "super_resolution"):
        assert fill.shape == (128, 128, 3)
    else:
        # What is visible stays as it is, bit for bit; what MaskEditor made transparent is painted.
        hidden = original[..., 3] == 0
        assert np.array_equal(fill[~hidden], original[..., :3][~hidden])
        assert (fill[hidden] != original[..., :3][hidden]).any(-1).mean() > 0.5
    if name == "choose_and_refine":
        (refined,) = saved(server, entry, "save_refined")
        assert refined.shape == (256, 256, 3)


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in SCENES])
def test_runs_for_scripts(server: ComfyServer, pictures: dict[str, Image.Image], tmp_path: Path, name: str) -> None:
    """The others are those that test_workflows.py runs."""
    prompt = quick(load(name))
    assert "choose" not in prompt
    if any(entry.models for entry in TEMPLATES[name].nodes.values()):
        prompt = with_toy(prompt)
    # A mask of its own; the picture's transparency in the red channel.
    picture = pictures[prompt["picture"]["inputs"]["image"]]
    mask = picture.getchannel("A").point(lambda level: 255 - level).convert("RGB")
    prompt["mask"]["inputs"]["image"] = upload(server, tmp_path, f"{name}_mask", mask)
    entry = server.run(prompt)
    assert len(saved(server, entry)) == len(saved(server, entry, "uncertainty")) * 2 == 2


def test_choosing_another_fill_does_not_paint_again(server: ComfyServer, pictures: dict[str, Image.Image]) -> None:
    prompt = quick(as_the_editor_sends("inpaint"))
    prompt = changed(prompt, inpaint={"seed": 77})
    first = server.run(prompt)
    again = server.run(changed(prompt, choose={"chosen": "2"}))
    assert not was_cached(first, "inpaint")
    assert all(was_cached(again, name) for name in ("inpaint", "decode", "composite", "spread", "uncertainty"))
    assert not was_cached(again, "choose") and not was_cached(again, "save")
    shown = [entry["outputs"]["choose"]["vipaint_fills"] for entry in (first, again)]
    assert shown[0] == shown[1]
    fills = saved(
        server, server.run({**prompt, "all": node("SaveImage", images=["composite", 0], filename_prefix="a")}), "all"
    )
    assert np.array_equal(saved(server, first)[0], fills[0])
    assert np.array_equal(saved(server, again)[0], fills[1])


def test_nothing_chosen_ends_before_what_follows(server: ComfyServer, pictures: dict[str, Image.Image]) -> None:
    entry = server.run(changed(quick(as_the_editor_sends("inpaint")), choose={"chosen": ""}))
    assert "save" not in entry["outputs"] and "nothing is chosen" in entry["outputs"]["choose"]["text"][0]


def test_the_readme_s_script_paints(server: ComfyServer, tmp_path: Path) -> None:
    """As it stands there, but for the address and fewer fills."""
    readme = (ROOT / "README.md").read_text("utf-8")
    (script,) = re.findall(r"\n\n((?:    .*import json, time.*\n)(?:(?:    .*)?\n)+)", readme)
    script = textwrap.dedent(script).replace("http://127.0.0.1:8188", server.url)
    assert "fills=8, seed=1" in script
    script = script.replace("fills=8, seed=1", "fills=2, seed=1, preset='fast'")
    (tmp_path / "workflows" / "api").mkdir(parents=True)
    shutil.copy(ROOT / "workflows" / "api" / "inpaint.json", tmp_path / "workflows" / "api")
    picture, mask = draw_input(7, "right")
    picture.save(tmp_path / "picture.png")
    mask.save(tmp_path / "mask.png")
    subprocess.run([server.python, "-c", script], cwd=tmp_path, check=True, timeout=120)
    fills = [np.asarray(Image.open(file)) for file in sorted(tmp_path.glob("VIPaint*.png"))]
    visible = np.asarray(mask)[..., 0] == 0
    assert len(fills) == 2 and all(np.array_equal(fill[visible], np.asarray(picture)[visible]) for fill in fills)
