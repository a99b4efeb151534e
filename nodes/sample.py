"""Draws fills from a fitted posterior."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.v0_0_2 import io

from ..vipaint_core import FittedPosterior
from . import preflight, sockets
from .execution import names_node
from .host.denoiser import Conditioning
from .host.memory import AUTO
from .sampling import DrawMore, run_method, sampling_inputs, to_latent
from .validation import check_posterior, check_widgets
from .variation import Chosen, seed_around, varied


class VIPaintSample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintSample",
            display_name="VIPaint Sample Posterior",
            category=sockets.CATEGORY,
            description="Draws fills from a fitted or loaded posterior, without fitting again: new ones, more like a "
            "chosen one, or with a part of it kept.",
            search_aliases=[
                "vipaint",
                "draw fills",
                "more fills",
                "more like this",
                "variations",
                "keep this part",
                "posterior",
                "后验",
                "采样",
                "事後分布",
            ],
            inputs=[
                *sockets.model_inputs(),
                sockets.PosteriorType.Input(
                    "posterior",
                    tooltip="From VIPaint Fit Posterior, VIPaint Inpaint or VIPaint Load Posterior, of the same model "
                    "family.",
                ),
                sockets.seed_input(),
                sockets.cfg_input(),
                sockets.fills_input(),
                io.Int.Input(
                    "first_fill",
                    default=0,
                    min=0,
                    max=1_000_000,
                    advanced=True,
                    tooltip="Number of the first fill. After 4 fills, 4 here gives new ones with the same seed.",
                ),
                sockets.gradients_input(),
                io.Latent.Input(
                    "around",
                    optional=True,
                    tooltip="A chosen fill, from VIPaint Choose Fill: the new fills are like it. Of several, each gets "
                    "`fills` of its own.",
                ),
                io.Float.Input(
                    "variation",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="How far new fills may be from the one in `around`, on the scale of strength: lower stays "
                    "closer to its shapes and colours, 1 draws anew. Unused without `around`.",
                ),
                io.Mask.Input(
                    "keep",
                    optional=True,
                    tooltip="White on the fill in `around` is kept as it is, the more of it the less is drawn anew; what "
                    "is new fits it as it fits the picture. Set variation to 1 to draw the rest anew altogether.",
                ),
            ],
            outputs=[sockets.latent_output()],
        )

    @classmethod
    def validate_inputs(cls, input_types: dict[str, str]) -> bool | str:
        return preflight.check_links(cls, input_types, preflight.check_chosen)

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
        posterior: FittedPosterior,
        seed: int,
        cfg: float,
        fills: int,
        first_fill: int = 0,
        gradients: str = AUTO,
        around: dict[str, Any] | None = None,
        variation: float = 0.5,
        keep: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        numbers = {"seed": seed, "cfg": cfg, "fills": fills, "first_fill": first_fill, "variation": variation}
        check_widgets(cls, **numbers, gradients=gradients)
        own = seed if around is None else seed_around(seed)
        inputs = sampling_inputs(model, positive, negative, cfg, own, gradients)
        check_posterior(inputs.info, posterior)
        found, still_open = varied(model, inputs.info, posterior, Chosen(around, variation, keep))
        latents = run_method(inputs, DrawMore(found, own, fills, first_fill))
        return io.NodeOutput(to_latent(inputs.info, latents, still_open.observation))
