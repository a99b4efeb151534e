"""A small latent diffusion prior of procedural portraits whose posteriors are known exactly."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "vipaint_toy.safetensors"
