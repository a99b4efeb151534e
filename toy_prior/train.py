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

from tools.in_process import ROOT
from toy_prior import CHECKPOINT, pictures
from toy_prior.autoencoder import CELL, encoded, train_autoencoder
from toy_prior.training import DEVICE, generator
from toy_prior.transformer import build, export, flow, train_denoiser
from toy_prior.transformer import cell_weights as weights_of

SEED = 2411

AE_BATCH, AE_CROP = 32, 64
LATENTS = 12_288
PRIOR_STEPS, PRIOR_BATCH, PRIOR_RATE, PRIOR_EMA = 5000, 64, 1e-3, 0.999
SHIFT = 3.0


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
    return build(SEED + 1)


def cell_weights() -> torch.Tensor:
    """Weight of every latent cell in the loss, (16, 16)."""
    return weights_of(torch.stack([pictures.support(group) for group in pictures.GROUPS]).float(), CELL)


def train_prior(latents: torch.Tensor, work: Path) -> nn.Module:
    return train_denoiser(
        build_prior(),
        latents,
        flow(SHIFT),
        cell_weights(),
        work / "prior.pt",
        steps=PRIOR_STEPS,
        batch=PRIOR_BATCH,
        rate=PRIOR_RATE,
        seed=2 * 10**6,
        ema=PRIOR_EMA,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "toy_prior")
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    options = parser.parse_args()
    logging.basicConfig(force=True, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options.work.mkdir(parents=True, exist_ok=True)
    coders = train_autoencoder(training_crops, options.work / "autoencoder.pt", channels=16, seed=SEED)
    data = encoded(coders.encoder, picture_batches(LATENTS), options.work / "latents.pt")
    prior = train_prior(data.latents, options.work)
    description = "Small latent diffusion prior of procedural 128 x 128 portraits, for tests and demos."
    export(coders, data, prior, "VIPaint toy portraits", description, options.out)


if __name__ == "__main__":
    main()
