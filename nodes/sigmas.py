"""The noise levels of a preset as the host's SIGMAS."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.v0_0_2 import io

from ..vipaint_core import PRESETS, reachable_level
from ..vipaint_core.diffusion.levels import clip_levels, levels_from
from . import sockets, validation
from .errors import InputError
from .execution import names_node
from .host.model_info import level_of_strength, model_info
from .validation import check_widgets


class VIPaintSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintSigmas",
            display_name="VIPaint Sigmas",
            category=sockets.CATEGORY,
            description="The noise levels of a preset for VIPaint Sampler, up to where another sampler takes over, and those "
            "that are left for it.",
            search_aliases=["vipaint", "sigmas", "scheduler", "noise levels", "split sigmas"],
            inputs=[
                io.Model.Input("model", tooltip="The model that will be painted with."),
                io.Latent.Input(
                    "latent_image",
                    tooltip="The latent that will be painted in: levels are higher for larger pictures.",
                ),
                sockets.sigmas_preset_input(),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="How much of what is in the hole is replaced, as KSampler's denoise. Lower keeps its shapes and "
                    "colours more closely.",
                ),
                io.Float.Input(
                    "stop_at",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="How far VIPaint goes, as a share of the model's time from noise to picture. 1: to the picture. "
                    "Lower leaves more to the sampler behind it, e.g. 0.8 the last 4 of its 20 steps.",
                ),
            ],
            outputs=[
                io.Sigmas.Output("sigmas", tooltip="For VIPaint Sampler: from noise to where it stops."),
                io.Sigmas.Output("rest", tooltip="For the sampler behind it: from there to the picture."),
            ],
        )

    @classmethod
    @names_node
    def execute(
        cls,
        model: ModelPatcher,
        latent_image: dict[str, Any],
        preset: str,
        strength: float = 1.0,
        stop_at: float = 1.0,
    ) -> io.NodeOutput:
        check_widgets(cls, preset=preset, strength=strength, stop_at=stop_at)
        info = model_info(model)
        samples = validation.check_latent(info, latent_image)
        shape = info.channels, int(samples.shape[-2]), int(samples.shape[-1])
        chosen = PRESETS[preset].at_size(shape)
        keypoints = clip_levels(chosen.fit.keypoints, reachable_level(info.largest_level, shape))
        if strength < 1:
            keypoints = levels_from(keypoints, min(level_of_strength(model, info.coordinate, strength), keypoints[-1]))
        levels, rest = chosen.levels(keypoints), [0.0]
        if stop_at < 1:
            stop = level_of_strength(model, info.coordinate, 1 - stop_at)
            if stop >= levels[0]:
                raise InputError(
                    "stop_at",
                    f"a share at which the noise is below where it begins, {levels[0]:.3g} times the picture",
                    f"{stop_at:.2f}, where it is {stop:.3g} times the picture",
                    "Raise stop_at or strength.",
                )
            rest = [stop, *(s for s in levels if s < stop)]
            levels = [*(s for s in levels if s > stop), stop]
        return io.NodeOutput(*(_sigmas(info, part) for part in (levels, rest)))


def _sigmas(info: Any, levels: list[float]) -> torch.Tensor:
    """SIGMAS of noise-to-signal ratios: the host counts a flow's time from 0 to 1, without the scale of its noise."""
    scale = info.coordinate.noise_scale if info.coordinate.flow else 1.0
    return torch.tensor([float(info.coordinate.sigma_of_s(s)) / scale for s in levels], dtype=torch.float32)
