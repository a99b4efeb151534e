"""Model families by the host's classes and the published settings of their networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness.host import PACK


@dataclass(frozen=True)
class Family:
    """A model family.

    host_class: its configuration in `comfy.supported_models`.
    network: the settings of the network that the host reads from a checkpoint.
    tokens: of a prompt.
    pixels: side of the pictures that it is made for.
    cfg: guidance that it is used with.
    """

    host_class: str
    network: dict[str, Any]
    tokens: int
    pixels: int
    cfg: float = 4.0


_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}
FAMILIES = {
    "SD1.5": Family(
        "SD15",
        {
            **_UNET,
            "adm_in_channels": None,
            "num_res_blocks": [2, 2, 2, 2],
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
            "transformer_depth_middle": 1,
            "channel_mult": [1, 2, 4, 4],
            "use_linear_in_transformer": False,
            "context_dim": 768,
            "num_heads": 8,
        },
        tokens=77,
        pixels=512,
    ),
    "SDXL": Family(
        "SDXL",
        {
            **_UNET,
            "num_classes": "sequential",
            "adm_in_channels": 2816,
            "num_res_blocks": [2, 2, 2],
            "transformer_depth": [0, 0, 2, 2, 10, 10],
            "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
            "transformer_depth_middle": 10,
            "channel_mult": [1, 2, 4],
            "use_linear_in_transformer": True,
            "context_dim": 2048,
            "num_head_channels": 64,
        },
        tokens=77,
        pixels=1024,
    ),
    "SD3.5 medium": Family(
        "SD3",
        {
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "depth": 24,
            "input_size": None,
            "adm_in_channels": 2048,
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": 4096, "out_features": 1536},
            },
            "num_patches": 384**2,
            "pos_embed_max_size": 384,
            "pos_embed_scaling_factor": None,
            "qk_norm": "rms",
            "x_block_self_attn_layers": list(range(13)),
        },
        tokens=154,
        pixels=1024,
    ),
    "Flux": Family(
        "Flux",
        {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": 768,
            "context_in_dim": 4096,
            "hidden_size": 3072,
            "mlp_ratio": 4.0,
            "num_heads": 24,
            "depth": 19,
            "depth_single_blocks": 38,
            "axes_dim": [16, 56, 56],
            "theta": 10000,
            "patch_size": 2,
            "qkv_bias": True,
            "txt_ids_dims": [],
            "guidance_embed": True,
        },
        tokens=256,
        pixels=1024,
        cfg=1.0,
    ),
}


def load(family: Family, random_weights: bool) -> Any:
    """A MODEL in bfloat16, on a GPU where there is one. random_weights: else they are what lay in memory."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    config = getattr(comfy.supported_models, family.host_class)(dict(family.network))
    config.set_inference_dtype(torch.bfloat16, None)
    device = comfy.model_management.get_torch_device()
    model = config.get_model({}, "")
    if random_weights:
        model.diffusion_model.to_empty(device=device)
        for weight in (*model.diffusion_model.parameters(), *model.diffusion_model.buffers()):
            torch.nn.init.normal_(weight, std=0.02)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def unload() -> None:
    """Frees the memory of all loaded models that nobody refers to."""
    import comfy.model_management

    comfy.model_management.unload_all_models()


def latent_shape(model: Any, pixels: int) -> tuple[int, int, int, int]:
    """Of the latent of one square picture of this side."""
    return 1, model.get_model_object("latent_format").latent_channels, pixels // 8, pixels // 8


def prompt(model: Any, family: Family) -> Any:
    """A CONDITIONING of zeros with as many tokens as the family's text encoder makes."""
    ((text, options),) = PACK.host.text_inputs.zero_conditioning(model)
    return [[text.new_zeros(1, family.tokens, text.shape[-1]), options]]
