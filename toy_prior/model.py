"""The shipped toy prior, loaded and drawn from by the host's stock nodes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange

from tools import in_process
from toy_prior import CHECKPOINT, DISTILLED

in_process.activate()

# The host's module: its folder comes first on sys.path.
stock: Any = importlib.import_module("nodes")

LATENT_SHAPE = (16, 16, 16)
EULER_STEPS = 30


class ToyPrior(NamedTuple):
    """The host's MODEL and VAE."""

    model: Any
    vae: Any


def load(file: Path = CHECKPOINT) -> ToyPrior:
    """A checkpoint by `CheckpointLoaderSimple`. Raises FileNotFoundError where it is missing."""
    import folder_paths

    if not file.is_file():
        script = "distil" if file == DISTILLED else "train"
        raise FileNotFoundError(f"no {file.name}: make it with `python -m toy_prior.{script}`")
    folder_paths.add_model_folder_path("checkpoints", str(file.parent))
    model, _, vae = stock.CheckpointLoaderSimple().load_checkpoint(file.name)
    return ToyPrior(model, vae)


def ksampler(
    model: Any,
    conditioning: Any,
    latents: torch.Tensor,
    seed: int,
    mask: torch.Tensor | None = None,
    denoise: float = 1.0,
    steps: int = EULER_STEPS,
    sampler: str = "euler",
) -> torch.Tensor:
    """The host's KSampler, schedule `simple`, without guidance.

    latents: (N, 16, 16, 16) in the host's scale.
    mask: (N, 1, H, W), 1 is painted (Set Latent Noise Mask).
    denoise: where it starts, 1 at full noise.
    """
    latent = {"samples": latents} if mask is None else {"samples": latents, "noise_mask": mask}
    (out,) = stock.common_ksampler(
        model, seed, steps, 1.0, sampler, "simple", conditioning, conditioning, latent, denoise=denoise
    )
    return out["samples"]


def decode(vae: Any, latents: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Pictures (N, 3, H, W) in [0, 1] of latents in the host's scale."""
    decoded = torch.cat([vae.decode(rows) for rows in latents.split(batch)])
    return rearrange(decoded, "n h w c -> n c h w").clamp(0, 1)


def encode(vae: Any, pictures: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Latents in the host's scale of pictures (N, 3, H, W) in [0, 1]."""
    return torch.cat([vae.encode(rearrange(rows, "n c h w -> n h w c")) for rows in pictures.split(batch)])
