"""A small latent diffusion prior of procedural portraits whose posteriors are known exactly."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "vipaint_toy.safetensors"
# Made by `python -m toy_prior.distil`, not a part of the repository.
DISTILLED = Path(__file__).parent.parent / ".cache" / "toy_prior" / "vipaint_toy_distilled.safetensors"
# Made by `python -m toy_prior.unet`: a UNet in SD1.5's layout, and its VAE.
UNET = Path(__file__).parent / "vipaint_unet.safetensors"
UNET_VAE = Path(__file__).parent / "vipaint_unet_vae.safetensors"
# Its nine-channel form, by `--inpainting`, not a part of the repository.
UNET_INPAINTING = DISTILLED.parent / "vipaint_unet_inpainting.safetensors"
# Made by `python -m toy_prior.train_scenes` and `python -m toy_prior.train_pixels`.
SCENES = Path(__file__).parent / "vipaint_scenes.safetensors"
PIXELS = Path(__file__).parent / "vipaint_pixels.safetensors"
