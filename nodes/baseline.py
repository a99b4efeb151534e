"""Published inpainting samplers, to compare VIPaint with in one graph."""

from __future__ import annotations

import reprlib
from dataclasses import Field, fields
from decimal import Decimal
from typing import Any

import torch
from comfy_api.latest import io

from ..vipaint_core import SampleState
from ..vipaint_core.baselines import BASELINES, Settings, run_baseline
from ..vipaint_core.denoiser import Denoiser
from . import bridge, memory, painting, validation
from .observe import observe

NODE = "VIPaintBaseline"


def method_input() -> io.Input:
    """A choice of method that shows that method's knobs only."""
    words = " ".join(f"{baseline.name}: {baseline.description}" for baseline in BASELINES.values())
    options = [
        io.DynamicCombo.Option(baseline.name, [knob_input(knob) for knob in fields(baseline.settings)])
        for baseline in BASELINES.values()
    ]
    return io.DynamicCombo.Input("method", options=options, tooltip=words)


def knob_input(knob: Field) -> io.Input:
    low, high, tooltip = (knob.metadata[key] for key in ("low", "high", "effect"))
    if isinstance(knob.default, int):
        return io.Int.Input(knob.name, default=knob.default, min=low, max=high, tooltip=tooltip)
    # The default must be within the widget's precision.
    step = 10.0 ** Decimal(str(knob.default)).as_tuple().exponent
    return io.Float.Input(knob.name, default=knob.default, min=low, max=high, step=step, round=1e-6, tooltip=tooltip)


def settings_of(method: dict[str, Any]) -> tuple[str, Settings]:
    """Name and settings from the host's value of the method input, {"method": name, knob: value, ...}."""
    name = method.get("method") if isinstance(method, dict) else method
    if not isinstance(name, str) or name not in BASELINES or not isinstance(method, dict):
        found = reprlib.repr(name)
        raise validation.problem(NODE, "method", f"one of {', '.join(BASELINES)}", found, "Choose another method.")
    knobs = {key: value for key, value in method.items() if key != "method"}
    try:
        return name, BASELINES[name].settings(**knobs)
    except (TypeError, ValueError) as error:
        raise validation.problem(
            NODE, "method", f"the knobs of {name} within their limits", str(error), "Choose the method anew."
        ) from error


class VIPaintBaseline(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=NODE,
            display_name="VIPaint Baseline",
            category=painting.CATEGORY,
            description="Paints the masked area with another published method, at its authors' settings, to compare "
            "VIPaint with.",
            search_aliases=[*BASELINES, "baseline", "comparison", "posterior sampling", "vipaint"],
            inputs=[
                *painting.model_inputs(),
                painting.seed_input(),
                painting.cfg_input(),
                painting.fills_input(),
                method_input(),
                *painting.observation_inputs(),
                memory.gradients_input(),
            ],
            outputs=[painting.latent_output()],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        seed: int,
        cfg: float,
        fills: int,
        method: dict[str, Any],
        latent_image: dict[str, Any] | None = None,
        image: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        vae: Any | None = None,
        gradients: str = memory.AUTO,
    ) -> io.NodeOutput:
        validation.check_widgets(cls, seed=seed, cfg=cfg, fills=fills, gradients=gradients)
        name, settings = settings_of(method)
        painting.check_inputs(NODE, model, positive, negative)
        observation = observe(NODE, model, latent_image, image, mask, vae)
        painting.warn_if_nothing_to_paint(NODE, observation)
        baseline, (images, *shape) = BASELINES[name], observation.latent.shape
        report = bridge.reporter(model, baseline.planned(settings, images, fills, memory.BATCH), 0)
        drawing = SampleState()

        def work(denoiser: Denoiser, device: torch.device, batch: int) -> torch.Tensor:
            return run_baseline(
                name,
                denoiser,
                observation.to(device),
                seed,
                fills,
                settings=settings,
                s_max=bridge.largest_level(model),
                batch=batch,
                state=drawing,
                callback=report,
            ).latents

        drawn, together = (1, fills) if baseline.particles else (images * fills, 0)
        demand = memory.Demand(tuple(shape), drawn, together, baseline.needs_gradient)
        latents = memory.run(
            NODE, model, positive, negative, demand, work, drawing, cfg=cfg, seed=seed, wanted=gradients
        )
        return io.NodeOutput(painting.latent_of(NODE, model, latents))
