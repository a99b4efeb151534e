"""Noise levels, the denoiser contract and the prior's own transitions."""
