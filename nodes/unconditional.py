"""Empty conditioning for models that are used without a text encoder."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy_api.v0_0_2 import io

from .errors import InputError
from .execution import names_node
from .host.model_info import model_info
from .host.text_inputs import zero_conditioning
from .sockets import CATEGORY


class VIPaintUnconditional(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintUnconditional",
            display_name="VIPaint Unconditional",
            category=CATEGORY,
            description="Conditioning of zeros in the shapes that the model expects, for painting without a prompt and "
            "without a text encoder. Set cfg to 1 with it.",
            search_aliases=[
                "vipaint",
                "empty conditioning",
                "no prompt",
                "zero conditioning",
                "无提示词",
                "プロンプトなし",
            ],
            inputs=[io.Model.Input("model", tooltip="The model that will be painted with.")],
            outputs=[io.Conditioning.Output("conditioning", tooltip="For positive and negative.")],
        )

    @classmethod
    @names_node
    def execute(cls, model: ModelPatcher) -> io.NodeOutput:
        info = model_info(model)
        conditioning = zero_conditioning(model)
        if conditioning is None:
            raise InputError(
                "model",
                "a family whose text input is known from its configuration",
                info.family,
                "Encode an empty prompt with the model's text encoder instead.",
            )
        return io.NodeOutput(conditioning)
