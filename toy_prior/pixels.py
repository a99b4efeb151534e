"""A diffusion prior of 32 x 32 portraits in pixel space, preconditioned as in Karras et al. 2022 (EDM).

None of the host's families has three channels and this preconditioning. The model is assembled of the host's own
classes: its MMDiT, its sampling `EDM` and its identity VAE. Their output works in every node.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file

from tools import in_process
from toy_prior import PIXELS
from toy_prior.transformer import layout

in_process.activate()

comfy: Any = importlib.import_module("comfy.sd")
latent_formats: Any = importlib.import_module("comfy.latent_formats")
model_base: Any = importlib.import_module("comfy.model_base")
model_management: Any = importlib.import_module("comfy.model_management")
model_patcher: Any = importlib.import_module("comfy.model_patcher")
supported_models_base: Any = importlib.import_module("comfy.supported_models_base")

SIDE, CHANNELS, DEPTH = 32, 3, 3
# Of pictures in [-1, 1], and the levels of the published schedule.
SIGMA_DATA, SIGMA_MIN, SIGMA_MAX = 0.5, 0.002, 80.0
NETWORK, VAE = "model.diffusion_model.", "first_stage_model."


class PixelPortraits(supported_models_base.BASE):
    """What the host must know of the model."""

    unet_config: ClassVar[dict[str, Any]] = {}
    unet_extra_config: ClassVar[dict[str, Any]] = {}
    latent_format = latent_formats.ChromaRadiance
    sampling_settings: ClassVar[dict[str, float]] = {
        "sigma_data": SIGMA_DATA,
        "sigma_min": SIGMA_MIN,
        "sigma_max": SIGMA_MAX,
    }
    memory_usage_factor = 1.6

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> Any:
        return model_base.SD3(self, model_type=model_base.ModelType.EDM, device=device)


def load(file: Path = PIXELS) -> tuple[Any, Any]:
    """MODEL and VAE of a checkpoint of `toy_prior.train_pixels`. Raises FileNotFoundError where it is missing."""
    if not file.is_file():
        raise FileNotFoundError(f"no {file.name}: make it with `python -m toy_prior.train_pixels`")
    tensors = load_file(file)
    network = {name[len(NETWORK) :]: value.float() for name, value in tensors.items() if name.startswith(NETWORK)}
    vae = {name[len(VAE) :]: value for name, value in tensors.items() if name.startswith(VAE)}
    config = PixelPortraits({**layout(CHANNELS, DEPTH), "pos_embed_scaling_factor": None})
    device, offload = model_management.get_torch_device(), model_management.unet_offload_device()
    config.set_inference_dtype(next(iter(network.values())).dtype, None, device=device)
    model = config.get_model(network)
    model.load_model_weights(network, "")
    # Half precision, which the host prefers on a GPU, would round pixels.
    return model_patcher.ModelPatcher(model, load_device=device, offload_device=offload), comfy.VAE(
        sd=vae, dtype=torch.float32
    )
