"""One node from picture and mask to fills."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from . import memory, painting, validation

NODE = "VIPaintInpaint"


class VIPaintInpaint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=NODE,
            display_name="VIPaint Inpaint",
            category=painting.CATEGORY,
            description="Paints the masked area of a picture in several different ways that all fit what is visible, "
            "with any image model. Fits a posterior over noise levels and draws fills from it.",
            search_aliases=[
                "inpaint",
                "vipaint",
                "variational inpainting",
                "fill",
                "outpaint",
                "posterior",
                "remove object",
            ],
            inputs=[
                *painting.model_inputs(),
                painting.seed_input(),
                painting.cfg_input(),
                painting.fills_input(),
                painting.preset_input(),
                *painting.observation_inputs(),
                memory.gradients_input(),
            ],
            outputs=[painting.latent_output(), painting.posterior_output()],
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
        preset: str,
        latent_image: dict[str, Any] | None = None,
        image: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        vae: Any | None = None,
        gradients: str = memory.AUTO,
    ) -> io.NodeOutput:
        validation.check_widgets(cls, seed=seed, cfg=cfg, fills=fills, preset=preset, gradients=gradients)
        fitted, latents = painting.paint(
            NODE,
            model,
            positive,
            negative,
            seed=seed,
            cfg=cfg,
            preset=preset,
            fills=fills,
            latent_image=latent_image,
            image=image,
            mask=mask,
            vae=vae,
            gradients=gradients,
        )
        return io.NodeOutput(painting.latent_of(NODE, model, latents), fitted)
