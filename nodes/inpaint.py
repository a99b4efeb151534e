"""One node from picture and mask to fills."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.v0_0_2 import io

from . import preflight, sockets
from .execution import names_node
from .host.denoiser import Conditioning
from .host.memory import AUTO
from .observation import ORIGINAL, PictureInputs
from .sampling import paint, sampling_inputs, to_latent
from .validation import check_widgets


class VIPaintInpaint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintInpaint",
            display_name="VIPaint Inpaint",
            category=sockets.CATEGORY,
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
                "mask",
                "局部重绘",
                "修复",
                "补全",
                "扩图",
                "インペイント",
                "補完",
                "修復",
                "retouche",
            ],
            inputs=[
                *sockets.model_inputs(),
                sockets.seed_input(),
                sockets.cfg_input(),
                sockets.fills_input(),
                sockets.preset_input(),
                *sockets.picture_inputs(),
                sockets.gradients_input(),
                *sockets.strength_inputs(),
            ],
            outputs=[sockets.latent_output(), sockets.posterior_output()],
        )

    @classmethod
    def validate_inputs(cls, input_types: dict[str, str]) -> bool | str:
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
        preset: str,
        latent_image: dict[str, Any] | None = None,
        image: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        vae: VAE | None = None,
        gradients: str = AUTO,
        strength: float = 1.0,
        content: str = ORIGINAL,
    ) -> io.NodeOutput:
        widgets = {"preset": preset, "gradients": gradients, "strength": strength, "content": content}
        check_widgets(cls, seed=seed, cfg=cfg, fills=fills, **widgets)
        inputs = sampling_inputs(model, positive, negative, cfg, seed, gradients)
        picture = PictureInputs(latent_image, image, mask, vae)
        fitted, latents = paint(inputs, picture, preset, fills, strength, content)
        assert latents is not None
        return io.NodeOutput(to_latent(inputs.info, latents, fitted.observation), fitted)
