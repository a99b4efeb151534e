"""Fits a posterior without drawing from it."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.v0_0_2 import io

from ..vipaint_core import FittedPosterior
from . import preflight, sockets
from .execution import names_node
from .host.denoiser import Conditioning
from .host.memory import AUTO
from .observation import ORIGINAL, PictureInputs
from .sampling import paint, sampling_inputs
from .validation import check_posterior, check_widgets


class VIPaintFit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintFit",
            display_name="VIPaint Fit Posterior",
            category=sockets.CATEGORY,
            description="Fits the posterior of a masked picture once. VIPaint Sample Posterior draws fills from it, as "
            "many and as often as you like.",
            search_aliases=["vipaint", "posterior", "variational inference", "inpaint fit", "后验", "事後分布"],
            inputs=[
                *sockets.model_inputs(),
                sockets.seed_input(),
                sockets.cfg_input(),
                sockets.preset_input(),
                *sockets.picture_inputs(),
                sockets.gradients_input(),
                *sockets.strength_inputs(),
                sockets.PosteriorType.Input(
                    "start_from",
                    optional=True,
                    tooltip="A posterior of other pictures with nearly the same hole, of the same model and preset: what it "
                    "has found is used, so that this fit takes no time and the first fills are as fast as further ones. "
                    "Better the more pictures it is of and the more alike they are.",
                ),
            ],
            outputs=[sockets.posterior_output()],
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
        preset: str,
        latent_image: dict[str, Any] | None = None,
        image: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        vae: VAE | None = None,
        gradients: str = AUTO,
        strength: float = 1.0,
        content: str = ORIGINAL,
        start_from: FittedPosterior | None = None,
    ) -> io.NodeOutput:
        widgets = {"preset": preset, "gradients": gradients, "strength": strength, "content": content}
        check_widgets(cls, seed=seed, cfg=cfg, **widgets)
        inputs = sampling_inputs(model, positive, negative, cfg, seed, gradients)
        if start_from is not None:
            check_posterior(inputs.info, start_from, "start_from")
        picture = PictureInputs(latent_image, image, mask, vae)
        return io.NodeOutput(paint(inputs, picture, preset, 0, strength, content, start_from).fitted)
