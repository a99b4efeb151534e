"""The benchmark's exact posteriors: every hole hides an attribute wholly or shows what it is."""

from __future__ import annotations

import pytest
import torch

from toy_prior import pictures

HIDDEN = {
    "right": ["accessory"],
    "top": ["hair_style", "hair_colour"],
    "bottom": ["eye_shape", "eye_colour", "mouth", "accessory"],
    "centre": ["eye_shape", "eye_colour", "mouth"],
    "blocks": ["mouth", "accessory"],
    "border": ["hair_style", "accessory"],
    "strip": ["hair_style", "hair_colour", "mouth", "accessory"],
    "cut": ["hair_style", "hair_colour", "mouth", "accessory"],
}


@pytest.mark.parametrize("name", pictures.MASKS)
def test_attributes_are_hidden_or_determined(name: str) -> None:
    mask = pictures.hole(name)
    assert pictures.hidden_attributes(mask) == HIDDEN[name]
    for attribute in pictures.ATTRIBUTES:
        if attribute not in HIDDEN[name]:
            telling = (pictures.contrast(attribute) > 0.1) & ~mask
            assert telling.flatten(1).sum(1).min() >= 64, attribute


@pytest.mark.parametrize("name", pictures.MASKS)
def test_hidden_attributes_leave_the_visible_part_alone(name: str) -> None:
    """Rendered, not reasoned: other hidden values, same visible pixels."""
    mask = pictures.hole(name)
    truth = pictures.sample_attributes(8, torch.Generator().manual_seed(0))
    other = pictures.sample_attributes(8, torch.Generator().manual_seed(1)).discrete()
    mixed = {key: other[key] if key in HIDDEN[name] else value for key, value in truth.discrete().items()}
    groups = dict(truth.groups)
    groups["hair"] = mixed["hair_style"] * len(pictures.HAIR_COLOURS) + mixed["hair_colour"]
    groups["eye_left"] = groups["eye_right"] = mixed["eye_shape"] * len(pictures.EYE_COLOURS) + mixed["eye_colour"]
    groups["mouth"], groups["accessory"] = mixed["mouth"], mixed["accessory"]
    changed = pictures.render(pictures.Attributes(truth.hue, groups))
    original = pictures.render(truth)
    assert not torch.equal(changed, original)
    torch.testing.assert_close(changed[:, :, ~mask], original[:, :, ~mask], atol=0.03, rtol=0)
