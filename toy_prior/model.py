"""The shipped toy prior, loaded and drawn from by the host's stock nodes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange

from tools import in_process
from toy_prior import CHECKPOINT, DISTILLED, PIXELS, SCENES, UNET, UNET_INPAINTING, UNET_VAE

in_process.activate()

# The host's module: its folder comes first on sys.path.
stock: Any = importlib.import_module("nodes")

LATENT_SHAPE = (16, 16, 16)
EULER_STEPS = 30
# Arguments of `python -m` that make a file.
MAKERS = {
    CHECKPOINT: "toy_prior.train",
    DISTILLED: "toy_prior.distil",
    UNET: "toy_prior.unet",
    UNET_VAE: "toy_prior.unet",
    UNET_INPAINTING: "toy_prior.unet --inpainting",
    SCENES: "toy_prior.train_scenes",
    PIXELS: "toy_prior.train_pixels",
}


class ToyPrior(NamedTuple):
    """The host's MODEL and VAE."""

    model: Any
    vae: Any


def load(file: Path = CHECKPOINT, vae_file: Path | None = None) -> ToyPrior:
    """A checkpoint by `CheckpointLoaderSimple`, with its own VAE or one by `VAELoader`.

    Raises FileNotFoundError where one is missing.
    """
    model, _, vae = stock.CheckpointLoaderSimple().load_checkpoint(_known(file, "checkpoints"))
    if vae_file is not None:
        (vae,) = stock.VAELoader().load_vae(_known(vae_file, "vae"))
    return ToyPrior(model, vae)


def _known(file: Path, kind: str) -> str:
    """A file's name, by which the host's loaders then find it."""
    import folder_paths

    if not file.is_file():
        raise FileNotFoundError(f"no {file.name}: make it with `python -m {MAKERS.get(file, 'toy_prior.train')}`")
    folder_paths.add_model_folder_path(kind, str(file.parent))
    return file.name


def ksampler(
    model: Any,
    conditioning: Any,
    latents: torch.Tensor,
    seed: int,
    mask: torch.Tensor | None = None,
    denoise: float = 1.0,
    steps: int = EULER_STEPS,
    sampler: str = "euler",
    cfg: float = 1.0,
    negative: Any = None,
) -> torch.Tensor:
    """The host's KSampler, schedule `simple`.

    latents: (N, C, h, w) in the host's scale.
    mask: (N, 1, H, W), 1 is painted (Set Latent Noise Mask).
    denoise: where it starts, 1 at full noise.
    negative: what guidance leads away from, the conditioning itself where None.
    """
    negative = conditioning if negative is None else negative
    latent = {"samples": latents} if mask is None else {"samples": latents, "noise_mask": mask}
    (out,) = stock.common_ksampler(
        model, seed, steps, cfg, sampler, "simple", conditioning, negative, latent, denoise=denoise
    )
    return out["samples"]


def decode(vae: Any, latents: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Pictures (N, 3, H, W) in [0, 1] of latents in the host's scale."""
    decoded = torch.cat([vae.decode(rows) for rows in latents.split(batch)])
    return rearrange(decoded, "n h w c -> n c h w").clamp(0, 1)


def encode(vae: Any, pictures: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Latents in the host's scale of pictures (N, 3, H, W) in [0, 1]."""
    return torch.cat([vae.encode(rearrange(rows, "n c h w -> n h w c")) for rows in pictures.split(batch)])
