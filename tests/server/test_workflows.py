"""Checkpoint to picture on a real server, by HTTP, as a user's queue does it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prompts import Prompt, changed, decoded, load, node, paint, saved, upload, was_cached

from tools.comfy_server import ComfyServer, InvalidPrompt, PromptError
from toy_prior import CHECKPOINT
from toy_prior.demo import PLACE, draw_input, draw_scene

pytestmark = pytest.mark.host


def shipped(server: ComfyServer, folder: Path, scene: str, inputs: dict[str, Image.Image] | None = None) -> Prompt:
    """A shipped workflow with the pictures of its scene, or others, and quick settings."""
    prompt = load(scene)
    for name, picture in (inputs or draw_scene(scene, 7, "right")[0]).items():
        prompt[name]["inputs"]["image"] = upload(server, folder, f"{scene}_{name}", picture)
    prompt["checkpoint"]["inputs"]["ckpt_name"] = CHECKPOINT.name
    painter, quick = (
        ("restore", {"steps": 4, "attempts": 1}) if "restore" in prompt else ("inpaint", {"preset": "fast"})
    )
    prompt[painter]["inputs"].update(quick, fills=2)
    return prompt


@pytest.fixture(scope="module")
def workflow(server: ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> Prompt:
    """The shipped workflow on a picture whose right half is hidden, with the preset `fast`."""
    return shipped(server, tmp_path_factory.mktemp("input"), "inpaint")


def outputs(server: ComfyServer, prompt: Prompt, **more: list[Any]) -> dict[str, np.ndarray]:
    """Pixels, as numbers, of what the node `save` and savers of other outputs saved."""
    savers = {name: node("SaveImage", images=images, filename_prefix=name) for name, images in more.items()}
    entry = server.run({**prompt, **savers})
    return {name: saved(server, entry, name).astype(float) for name in ("save", *more)}


def test_workflow_paints_the_hole_and_nothing_else(server: ComfyServer, workflow: Prompt) -> None:
    fills = paint(server, changed(workflow, inpaint={"fills": 4}))
    original, mask = (np.asarray(image) for image in draw_input(7, "right"))
    visible = mask[..., 0] == 0
    assert len(fills) == 4
    for fill in fills:
        assert fill.shape == original.shape
        assert np.array_equal(fill[visible], original[visible])
    assert max(np.abs(fills[0].astype(int) - fill)[~visible].max() for fill in fills[1:]) > 50


def test_a_seed_fixes_the_pixels(server: ComfyServer, workflow: Prompt) -> None:
    first = paint(server, changed(workflow, inpaint={"seed": 1}))
    other = paint(server, changed(workflow, inpaint={"seed": 2}))
    # The other seed has pushed the first result out of the server's cache: it is computed again.
    entry = server.run(changed(workflow, inpaint={"seed": 1}))
    assert not was_cached(entry, "inpaint")
    assert np.array_equal(first, saved(server, entry))
    assert not np.array_equal(first, other)


def assert_in_place(shown: np.ndarray, original: np.ndarray, top: int, left: int) -> None:
    """The decoded picture shows the original's pixels at (top, left), and moved by one pixel it does not."""
    height, width = original.shape[:2]

    def distance(down: int, right: int) -> float:
        moved = np.roll(shown, (-top - down, -left - right), (0, 1))[:height, :width]
        return float(np.square(moved - original).mean() ** 0.5)

    assert distance(0, 0) < 5 < min(distance(1, 0), distance(0, 1), distance(-1, 0), distance(0, -1))


def test_a_picture_of_any_size_keeps_its_size_and_place(server: ComfyServer, tmp_path: Path) -> None:
    """121 x 125 pixels are no multiples of the VAE's cell: what is decoded lies where the picture is, and is cut."""
    picture, mask = (picture.crop((0, 0, 121, 125)) for picture in draw_input(7, "right"))
    prompt = shipped(server, tmp_path, "inpaint", {"picture": picture, "mask": mask})
    found = outputs(server, prompt, decoded=["decode", 0])
    original, visible = np.asarray(picture).astype(float), np.asarray(mask)[..., 0] == 0
    assert found["decoded"][0].shape == (128, 128, 3)
    assert all(np.array_equal(fill[visible], original[visible]) for fill in found["save"])
    assert_in_place(found["decoded"][0], original[:, :60], 0, 0)


@pytest.mark.parametrize(("right", "bottom"), [(27, 19), (24, 14)])
def test_outpainting_keeps_the_picture_where_the_host_puts_it(
    server: ComfyServer, tmp_path: Path, right: int, bottom: int
) -> None:
    """On the canvas of 128 x 128 that the workflow asks for, and on one that does not fill the VAE's cells."""
    prompt = changed(shipped(server, tmp_path, "outpaint"), pad={"right": right, "bottom": bottom})
    found = outputs(server, prompt, decoded=["decode", 0])
    original = np.asarray(draw_scene("outpaint", 7, "right")[0]["picture"]).astype(float)
    feathering = prompt["pad"]["inputs"]["feathering"]
    inner = (slice(feathering, -feathering),) * 2
    for fill in found["save"]:
        assert fill.shape == (101 + 8 + bottom, 96 + 5 + right, 3)
        assert np.array_equal(fill[8:109, 5:101][inner], original[inner])
        assert np.abs(fill - 127).min(-1)[-bottom:].mean() > 3  # nothing is left of the host's grey
    assert_in_place(found["decoded"][0], original[inner], 8 + feathering, 5 + feathering)


