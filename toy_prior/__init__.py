"""A small latent diffusion prior of procedural portraits whose posteriors are known exactly."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "vipaint_toy.safetensors"
# What is not a part of the repository.
_MADE_HERE = Path(__file__).parent.parent / ".cache" / "toy_prior"
# Made by `python -m toy_prior.distil`.
DISTILLED = _MADE_HERE / "vipaint_toy_distilled.safetensors"
# Made by `python -m toy_prior.unet`: a UNet in SD1.5's layout, and its VAE; its nine-channel form by `--inpainting`.
UNET = _MADE_HERE / "vipaint_unet.safetensors"
UNET_VAE = _MADE_HERE / "vipaint_unet_vae.safetensors"
UNET_INPAINTING = _MADE_HERE / "vipaint_unet_inpainting.safetensors"
# Made by `python -m toy_prior.train_scenes` and `python -m toy_prior.train_pixels`; apart from the toy model, whose folder the
# host's loaders list.
_OF_BENCHMARKS = Path(__file__).parent.parent / "benchmarks" / "checkpoints"
SCENES = _OF_BENCHMARKS / "vipaint_scenes.safetensors"
PIXELS = _OF_BENCHMARKS / "vipaint_pixels.safetensors"
