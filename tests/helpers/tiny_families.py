"""Tiny networks in the layouts of real families: their configurations, as the host detects them in a file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

UNET = "model.diffusion_model."
# Channels by which the host tells UNets in files, and the least that their norms and heads allow.
PUBLISHED, NARROW = 320, 64


@dataclass(frozen=True)
class Family:
    """A family of the host's, in tiny.

    config: class in the host's `supported_models`.
    network: what the host detects in such a file.
    extra: tensors outside the network that tell the host more.
    loads: the host finds these sizes in a file; of other families it knows the published sizes only.
    unused: large parts that read what the tests do not give, left out.
    """

    config: str
    network: dict[str, Any]
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    loads: bool = True
    unused: tuple[str, ...] = ()


def _unet(config: str, extra: dict[str, torch.Tensor] | None = None, **changes: Any) -> Family:
    """A UNet of one level; channels and context are what the host tells the families by."""
    network = {
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": PUBLISHED,
        "num_res_blocks": [1],
        "channel_mult": [1],
        "transformer_depth": [1],
        "transformer_depth_output": [0, 1],
        "transformer_depth_middle": -1,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "context_dim": 768,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
        **changes,
    }
    return Family(config, network, extra or {}, loads=network["model_channels"] == PUBLISHED)


def _sdxl(model_channels: int = PUBLISHED, **extra: torch.Tensor) -> Family:
    """KOALA's depths, by which the host knows a relative of SDXL; with fewer channels it would not."""
    return _unet(
        "KOALA_700M",
        extra,
        model_channels=model_channels,
        num_res_blocks=[1, 1, 1],
        channel_mult=[1, 1, 1],
        transformer_depth=[0, 2, 5],
        transformer_depth_output=[0] * 6,
        transformer_depth_middle=-2,
        use_linear_in_transformer=True,
        context_dim=2048,
        num_classes="sequential",
        adm_in_channels=2816,
    )


def _flux(config: str, in_channels: int = 16, **changes: Any) -> Family:
    network = {
        "image_model": "flux",
        "in_channels": in_channels,
        "out_channels": 16,
        "vec_in_dim": 64,
        "context_in_dim": 64,
        "hidden_size": 128,
        "mlp_ratio": 4.0,
        "num_heads": 1,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [16, 56, 56],
        "theta": 10000,
        "patch_size": 2,
        "qkv_bias": True,
        "txt_ids_dims": [],
        "guidance_embed": True,
    }
    return Family(config, {**network, **changes})


def sd3(depth: int = 2) -> Family:
    network = {
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "depth": depth,
        "input_size": None,
        "adm_in_channels": 64,
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": 64, "out_features": 64 * depth},
        },
        "num_patches": 24**2,
        "pos_embed_max_size": 24,
        "pos_embed_scaling_factor": None,
        "qk_norm": "rms",
        "x_block_self_attn_layers": [],
    }
    return Family("SD3", network)


# The host reads v-prediction of SD2 off the spread of a bias; a block of that number is not needed.
_V_PREDICTION = {f"{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.linspace(-1, 1, 320)}
_CHROMA = {
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "in_dim": 64,
    "out_dim": 128,
    "hidden_dim": 64,
    "n_layers": 1,
    "vec_in_dim": None,
}
_RADIANCE = {
    "image_model": "chroma_radiance",
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": 4,
    "nerf_hidden_size": 16,
    "nerf_mlp_ratio": 2,
    "nerf_depth": 1,
    "nerf_max_freqs": 4,
    "nerf_tile_size": 0,
    "nerf_final_head_type": "conv",
    "nerf_embedder_dtype": torch.float32,
    "use_x0": True,
    "use_sequential_txt_ids": False,
}
_LUMINA = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 96,
    "cap_feat_dim": 64,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "qk_norm": True,
    "n_heads": 2,
    "n_kv_heads": 1,
    "axes_dims": [16, 16, 16],
    "axes_lens": [64, 64, 64],
    "multiple_of": 32,
    "ffn_dim_multiplier": 2.0,
}


def _without_guidance(family: Family) -> dict[str, Any]:
    return {key: value for key, value in family.network.items() if key != "guidance_embed"}


