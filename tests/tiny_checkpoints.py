"""Writes tiny checkpoints with random weights that ComfyUI's stock loader accepts.

Needs the host on `sys.path`. The pictures they paint are noise; their gradients are real.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

TOKENS, CONTEXT, POOLED, CHANNELS = 24, 64, 64, 16


def make_sd3(path: Path, depth: int = 2, seed: int = 0) -> Path:
    """An SD3-layout MMDiT of the given depth with a TAESD-layout autoencoder, all weights random."""
    import comfy.ldm.modules.diffusionmodules.mmdit as mmdit
    import comfy.taesd.taesd as taesd

    hidden = 64 * depth
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = mmdit.OpenAISignatureMMDITWrapper(
            input_size=None,
            patch_size=2,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            depth=depth,
            adm_in_channels=POOLED,
            context_embedder_config={
                "target": "torch.nn.Linear",
                "params": {"in_features": CONTEXT, "out_features": hidden},
            },
            num_patches=TOKENS**2,
            pos_embed_max_size=TOKENS,
            qk_norm="rms",
            operations=nn,
        )
        network.pos_embed.copy_(torch.from_numpy(mmdit.get_2d_sincos_pos_embed(hidden, TOKENS)).float()[None])
        for layer in network.modules():
            # The host leaves these weights uninitialised, as those of its convolutions below.
            if isinstance(layer, mmdit.RMSNorm) and layer.weight is not None:
                nn.init.ones_(layer.weight)
        coders = {"taesd_encoder": taesd.Encoder(CHANNELS), "taesd_decoder": taesd.Decoder(CHANNELS)}
        for coder in coders.values():
            for layer in coder.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.Conv2d.reset_parameters(layer)
    tensors = {f"model.diffusion_model.{name}": value for name, value in network.state_dict().items()}
    for prefix, coder in coders.items():
        tensors.update({f"first_stage_model.{prefix}.{name}": value for name, value in coder.state_dict().items()})
    tensors["first_stage_model.vae_scale"] = torch.tensor(1.0)
    tensors["first_stage_model.vae_shift"] = torch.tensor(0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, path)
    return path
