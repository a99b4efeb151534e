"""Draws fills from a fitted posterior."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.v0_0_2 import io

from ..vipaint_core import FittedPosterior
from . import preflight, sockets
from .execution import names_node
from .host.denoiser import Conditioning
from .host.memory import AUTO
from .sampling import DrawMore, run_method, sampling_inputs, to_latent
from .validation import check_posterior, check_widgets


class VIPaintSample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintSample",
            display_name="VIPaint Sample Posterior",
            category=sockets.CATEGORY,
            description="Draws fills from a fitted or loaded posterior, without fitting again.",
            search_aliases=["vipaint", "draw fills", "more fills", "posterior", "后验", "采样", "事後分布"],
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
            ],
            outputs=[sockets.latent_output()],
        )

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
    ) -> io.NodeOutput:
        check_widgets(cls, seed=seed, cfg=cfg, fills=fills, first_fill=first_fill, gradients=gradients)
        inputs = sampling_inputs(model, positive, negative, cfg, seed, gradients)
        check_posterior(inputs.info, posterior)
        latents = run_method(inputs, DrawMore(posterior, seed, fills, first_fill))
        return io.NodeOutput(to_latent(inputs.info, latents, posterior.observation))
