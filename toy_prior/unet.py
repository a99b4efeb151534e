"""Trains a UNet in SD1.5's layout on the portraits, with prompts, and writes it as two safetensors files.

    python -m toy_prior.unet [--inpainting [--start FILE]] [--work FOLDER] [--steps N] [--batch N]

Three stages, each resumable: a TAESD-layout autoencoder of four channels, latents of seeded pictures, and a UNet that
predicts noise under SD1.5's own schedule, which ends at noise 14.6 times the picture. Prompts name attributes by tokens
of a learnt table (prompts.py). Minutes on a large GPU, many hours on a CPU.

--inpainting goes on from that UNet to the nine-channel form, as SD1.5's was made: beside the noisy latents it gets the hole
and the latents of the picture without it, by channels whose weights begin at zero. --steps are then those of the
continuation. Everything else is the same but for one more encoding of every picture.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from tools import in_process

in_process.activate()

import comfy.ops  # noqa: E402  (needs the host on sys.path)
from comfy.ldm.modules.attention import SpatialTransformer  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel  # noqa: E402
from comfy.model_sampling import ModelSamplingDiscrete  # noqa: E402

from toy_prior import UNET, UNET_INPAINTING, UNET_VAE, pictures, prompts  # noqa: E402
from toy_prior.autoencoder import CELL, CYCLES, Coders, LatentFormat, Latents, encoded, train_autoencoder, vae_tensors  # noqa: E402
from toy_prior.random_holes import cells, random_holes  # noqa: E402
from toy_prior.train import cell_weights, training_crops  # noqa: E402
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

SEED = 1522
CHANNELS, SIDE = 4, pictures.SIZE // CELL
AE_STEPS, AE_BATCH = sum(CYCLES), 64
PICTURES, ENCODED_TOGETHER = 32_768, 256
STEPS, BATCH, RATE, EMA = 2400, 256, 5e-4, 0.998
# The host tells SD1.5 by the width of its first layer and of its prompts; one level is what 30 MB hold.
NETWORK: dict[str, Any] = {
    "image_size": 32,
    "out_channels": CHANNELS,
    "model_channels": 320,
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [0, 0],
    "transformer_depth_middle": -2,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "context_dim": prompts.WIDTH,
    "legacy": False,
    "adm_in_channels": None,
}
LATENT_FORMAT = LatentFormat(scale=0.18215, shift=0.0)  # SD1.5's
UNNAMED_EACH, UNNAMED_TOGETHER = 0.4, 0.5
# Uniform steps of the schedule to this power: more of those where portraits part.
TIMES = 0.7
PREFIX = "model.diffusion_model."


class Pool(NamedTuple):
    """What is trained on. values: (N, 8) of `prompts.values_of`. beside: (N, 5 or 0, 16, 16), hole and masked latents."""

    latents: torch.Tensor
    values: torch.Tensor
    beside: torch.Tensor


class PromptedUNet(nn.Module):
    """The host's UNet, and the table of its tokens."""

    def __init__(self, extra_channels: int, network: dict[str, Any]) -> None:
        super().__init__()
        channels = CHANNELS + extra_channels
        self.network = UNetModel(in_channels=channels, operations=comfy.ops.disable_weight_init, **network)
        self.tokens = prompts.new_table()
        # The host's layers have weights of any value, and no way to reset them: they are made to be loaded.
        kinds: tuple[Any, ...] = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
        for layer in self.network.modules():
            for kind in kinds:
                if isinstance(layer, kind):
                    kind.reset_parameters(layer)
        # Blocks start as the identity and the output at zero, as in Ho et al. 2020.
        for layer in self.network.modules():
            if isinstance(layer, ResBlock):
                self._clear(layer.out_layers[-1])
            elif isinstance(layer, SpatialTransformer):
                self._clear(layer.proj_out)
        self._clear(self.network.out[-1])

    @staticmethod
    def _clear(layer: nn.Module) -> None:
        for value in layer.parameters():
            nn.init.zeros_(value)

    def forward(self, z: torch.Tensor, time: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The noise in z (N, C, H, W) at steps (N,) of the schedule."""
        noise: torch.Tensor = self.network(z, time, context=self.tokens(prompts.table_rows(values)))
        return noise


def build(extra_channels: int = 0, network: dict[str, Any] = NETWORK, start: Path | None = None) -> PromptedUNet:
    """A network to train.

    start: a checkpoint of `export_unet` to go on from, without the extra channels, which begin at zero.
    """
    torch.manual_seed(SEED + 1)
    model = PromptedUNet(extra_channels, network)
    if start is not None:
        tensors = {name.removeprefix(PREFIX): value.float() for name, value in load_file(start).items()}
        model.tokens.load_state_dict({"weight": tensors.pop(prompts.KEY)})
        first = tensors["input_blocks.0.0.weight"]
        tensors["input_blocks.0.0.weight"] = nn.functional.pad(first, (0, 0, 0, 0, 0, extra_channels))
        model.network.load_state_dict(tensors)
    return model.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]


def levels() -> torch.Tensor:
    """Noise-to-signal ratios of SD1.5's 1000 steps."""
    return ModelSamplingDiscrete().sigmas.float()


def picture_attributes(first: int, count: int) -> pictures.Attributes:
    return pictures.sample_attributes(count, generator(SEED + 10**6 + first))


def batches(count: int) -> Iterator[torch.Tensor]:
    """So many pictures of the training."""
    for first in range(0, count, ENCODED_TOGETHER):
        yield pictures.render(picture_attributes(first, min(ENCODED_TOGETHER, count - first)).to(DEVICE))


@torch.no_grad()
def pool(coders: Coders, data: Latents, inpainting: bool) -> Pool:
    """All that is trained on, on the device; for inpainting a hole for every picture."""
    count = len(data.latents)
    values, beside = [], []
    for first, batch in zip(range(0, count, ENCODED_TOGETHER), batches(count), strict=True):
        values.append(prompts.values_of(picture_attributes(first, len(batch))))
        if inpainting:
            holes = random_holes(len(batch), pictures.SIZE, generator(SEED + 2 * 10**6 + first)).to(DEVICE)
            with autocast():
                raw = coders.encoder(torch.where(holes, 0.5, batch).contiguous(memory_format=torch.channels_last))
            beside.append(torch.cat([cells(holes, SIDE), (raw.float() - data.mean) / data.deviation], dim=1))
    nothing = torch.zeros(count, 0, SIDE, SIDE, device=DEVICE)
    return Pool(data.latents.to(DEVICE), torch.cat(values).to(DEVICE), torch.cat(beside) if beside else nothing)


def is_transformer_matrix(name: str) -> bool:
    return ".transformer_blocks." in name


def train_unet(
    data: Pool,
    file: Path,
    steps: int = STEPS,
    batch: int = BATCH,
    network: dict[str, Any] = NETWORK,
    start: Path | None = None,
) -> PromptedUNet:
    """The average of the weights over the last part of the training. start: see `build`."""
    model = build(data.beside.shape[1], network, start)
    noise_levels, weights = levels().to(DEVICE), cell_weights().to(DEVICE)

    def loss_of(step: int) -> torch.Tensor:
        numbers = generator(SEED + 3 * 10**6 + step, DEVICE)
        rows = torch.randint(len(data.latents), (batch,), generator=numbers, device=DEVICE)
        # Stratified: a step of the schedule per row, evenly spread.
        uniform = (torch.arange(batch, device=DEVICE) + torch.rand(batch, generator=numbers, device=DEVICE)) / batch
        time = (uniform**TIMES * len(noise_levels)).long().clamp_max(len(noise_levels) - 1)
        s = noise_levels[time][:, None, None, None]
        latents = data.latents[rows]
        noise = torch.randn(latents.shape, generator=numbers, device=DEVICE)
        values = prompts.without_some(data.values[rows], UNNAMED_EACH, UNNAMED_TOGETHER, numbers)
        z = torch.cat([(latents + s * noise) / (1 + s**2).sqrt(), data.beside[rows]], dim=1)
        with autocast():
            out = model(z.contiguous(memory_format=torch.channels_last), time.float(), values)
        # The weight of a prediction of v (Salimans and Ho 2022): of noise alone, pictures at high noise would count little.
        return (weights * (1 + s**2) * (out.float() - noise).square()).mean()

    average = train(
        model,
        muon_and_adamw(model, is_transformer_matrix, RATE),
        loss_of,
        steps,
        file,
        rate=lambda step: RATE * schedule(step, steps, warmup=min(200, steps // 4 + 1)),
        ema=lambda step: ema_share(step, EMA),
        every=200,
    )
    assert isinstance(average, PromptedUNet)
    return average


def metadata(title: str) -> dict[str, str]:
    return {
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.title": title,
        "modelspec.license": "CC0-1.0",
        "modelspec.description": "Small latent diffusion prior of procedural 128 x 128 portraits, for tests and benchmarks.",
    }


def export_unet(model: PromptedUNet, title: str, out: Path) -> None:
    """Writes the network as the host's stock loader detects it, and the table of its tokens."""
    tensors = {f"{PREFIX}{name}": half(value) for name, value in model.network.state_dict().items()}
    write_checkpoint({**tensors, prompts.KEY: half(model.tokens.weight)}, metadata(title), out)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inpainting", action="store_true", help="the nine-channel form")
    parser.add_argument("--start", type=Path, default=UNET, help="the UNet that the nine-channel form goes on from")
    parser.add_argument("--work", type=Path, default=in_process.ROOT / ".cache" / "toy_prior" / "unet")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="of which there are latents")
    parser.add_argument("--autoencoder-steps", type=int, default=AE_STEPS)
    parser.add_argument("--out", type=Path, help="default: where the benchmarks look for it")
    parser.add_argument("--vae", type=Path, default=UNET_VAE)
    options = parser.parse_args(arguments)
    if options.inpainting and not options.start.is_file():
        parser.error(f"no {options.start}: train the UNet first, `python -m toy_prior.unet`")
    logging.basicConfig(force=True, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    first = options.autoencoder_steps * CYCLES[0] // sum(CYCLES)
    coders = train_autoencoder(
        lambda numbers: training_crops(numbers, AE_BATCH),
        work / "autoencoder.pt",
        channels=CHANNELS,
        seed=SEED,
        cycles=(first, options.autoencoder_steps - first),
    )
    data = encoded(coders.encoder, batches(options.pictures), work / "latents.pt")
    name, title, out, start = "unet", "VIPaint portraits, UNet", UNET, None
    if options.inpainting:
        name, title, out = "unet_inpainting", "VIPaint portraits, inpainting UNet", UNET_INPAINTING
        start = options.start
    else:
        write_checkpoint(vae_tensors(coders, data, LATENT_FORMAT, ""), metadata("VIPaint portraits, VAE"), options.vae)
    data_pool = pool(coders, data, options.inpainting)
    model = train_unet(data_pool, work / f"{name}.pt", options.steps, options.batch, start=start)
    export_unet(model, title, options.out or out)


if __name__ == "__main__":
    main()
