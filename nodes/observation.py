"""From the host's pictures, latents and masks (1 = to be painted) to the core's observation."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from comfy.sd import VAE
from einops import rearrange

from ..vipaint_core import LatentObservation, measure_crosstalk, measure_cut_cells
from ..vipaint_core.imaging.holes import covered, fill_from_nearest, fill_with_noise, latent_hole, pad_to_cells
from . import preflight, validation
from .errors import InputError
from .host.model_info import ModelInfo

# What is kept of a hole, by strength below 1.
ORIGINAL, SURROUNDINGS = "original", "surroundings"


class PictureInputs(NamedTuple):
    """Where the picture comes from: `latent_image` with its noise mask or `mask`, or `image`, `mask` and `vae`."""

    latent_image: dict[str, Any] | None
    image: torch.Tensor | None
    mask: torch.Tensor | None
    vae: VAE | None


class Encoded(NamedTuple):
    """samples: (B, C, h, w) in the host's scale. hole: (B, 1, H, W). picture: (B, H, W, C), what was encoded."""

    samples: torch.Tensor
    hole: torch.Tensor
    picture: torch.Tensor


def observe(info: ModelInfo, given: PictureInputs, with_crosstalk: bool = False) -> LatentObservation:
    """The observation of a picture, on the CPU.

    with_crosstalk: also measure how the visible cells of an image depend on what is put into the hole.
    """
    preflight.check_source({name: value for name, value in given._asdict().items() if value is not None})
    others: list[torch.Tensor] = []
    if given.latent_image is not None:
        samples = validation.check_latent(info, given.latent_image)
        noise_mask = given.latent_image.get("noise_mask")
        name, mask = ("mask", given.mask) if given.mask is not None else ("latent_image", noise_mask)
        if mask is None:
            raise InputError(
                "mask",
                "a mask, connected here or set with Set Latent Noise Mask",
                "none",
                "White areas of the mask are painted.",
            )
        samples, hole = validation.check_masked_latents(name, mask, samples)
    else:
        assert given.image is not None and given.mask is not None and given.vae is not None
        samples, hole, picture = _encoded(info, given.image, given.mask, given.vae)
        if with_crosstalk:
            others = [encode(given.vae, other) for other in fill_with_noise(picture, hole, cell_of(given.vae))]
    # Nodes run in inference mode, whose tensors autograd refuses: leave it and copy.
    with torch.inference_mode(False), torch.no_grad():
        weight = (1 - latent_hole(hole.detach().clone(), samples.shape[-2:])).cpu().clone()
        latents = in_model_scale(info, samples)
        if not others:
            return LatentObservation.masked(latents, weight)
        moved = torch.stack([in_model_scale(info, other) for other in others]) - latents
        kernel, variance = measure_crosstalk(moved, weight > 0)
        cut = measure_cut_cells(moved, latents, covered(hole.detach().clone()).cpu() > 0)
        return LatentObservation.masked(latents, weight, crosstalk=kernel, crosstalk_variance=variance, cut=cut)


def cell_of(vae: VAE) -> int:
    """Pixels of a latent cell, along a side."""
    return int(vae.spacial_compression_encode())


def _encoded(info: ModelInfo, image: torch.Tensor, mask: torch.Tensor, vae: VAE) -> Encoded:
    validation.check_vae(vae)
    picture, hole = validation.check_masked_pictures("mask", mask, validation.check_image("image", image))
    hole = pad_to_cells(hole, cell_of(vae))
    picture = fill_from_nearest(_padded(picture, vae), hole)
    samples = validation.check_latent(info, {"samples": encode(vae, picture)}, "vae")
    return Encoded(samples, hole, picture)


def in_model_scale(info: ModelInfo, samples: torch.Tensor) -> torch.Tensor:
    """A copy of latents of the host's, on the CPU; outside of inference mode one that autograd takes."""
    return info.to_model_scale(samples.detach().clone().float()).cpu().clone()


def _padded(pictures: torch.Tensor, vae: VAE) -> torch.Tensor:
    """Pictures (B, H, W, C) that fill the VAE's cells."""
    padded = pad_to_cells(rearrange(pictures, "b h w c -> b c h w"), cell_of(vae))
    return rearrange(padded, "b c h w -> b h w c")


def content_of(info: ModelInfo, given: PictureInputs, observation: LatentObservation, source: str) -> torch.Tensor:
    """Latents of what is in the holes, (B, C, h, w) in model scale, on the CPU.

    observation: that of these inputs.
    source: `ORIGINAL`, or `SURROUNDINGS` for the nearest visible cells.
    """
    with torch.inference_mode(False), torch.no_grad():
        if source == SURROUNDINGS:
            cells, hole = rearrange(observation.latents, "b c h w -> b h w c"), 1 - observation.cell_weight
            filled = rearrange(fill_from_nearest(cells, hole), "b h w c -> b c h w")
            # Where nothing is visible, the mean of all pictures.
            return filled * (hole < 1).flatten(1).any(1)[:, None, None, None]
        if given.latent_image is not None:
            samples = validation.check_latent(info, given.latent_image)
        else:
            assert given.image is not None and given.vae is not None
            samples = encode(given.vae, _padded(validation.check_image("image", given.image), given.vae))
        latents = in_model_scale(info, samples)
    return latents.expand(len(observation.y), -1, -1, -1)


def encode(vae: VAE, pictures: torch.Tensor) -> torch.Tensor:
    """Latents of pictures (B, H, W, C). Autoencoders of films would take a batch for the frames of one film."""
    if getattr(vae, "latent_dim", 2) == 3:
        return torch.cat([vae.encode(picture[None]) for picture in pictures])
    samples: torch.Tensor = vae.encode(pictures)
    return samples
