"""Tiny models with random weights, built from the host's own classes, and their checkpoint files.

Needs the host on `sys.path`. The pictures they paint are noise; their gradients are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_families import UNET, Family
from torch import nn


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        yield


def randomise(network: nn.Module) -> None:
    """Weights of variance 1/3 over their inputs, as PyTorch draws them; none is zero, which would hide a gradient."""
    named = [*network.named_parameters(), *((n, b) for n, b in network.named_buffers() if n.endswith("pos_embed"))]
    for name, tensor in named:
        if tensor.ndim > 1:
            tensor.normal_(std=(3 * tensor[0].numel()) ** -0.5)
        else:
            tensor.normal_(mean=float(name.endswith(("weight", "scale", "gamma"))), std=0.1)


def build(family: Family, seed: int = 0) -> Any:
    """The host's model of a family, as its loader makes it but for the weights."""
    import comfy.supported_models

    config = getattr(comfy.supported_models, family.config)(family.network)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(family.extra, UNET)
    if hasattr(model, "diffusion_model"):
        for name in family.unused:
            setattr(model.diffusion_model, name, nn.Identity())
        with _seeded(seed):
            randomise(model.diffusion_model)
    return model


def patcher(family: Family, seed: int = 0) -> Any:
    """A MODEL of a family, also of one whose small files the host would not know."""
    import comfy.model_patcher

    cpu = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(build(family, seed), load_device=cpu, offload_device=cpu)


def taesd(channels: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """An autoencoder of 8 x 8 pixels a cell in TAESD's layout, which the host takes for any latent format."""
    import comfy.taesd.taesd as layout

    coders = {"taesd_encoder": layout.Encoder(channels), "taesd_decoder": layout.Decoder(channels)}
    tensors = {"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)}
    with _seeded(seed):
        for layer in (part for coder in coders.values() for part in coder.modules()):
            if isinstance(layer, nn.Conv2d):
                nn.Conv2d.reset_parameters(layer)
        # Latents of about unit variance, pictures with contrast.
        for coder in coders.values():
            coder[-1].weight.mul_(30)
    for prefix, coder in coders.items():
        tensors.update({f"{prefix}.{name}": value for name, value in coder.state_dict().items()})
    return tensors


def wan_vae(seed: int = 0) -> dict[str, torch.Tensor]:
    """The films' autoencoder that image models with a frame share, narrow."""
    import comfy.ldm.wan.vae as layout

    narrow = {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}
    coder = layout.WanVAE(**narrow, attn_scales=[], temperal_downsample=[False, True, True])
    with _seeded(seed):
        randomise(coder)
    return coder.state_dict()


def controlnet(family: Family, seed: int = 0, *, encodes: bool = False) -> Any:
    """A CONTROL_NET of a family: as the stock loader makes it from a file, others from the same classes.

    encodes: of those (of SD3 and Flux) that read latents of a masked picture and its mask, for which they need a VAE.
    """
    import comfy.cldm.cldm
    import comfy.cldm.mmdit
    import comfy.controlnet
    import comfy.latent_formats
    import comfy.ldm.flux.controlnet
    import comfy.model_management
    import comfy.ops
    import comfy.supported_models

    config = getattr(comfy.supported_models, family.config)(family.network).unet_config
    is_flux, latents = config.get("image_model") == "flux", None
    options = {"operations": comfy.ops.disable_weight_init, "dtype": torch.float32}
    if encodes:
        options["control_latent_channels"] = 17
        latents = comfy.latent_formats.Flux() if is_flux else comfy.latent_formats.SD3()
    if "model_channels" in config:
        network, prefix = comfy.cldm.cldm.ControlNet(hint_channels=3, **config, **options), "control_model."
    elif is_flux:
        network = comfy.ldm.flux.controlnet.ControlNetFlux(latent_input=encodes, **config, **options)
        prefix = None if encodes else ""
    else:
        network, prefix = comfy.cldm.mmdit.ControlNet(num_blocks=config["depth"], **config, **options), None
    with _seeded(seed):
        randomise(network)
    if prefix is None:
        device = comfy.model_management.get_torch_device()
        extra = {"extra_conds": ["y", "guidance"]} if is_flux else {}
        return comfy.controlnet.ControlNet(
            network, compression_ratio=1, latent_format=latents, concat_mask=encodes, load_device=device, **extra
        )
    # Flux files call the norms' weights scales.
    tensors = {f"{prefix}{name.replace('_norm.weight', '_norm.scale')}": v for name, v in network.state_dict().items()}
    return comfy.controlnet.load_controlnet_state_dict(tensors)


def model_patch(family: Family, seed: int = 0) -> Any:
    """A MODEL_PATCH of Qwen-Image or Z-Image, as Load Model Patch makes it but for its size and weights."""
    import comfy.ldm.lumina.controlnet
    import comfy.model_patcher
    import comfy.ops
    import comfy_extras.nodes_model_patch as patches

    options, network = {"operations": comfy.ops.manual_cast}, family.network
    if family.config == "QwenImage":
        width = network["attention_head_dim"] * network["num_attention_heads"]
        control = patches.QwenImageBlockWiseControlNet(network["num_layers"], dim=width, **options)
    else:
        known = {name: network[name] for name in ("dim", "n_heads", "n_kv_heads", "multiple_of", "ffn_dim_multiplier")}
        control = comfy.ldm.lumina.controlnet.ZImage_Control(
            n_control_layers=1, refiner_control=True, additional_in_dim=17, **known, **options
        )
    with _seeded(seed):
        randomise(control)
    cpu = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(control, load_device=cpu, offload_device=cpu)


def make(family: Family, path: Path, seed: int = 0) -> Path:
    """Writes a checkpoint with an autoencoder that the host's stock loader takes."""
    if not family.loads:
        raise ValueError(f"the host knows {family.config} at its published size only: use `patcher`")
    model = build(family, seed)
    config = model.model_config
    tensors = {f"{UNET}{name}": value for name, value in model.diffusion_model.state_dict().items()}
    latents = config.latent_format
    coder = wan_vae(seed) if latents.latent_dimensions == 3 else taesd(latents.latent_channels, seed)
    tensors.update({f"{config.vae_key_prefix[0]}{name}": value for name, value in coder.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().contiguous() for name, value in {**tensors, **family.extra}.items()}, path)
    return path
