"""Draws fills from a fitted posterior."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import memory, painting, validation

NODE = "VIPaintSample"


class VIPaintSample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=NODE,
            display_name="VIPaint Sample Posterior",
            category=painting.CATEGORY,
            description="Draws fills from a fitted or loaded posterior, without fitting again.",
            search_aliases=["vipaint", "draw fills", "more fills", "posterior"],
            inputs=[
                *painting.model_inputs(),
                painting.Posterior.Input(
                    "posterior",
                    tooltip="From VIPaintFit, VIPaintInpaint or VIPaintLoadPosterior, of the same model family.",
                ),
                painting.seed_input(),
                painting.cfg_input(),
                painting.fills_input(),
                io.Int.Input(
                    "first_fill",
                    default=0,
                    min=0,
                    max=1_000_000,
                    advanced=True,
                    tooltip="Number of the first fill. After 4 fills, 4 here gives new ones with the same seed.",
                ),
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
        posterior: Any,
        seed: int,
        cfg: float,
        fills: int,
        first_fill: int = 0,
        gradients: str = memory.AUTO,
    ) -> io.NodeOutput:
        validation.check_widgets(cls, seed=seed, cfg=cfg, fills=fills, first_fill=first_fill, gradients=gradients)
        latents = painting.draw(
            NODE,
            model,
            positive,
            negative,
            posterior,
            seed=seed,
            cfg=cfg,
            fills=fills,
            first=first_fill,
            gradients=gradients,
        )
        return io.NodeOutput(painting.latent_of(NODE, model, latents))
