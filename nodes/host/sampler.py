"""A SAMPLER of the host's that hands the run it was started in to a function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher

from .model_info import ModelInfo

# callback(step, x0, x, steps), for the bar, previews and denoised_output of the host's nodes.
HostCallback = Callable[[int, torch.Tensor, torch.Tensor, int], None]


@dataclass(frozen=True)
class SamplerRun:
    """What the host starts a sampler with, latents in model scale and without inference mode.

    guider: it has loaded its model and processed its conditioning.
    sigmas: (N,), the host's, on the CPU.
    noise, latents: (B, C, h, w) or, of families with frames, (B, C, 1, h, w), on the CPU.
    mask: like them, 1 is painted, as the host has scaled it to cells; None where there is none.
    from_noise: the host takes the first sigma for the largest, where nothing of the latents is left.
    """

    guider: comfy.samplers.CFGGuider
    sigmas: torch.Tensor
    noise: torch.Tensor
    latents: torch.Tensor
    mask: torch.Tensor | None
    seed: int
    from_noise: bool
    callback: HostCallback | None


class FunctionSampler(comfy.samplers.Sampler):
    """draw(run): latents at the last sigma, in the scale and shape of `run.latents`; of a flow divided by 1 - sigma."""

    def __init__(self, draw: Callable[[SamplerRun], torch.Tensor]) -> None:
        self._draw = draw

    def sample(
        self,
        model_wrap: Any,
        sigmas: torch.Tensor,
        extra_args: dict[str, Any],
        callback: HostCallback | None,
        noise: torch.Tensor,
        latent_image: torch.Tensor | None = None,
        denoise_mask: torch.Tensor | None = None,
        disable_pbar: bool = False,
    ) -> torch.Tensor:
        def ordinary(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.detach().cpu().float().clone()

        # Nodes run in inference mode, whose tensors autograd refuses: leave it and copy.
        with torch.inference_mode(False), torch.no_grad():
            run = SamplerRun(
                model_wrap,
                ordinary(sigmas),
                ordinary(noise),
                torch.zeros_like(ordinary(noise)) if latent_image is None else ordinary(latent_image),
                None if denoise_mask is None else ordinary(denoise_mask),
                extra_args.get("seed") or 0,
                self.max_denoise(model_wrap, sigmas),
                callback,
            )
            return self._draw(run).to(noise)


@dataclass(frozen=True)
class RunningGuider:
    """The guider of a run that goes on, opened once more inside it: as its class guides, with its conditioning."""

    running: comfy.samplers.CFGGuider
    info: ModelInfo
    seed: int
    gradients: str

    @property
    def model(self) -> ModelPatcher:
        return self.running.model_patcher

    def guider(self, patcher: ModelPatcher) -> comfy.samplers.CFGGuider:
        guider = copy.copy(self.running)
        guider.model_patcher, guider.model_options = patcher, patcher.model_options
        return guider

    @property
    def has_other_models(self) -> bool:
        """Whether it guides by further models, which know nothing of gradients."""
        others = (value for name, value in vars(self.running).items() if name != "model_patcher")
        return any(isinstance(value, ModelPatcher) for value in others)
