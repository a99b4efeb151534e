"""Every family whose checkpoint can be tiny: from its file to pictures on a real server, by HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tools import in_process
from tools.comfy_server import ROOT, ComfyServer, PromptError, has_cuda
from toy_prior.demo import draw_input

pytestmark = pytest.mark.host

Prompt = dict[str, Any]
SIZE = 48, 32
MODEL = ["checkpoint", 0]


def node(class_type: str, **inputs: Any) -> Prompt:
    return {"class_type": class_type, "inputs": inputs}


def inpainting(prompt: Prompt) -> Prompt:
    """Mask and picture in the extra channels, by the host's node for it."""
    pixels = {"pixels": ["picture", 0], "mask": ["mask", 0], "vae": ["checkpoint", 2], "noise_mask": True}
    prompt["extra"] = node(
        "InpaintModelConditioning", positive=["conditioning", 0], negative=["conditioning", 0], **pixels
    )
    prompt["inpaint"]["inputs"].update(positive=["extra", 0], negative=["extra", 1])
    return prompt


def patched(class_type: str, **inputs: Any) -> Any:
    """A node between checkpoint and VIPaint."""

    def change(prompt: Prompt) -> Prompt:
        prompt["patch"] = node(class_type, model=MODEL, **inputs)
        prompt["inpaint"]["inputs"]["model"] = ["patch", 0]
        return prompt

    return change


def guidance(prompt: Prompt) -> Prompt:
    prompt["guidance"] = node("FluxGuidance", conditioning=["conditioning", 0], guidance=2.0)
    prompt["inpaint"]["inputs"]["positive"] = ["guidance", 0]
    return prompt


# Checkpoint, preset, guidance and what else is in the graph.
GRAPHS: dict[str, tuple[str, str, float, Any]] = {
    "sd15": ("sd15", "balanced", 1.0, None),
    "sd15-lcm": ("sd15", "fast", 1.0, patched("ModelSamplingDiscrete", sampling="lcm", zsnr=False)),
    "sd15-edm": (
        "sd15",
        "fast",
        1.0,
        patched("ModelSamplingContinuousEDM", sampling="edm", sigma_max=80.0, sigma_min=0.002),
    ),
    "sd15-inpaint": ("sd15-inpaint", "fast", 1.0, inpainting),
    "sd2": ("sd2", "fast", 3.0, patched("RescaleCFG", multiplier=0.7)),
    "sdxl": ("sdxl", "fast", 3.0, None),
    "sdxl-zsnr": ("sdxl", "fast", 1.0, patched("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True)),
    "sd3": ("sd3", "balanced", 3.0, patched("ModelSamplingSD3", shift=8.0)),
    "flux": ("flux", "balanced", 1.0, guidance),
    "flux-fill": ("flux-fill", "fast", 1.0, inpainting),
    "schnell": ("schnell", "fast", 1.0, None),
    "krea2": ("krea2", "balanced", 3.0, None),
}


@pytest.fixture(scope="module")
def work(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A server with all checkpoints, the shipped workflow and its picture, small."""
    maker = in_process.load_module("vipaint_tiny_checkpoints", ROOT / "tests" / "tiny_checkpoints.py")
    folder = tmp_path_factory.mktemp("families")
    families = {name: maker.FAMILIES[name] for name in sorted({graph[0] for graph in GRAPHS.values()})}
    files = [
        maker.make(known, folder / f"{name}.safetensors") for name, known in {**families, "wan": maker.WAN}.items()
    ]
    prompt: Prompt = json.loads((ROOT / "workflows" / "inpaint_api.json").read_text("utf-8"))
    for name in ("spread", "uncertainty"):
        del prompt[name]
    drawn = [image.resize(SIZE, Image.Resampling.NEAREST) for image in draw_input(7, "right")]
    with ComfyServer(files) as server:
        for name, image in zip(("picture", "mask"), drawn, strict=True):
            image.save(folder / f"{name}.png")
            prompt[name]["inputs"]["image"] = server.upload_image(folder / f"{name}.png")
        found = SimpleNamespace(server=server, prompt=json.dumps(prompt), drawn=[np.asarray(image) for image in drawn])
        if has_cuda(server.python):
            # There the first attention of a process is rounded in another way than all others.
            paint(found, graph(found, "sd2"), seed=2)
        yield found
    for file in files:
        file.unlink()


def graph(work: SimpleNamespace, name: str) -> Prompt:
    checkpoint, preset, cfg, change = GRAPHS[name]
    prompt: Prompt = json.loads(work.prompt)
    prompt["checkpoint"]["inputs"]["ckpt_name"] = f"{checkpoint}.safetensors"
    prompt["inpaint"]["inputs"].update(preset=preset, cfg=cfg, fills=2)
    return change(prompt) if change else prompt


def paint(work: SimpleNamespace, prompt: Prompt, seed: int) -> np.ndarray:
    """Pixels of all fills, (2, H, W, 3)."""
    prompt["inpaint"]["inputs"]["seed"] = seed
    files = work.server.images(work.server.run(prompt))["save"]
    return np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in files])


@pytest.mark.parametrize("name", GRAPHS)
def test_paints_and_paints_the_same_after_offloading(work: SimpleNamespace, name: str) -> None:
    prompt = graph(work, name)
    picture, mask = work.drawn
    visible = mask[..., 0] == 0
    first = paint(work, prompt, seed=0)
    assert first.shape == (2, *picture.shape)
    assert (first[:, visible] == picture[visible]).all()
    assert np.abs(first[0].astype(int) - first[1])[~visible].max() > 8
    work.server.free()
    other = paint(work, prompt, seed=1)
    assert not np.array_equal(first, other)
    # By now the model has been offloaded, and the first result has left the server's cache.
    assert np.array_equal(paint(work, prompt, seed=0), first)


def test_fit_and_sample_are_separate_nodes_with_a_frame_too(work: SimpleNamespace) -> None:
    prompt = graph(work, "krea2")
    whole = paint(work, prompt, seed=0)
    inputs = prompt["inpaint"]["inputs"]
    fills = inputs.pop("fills")
    prompt["fit"] = node("VIPaintFit", **inputs)
    kept = {name: inputs[name] for name in ("model", "positive", "negative", "seed", "cfg")}
    prompt["inpaint"] = node("VIPaintSample", posterior=["fit", 0], fills=fills, first_fill=0, **kept)
    assert np.array_equal(paint(work, prompt, seed=0), whole)


def test_a_film_model_is_refused_by_name(work: SimpleNamespace) -> None:
    prompt = graph(work, "krea2")
    prompt["checkpoint"]["inputs"]["ckpt_name"] = "wan.safetensors"
    with pytest.raises(PromptError, match=r"expected a model that makes single pictures.*WAN21 \(FLOW\).*films"):
        work.server.run(prompt)
