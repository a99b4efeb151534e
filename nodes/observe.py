"""From the host's pictures, latents and masks (1 = to be painted) to the core's observation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from ..vipaint_core import Observation, measure_spill
from . import bridge, validation

# Encodings that show how visible cells depend on what is in the hole.
FILLERS = 8


def observe(
    node: str,
    model: Any,
    latent_image: dict[str, Any] | None,
    image: torch.Tensor | None,
    mask: torch.Tensor | None,
    vae: Any | None,
    leak: bool = False,
) -> Observation:
    """The observation of either `latent_image` (with its noise mask or `mask`) or `image`, `mask` and `vae`.

    leak: also measure how much the visible cells of an image depend on what is put into the hole.
    """
    if latent_image is not None and image is not None:
        raise validation.problem(node, "image", "either latent_image or image", "both", "Disconnect one of them.")
    elsewhere: list[torch.Tensor] = []
    if latent_image is not None:
        latent = validation.check_latent(node, model, latent_image)
        name, given = ("mask", mask) if mask is not None else ("latent_image", latent_image.get("noise_mask"))
        if given is None:
            raise validation.problem(
                node,
                "mask",
                "a mask, connected here or set with Set Latent Noise Mask",
                "none",
                "White areas of the mask are painted.",
            )
        hole = validation.check_mask(node, name, given, len(latent))
    elif image is not None:
        latent, hole, filled = _encode(node, model, image, mask, vae)
        if leak:
            elsewhere = [encode(vae, other) for other in fill_from_elsewhere(filled, hole)]
    else:
        raise validation.problem(
            node,
            "latent_image",
            "latent_image with a noise mask, or image, mask and vae",
            "neither",
            "Connect one of the two.",
        )
    # Nodes run in inference mode, whose tensors autograd refuses: leave it and copy.
    with torch.inference_mode(False), torch.no_grad():

        def ours(given: torch.Tensor) -> torch.Tensor:
            return bridge.to_model_scale(model, given.detach().clone().float()).cpu().clone()

        seen = 1 - latent_hole(hole.detach().clone(), latent.shape[-2:])
        observation = Observation(ours(latent), seen.cpu().clone())
        if not elsewhere:
            return observation
        moved = torch.stack([ours(other) for other in elsewhere]) - observation.latent
        spill, leak = measure_spill(moved, observation.seen > 0)
        return replace(observation, leak=leak, spill=spill)


def _encode(
    node: str, model: Any, image: torch.Tensor, mask: torch.Tensor | None, vae: Any | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latent (B, C, h, w) in the host's scale, hole (B, 1, H, W) and the picture (B, H, W, C) that was encoded."""
    for name, given in (("mask", mask), ("vae", vae)):
        if given is None:
            raise validation.problem(
                node, name, "image, mask and vae together", f"no {name}", "Connect it, or use latent_image instead."
            )
    assert mask is not None and vae is not None
    validation.check_vae(node, vae)
    pixels = validation.check_image(node, "image", image)
    hole = validation.check_mask(node, "mask", mask, len(pixels))
    validation.check_same_size(node, "mask", hole, pixels)
    pixels, hole = (padded(tensor, int(vae.spacial_compression_encode())) for tensor in (pixels.movedim(-1, 1), hole))
    filled = fill_from_nearest(pixels.movedim(1, -1), hole)
    return validation.check_latent(node, model, {"samples": encode(vae, filled)}, "vae"), hole, filled


def encode(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Latents of pictures (B, H, W, C). Autoencoders of films would take a batch for the frames of one film."""
    if getattr(vae, "latent_dim", 2) == 3:
        return torch.cat([vae.encode(picture[None]) for picture in pictures])
    return vae.encode(pictures)


def padded(tensor: torch.Tensor, cell: int) -> torch.Tensor:
    """(B, C, H, W) with its last line and column repeated up to multiples of the VAE's cell.

    A padded cell is hidden where the picture's border in it is hidden: as a hidden cell it would take its
    visible pixels with it.
    """
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, -width % cell, 0, -height % cell), mode="replicate")


def latent_hole(hole: torch.Tensor, size: tuple[int, int] | torch.Size) -> torch.Tensor:
    """The hole in latent cells, (B, 1, h, w): a cell is as hidden as its most hidden pixel."""
    spare = max(hole.shape[-2] % size[0], hole.shape[-1] % size[1])
    if spare and hole.shape[-2] > size[0] and hole.shape[-1] > size[1]:
        # The VAE crops such pictures: cells and mask are apart by up to `spare` pixels.
        hole = F.max_pool2d(hole, 2 * spare + 1, 1, spare)
    return F.adaptive_max_pool2d(hole, tuple(size))


def fill_from_elsewhere(filled: torch.Tensor, hole: torch.Tensor) -> list[torch.Tensor]:
    """Pictures (B, H, W, C) with other parts of themselves in the hole (B, 1, H, W), some mirrored or recoloured.

    How visible cells move with them shows what they owe to the filler: the observation's spill and leak.
    """
    weight = covered(hole).movedim(1, -1).to(filled)
    height, width = filled.shape[1:3]
    pictures = []
    for index in range(FILLERS):
        # Shifts that are far from each other in both directions.
        move = round(height * (0.5 + 0.618 * index)), round(width * (0.5 + 0.382 * index))
        other = filled.roll(move, (1, 2)).roll(index, -1)
        pictures.append(torch.lerp(filled, other.flip(2) if index % 2 else other, weight))
    return pictures


def covered(hole: torch.Tensor) -> torch.Tensor:
    """How much of each pixel is covered before encoding, in [0, 1]: all where the hole is 1, nothing up to 0.5.

    A feathered mask is grey on what is to be kept: a cover would be kept in its place. A blurred mask is
    light grey on what is to go.
    """
    return (2 * hole - 1).clamp(0, 1)


def fill_from_nearest(pixels: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Pixels (B, H, W, C) with the hole (B, 1, H, W) filled from the nearest pixels that are kept.

    No hidden pixel is left; see `covered` for half-hidden ones. Encoders look beyond their cell: a filler
    of another colour would tint the visible cells at the border.
    """
    rows = []
    for picture, cover in zip(pixels, covered(hole)[:, 0], strict=True):
        hidden = cover.cpu().numpy() > 0
        if hidden.all():
            near = torch.full_like(picture, 0.5)
        else:
            index = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
            line, column = (torch.from_numpy(np.ascontiguousarray(i)).long().to(picture.device) for i in index)
            near = picture[line, column]
        rows.append(torch.lerp(picture, near, cover.to(picture)[..., None]))
    return torch.stack(rows)
