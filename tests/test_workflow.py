"""Checkpoint to picture on a real server, by HTTP, as a user's queue does it."""

from __future__ import annotations

import copy
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.toy_prior import CHECKPOINT
from tools.comfy_server import ROOT, ComfyServer, InvalidPrompt, PromptError
from tools.demo import draw_input

pytestmark = pytest.mark.host

Prompt = dict[str, Any]


@pytest.fixture(scope="module")
def workflow(server: ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> Prompt:
    """The shipped workflow on a picture whose right half is hidden, with the preset `fast`."""
    return upload(server, tmp_path_factory.mktemp("input"))


def upload(server: ComfyServer, folder: Path) -> Prompt:
    prompt: Prompt = json.loads((ROOT / "workflows" / "inpaint_api.json").read_text("utf-8"))
    for name, picture in zip(("picture", "mask"), draw_input(7, "right"), strict=True):
        picture.save(folder / f"{name}.png")
        prompt[name]["inputs"]["image"] = server.upload_image(folder / f"{name}.png")
    prompt["checkpoint"]["inputs"]["ckpt_name"] = CHECKPOINT.name
    prompt["inpaint"]["inputs"].update(preset="fast", fills=2)
    return prompt


def changed(prompt: Prompt, node: str, **inputs: Any) -> Prompt:
    prompt = copy.deepcopy(prompt)
    prompt[node]["inputs"].update(inputs)
    return prompt


def pictures(server: ComfyServer, prompt: Prompt, node: str = "save") -> list[np.ndarray]:
    """Pixels of what a node saved."""
    entry = server.run(prompt)
    return [np.asarray(Image.open(io.BytesIO(data))) for data in server.images(entry)[node]]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def save(prompt: Prompt, latent: list[Any]) -> Prompt:
    """The given nodes and a decoder and a saver for a latent."""
    decode = {"class_type": "VAEDecode", "inputs": {"samples": latent, "vae": ["checkpoint", 2]}}
    saver = {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "test"}}
    return {**prompt, "decode": decode, "save": saver}


def posterior_prompt(workflow: Prompt, **nodes: Prompt) -> Prompt:
    return {**{name: workflow[name] for name in ("checkpoint", "conditioning", "picture", "mask")}, **nodes}


def sample(posterior: list[Any]) -> Prompt:
    conditioning = {"positive": ["conditioning", 0], "negative": ["conditioning", 0]}
    settings = {"seed": 5, "cfg": 1.0, "fills": 2, "first_fill": 0}
    inputs = {"model": ["checkpoint", 0], **conditioning, "posterior": posterior, **settings}
    return {"class_type": "VIPaintSample", "inputs": inputs}


def test_workflow_paints_the_hole_and_nothing_else(server: ComfyServer, workflow: Prompt) -> None:
    fills = pictures(server, changed(workflow, "inpaint", fills=4))
    original, mask = (np.asarray(image) for image in draw_input(7, "right"))
    visible = mask[..., 0] == 0
    assert len(fills) == 4
    for fill in fills:
        assert fill.shape == original.shape
        assert np.array_equal(fill[visible], original[visible])
    assert max(np.abs(fills[0].astype(int) - fill)[~visible].max() for fill in fills[1:]) > 50


def test_a_seed_fixes_the_pixels(server: ComfyServer, workflow: Prompt) -> None:
    first = pictures(server, changed(workflow, "inpaint", seed=1))
    other = pictures(server, changed(workflow, "inpaint", seed=2))
    # The other seed has pushed the first result out of the server's cache: it is computed again.
    prompt_id = server.queue(changed(workflow, "inpaint", seed=1))
    entry = server.wait(prompt_id)
    cached = [data["nodes"] for name, data in entry["status"]["messages"] if name == "execution_cached"]
    assert all("inpaint" not in nodes for nodes in cached)
    again = [np.asarray(Image.open(io.BytesIO(data))) for data in server.images(entry)["save"]]
    assert same(first, again)
    assert not same(first, other)


def test_a_picture_of_any_size_keeps_its_size_and_place(server: ComfyServer, workflow: Prompt, tmp_path: Path) -> None:
    """121 x 125 pixels are no multiples of the VAE's cell: what is decoded lies where the picture is, and is cut."""
    odd = copy.deepcopy(workflow)
    picture, mask = (picture.crop((0, 0, 121, 125)) for picture in draw_input(7, "right"))
    for name, cut in (("picture", picture), ("mask", mask)):
        cut.save(tmp_path / f"odd_{name}.png")
        odd[name]["inputs"]["image"] = server.upload_image(tmp_path / f"odd_{name}.png")
    odd["decoded"] = {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "decoded"}}
    found = server.images(server.run(odd))
    (fill, _), (decoded, _) = (
        [np.asarray(Image.open(io.BytesIO(data))).astype(float) for data in found[name]] for name in ("save", "decoded")
    )
    original, seen = np.asarray(picture).astype(float), np.asarray(mask)[..., 0] == 0
    assert fill.shape == original.shape and decoded.shape == (128, 128, 3)
    assert np.array_equal(fill[seen], original[seen])

    def distance(down: int, right: int) -> float:
        moved = np.roll(decoded, (-down, -right), (0, 1))[:120, :60]
        return float(np.square(moved - original[:120, :60]).mean() ** 0.5)

    assert distance(0, 0) < 5 < min(distance(1, 0), distance(0, 1), distance(-1, 0), distance(0, -1))


