"""Denoisers in SD3's layout (MMDiT), as small as the host's loader allows: how they are built and trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tools import in_process

in_process.activate()

import comfy.ldm.modules.diffusionmodules.mmdit as mmdit  # noqa: E402  (needs the host on sys.path)

from toy_prior.autoencoder import Coders, LatentFormat, Latents, vae_tensors  # noqa: E402
from toy_prior.training import (  # noqa: E402
    DEVICE,
    autocast,
    ema_share,
    generator,
    half,
    muon_and_adamw,
    schedule,
    train,
    write_checkpoint,
)

TOKENS, CONTEXT, POOLED = 24, 64, 64
LATENT_FORMAT = LatentFormat(scale=1.5305, shift=0.0609)  # SD3's


def layout(channels: int, depth: int) -> dict:
    """What the host's class is made with; the width is 64 times the depth."""
    return {
        "input_size": None,
        "patch_size": 2,
        "in_channels": channels,
        "out_channels": channels,
        "depth": depth,
        "adm_in_channels": POOLED,
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": CONTEXT, "out_features": 64 * depth},
        },
        "num_patches": TOKENS**2,
        "pos_embed_max_size": TOKENS,
        "qk_norm": "rms",
    }


def build(seed: int, channels: int = 16, depth: int = 4) -> nn.Module:
    """A network with fresh weights, for pictures of up to 48 x 48 cells."""
    torch.manual_seed(seed)
    model = mmdit.OpenAISignatureMMDITWrapper(**layout(channels, depth), operations=nn)
    model.pos_embed.copy_(torch.from_numpy(mmdit.get_2d_sincos_pos_embed(64 * depth, TOKENS)).float()[None])
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for name, weight in model.named_parameters():
        if ".ln_" in name:  # the host's RMSNorm leaves its weight uninitialised
            nn.init.ones_(weight)
    # Blocks start as the identity and the output at zero (adaLN-zero, Peebles and Xie 2023).
    blocks = [part for block in model.joint_blocks for part in (block.x_block, block.context_block)]
    for part in [*blocks, model.final_layer]:
        nn.init.zeros_(part.adaLN_modulation[-1].weight)
        nn.init.zeros_(part.adaLN_modulation[-1].bias)
    nn.init.zeros_(model.final_layer.linear.weight)
    return model.to(DEVICE)


def is_picture_matrix(name: str) -> bool:
    """Whether a parameter is of the picture's attention and MLPs."""
    return ".x_block." in name and (".attn." in name or ".mlp." in name)


class Asked(NamedTuple):
    """What a network is given, and what it should answer. inputs, target: (N, C, H, W); times: (N,)."""

    inputs: torch.Tensor
    times: torch.Tensor
    target: torch.Tensor


# Of pictures, noise and numbers in (0, 1), (N,), that decide the level of every row.
Task = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Asked]


def flow(shift: float) -> Task:
    """Rectified flow with times shifted towards noise (Esser et al. 2024, arXiv 2403.03206)."""

    def ask(data: torch.Tensor, noise: torch.Tensor, uniform: torch.Tensor) -> Asked:
        sigma = shift * uniform / (1 + (shift - 1) * uniform)
        mix = sigma[:, None, None, None]
        return Asked((1 - mix) * data + mix * noise, sigma * 1000, noise - data)

    return ask


def edm(sigma_data: float, mean: float, deviation: float) -> Task:
    """The preconditioning of Karras et al. 2022, arXiv 2206.00364, table 1, with log-normal levels."""

    def ask(data: torch.Tensor, noise: torch.Tensor, uniform: torch.Tensor) -> Asked:
        log_sigma = mean + deviation * torch.special.ndtri(uniform)
        sigma = log_sigma.exp()[:, None, None, None]
        noisy, total = data + sigma * noise, (sigma.square() + sigma_data**2).sqrt()
        skip, out = sigma_data**2 / total.square(), sigma * sigma_data / total
        return Asked(noisy / total, log_sigma / 4, (data - skip * noisy) / out)

    return ask


def train_denoiser(
    model: nn.Module,
    data: torch.Tensor,
    task: Task,
    weights: torch.Tensor,
    file: Path,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    ema: float = 0.999,
) -> nn.Module:
    """The average of a network's weights after its training.

    data: (M, C, H, W), whose rows are drawn from. weights: of every cell in the loss, (H, W), mean 1.
    file: the state of the training.
    """
    context = torch.zeros(batch, 1, CONTEXT, device=DEVICE)
    pooled = torch.zeros(batch, POOLED, device=DEVICE)
    weights, data = weights.to(DEVICE), data.to(DEVICE)

    def loss_of(step: int) -> torch.Tensor:
        numbers = generator(seed + step, DEVICE)
        rows = torch.randint(len(data), (batch,), generator=numbers, device=DEVICE)
        noise = torch.randn(batch, *data.shape[1:], generator=numbers, device=DEVICE)
        # Stratified: one number per row, evenly spread over (0, 1).
        uniform = torch.arange(batch, device=DEVICE) + torch.rand(batch, generator=numbers, device=DEVICE)
        asked = task(data[rows].float(), noise, (uniform / batch).clamp(1e-6, 1 - 1e-6))
        with autocast():
            out = model(asked.inputs, asked.times, context=context, y=pooled)
        return (weights * (out.float() - asked.target).square()).mean()

    return train(
        model,
        muon_and_adamw(model, is_picture_matrix, rate),
        loss_of,
        steps,
        file,
        rate=lambda step: rate * schedule(step, steps),
        ema=lambda step: ema_share(step, ema),
    )


def cell_weights(parts: torch.Tensor, cell: int) -> torch.Tensor:
    """Weight of every cell in the loss, (h, w), mean 1: each part of a picture counts alike, as does what is in none.

    The best denoiser is the same for all positive weights; small things are learnt sooner than by their area.

    parts: (P, H, W), 1 where a part is. cell: side of a cell, in the same pixels.
    """
    parts = torch.cat([parts, 1 - parts.amax(0, keepdim=True)])
    shares = nn.functional.avg_pool2d(parts / parts.sum((1, 2), keepdim=True), cell).sum(0)
    return (shares / shares.mean()).clamp_min(0.25)


def export(
    coders: Coders,
    data: Latents,
    prior: nn.Module,
    title: str,
    description: str,
    out: Path,
    facts: dict[str, str] | None = None,
) -> None:
    """Writes one half-precision checkpoint in the layout that the host's stock loader detects as SD3.

    facts: more of its metadata.
    """
    tensors = vae_tensors(coders, data, LATENT_FORMAT, "first_stage_model.")
    tensors |= {f"model.diffusion_model.{name}": half(value) for name, value in prior.state_dict().items()}
    metadata = {
        "modelspec.architecture": "stable-diffusion-v3",
        "modelspec.title": title,
        "modelspec.license": "CC0-1.0",
        "modelspec.description": description,
        **(facts or {}),
    }
    write_checkpoint(tensors, metadata, out)
