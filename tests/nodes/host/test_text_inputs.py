"""Shapes of the text inputs that families read."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch


@pytest.mark.parametrize(
    ("config", "kind", "tokens", "pooled"),
    [
        ({"model_channels": 320, "context_dim": 768, "adm_in_channels": None}, "BaseModel", (77, 768), None),
        ({"model_channels": 320, "context_dim": 2048, "adm_in_channels": 2816}, "SDXL", (77, 2048), 1280),
        ({"model_channels": 384, "context_dim": 1280, "adm_in_channels": 2560}, "SDXLRefiner", (77, 1280), 1280),
        ({"context_in_dim": 4096, "vec_in_dim": 768}, "Flux", (1, 4096), 768),
        ({"cap_feat_dim": 2304}, "Lumina2", (1, 2304), None),
        ({"cond_seq_dim": 2048}, "AuraFlow", (1, 2048), None),
    ],
)
def test_shapes_of_families(pack, config, kind, tokens, pooled):
    import comfy.model_base

    model = getattr(comfy.model_base, kind).__new__(getattr(comfy.model_base, kind))
    torch.nn.Module.__init__(model)
    model.model_config = SimpleNamespace(unet_config=config)
    (entry,) = pack.host.text_inputs.zero_conditioning(SimpleNamespace(model=model))
    assert entry[0].shape == (1, *tokens) and not entry[0].any()
    assert entry[1].get("pooled_output", torch.zeros(1, 0)).shape[1] == (pooled or 0)


def test_an_unknown_family_has_none(pack):
    model = SimpleNamespace(model_config=SimpleNamespace(unet_config={}), diffusion_model=torch.nn.Identity())
    assert pack.host.text_inputs.zero_conditioning(SimpleNamespace(model=model)) is None