def test_a_baseline_takes_the_node_s_place(server: ComfyServer, workflow: Prompt) -> None:
    """The knobs of the chosen method reach it as the editor writes them."""
    inputs = {name: value for name, value in workflow["inpaint"]["inputs"].items() if name != "preset"}
    chosen = {**inputs, "method": "ding", "method.steps": 4}
    baseline = {**workflow, "inpaint": {"class_type": "VIPaintBaseline", "inputs": chosen}}
    assert not same(pictures(server, baseline), pictures(server, changed(baseline, "inpaint", **{"method.steps": 8})))
    with pytest.raises(InvalidPrompt, match=r"method\.steps"):
        server.run(changed(baseline, "inpaint", **{"method.steps": 1}))


def test_a_posterior_moves_to_another_server(
    workflow: Prompt, comfyui: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("posteriors")
    fit_inputs = {name: value for name, value in workflow["inpaint"]["inputs"].items() if name != "fills"}
    fit_inputs["preset"] = "balanced"
    with ComfyServer([CHECKPOINT], models_dir=folder) as first:
        prompt = upload(first, tmp_path_factory.mktemp("first"))
        fit = {"class_type": "VIPaintFit", "inputs": fit_inputs}
        keep = {"class_type": "VIPaintSavePosterior", "inputs": {"posterior": ["fit", 0], "filename_prefix": "moved"}}
        nodes = posterior_prompt(prompt, fit=fit, keep=keep, sample=sample(["fit", 0]))
        before = pictures(first, save(nodes, ["sample", 0]))
    (file,) = folder.glob("*.safetensors")
    with ComfyServer([CHECKPOINT], models_dir=folder) as second:
        load = {"class_type": "VIPaintLoadPosterior", "inputs": {"file": file.name}}
        nodes = {name: workflow[name] for name in ("checkpoint", "conditioning")}
        nodes |= {"load": load, "sample": sample(["load", 0])}
        after = pictures(second, save(nodes, ["sample", 0]))
    assert same(before, after)


def test_interrupt_stops_a_fit_and_leaves_the_server_usable(server: ComfyServer, workflow: Prompt) -> None:
    prompt_id = server.queue(changed(workflow, "inpaint", preset="paper-2", fills=16))
    while prompt_id not in server.running():
        time.sleep(0.05)
    time.sleep(3)  # inside the fit, which takes far longer
    begin = time.monotonic()
    server.interrupt(prompt_id)
    with pytest.raises(PromptError) as caught:
        server.wait(prompt_id, timeout=60)
    assert caught.value.interrupted and caught.value.node_type == "VIPaintInpaint"
    assert time.monotonic() - begin < 2 + 1  # one network call of this model is far below a second
    assert len(pictures(server, changed(workflow, "inpaint", seed=11))) == 2


def test_nothing_leaks_into_the_stock_sampler(server: ComfyServer, workflow: Prompt) -> None:
    conditioning = {"positive": ["conditioning", 0], "negative": ["conditioning", 0]}
    settings = {"seed": 3, "steps": 6, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    empty = {"class_type": "EmptySD3LatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}}
    inputs = {"model": ["checkpoint", 0], **conditioning, **settings, "latent_image": ["empty", 0]}
    stock = {"checkpoint": workflow["checkpoint"], "conditioning": workflow["conditioning"], "empty": empty}
    stock |= {"ksampler": {"class_type": "KSampler", "inputs": inputs}}
    before = pictures(server, save(stock, ["ksampler", 0]))
    server.run(changed(workflow, "inpaint", preset="balanced", seed=21))
    assert same(before, pictures(server, save(stock, ["ksampler", 0])))


def test_a_prompt_of_which_one_output_is_invalid_is_refused_as_a_whole(server: ComfyServer, workflow: Prompt) -> None:
    broken = copy.deepcopy(workflow)
    broken["more"] = {"class_type": "SaveImage", "inputs": {"images": ["nowhere", 0], "filename_prefix": "more"}}
    with pytest.raises(InvalidPrompt) as caught:
        server.queue(broken)
    assert "more" in caught.value.node_errors or "nowhere" in str(caught.value)
    broken["more"] = {"class_type": "PreviewImage", "inputs": {}}
    with pytest.raises(InvalidPrompt, match="'more'"):
        server.queue(broken)
