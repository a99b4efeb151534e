"""Shapes of the text inputs that model families read, from the host's configurations and their layers."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import torch
from comfy.model_patcher import ModelPatcher

from .denoiser import Conditioning

# Where families keep the width of their text tokens: keys of the host's detected configuration, else
# the first layer that reads the tokens.
CONTEXT_KEYS = ("context_dim", "context_in_dim", "cap_feat_dim", "cond_seq_dim", "crossattn_emb_channels")
CONTEXT_LAYERS = (
    "context_embedder",
    "txt_in",
    "cond_seq_linear",
    "cap_embedder.1",
    "y_embedder.y_proj.fc1",
    "y_embedder.proj",
    "text_proj",
    "text_embeddings.in_layer",
    "condition_embedder.text_embedder.linear_1",
)
POOLED_LAYERS = ("pooled_text_embeddings.in_layer",)
CLIP_TOKENS = 77
SD3_POOLED = 2048
# SDXL's vector is the pooled prompt and embeddings of this many sizes, 256 numbers each.
SIZE_EMBEDDINGS = {"SDXL": 6 * 256, "SDXLRefiner": 5 * 256}
# They need more than tokens and a pooled vector.
REFUSED = ("HunyuanDiT", "HiDream", "Omnigen2", "StableCascade_B", "StableCascade_C")


def zero_conditioning(patcher: ModelPatcher) -> Conditioning | None:
    """The host's CONDITIONING with zeros of the shapes that the model reads, None where they are not known."""
    model = patcher.model
    config = model.model_config.unet_config
    network = getattr(model, "diffusion_model", None)
    width = None
    if not any(isinstance(model, getattr(comfy.model_base, name, ())) for name in REFUSED):
        width = context_width(config, network)
    if width is None:
        return None
    is_unet = "model_channels" in config
    options: dict[str, Any] = {}
    pooled = pooled_width(model, config)
    if pooled is not None:
        options["pooled_output"] = torch.zeros(1, pooled)
    return [[torch.zeros(1, CLIP_TOKENS if is_unet else 1, width), options]]


def context_width(config: dict[str, Any], network: Any) -> int | None:
    """Width of a text token, or None where it cannot be told."""
    embedder = config.get("context_embedder_config")
    if isinstance(embedder, dict):
        return int(embedder["params"]["in_features"])
    if "txtlayers" in config:
        # Krea 2 reads several layers of its text encoder at once.
        return int(config["txtlayers"] * config["txtdim"])
    for key in CONTEXT_KEYS:
        width = config.get(key)
        if isinstance(width, (list, tuple)) and width:
            width = width[0]
        if isinstance(width, int):
            return width
    return input_width(network, CONTEXT_LAYERS)


def input_width(network: Any, names: tuple[str, ...]) -> int | None:
    """Inputs of the first of these linear layers that the network has, or None."""
    for name in names:
        layer = network
        for part in name.split("."):
            children = getattr(layer, "_modules", {})
            layer = children.get(part)
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.ndim == 2:
            return int(weight.shape[1])
    return None


def pooled_width(model: Any, config: dict[str, Any]) -> int | None:
    """Width of the pooled prompt, or None where the family has none."""
    if isinstance(model, comfy.model_base.SD3):
        return int(config.get("adm_in_channels") or SD3_POOLED)
    for name, sizes in SIZE_EMBEDDINGS.items():
        if isinstance(model, getattr(comfy.model_base, name)) and config.get("adm_in_channels"):
            return int(config["adm_in_channels"]) - sizes
    width = config.get("vec_in_dim")
    return int(width) if width else input_width(getattr(model, "diffusion_model", None), POOLED_LAYERS)
