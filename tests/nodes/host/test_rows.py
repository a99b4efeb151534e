"""Conditioning that differs by row is refused by name, in whatever field; what belongs to all rows counts for all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from family_cases import autoencoder

pytestmark = pytest.mark.usefixtures("short_presets")


def with_settings(case, **settings):
    import node_helpers

    return replace(case, positive=node_helpers.conditioning_set_values(case.positive, settings))


def references(case, *batches):
    """ReferenceLatent, once for each batch of pictures."""
    from comfy_extras.nodes_edit_model import ReferenceLatent

    positive, generator = case.positive, torch.Generator().manual_seed(5)
    for batch in batches:
        latents = torch.randn(batch, *case.shape()[1:], generator=generator)
        latent = {"samples": latents.unsqueeze(2) if case.name == "qwen-image" else latents}
        positive = ReferenceLatent.execute(positive, latent).result[0]
    return replace(case, positive=positive)


def painted(paint, case, **changes):
    vae = case.vae or autoencoder(case)
    given = {"model": case.model, "positive": case.positive, "negative": case.negative, "cfg": 1.0, "vae": vae}
    return paint(**{**given, **changes})[0]["samples"]


@pytest.mark.parametrize(
    ("family", "field", "change"),
    [
        ("flux", "ref_latents", lambda case: references(case, 2)),
        ("qwen-image", "ref_latents", lambda case: references(case, 1, 2)),
        ("qwen-image", "attention_mask", lambda case: with_settings(case, attention_mask=torch.eye(2, 5))),
        ("lumina2", "attention_mask", lambda case: with_settings(case, attention_mask=torch.eye(2, 5))),
    ],
    indirect=["family"],
)
@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_rows_that_differ_are_refused(paint, family, field, change, preset):
    if field not in fields(change(family)):
        pytest.fail(f"the host does not read {field}")
    with pytest.raises(ValueError, match=rf"input `positive`: expected one `{field}` for all.*found a batch of 2"):
        painted(paint, change(family), preset=preset)


def fields(case):
    import comfy.sampler_helpers
    import comfy.samplers

    conds = {"positive": comfy.sampler_helpers.convert_cond(case.positive)}
    zeros = torch.zeros(case.shape() if case.name != "qwen-image" else (*case.shape()[:2], 1, *case.size))
    found = comfy.samplers.process_conds(case.model.model, zeros, conds, zeros.device, zeros)
    return found["positive"][0]["model_conds"]


def test_equal_rows_are_one(paint, load_family):
    case = load_family("qwen-image")
    mask = torch.tensor([[1.0, 1, 1, 1, 0]])
    one, two = (with_settings(case, attention_mask=mask.expand(rows, 5)) for rows in (1, 2))
    assert torch.equal(painted(paint, one), painted(paint, two))


@pytest.mark.parametrize("preset", ["fast", "balanced"])
@pytest.mark.parametrize("family", ["flux", "qwen-image"], indirect=True)
def test_references_count_for_every_fill(paint, family, preset):
    """One, and a chain of two: each fill is what it is alone, whatever rows it was drawn with."""
    plain = painted(paint, family, preset=preset)
    for batches in ((1,), (1, 1)):
        case = references(family, *batches)
        both = painted(paint, case, preset=preset)
        assert (both - plain).abs().flatten(1).amax(1).min() > 1e-3
        alone = painted(paint, case, preset=preset, fills=1)
        torch.testing.assert_close(both[:1], alone, rtol=1e-3, atol=1e-3)


def test_masks_of_control_networks_that_differ_by_row_are_refused(paint, load_family):
    from family_cases import with_encoding_control

    case = load_family("sd3")
    with torch.inference_mode():
        case = with_encoding_control(case)
    case.positive[0][1]["control"].extra_concat_orig = [torch.eye(2).reshape(2, 1, 1, 2)]
    with pytest.raises(ValueError, match="one of the control masks for all pictures, found a batch of 2"):
        painted(paint, case)
