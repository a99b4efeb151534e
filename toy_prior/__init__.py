"""A small latent diffusion prior of procedural portraits whose posteriors are known exactly."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "vipaint_toy.safetensors"
# Made by `python -m toy_prior.distil`, not a part of the repository.
DISTILLED = Path(__file__).parent.parent / ".cache" / "toy_prior" / "vipaint_toy_distilled.safetensors"
