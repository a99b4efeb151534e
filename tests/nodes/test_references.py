"""Pictures beside the prompt count for every fill alike; those of several rows are refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from family_cases import autoencoder

pytestmark = pytest.mark.usefixtures("short_presets")


def references(case, count):
    """So many ReferenceLatent in a chain."""
    from comfy_extras.nodes_edit_model import ReferenceLatent

    positive, generator = case.positive, torch.Generator().manual_seed(5)
    for _ in range(count):
        latents = torch.randn(case.shape(), generator=generator)
        latent = {"samples": latents.unsqueeze(2) if case.name == "qwen-image" else latents}
        positive = ReferenceLatent.execute(positive, latent).result[0]
    return replace(case, positive=positive)


def painted(paint, case, **changes):
    vae = case.vae or autoencoder(case)
    given = {"model": case.model, "positive": case.positive, "negative": case.negative, "cfg": 1.0, "vae": vae}
    return paint(**{**given, **changes})[0]["samples"]


@pytest.mark.parametrize("preset", ["fast", "balanced"])
@pytest.mark.parametrize("family", ["flux", "qwen-image"], indirect=True)
def test_references_count_for_every_fill(paint, family, preset):
    """One, and a chain of two: each fill is what it is alone, whatever rows it was drawn with."""
    plain = painted(paint, family, preset=preset)
    for count in (1, 2):
        case = references(family, count)
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