_CHROMA_BASE = _without_guidance(_flux("Chroma"))
FAMILIES = {
    "sd15": _unet("SD15"),
    "sd15-inpaint": _unet("SD15", in_channels=9),
    "sd2": _unet("SD20", _V_PREDICTION, context_dim=1024, use_linear_in_transformer=True),
    "sdxl": _sdxl(),
    "sdxl-zsnr": _sdxl(NARROW, v_pred=torch.zeros(0), ztsnr=torch.zeros(0)),
    "playground": _sdxl(NARROW, edm_mean=torch.zeros(4), edm_std=torch.ones(4)),
    "sd3": sd3(),
    "flux": _flux("Flux"),
    "flux-fill": _flux("FluxInpaint", in_channels=96),
    "schnell": _flux("FluxSchnell", guidance_embed=False),
    "krea2": Family(
        "Krea2",
        {
            "image_model": "krea2",
            "features": 128,
            "channels": 16,
            "patch": 2,
            "layers": 1,
            "heads": 1,
            "kvheads": 1,
            "txtlayers": 2,
            "txtdim": 40,
        },
    ),
    "chroma": replace(_flux("Chroma"), network={**_CHROMA_BASE, **_CHROMA}, loads=False),
    "radiance": replace(_flux("ChromaRadiance"), network={**_CHROMA_BASE, **_CHROMA, **_RADIANCE}, loads=False),
    "lumina2": Family("Lumina2", _LUMINA, loads=False),
    "z-image": Family(
        "ZImage",
        {
            **_LUMINA,
            "dim": 256,
            # As many as the control network has that its patches count on.
            "n_refiner_layers": 2,
            "axes_dims": [32, 48, 48],
            "n_kv_heads": 2,
            "z_image_modulation": True,
            "time_scale": 1000.0,
            "pad_tokens_multiple": 32,
        },
        loads=False,
    ),
    "qwen-image": Family(
        "QwenImage",
        {
            "image_model": "qwen_image",
            "in_channels": 64,
            "num_layers": 1,
            "attention_head_dim": 48,
            "num_attention_heads": 2,
            "joint_attention_dim": 64,
            "axes_dims_rope": (16, 16, 16),
        },
        loads=False,
    ),
    "cosmos": Family(
        "CosmosT2IPredict2",
        {
            "image_model": "cosmos_predict2",
            "max_img_h": 64,
            "max_img_w": 64,
            "max_frames": 4,
            "in_channels": 16,
            "out_channels": 16,
            "patch_spatial": 2,
            "patch_temporal": 1,
            "model_channels": 96,
            "num_blocks": 1,
            "num_heads": 2,
            "crossattn_emb_channels": 64,
            "pos_emb_cls": "rope3d",
            "use_adaln_lora": True,
            "adaln_lora_dim": 16,
            "rope_enable_fps_modulation": False,
        },
        loads=False,
    ),
}

