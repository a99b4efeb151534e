"""The host's VAE as a differentiable decoder: the bridge's twin for pixels."""

from __future__ import annotations

import contextlib
from typing import Any

import comfy.model_management
import torch

from . import bridge


class HostDecoder:
    """From latents (N, C, h, w) in model scale to pictures (N, 3, height, width), in [0, 1] as far as the VAE keeps it.

    Not clamped: beyond a clamp there is no gradient. What the VAE's cells add at the right and the bottom is cut off.
    Works inside `bridge.open_denoiser` that has loaded its `patcher`; the VAE stays as it is.
    """

    def __init__(self, model: Any, vae: Any, size: tuple[int, int]) -> None:
        """size: (height, width) of the pictures."""
        self.patcher = bridge.resident(vae.patcher)
        self._model, self._vae, self._size = model, vae, size
        # The host's last step is affine within [0, 1] and works in place.
        low, middle = vae.process_output(torch.tensor([0.0, 0.5])).tolist()
        self._offset, self._slope = low, 2 * (middle - low)
        cell = int(vae.spacial_compression_encode())
        channels = model.get_model_object("latent_format").latent_channels
        # (C, h, w) of the latents.
        self.shape = (channels, *(-(-length // cell) for length in size))

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        samples = bridge.to_host_latent(self._model, latents.float())
        with bridge.failures():
            pixels = bridge.inside_only(self.patcher.model.decode(samples.to(self._vae.device, self._vae.vae_dtype)))
        # Autoencoders of films return an axis of frames.
        pixels = pixels[:, :, 0] if pixels.ndim == 5 else pixels
        height, width = self._size
        return (self._offset + self._slope * pixels.to(latents))[:, :3, :height, :width]

    def gradients(self) -> contextlib.AbstractContextManager[None]:
        """The context for differentiated calls and their backward passes; may be inside the denoiser's."""
        inside = comfy.model_management.in_training
        return contextlib.nullcontext() if inside else bridge.gradients(self.patcher.model)
