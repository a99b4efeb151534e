"""Fits a posterior without drawing from it."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from . import memory, painting, validation

NODE = "VIPaintFit"


class VIPaintFit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=NODE,
            display_name="VIPaint Fit Posterior",
            category=painting.CATEGORY,
            description="Fits the posterior of a masked picture once. VIPaintSample draws fills from it, as many "
            "and as often as you like.",
            search_aliases=["vipaint", "posterior", "variational inference", "inpaint fit"],
            inputs=[
                *painting.model_inputs(),
                painting.seed_input(),
                painting.cfg_input(),
                painting.preset_input(),
                *painting.observation_inputs(),
                memory.gradients_input(),
            ],
            outputs=[painting.posterior_output()],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        seed: int,
        cfg: float,
        preset: str,
        latent_image: dict[str, Any] | None = None,
        image: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        vae: Any | None = None,
        gradients: str = memory.AUTO,
    ) -> io.NodeOutput:
        validation.check_widgets(cls, seed=seed, cfg=cfg, preset=preset, gradients=gradients)
        fitted, _ = painting.paint(
            NODE,
            model,
            positive,
            negative,
            seed=seed,
            cfg=cfg,
            preset=preset,
            fills=0,
            latent_image=latent_image,
            image=image,
            mask=mask,
            vae=vae,
            gradients=gradients,
        )
        return io.NodeOutput(fitted)
