"""Trains the toy prior from scratch and writes it as one safetensors checkpoint.

    python -m toy_prior.train [--work FOLDER] [--out FILE]

Three stages, each resumable from its last checkpoint in the work folder: a TAESD-layout
autoencoder (16 latent channels), its latents of seeded pictures, and an SD3-layout MMDiT of
depth 4 trained by flow matching (Esser et al. 2024, arXiv 2403.03206: linear path, shift 3).
Together about two hours on two CPU cores with bfloat16; minutes on a GPU.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from tools import in_process

in_process.activate()

import comfy.ldm.modules.diffusionmodules.mmdit as mmdit  # noqa: E402  (needs the host on sys.path)

from toy_prior import CHECKPOINT, pictures  # noqa: E402
from toy_prior.autoencoder import Coders, LatentFormat, Latents, encoded, train_autoencoder, vae_tensors  # noqa: E402
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

SEED = 2411

AE_BATCH, AE_CROP = 32, 64
LATENTS = 12_288
PRIOR_STEPS, PRIOR_BATCH, PRIOR_RATE, PRIOR_EMA = 5000, 64, 1e-3, 0.999
DEPTH, TOKENS, CONTEXT, POOLED, SHIFT = 4, 24, 64, 64, 3.0
LATENT_FORMAT = LatentFormat(scale=1.5305, shift=0.0609)  # SD3's


def training_crops(numbers: torch.Generator, count: int = AE_BATCH) -> torch.Tensor:
    """So many crops in [0, 1] of pictures of which a quarter carry a rectangle of another, shifted one.

    Inpainting encodes pictures with filled holes: the autoencoder must not know portraits only.
    """
    batch = pictures.render(pictures.sample_attributes(count, numbers).to(DEVICE))
    for row in range(0, count, 4):
        top, left, shift_y, shift_x = torch.randint(0, pictures.SIZE, (4,), generator=numbers).tolist()
        height, width = torch.randint(16, 96, (2,), generator=numbers).tolist()
        other = batch[row + 1].roll((shift_y, shift_x), (1, 2))
        batch[row, :, top : top + height, left : left + width] = other[:, top : top + height, left : left + width]
    # Offsets beyond the picture are clamped, or a border would almost never be seen.
    ends = pictures.SIZE - AE_CROP
    offsets = torch.randint(-16, ends + 17, (count, 2), generator=numbers).clamp(0, ends).tolist()
    return torch.stack([row[:, y : y + AE_CROP, x : x + AE_CROP] for row, (y, x) in zip(batch, offsets, strict=True)])


def picture_batches(count: int) -> Iterator[torch.Tensor]:
    """So many pictures of the prior's training, 64 at a time."""
    for first in range(0, count, 64):
        yield pictures.render(pictures.sample_attributes(64, generator(10**6 + first)).to(DEVICE))


def build_prior() -> nn.Module:
    torch.manual_seed(SEED + 1)
    hidden = 64 * DEPTH
    model = mmdit.OpenAISignatureMMDITWrapper(
        input_size=None,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        depth=DEPTH,
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
    model.pos_embed.copy_(torch.from_numpy(mmdit.get_2d_sincos_pos_embed(hidden, TOKENS)).float()[None])
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


def cell_weights() -> torch.Tensor:
    """Weight of every latent cell in the loss, (16, 16), mean 1: each part of a portrait counts alike.

    The best denoiser is the same for all positive weights; eyes are learnt sooner than by their area.
    """
    parts = torch.stack([pictures.support(group) for group in pictures.GROUPS]).float()
    parts = torch.cat([parts, 1 - parts.amax(0, keepdim=True)])
    shares = nn.functional.avg_pool2d(parts / parts.sum((1, 2), keepdim=True), 8).sum(0)
    return (shares / shares.mean()).clamp_min(0.25)


def train_prior(latents: torch.Tensor, work: Path) -> nn.Module:
    model = build_prior()
    context = torch.zeros(PRIOR_BATCH, 1, CONTEXT, device=DEVICE)
    pooled = torch.zeros(PRIOR_BATCH, POOLED, device=DEVICE)
    weights, latents = cell_weights().to(DEVICE), latents.to(DEVICE)

    def loss_of(step: int) -> torch.Tensor:
        numbers = generator(2 * 10**6 + step)
        rows = torch.randint(len(latents), (PRIOR_BATCH,), generator=numbers)
        noise = torch.randn(PRIOR_BATCH, 16, 16, 16, generator=numbers)
        # Stratified times: one per row, evenly spread over (0, 1), then shifted towards noise.
        uniform = (torch.arange(PRIOR_BATCH) + torch.rand(PRIOR_BATCH, generator=numbers)) / PRIOR_BATCH
        sigma = (SHIFT * uniform / (1 + (SHIFT - 1) * uniform)).to(DEVICE)
        data, noise = latents[rows.to(DEVICE)], noise.to(DEVICE)
        mix = sigma[:, None, None, None]
        with autocast():
            out = model((1 - mix) * data + mix * noise, sigma * 1000, context=context, y=pooled)
        return (weights * (out.float() - (noise - data)).square()).mean()

    return train(
        model,
        muon_and_adamw(model, is_picture_matrix, PRIOR_RATE),
        loss_of,
        PRIOR_STEPS,
        work / "prior.pt",
        rate=lambda step: PRIOR_RATE * schedule(step, PRIOR_STEPS),
        ema=lambda step: ema_share(step, PRIOR_EMA),
    )


def export(coders: Coders, data: Latents, prior: nn.Module, out: Path) -> None:
    """Writes one half-precision checkpoint in the layout that the host's stock loader detects as SD3."""
    tensors = vae_tensors(coders, data, LATENT_FORMAT, "first_stage_model.")
    tensors |= {f"model.diffusion_model.{name}": half(value) for name, value in prior.state_dict().items()}
    metadata = {
        "modelspec.architecture": "stable-diffusion-v3",
        "modelspec.title": "VIPaint toy portraits",
        "modelspec.license": "CC0-1.0",
        "modelspec.description": "Small latent diffusion prior of procedural 128 x 128 portraits, for tests and demos.",
    }
    write_checkpoint(tensors, metadata, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=in_process.ROOT / ".cache" / "toy_prior")
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    options = parser.parse_args()
    logging.basicConfig(force=True, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options.work.mkdir(parents=True, exist_ok=True)
    coders = train_autoencoder(training_crops, options.work / "autoencoder.pt", channels=16, seed=SEED)
    data = encoded(coders.encoder, picture_batches(LATENTS), options.work / "latents.pt")
    export(coders, data, train_prior(data.latents, options.work), options.out)


if __name__ == "__main__":
    main()
