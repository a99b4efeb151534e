"""The shipped toy prior, loaded and drawn from by the host's stock nodes."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import torch
from einops import rearrange

from tools import in_process
from toy_prior import CHECKPOINT

in_process.activate()

# The host's module: its folder comes first on sys.path.
stock: Any = importlib.import_module("nodes")

LATENT_SHAPE = (16, 16, 16)
EULER_STEPS = 30


class ToyPrior(NamedTuple):
    """The host's MODEL and VAE."""

    model: Any
    vae: Any


def load() -> ToyPrior:
    """The checkpoint by `CheckpointLoaderSimple`. Raises FileNotFoundError where it is missing."""
    import folder_paths

    if not CHECKPOINT.is_file():
        raise FileNotFoundError(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    folder_paths.add_model_folder_path("checkpoints", str(CHECKPOINT.parent))
    model, _, vae = stock.CheckpointLoaderSimple().load_checkpoint(CHECKPOINT.name)
    return ToyPrior(model, vae)


def ksampler(
    model: Any,
    conditioning: Any,
    latents: torch.Tensor,
    seed: int,
    mask: torch.Tensor | None = None,
    denoise: float = 1.0,
) -> torch.Tensor:
    """The host's KSampler: 30 Euler steps, schedule `simple`, without guidance.

    latents: (N, 16, 16, 16) in the host's scale.
    mask: (N, 1, H, W), 1 is painted (Set Latent Noise Mask).
    denoise: where it starts, 1 at full noise.
    """
    latent = {"samples": latents} if mask is None else {"samples": latents, "noise_mask": mask}
    (out,) = stock.common_ksampler(
        model, seed, EULER_STEPS, 1.0, "euler", "simple", conditioning, conditioning, latent, denoise=denoise
    )
    return out["samples"]


def decode(vae: Any, latents: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Pictures (N, 3, H, W) in [0, 1] of latents in the host's scale."""
    decoded = torch.cat([vae.decode(rows) for rows in latents.split(batch)])
    return rearrange(decoded, "n h w c -> n c h w").clamp(0, 1)


def encode(vae: Any, pictures: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Latents in the host's scale of pictures (N, 3, H, W) in [0, 1]."""
    return torch.cat([vae.encode(rearrange(rows, "n c h w -> n h w c")) for rows in pictures.split(batch)])
