"""Published inpainting samplers, to compare VIPaint with in one graph."""

from __future__ import annotations

import reprlib
from dataclasses import Field, fields
from decimal import Decimal
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.v0_0_2 import io

from ..vipaint_core.baselines import BASELINES, Settings, baseline_method
from . import preflight, sockets
from .errors import InputError
from .execution import names_node
from .host.denoiser import Conditioning
from .host.memory import AUTO
from .observation import PictureInputs, observe
from .sampling import Draws, is_complete, run_method, sampling_inputs, to_latent
from .validation import check_widgets


def method_input() -> io.Input:
    """A choice of method that shows that method's settings only."""
    options = [
        io.DynamicCombo.Option(baseline.name, [setting_input(one) for one in fields(baseline.settings)])
        for baseline in BASELINES.values()
    ]
    return io.DynamicCombo.Input(
        "method",
        options=options,
        tooltip="The published method, at its authors' settings, which appear below. The help page says what each does; "
        "several take hundreds of passes a fill.",
    )


def setting_input(setting: Field) -> io.Input:
    low, high, tooltip = (setting.metadata[key] for key in ("low", "high", "effect"))
    if isinstance(setting.default, int):
        return io.Int.Input(setting.name, default=setting.default, min=low, max=high, tooltip=tooltip)
    # The default must be within the widget's precision.
    step = 10.0 ** int(Decimal(str(setting.default)).as_tuple().exponent)
    return io.Float.Input(
        setting.name, default=setting.default, min=low, max=high, step=step, round=1e-6, tooltip=tooltip
    )


def settings_of(method: dict[str, Any]) -> tuple[str, Settings]:
    """Name and settings from the host's value of the method input, {"method": name, setting: value, ...}."""
    name = method.get("method") if isinstance(method, dict) else method
    if not isinstance(name, str) or name not in BASELINES or not isinstance(method, dict):
        found = reprlib.repr(name)
        raise InputError("method", f"one of {', '.join(BASELINES)}", found, "Choose another method.")
    given = {key: value for key, value in method.items() if key != "method"}
    try:
        return name, BASELINES[name].settings(**given)
    except (TypeError, ValueError) as error:
        raise InputError(
            "method", f"the settings of {name} within their limits", str(error), "Choose the method anew."
        ) from error


class VIPaintBaseline(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintBaseline",
            display_name="VIPaint Baseline",
            category=sockets.CATEGORY,
            description="Paints the masked area with another published method, at its authors' settings, to compare "
            "VIPaint with.",
            search_aliases=[
                *BASELINES,
                "baseline",
                "comparison",
                "posterior sampling",
                "对比方法",
                "比較手法",
                "vipaint",
            ],
            inputs=[
                *sockets.model_inputs(),
                sockets.seed_input(),
                sockets.cfg_input(),
                sockets.fills_input(),
                method_input(),
                *sockets.picture_inputs(),
                sockets.gradients_input(),
            ],
            outputs=[sockets.latent_output()],
            # For messages about prompts of scripts.
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, input_types: dict[str, str], method: Any = None) -> bool | str:
        """method: the host hands inputs with settings of their own to every validation, and leaves checking them to it."""
        name = method.get("method") if isinstance(method, dict) else None
        if name is not None and name not in BASELINES:
            expected = f"one of {', '.join(BASELINES)}"
            return str(InputError("method", expected, reprlib.repr(name), "Choose another method."))
        return preflight.check_links(cls, input_types)

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        return preflight.check_pictures(cls, inputs)

    @classmethod
    @names_node
    def execute(
        cls,
        model: ModelPatcher,
        positive: Conditioning,
        negative: Conditioning,
        seed: int,
        cfg: float,
        fills: int,
        method: dict[str, Any],
        latent_image: dict[str, Any] | None = None,
        image: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        vae: VAE | None = None,
        gradients: str = AUTO,
    ) -> io.NodeOutput:
        check_widgets(cls, seed=seed, cfg=cfg, fills=fills, gradients=gradients)
        name, settings = settings_of(method)
        inputs = sampling_inputs(model, positive, negative, cfg, seed, gradients)
        observation = observe(inputs.info, PictureInputs(latent_image, image, mask, vae))
        is_complete(observation)
        draws = Draws(observation, baseline_method(name, settings, inputs.info.largest_level), fills)
        return io.NodeOutput(to_latent(inputs.info, run_method(inputs, draws), observation))
