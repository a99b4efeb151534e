"""The host's VAE as a differentiable decoder."""

from __future__ import annotations

import contextlib

import comfy.model_management
import torch
from comfy.sd import VAE

from .autograd import gradients, refuse_backward_outside
from .failures import named_failures
from .loading import non_streaming
from .model_info import ModelInfo


class HostDecoder:
    """From latents (N, C, h, w) in model scale to pictures (N, 3, height, width), in [0, 1] as far as the VAE keeps it.

    Not clamped: beyond a clamp there is no gradient. What the VAE's cells add at the right and the bottom is cut off.
    Works inside `open_denoiser` that has loaded its `patcher`; the VAE stays as it is.

    size: (height, width) of the pictures.
    """

    def __init__(self, info: ModelInfo, vae: VAE, size: tuple[int, int]) -> None:
        self.patcher = non_streaming(vae.patcher)
        self._info, self._vae, self._size = info, vae, size
        # The host's last step is affine within [0, 1] and works in place.
        low, middle = vae.process_output(torch.tensor([0.0, 0.5])).tolist()
        self._offset, self._slope = low, 2 * (middle - low)
        cell = int(vae.spacial_compression_encode())
        height, width = (-(-length // cell) for length in size)
        # (C, h, w) of the latents.
        self.shape = (info.channels, height, width)

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        samples = self._info.to_host_latent(latents.float())
        with named_failures():
            decoded = self.patcher.model.decode(samples.to(self._vae.device, self._vae.vae_dtype))
            pixels = refuse_backward_outside(decoded)
        # Autoencoders of films return an axis of frames.
        pixels = pixels[:, :, 0] if pixels.ndim == 5 else pixels
        height, width = self._size
        return (self._offset + self._slope * pixels.to(latents))[:, :3, :height, :width]

    def gradients(self) -> contextlib.AbstractContextManager[None]:
        """The context for differentiated calls and their backward passes; may be inside the denoiser's."""
        inside = comfy.model_management.in_training
        return contextlib.nullcontext() if inside else gradients(self.patcher.model)
