"""Trains the prior of rendered scenes and writes it as one safetensors checkpoint.

    python -m toy_prior.train_scenes [--work FOLDER] [--out FILE] [--coder-steps N] [--steps N]

As `toy_prior.train`, at 256 x 256 pixels: an autoencoder in TAESD's layout with 16 channels, latents of 32 x 32 cells,
an SD3-layout MMDiT of depth 4 by rectified flow. Three minutes on a data-centre GPU, days on two CPU cores; resumable.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from tools.in_process import ROOT
from toy_prior import SCENES, scenes
from toy_prior.autoencoder import CELL, Coders, encoded, train_autoencoder
from toy_prior.scenes.reader import BLOCK, TOLERANCE_KEY, measured_tolerance, reach
from toy_prior.training import DEVICE, generator
from toy_prior.transformer import build, cell_weights, export, flow, train_denoiser

SEED = 256_000_000

# Crops are cut from so many pictures.
POOL, CROPS, CROP = 4096, 64, 64
CODER_STEPS = 2400
LATENTS, TOGETHER = 32_768, 128
STEPS, BATCH, RATE = 4000, 256, 1e-3
# Four times as many cells as the portraits, whose shift is 3: twice the noise, nearly.
SHIFT = 5.0
# What fills are read with: measured on so many held-out pictures and kept in the checkpoint's metadata.
HELD_OUT, HELD_OUT_SEED = 256, SEED + 5 * 10**7


def picture_batches(count: int, seed: int) -> Iterator[torch.Tensor]:
    """So many pictures, `TOGETHER` at a time."""
    for first in range(0, count, TOGETHER):
        attributes = scenes.sample_attributes(min(TOGETHER, count - first), generator(seed + first))
        yield scenes.render(attributes.to(DEVICE))


def random_crops(pool: torch.Tensor, numbers: torch.Generator) -> torch.Tensor:
    """Crops (CROPS, 3, CROP, CROP) in [0, 1] of which a quarter carry a rectangle of another one.

    Inpainting encodes pictures with filled holes: the autoencoder must not know scenes only.

    pool: (M, 3, 256, 256) of bytes.
    """
    count, end = CROPS + CROPS // 4, scenes.SIZE - CROP
    rows = torch.randint(len(pool), (count,), generator=numbers)
    # Offsets beyond the picture are clamped, or a border would almost never be seen.
    corners = torch.randint(-16, end + 17, (2, count), generator=numbers).clamp(0, end)
    place = torch.arange(CROP)
    y, x = (corner[:, None, None] + steps for corner, steps in zip(corners, (place[:, None], place), strict=True))
    index = [part.to(pool.device) for part in (rows[:, None, None], y, x)]
    crops = pool.permute(0, 2, 3, 1)[index[0], index[1], index[2]].permute(0, 3, 1, 2).float() / 255
    crops, others = crops[:CROPS], crops[CROPS:]
    first = torch.randint(-16, CROP - 8, (2, len(others), 1), generator=numbers)
    last = first + torch.randint(8, 56, (2, len(others), 1), generator=numbers)
    down, across = ((place >= first) & (place < last)).unbind()
    inside = (down[:, None, :, None] & across[:, None, None, :]).to(pool.device)
    crops[::4] = torch.where(inside, others, crops[::4])
    return crops


def weights() -> torch.Tensor:
    """Weight of every latent cell in the prior's loss, (32, 32)."""
    places = torch.stack([reach(slot, torch.device(DEVICE)) for slot in ("left", "right", "front")])
    return cell_weights(places.float(), CELL // BLOCK)


@torch.no_grad()
def autoencoded(coders: Coders, count: int) -> torch.Tensor:
    """So many held-out pictures after the autoencoder."""
    return torch.cat(
        [coders.decoder(coders.encoder(batch)).clamp(0, 1) for batch in picture_batches(count, HELD_OUT_SEED)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "toy_prior" / "scenes")
    parser.add_argument("--out", type=Path, default=SCENES)
    parser.add_argument("--coder-steps", type=int, default=CODER_STEPS, help="of the autoencoder")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the prior")
    parser.add_argument("--latents", type=int, default=LATENTS, help="pictures that the prior learns from")
    options = parser.parse_args()
    logging.basicConfig(force=True, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options.work.mkdir(parents=True, exist_ok=True)
    first = round(options.coder_steps * 0.4)
    pool = torch.cat([batch.mul(255).round().byte() for batch in picture_batches(min(POOL, options.latents), SEED)])
    coders = train_autoencoder(
        lambda numbers: random_crops(pool, numbers),
        options.work / "autoencoder.pt",
        channels=16,
        seed=SEED,
        cycles=(first, options.coder_steps - first),
    )
    data = encoded(coders.encoder, picture_batches(options.latents, SEED + 10**7), options.work / "latents.pt")
    prior = train_denoiser(
        build(SEED),
        data.latents.half(),
        flow(SHIFT),
        weights(),
        options.work / "prior.pt",
        steps=options.steps,
        batch=BATCH,
        rate=RATE,
        seed=SEED + 2 * 10**7,
    )
    facts = {TOLERANCE_KEY: json.dumps(measured_tolerance(autoencoded(coders, HELD_OUT)))}
    description = "Small latent diffusion prior of rendered 256 x 256 scenes with known posteriors, for benchmarks."
    export(coders, data, prior, "VIPaint toy scenes", description, options.out, facts)


if __name__ == "__main__":
    main()
