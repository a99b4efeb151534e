"""Checks of what reaches the nodes. Every error names node, input, expectation, finding and remedy."""

from __future__ import annotations

from typing import Any

import torch

from ..vipaint_core import Fit
from . import bridge


def problem(node: str, name: str, expected: str, found: str, fix: str) -> ValueError:
    return ValueError(f"{node}, input `{name}`: expected {expected}, found {found}. {fix}")


def size(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def check_model(node: str, model: Any) -> None:
    """An image model of a known family."""
    bridge.coordinate(model)
    dimensions = model.get_model_object("latent_format").latent_dimensions
    if dimensions != 2:
        raise problem(
            node,
            "model",
            "an image model with latents (batch, channels, height, width)",
            f"the family {bridge.family(model)} with {dimensions}-dimensional latents, as video and audio have them",
            "Load an image checkpoint such as SD1.5, SDXL, SD3 or Flux.",
        )


def check_conditioning(node: str, name: str, conditioning: Any) -> None:
    """One prompt for all rows: fills of one picture must not get the prompts of others."""
    if not isinstance(conditioning, list) or not conditioning:
        raise problem(
            node, name, "at least one conditioning", "none", "Connect a text encoder or VIPaintUnconditional."
        )
    for cross, _ in conditioning:
        if isinstance(cross, torch.Tensor) and len(cross) > 1:
            raise problem(
                node,
                name,
                "one prompt for all pictures",
                f"a batch of {len(cross)} prompts",
                "Paint pictures with different prompts one after the other.",
            )


def check_latent(node: str, model: Any, latent: Any) -> torch.Tensor:
    """The samples of a LATENT that suit the model, (B, C, H, W)."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if not isinstance(samples, torch.Tensor) or samples.is_nested or samples.ndim != 4:
        found = size(samples) if isinstance(samples, torch.Tensor) and not samples.is_nested else "another structure"
        raise problem(
            node,
            "latent_image",
            f"an image latent (batch, channels, height, width) for {bridge.family(model)}",
            f"{found}, as video and audio models use",
            "Encode a picture with the VAE of an image model.",
        )
    channels = model.get_model_object("latent_format").latent_channels
    if samples.shape[1] != channels:
        raise problem(
            node,
            "latent_image",
            f"{channels} channels, as {bridge.family(model)} has",
            f"{samples.shape[1]} channels",
            "Encode the picture with the VAE that belongs to the model.",
        )
    if not bool(torch.isfinite(samples).all()):
        raise problem(
            node,
            "latent_image",
            "finite numbers",
            "NaN or infinity",
            "Encode again; some VAEs need more precision: start ComfyUI with --fp32-vae.",
        )
    return samples


def check_mask(node: str, name: str, mask: torch.Tensor, batch: int) -> torch.Tensor:
    """The mask as (B, 1, H, W) float in [0, 1]; one mask serves all pictures."""
    if mask.ndim not in (2, 3, 4) or (mask.ndim == 4 and mask.shape[1] != 1):
        raise problem(node, name, "a mask (batch, height, width)", size(mask), "Connect a MASK output.")
    mask = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    if len(mask) not in (1, batch):
        raise problem(
            node,
            name,
            f"1 mask or {batch}, one for each picture",
            f"{len(mask)} masks",
            "Repeat or cut the batch of masks or of pictures.",
        )
    if not bool(torch.isfinite(mask).all()):
        raise problem(node, name, "values from 0 to 1", "NaN or infinity", "Check the node that makes the mask.")
    return mask.clamp(0, 1).expand(batch, -1, -1, -1)


def check_image(node: str, name: str, image: torch.Tensor) -> torch.Tensor:
    """The picture as (B, H, W, 3) float."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise problem(node, name, "a picture (batch, height, width, 3)", size(image), "Connect an IMAGE output.")
    if not bool(torch.isfinite(image).all()):
        raise problem(node, name, "finite numbers", "NaN or infinity", "Check the node that makes the picture.")
    image = image.float()
    return image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., :3]


def check_same_size(node: str, name: str, mask: torch.Tensor, image: torch.Tensor) -> None:
    """mask (B, 1, H, W) against image (B, H, W, 3)."""
    if mask.shape[-2:] != image.shape[1:3]:
        found, expected = mask.shape[-2:], image.shape[1:3]
        raise problem(
            node,
            name,
            f"the picture's size, {expected[1]} x {expected[0]} pixels",
            f"{found[1]} x {found[0]} pixels",
            "Resize the mask to the picture.",
        )


def check_fills(node: str, fills: int) -> None:
    if fills < 1:
        raise problem(node, "fills", "at least 1", str(fills), "Ask for one fill or more.")


def check_posterior(node: str, model: Any, fitted: Any) -> None:
    """A posterior that was fitted with a model of the same family."""
    if not isinstance(fitted, Fit):
        raise problem(
            node,
            "posterior",
            "a VIPaint posterior",
            type(fitted).__name__,
            "Connect VIPaintFit or VIPaintLoadPosterior.",
        )
    channels = model.get_model_object("latent_format").latent_channels
    found = fitted.observation.latent.shape[1]
    if fitted.family != bridge.family(model) or found != channels:
        raise problem(
            node,
            "posterior",
            f"one fitted with {bridge.family(model)}, {channels} latent channels, as the connected model",
            f"one fitted with {fitted.family or 'an unnamed family'}, {found} latent channels",
            "Connect the model that it was fitted with, or fit again.",
        )
    highest, limit = fitted.posterior.levels[-1], bridge.largest_level(model)
    if highest > limit * 1.001:
        raise problem(
            node,
            "posterior",
            f"keypoints at noise levels up to {limit:.3g}, which the model knows",
            f"a keypoint at {highest:.3g}",
            "Connect the model that it was fitted with, or fit again.",
        )


def images_per_batch(node: str, name: str, rows: int, pictures: int) -> int:
    """Fills per picture of a batch that holds all fills of the first picture first."""
    if rows % pictures:
        raise problem(
            node,
            name,
            f"a multiple of {pictures}, the same number of fills for each picture",
            f"a batch of {rows}",
            "Connect the fills and the pictures of one run.",
        )
    return rows // pictures