def test_a_hole_in_a_large_picture_is_painted_at_the_model_s_size(server: ComfyServer, tmp_path: Path) -> None:
    inputs = draw_scene("crop_and_stitch", 7, "right")[0]
    found = outputs(server, shipped(server, tmp_path, "crop_and_stitch"), cut=["crop", 0])
    original, hole = np.asarray(inputs["picture"]).astype(float), np.asarray(inputs["mask"])[..., 0] > 0
    left, top = PLACE
    window = slice(top, top + 128), slice(left, left + 128)
    (cut,) = found["cut"]
    assert np.array_equal(cut[~hole[window]], original[window][~hole[window]])
    first, second = found["save"]
    assert first.shape == original.shape == (260, 300, 3)
    assert np.array_equal(first[~hole], original[~hole]) and np.array_equal(second[~hole], original[~hole])
    assert (first != second).any(-1)[hole].mean() > 0.5


@pytest.mark.parametrize(("scene", "factor"), [("deblur", 1), ("super_resolution", 8)])
def test_restored_pictures_explain_the_given_one(server: ComfyServer, tmp_path: Path, scene: str, factor: int) -> None:
    """Reduced, they are far nearer to what was given than other portraits; the settings are the editor's own."""
    prompt = shipped(server, tmp_path, scene)

    def reduced(picture: Any, by: int) -> np.ndarray:
        return np.asarray(picture).astype(float).reshape(16, by, 16, by, 3).mean((1, 3))

    def distance(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.square(first - second).mean() ** 0.5)

    given, other = (reduced(draw_scene(scene, seed, "right")[0]["picture"], 8 // factor) for seed in (7, 8))
    fills = outputs(server, prompt)["save"]
    assert len(fills) == 2 and all(fill.shape == (128, 128, 3) for fill in fills)
    assert max(distance(reduced(fill, 8), given) for fill in fills) < 0.5 * distance(other, given)
    if factor > 1:
        smaller = changed(prompt, restore={"degradation.factor": "2", "fills": 1})
        del smaller["spread"], smaller["uncertainty"]
        (fill,) = outputs(server, smaller)["save"]
        assert fill.shape == (32, 32, 3)


def test_a_baseline_takes_the_node_s_place(server: ComfyServer, workflow: Prompt) -> None:
    """The settings of the chosen method reach it as the editor writes them."""
    inputs = {"class_type": "VIPaintBaseline", "preset": None, "method": "ding", "method.steps": 4}
    baseline = changed(workflow, inpaint=inputs)
    more = paint(server, changed(baseline, inpaint={"method.steps": 8}))
    assert not np.array_equal(paint(server, baseline), more)
    with pytest.raises(InvalidPrompt, match=r"method\.steps"):
        server.run(changed(baseline, inpaint={"method.steps": 1}))


def test_interrupt_stops_a_fit_and_leaves_the_server_usable(server: ComfyServer, workflow: Prompt) -> None:
    started = "VIPaint: gradients"
    count, deadline = server.log().count(started), time.monotonic() + 60
    prompt_id = server.queue(changed(workflow, inpaint={"preset": "paper-2", "fills": 16}))
    while server.log().count(started) == count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # inside the fit, which takes far longer
    begin = time.monotonic()
    server.interrupt(prompt_id)
    with pytest.raises(PromptError) as caught:
        server.wait(prompt_id, timeout=60)
    assert caught.value.interrupted and caught.value.node_type == "VIPaintInpaint"
    assert time.monotonic() - begin < 2 + 1  # one network call of this model is far below a second
    assert len(paint(server, changed(workflow, inpaint={"seed": 11}))) == 2


def test_the_stock_sampler_is_as_before_a_run(server: ComfyServer, workflow: Prompt) -> None:
    conditioning = {"positive": ["conditioning", 0], "negative": ["conditioning", 0]}
    settings = {"seed": 3, "steps": 6, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    stock = {name: workflow[name] for name in ("checkpoint", "conditioning")}
    stock["empty"] = node("EmptySD3LatentImage", width=128, height=128, batch_size=1)
    stock["ksampler"] = node("KSampler", model=["checkpoint", 0], **conditioning, **settings, latent_image=["empty", 0])
    stock = decoded(stock, ["ksampler", 0])
    before = paint(server, stock)
    server.run(changed(workflow, inpaint={"preset": "balanced", "seed": 21}))
    assert np.array_equal(before, paint(server, stock))


def test_a_prompt_of_which_one_output_is_invalid_is_refused_as_a_whole(server: ComfyServer, workflow: Prompt) -> None:
    broken = {**workflow, "more": node("SaveImage", images=["nowhere", 0], filename_prefix="more")}
    with pytest.raises(InvalidPrompt) as caught:
        server.queue(broken)
    assert "more" in caught.value.node_errors or "nowhere" in str(caught.value)
    with pytest.raises(InvalidPrompt, match="'more'"):
        server.queue({**workflow, "more": node("PreviewImage")})
