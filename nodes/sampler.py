"""VIPaint as a SAMPLER for the host's SamplerCustom and SamplerCustomAdvanced."""

from __future__ import annotations

import logging
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from comfy_api.v0_0_2 import io

from ..vipaint_core import (
    PRESETS,
    HierarchicalPosterior,
    LatentObservation,
    Preset,
    Progress,
    descent_method,
)
from ..vipaint_core.diffusion.levels import LARGEST
from ..vipaint_core.imaging.masks import snapped
from . import sockets, validation
from .errors import InputError
from .execution import names_node
from .host.denoiser import GRADIENT_MODES
from .host.memory import AUTO
from .host.model_info import ModelInfo, model_info
from .host.sampler import FunctionSampler, RunningGuider, SamplerRun
from .sampling import Draws, advise_on_preset, run_method
from .validation import check_widgets

log = logging.getLogger(__name__)


class VIPaintSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintSampler",
            display_name="VIPaint Sampler",
            category=sockets.CATEGORY,
            description="VIPaint as a sampler for Sampler Custom and Sampler Custom Advanced, with any guider and any sigmas. "
            "The noise mask of the latent says what is painted; every row of it is a fill.",
            search_aliases=["vipaint", "sampler", "inpaint sampler", "custom sampler", "guider"],
            inputs=[sockets.sigmas_preset_input(), sockets.gradients_input()],
            outputs=[io.Sampler.Output("sampler", tooltip="For Sampler Custom and Sampler Custom Advanced.")],
        )

    @classmethod
    @names_node
    def execute(cls, preset: str, gradients: str = AUTO) -> io.NodeOutput:
        check_widgets(cls, preset=preset, gradients=gradients)
        return io.NodeOutput(FunctionSampler(partial(cls.draw, preset=PRESETS[preset], gradients=gradients)))

    @classmethod
    @names_node
    def draw(cls, run: SamplerRun, preset: Preset, gradients: str) -> torch.Tensor:
        """What the host's sampler runs. Raises ValueError for inputs that it cannot work with."""
        info = model_info(run.guider.model_patcher)
        check_conditionings(run.guider.original_conds)
        advise_on_preset(run.guider.model_patcher, preset)
        observation = observed(info, run)
        preset = preset.at_size(observation.shape)
        top = preset.fit.keypoints[-1]
        from_noise = run.from_noise or level_of(info, float(run.sigmas[0])) >= 0.999 * top
        levels = falling_levels(info, run.sigmas, top)
        latents = info.drop_frame_axis(run.latents)
        if not from_noise:
            preset = preset.keeping_content()
        start = HierarchicalPosterior.initial(observation, levels[:1], content=None if from_noise else latents)
        noise = info.drop_frame_axis(run.noise)
        states, estimates = start.mu[0] + start.log_tau[0].exp() * noise, latents.clone()
        inputs = RunningGuider(run.guider, info, run.seed, gradients)
        if inputs.has_other_models and preset.needs_gradient and gradients in (AUTO, *GRADIENT_MODES[:-1]):
            log.info("VIPaint Sampler: the guider has several models; gradients are taken without backward passes")
            inputs = RunningGuider(run.guider, info, run.seed, GRADIENT_MODES[-1])

        def tell(call: int, calls: int, x0: torch.Tensor) -> None:
            if run.callback is not None:
                run.callback(call, info.add_frame_axis(x0), info.add_frame_axis(x0), calls)

        def report(progress: Progress) -> None:
            # The last step is told with the estimates of all rows.
            if progress.call < progress.calls:
                tell(progress.call - 1, progress.calls, progress.x0)

        method = descent_method(preset, levels, states, estimates)
        fills = run_method(inputs, Draws(observation, method, 1), report).cpu()
        # Where nothing is painted, the picture at the last level.
        complete = observation.complete
        fills[complete] += levels[-1] * noise[complete]
        tell(method.calls - 1, method.calls, estimates)
        return info.add_frame_axis(fills)


def check_conditionings(conds: dict[str, list[dict[str, Any]]]) -> None:
    """Raises InputError for conditioning that differs by row: fills of one picture must not get that of others."""
    for name, entries in conds.items():
        settings = ({key: value for key, value in entry.items() if key != "cross_attn"} for entry in entries)
        prompts = (entry.get("cross_attn") for entry in entries)
        validation.check_conditioning(name, [[*pair] for pair in zip(prompts, settings, strict=True)])


def observed(info: ModelInfo, run: SamplerRun) -> LatentObservation:
    """The latents outside of the noise mask, one observation a row."""
    latents = info.drop_frame_axis(run.latents)
    if not bool(torch.isfinite(latents).all()):
        raise InputError("latent_image", "finite numbers", "NaN or infinity", "Encode the picture again.")
    if run.mask is None:
        log.warning("VIPaint Sampler: the latent has no noise mask, so everything is painted")
        return LatentObservation.masked(latents, torch.zeros_like(latents[:, :1]))
    mask = info.drop_frame_axis(run.mask)
    return LatentObservation.masked(latents, 1 - snapped(mask[:, :1].clamp(0, 1)))


def level_of(info: ModelInfo, sigma: float) -> float:
    """The noise-to-signal ratio of a sigma of the host's, infinite where nothing of the picture is left."""
    coordinate = info.coordinate
    if coordinate.flow and sigma >= 1 - 1e-6:
        return float("inf")
    return float(coordinate.s_of_sigma(sigma * coordinate.noise_scale))


def falling_levels(info: ModelInfo, sigmas: torch.Tensor, top: float) -> list[float]:
    """Noise levels of SIGMAS; top: a level at which noise drowns everything, for a first one that is infinite.

    Raises InputError for sigmas that do not fall.
    """
    values = [float(sigma) for sigma in sigmas]
    levels = [level_of(info, sigma) for sigma in values]
    # Some schedules end with zero twice.
    levels = [s for s, before in zip(levels, [None, *levels], strict=False) if s != before]
    if len(levels) < 2 or not all(a > b for a, b in pairwise(levels)) or levels[-1] < 0:
        raise InputError(
            "sigmas",
            "at least two levels that fall",
            f"{len(values)}: {', '.join(f'{value:.4g}' for value in values[:6])}{', ...' if len(values) > 6 else ''}",
            "Connect VIPaint Sigmas or a scheduler.",
        )
    if levels[0] == float("inf"):
        levels[0] = max(top, LARGEST, 2 * levels[1])
    return levels
