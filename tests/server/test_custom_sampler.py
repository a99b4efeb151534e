"""VIPaint Sampler in a graph of the host's nodes, as a server runs it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prompts import Prompt, changed, decoded, node, paint

from tools.comfy_server import ComfyServer

pytestmark = pytest.mark.host


def graph(small: SimpleNamespace, **sigmas: Any) -> Prompt:
    """Two rows of the small picture, by Sampler Custom Advanced."""
    prompt = {name: small.prompt[name] for name in ("checkpoint", "conditioning", "picture", "mask")}
    model = ["checkpoint", 0]
    prompt["encode"] = node("VAEEncode", pixels=["picture", 0], vae=["checkpoint", 2])
    prompt["rows"] = node("RepeatLatentBatch", samples=["encode", 0], amount=2)
    mask = small.prompt["inpaint"]["inputs"]["mask"]
    prompt["latent"] = node("SetLatentNoiseMask", samples=["rows", 0], mask=mask)
    prompt["levels"] = node("VIPaintSigmas", model=model, latent_image=["latent", 0], preset="fast", **sigmas)
    prompt["sampler"] = node("VIPaintSampler", preset="fast", gradients="auto")
    prompt["guider"] = node("BasicGuider", model=model, conditioning=["conditioning", 0])
    prompt["noise"] = node("RandomNoise", noise_seed=5)
    prompt["sample"] = node(
        "SamplerCustomAdvanced",
        noise=["noise", 0],
        guider=["guider", 0],
        sampler=["sampler", 0],
        sigmas=["levels", 0],
        latent_image=["latent", 0],
    )
    return decoded(prompt, ["sample", 0])


def test_rows_are_fills_of_one_picture(server: ComfyServer, small: SimpleNamespace) -> None:
    prompt = graph(small, strength=1.0, stop_at=1.0)
    fills = paint(server, prompt).astype(int)
    assert len(fills) == 2
    visible = small.mask[..., 0] == 0 if small.mask.ndim == 3 else small.mask == 0
    cells = visible.reshape(visible.shape[0] // 8, 8, visible.shape[1] // 8, 8).all((1, 3)).repeat(8, 0).repeat(8, 1)
    apart = np.abs(fills[0] - fills[1]).max(-1)
    assert apart[~cells].max() > 30 and apart[cells].mean() < apart[~cells].mean()
    other = paint(server, changed(prompt, noise={"noise_seed": 6}))
    assert (other != fills).any()
    assert np.array_equal(paint(server, prompt), fills)


def test_a_stock_sampler_takes_over(server: ComfyServer, small: SimpleNamespace) -> None:
    """KSampler Advanced goes on at the step of its schedule at which VIPaint stops, from its estimate and with the mask."""
    prompt = graph(small, strength=1.0, stop_at=0.8)
    prompt["last"] = node(
        "KSamplerAdvanced",
        model=["checkpoint", 0],
        add_noise="enable",
        noise_seed=5,
        steps=5,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        positive=["conditioning", 0],
        negative=["conditioning", 0],
        latent_image=["sample", 1],
        start_at_step=4,
        end_at_step=10000,
        return_with_leftover_noise="disable",
    )
    estimates = paint(server, decoded(prompt, ["sample", 1]))
    fills = paint(server, decoded(prompt, ["last", 0]))
    assert fills.shape == estimates.shape and not np.array_equal(fills, estimates)
