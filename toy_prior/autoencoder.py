"""Autoencoders in TAESD's layout, 8 x 8 pixels a cell: how they are trained, used and written into checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tools import in_process

in_process.activate()

import comfy.taesd.taesd as taesd  # noqa: E402  (needs the host on sys.path)

from toy_prior.training import DEVICE, adamw, autocast, generator, half, log, save, schedule, train  # noqa: E402

CELL = 8
# Two cycles of the rate (warm restarts, Loshchilov and Hutter 2017): the second gains more than a longer first.
CYCLES, RATE = (900, 1200), 1.5e-3
LATENT_NOISE = 0.1
# Steps between saves: a GPU does 50 in the time that one takes.
EVERY = 250 if DEVICE == "cuda" else 50


class Coders(NamedTuple):
    """Both halves of an autoencoder: pictures in [0, 1] to raw latents of about unit variance, and back."""

    encoder: nn.Module
    decoder: nn.Module


class Latents(NamedTuple):
    """latents: (N, C, H / 8, W / 8), standardised by one mean and one deviation of the raw ones."""

    latents: torch.Tensor
    mean: float
    deviation: float


class LatentFormat(NamedTuple):
    """How the host maps what a VAE encodes into a family's model scale: (encoded - shift) * scale."""

    scale: float
    shift: float


def build(channels: int, seed: int) -> Coders:
    torch.manual_seed(seed)
    encoder, decoder = taesd.Encoder(channels), taesd.Decoder(channels)
    for module in (encoder, decoder):
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.Conv2d.reset_parameters(layer)
        module.to(DEVICE, memory_format=torch.channels_last)
    return Coders(encoder, decoder)


def train_autoencoder(
    crops: Callable[[torch.Generator], torch.Tensor],
    file: Path,
    *,
    channels: int,
    seed: int,
    cycles: tuple[int, int] = CYCLES,
    rate: float = RATE,
) -> Coders:
    """An autoencoder trained with L1 + L2, latents near unit variance that tolerate a little noise.

    crops: pictures (N, 3, H, W) in [0, 1] of a step, from its generator.
    file: the state of the training.
    cycles: steps before and after the restart of the rate.
    """
    coders = build(channels, seed)
    modules = nn.ModuleList(coders)
    first, steps = cycles[0], sum(cycles)
    squares: list[torch.Tensor] = []

    def rate_at(step: int) -> float:
        return rate * (schedule(step, first) if step < first else schedule(step - first, steps - first))

    def loss_of(step: int) -> torch.Tensor:
        numbers = generator(seed + step)
        batch = crops(numbers)
        rows, _, height, width = batch.shape
        noise = LATENT_NOISE * torch.randn(rows, channels, height // CELL, width // CELL, generator=numbers)
        batch = batch.to(DEVICE, memory_format=torch.channels_last)
        with autocast():
            latent = coders.encoder(batch)
            out = coders.decoder(latent + noise.to(DEVICE, memory_format=torch.channels_last))
        error, scale = out.float() - batch, latent.float()
        square = error.square().mean()
        squares[:] = [square.detach()]
        return error.abs().mean() + 4 * square + 1e-3 * (scale.mean().square() + (scale.std() - 1).square())

    def note() -> str:
        return f"{-10 * math.log10(squares[0].item()):.2f} dB"

    train(modules, [adamw(modules.parameters(), rate)], loss_of, steps, file, rate=rate_at, every=EVERY, note=note)
    return coders


@torch.no_grad()
def encoded(encoder: nn.Module, batches: Iterable[torch.Tensor], file: Path) -> Latents:
    """Latents of batches of pictures (N, 3, H, W) in [0, 1], kept in a file."""
    if not file.exists():
        rows = []
        for batch in batches:
            with autocast():
                rows.append(encoder(batch.to(DEVICE, memory_format=torch.channels_last)).float().cpu())
            if len(rows) % 100 == 0:
                log.info("%s: %d batches", file.stem, len(rows))
        raw = torch.cat(rows)
        mean, deviation = raw.mean(), raw.std()
        save({"latents": ((raw - mean) / deviation).contiguous(), "mean": mean, "deviation": deviation}, file)
    data = torch.load(file, weights_only=True)
    return Latents(data["latents"], float(data["mean"]), float(data["deviation"]))


def vae_tensors(coders: Coders, data: Latents, form: LatentFormat, prefix: str) -> dict[str, torch.Tensor]:
    """The autoencoder's tensors in half precision, as the host's loader finds them in a checkpoint.

    Its two scalars give the model the standardised latents: form: of the checkpoint's family.
    """
    scale = form.scale * data.deviation
    shift = form.shift - data.mean / scale
    tensors = {f"{prefix}vae_scale": torch.tensor(scale), f"{prefix}vae_shift": torch.tensor(shift)}
    for name, module in (("taesd_encoder", coders.encoder), ("taesd_decoder", coders.decoder)):
        tensors |= {f"{prefix}{name}.{part}": half(value) for part, value in module.state_dict().items()}
    return tensors
