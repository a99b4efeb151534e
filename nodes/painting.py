"""What the painting nodes share: sockets, and the core run inside the bridge."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io

from ..vipaint_core import PRESETS, Fit, FitState, Observation, Preset, SampleState, fit, planned_evaluations, sample
from ..vipaint_core.denoiser import Denoiser
from . import bridge, memory, validation
from .observe import observe

log = logging.getLogger(__name__)

CATEGORY = "VIPaint"
Posterior = io.Custom("VIPAINT_POSTERIOR")


def model_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="Any diffusion or rectified-flow image model; no inpainting model is needed."),
        io.Conditioning.Input("positive", tooltip="What the picture should show. One prompt for all pictures."),
        io.Conditioning.Input("negative", tooltip="What to move away from. Unused where cfg is 1."),
    ]


def seed_input() -> io.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip="The same seed and settings give the same result.",
    )


def cfg_input() -> io.Input:
    return io.Float.Input(
        "cfg",
        default=4.0,
        min=0.0,
        max=100.0,
        step=0.1,
        round=0.01,
        tooltip="Guidance by the prompt: higher follows it more closely with less variety. 1 ignores the negative "
        "prompt and takes half the time.",
    )


def fills_input(default: int = 4) -> io.Input:
    return io.Int.Input(
        "fills",
        default=default,
        min=1,
        max=64,
        tooltip="How many different fills to draw for each picture; time grows with it.",
    )


def preset_input() -> io.Input:
    words = " ".join(f"{preset.name}: {preset.description}" for preset in PRESETS.values())
    return io.Combo.Input("preset", options=list(PRESETS), default="balanced", tooltip=words)


def observation_inputs() -> list[io.Input]:
    return [
        io.Latent.Input(
            "latent_image",
            optional=True,
            tooltip="An encoded picture with a noise mask (Set Latent Noise Mask). Use this or image, mask and vae.",
        ),
        io.Image.Input(
            "image",
            optional=True,
            tooltip="The picture to paint in, of any size; needs mask and vae. The hole is covered before encoding, so "
            "that nothing hidden leaks into the result.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="White is painted, black is kept, grey is kept loosely. Replaces a noise mask.",
        ),
        io.Vae.Input("vae", optional=True, tooltip="The model's VAE, to encode image. Not needed with latent_image."),
    ]


def posterior_output() -> io.Output:
    return Posterior.Output(
        "posterior", tooltip="The fitted posterior: draw more fills from it with VIPaintSample, or save it."
    )


def latent_output() -> io.Output:
    return io.Latent.Output(
        "latent",
        tooltip="The fills, all of the first picture first. Decoded, a picture whose size is no multiple of the VAE's "
        "cell (8 pixels for most) is larger at the right and the bottom: VIPaintComposite cuts it to its size.",
    )


def check_inputs(node: str, model: Any, positive: Any, negative: Any) -> None:
    validation.check_model(node, model)
    validation.check_conditioning(node, "positive", positive)
    validation.check_conditioning(node, "negative", negative)


def warn_if_nothing_to_paint(node: str, observation: Observation) -> bool:
    nothing = bool(observation.nothing_to_paint.all())
    if nothing:
        log.warning("%s: the mask is black everywhere, so there is nothing to paint; the picture is returned", node)
    return nothing


def paint(
    node: str,
    model: Any,
    positive: Any,
    negative: Any,
    *,
    seed: int,
    cfg: float,
    preset: str,
    fills: int,
    latent_image: dict[str, Any] | None,
    image: torch.Tensor | None,
    mask: torch.Tensor | None,
    vae: Any | None,
    gradients: str = memory.AUTO,
) -> tuple[Fit, torch.Tensor | None]:
    """Fits, then draws `fills` per picture (0: fits only). Returns the fit and latents in model scale."""
    check_inputs(node, model, positive, negative)
    chosen = PRESETS[preset]
    observation = observe(node, model, latent_image, image, mask, vae, leak=chosen.minds_leak)
    if warn_if_nothing_to_paint(node, observation):
        chosen = replace(chosen, steps=0)
    images = len(observation.latent)
    fit_calls = planned_evaluations(chosen, images, 0)
    report = bridge.reporter(model, planned_evaluations(chosen, images, fills), fit_calls)
    fitting, drawing = FitState(), SampleState()

    def work(denoiser: Denoiser, device: torch.device, batch: int) -> tuple[Fit, torch.Tensor | None]:
        fitted = fit(
            denoiser,
            observation.to(device),
            chosen,
            seed,
            s_max=bridge.largest_level(model),
            family=bridge.family(model),
            state=fitting,
            callback=report,
        )
        if not fills:
            return fitted.to("cpu"), None
        drawn = sample(denoiser, fitted, seed, fills, batch=batch, state=drawing, callback=report)
        return fitted.to("cpu"), drawn.latents

    demand = _demand(observation, chosen, fills, fits=True)
    return memory.run(node, model, positive, negative, demand, work, drawing, cfg=cfg, seed=seed, wanted=gradients)


def draw(
    node: str,
    model: Any,
    positive: Any,
    negative: Any,
    fitted: Fit,
    *,
    seed: int,
    cfg: float,
    fills: int,
    first: int,
    gradients: str = memory.AUTO,
) -> torch.Tensor:
    """Draws fills `first`, `first` + 1, ... of every picture; latents in model scale."""
    check_inputs(node, model, positive, negative)
    validation.check_posterior(node, model, fitted)
    images, preset = len(fitted.observation.latent), fitted.preset
    calls = planned_evaluations(preset, images, fills) - planned_evaluations(preset, images, 0)
    report = bridge.reporter(model, calls, 0)
    drawing = SampleState()

    def work(denoiser: Denoiser, device: torch.device, batch: int) -> torch.Tensor:
        return sample(
            denoiser, fitted.to(device), seed, fills, first=first, batch=batch, state=drawing, callback=report
        ).latents

    demand = _demand(fitted.observation, preset, fills, fits=False)
    return memory.run(node, model, positive, negative, demand, work, drawing, cfg=cfg, seed=seed, wanted=gradients)


def latent_of(node: str, model: Any, latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """The host's LATENT of latents in model scale."""
    validation.check_result(node, latents)
    out = bridge.to_host_latent(model, latents.float())
    # Older hosts (0.16) know no other latents than float32.
    dtype = getattr(comfy.model_management, "intermediate_dtype", lambda: torch.float32)()
    return {"samples": out.to(device=comfy.model_management.intermediate_device(), dtype=dtype)}


def _demand(observation: Observation, preset: Preset, fills: int, fits: bool) -> memory.Demand:
    images, *shape = observation.latent.shape
    drawn, together, passes = images * fills, 0, 1
    if preset.particles:
        drawn, together = 1, fills
    if fits and preset.steps:
        together, passes = max(together, images * preset.draws), preset.fit_calls // preset.steps
    return memory.Demand(tuple(shape), drawn, together, preset.needs_gradient, passes)
