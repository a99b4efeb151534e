"""Conditioning whose rows the host would deal out to fills of one picture; other odd inputs are in odd_inputs/."""

from __future__ import annotations

import pytest
import tiny_checkpoints
import torch
from tiny_families import FAMILIES


@pytest.mark.parametrize("family", ["sd15-inpaint"], indirect=True)
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"pooled_output": torch.zeros(2, 8)}, "pooled prompts"),
        ({"mask": torch.ones(3, 8, 8)}, "masks"),
        ({"concat_mask": torch.ones(2, 1, 8, 8)}, "inpainting masks"),
        ({"concat_latent_image": torch.zeros(2, 4, 8, 8)}, "inpainting pictures"),
    ],
)
def test_conditioning_that_differs_by_row_is_refused(pack, family, change, what):
    tokens, options = family.positive[0]
    pack.validation.check_conditioning("positive", family.positive)
    with pytest.raises(ValueError, match=rf"^input `positive`.*one of the {what}.*a batch of [23] {what}"):
        pack.validation.check_conditioning("positive", [[tokens, {**options, **change}]])


@pytest.mark.parametrize("family", ["sd15"], indirect=True)
def test_control_pictures_that_differ_by_row_are_refused(pack, family):
    """Also of a ControlNet below another."""
    import nodes

    apply, control = nodes.ControlNetApplyAdvanced().apply_controlnet, tiny_checkpoints.controlnet(FAMILIES["sd15"])
    positive, negative = family.positive, family.negative
    for pictures in (2, 1):
        hint = torch.rand(pictures, 32, 48, 3)
        positive, negative = apply(positive, negative, control, hint, 1.0, 0.0, 1.0)
        with pytest.raises(ValueError, match="a batch of 2 control pictures"):
            pack.validation.check_conditioning("positive", positive)
