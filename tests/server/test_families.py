"""Every family whose checkpoint can be tiny: from its file to pictures on a real server, by HTTP."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prompts import Prompt, changed, decoded, node, paint, saved, was_cached

from tools.comfy_server import ComfyServer, PromptError

pytestmark = pytest.mark.host


def inpainting(prompt: Prompt) -> Prompt:
    """Mask and picture in the extra channels, by the host's node for it."""
    pixels = {"pixels": ["picture", 0], "mask": ["mask", 0], "vae": ["checkpoint", 2], "noise_mask": True}
    prompt["extra"] = node(
        "InpaintModelConditioning", positive=["conditioning", 0], negative=["conditioning", 0], **pixels
    )
    prompt["inpaint"]["inputs"].update(positive=["extra", 0], negative=["extra", 1])
    return prompt


def patched(class_type: str, **inputs: Any) -> Callable[[Prompt], Prompt]:
    """A node between checkpoint and VIPaint."""

    def change(prompt: Prompt) -> Prompt:
        prompt["patch"] = node(class_type, model=["checkpoint", 0], **inputs)
        prompt["inpaint"]["inputs"]["model"] = ["patch", 0]
        return prompt

    return change


def guidance(prompt: Prompt) -> Prompt:
    prompt["guidance"] = node("FluxGuidance", conditioning=["conditioning", 0], guidance=2.0)
    prompt["inpaint"]["inputs"]["positive"] = ["guidance", 0]
    return prompt


# Preset, guidance and what else is in the graph of a family.
GRAPHS: dict[str, tuple[str, float, Callable[[Prompt], Prompt]]] = {
    "sd15": ("fast", 1.0, copy.copy),
    "sd15-inpaint": ("fast", 1.0, inpainting),
    "sd2": ("fast", 3.0, patched("RescaleCFG", multiplier=0.7)),
    "sdxl": ("fast", 1.0, patched("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True)),
    "sd3": ("balanced", 3.0, patched("ModelSamplingSD3", shift=8.0)),
    "flux": ("balanced", 1.0, guidance),
    "flux-fill": ("fast", 1.0, inpainting),
    "schnell": ("fast", 1.0, copy.copy),
    "krea2": ("balanced", 3.0, copy.copy),
}


@pytest.fixture
def graph(small: SimpleNamespace, served: Callable[[str], str]) -> Callable[[str], Prompt]:
    """The workflow of a family."""

    def make(family: str) -> Prompt:
        preset, cfg, change = GRAPHS[family]
        file = {"ckpt_name": served(family)}
        prompt = changed(small.prompt, checkpoint=file, inpaint={"preset": preset, "cfg": cfg})
        for name in ("spread", "uncertainty"):
            del prompt[name]
        return change(prompt)

    return make


def encoded(prompt: Prompt) -> Prompt:
    """Another prompt with the same checkpoint and picture."""
    kept = {name: prompt[name] for name in ("checkpoint", "picture")}
    kept["encode"] = node("VAEEncode", pixels=["picture", 0], vae=["checkpoint", 2])
    return decoded(kept, ["encode", 0])


@pytest.mark.parametrize("family", GRAPHS)
def test_paints_and_paints_the_same_after_offloading(
    server: ComfyServer, small: SimpleNamespace, graph: Callable[[str], Prompt], family: str
) -> None:
    prompt = graph(family)
    visible = small.mask[..., 0] == 0
    first = paint(server, prompt)
    assert first.shape == (2, *small.picture.shape)
    assert (first[:, visible] == small.picture[visible]).all()
    assert np.abs(first[0].astype(int) - first[1])[~visible].max() > 8
    server.free()
    server.run(encoded(prompt))
    # By now the model has been offloaded, and the first result has left the server's cache.
    entry = server.run(prompt)
    assert not was_cached(entry, "inpaint")
    assert np.array_equal(saved(server, entry), first)


def test_fit_and_sample_are_separate_nodes_with_a_frame_too(
    server: ComfyServer, graph: Callable[[str], Prompt]
) -> None:
    prompt = graph("krea2")
    whole = paint(server, prompt)
    inputs = prompt["inpaint"]["inputs"]
    fills = inputs.pop("fills")
    prompt["fit"] = node("VIPaintFit", **inputs)
    kept = {name: inputs[name] for name in ("model", "positive", "negative", "seed", "cfg")}
    prompt["inpaint"] = node("VIPaintSample", posterior=["fit", 0], fills=fills, first_fill=0, **kept)
    assert np.array_equal(paint(server, prompt), whole)


def test_a_film_model_is_refused_by_name(
    server: ComfyServer, served: Callable[[str], str], graph: Callable[[str], Prompt]
) -> None:
    prompt = changed(graph("krea2"), checkpoint={"ckpt_name": served("wan")})
    with pytest.raises(PromptError, match=r"expected a model that makes single pictures.*WAN21 \(FLOW\).*films"):
        server.run(prompt)