# Those that build on others.
FAMILIES |= {
    "flux2": replace(
        _flux("Flux2"),
        network={
            **_flux("Flux2").network,
            "image_model": "flux2",
            "in_channels": 128,
            "out_channels": 128,
            "vec_in_dim": None,
            "mlp_ratio": 3.0,
            "axes_dim": [32, 32, 32, 32],
            "theta": 2000,
            "patch_size": 1,
            "qkv_bias": False,
            "txt_ids_dims": [3],
            "global_modulation": True,
            "mlp_silu_act": True,
            "ops_bias": False,
            "default_ref_method": "index",
            "ref_index_scale": 10.0,
        },
        loads=False,
    ),
    "auraflow": Family(
        "AuraFlow",
        {
            "max_seq": 64,
            "cond_seq_dim": 64,
            "dim": 96,
            "n_heads": 2,
            "n_layers": 2,
            "n_double_layers": 1,
            "global_conddim": 96,
        },
        loads=False,
    ),
    "pixart": Family(
        "PixArtSigma",
        {
            "image_model": "pixart_sigma",
            "micro_condition": False,
            "hidden_size": 96,
            "num_heads": 2,
            "depth": 1,
            "caption_channels": 64,
            "input_size": 16,
            "pe_interpolation": 1,
        },
        loads=False,
    ),
    "anima": Family(
        "Anima",
        {**FAMILIES["cosmos"].network, "image_model": "anima", "crossattn_emb_channels": 1024},
        loads=False,
        # Of 135 million weights, for the ids of a second text encoder.
        unused=("llm_adapter",),
    ),
    "ernie": Family(
        "ErnieImage",
        {
            "image_model": "ernie",
            "hidden_size": 128,
            "num_attention_heads": 1,
            "num_layers": 1,
            "ffn_hidden_size": 128,
            "text_in_dim": 64,
        },
        loads=False,
    ),
    "hunyuan-image": Family(
        "HunyuanImage21",
        {
            "image_model": "hunyuan_video",
            "in_channels": 64,
            "out_channels": 64,
            "vec_in_dim": None,
            "context_in_dim": 64,
            "hidden_size": 128,
            "mlp_ratio": 4.0,
            "num_heads": 1,
            "depth": 1,
            "depth_single_blocks": 1,
            "axes_dim": [64, 64],
            "theta": 256,
            "patch_size": [1, 1],
            "qkv_bias": True,
            "guidance_embed": False,
            "byt5": False,
            "meanflow": False,
            "use_cond_type_embedding": False,
            "vision_in_dim": None,
            "meanflow_sum": False,
        },
        loads=False,
    ),
    "joyimage": Family(
        "JoyImage",
        {
            "image_model": "joyimage",
            "in_channels": 16,
            "hidden_size": 128,
            "num_attention_heads": 1,
            "num_layers": 1,
            "text_dim": 64,
        },
        loads=False,
    ),
    "kandinsky5": Family(
        "Kandinsky5Image",
        {
            "image_model": "kandinsky5",
            "model_dim": 128,
            "ff_dim": 128,
            "time_dim": 64,
            "visual_embed_dim": 64,
            "in_text_dim": 64,
            "in_text_dim2": 64,
            "num_text_blocks": 1,
            "num_visual_blocks": 1,
            "axes_dims": (16, 24, 24),
            "rope_scale_factor": (1.0, 1.0, 1.0),
        },
        loads=False,
    ),
    "z-image-pixel": Family(
        "ZImagePixelSpace",
        {
            **FAMILIES["z-image"].network,
            "image_model": "zimage_pixel",
            "patch_size": 4,
            "in_channels": 3,
            "decoder_in_channels": 48,
            "decoder_hidden_size": 64,
            "decoder_num_res_blocks": 1,
            "decoder_max_freqs": 4,
            "use_x0": True,
        },
        loads=False,
    ),
    "pixeldit": Family(
        "PixelDiTT2I",
        {
            "image_model": "pixeldit_t2i",
            "num_groups": 2,
            "hidden_size": 96,
            "pixel_hidden_size": 8,
            "pixel_attn_hidden_size": 32,
            "pixel_num_groups": 2,
            "patch_depth": 1,
            "pixel_depth": 1,
            "patch_size": 4,
            "txt_embed_dim": 64,
        },
        loads=False,
    ),
}

# SD1.5 where no file is needed.
SMALL_UNET = _unet("SD15", model_channels=NARROW)
# With what nodes for UNets change: attention in the middle, and two widths.
DEEP_UNET = _unet(
    "SD15",
    model_channels=NARROW,
    num_res_blocks=[1, 1],
    channel_mult=[1, 2],
    transformer_depth=[1, 1],
    transformer_depth_output=[1, 1, 1, 1],
    transformer_depth_middle=1,
)
# Refused by VIPaint: it makes films.
WAN = Family(
    "WAN21_T2V",
    {
        "image_model": "wan2.1",
        "model_type": "t2v",
        "dim": 128,
        "in_dim": 16,
        "out_dim": 16,
        "num_heads": 1,
        "ffn_dim": 64,
        "num_layers": 1,
        "patch_size": (1, 2, 2),
        "freq_dim": 256,
        "window_size": (-1, -1),
        "qk_norm": True,
        "cross_attn_norm": True,
        "eps": 1e-6,
    },
)
