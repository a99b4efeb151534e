"""Errors of inputs begin with the name that the node has in the menu."""

from __future__ import annotations

import pytest
import torch

# One wrong input of every node; the others are never looked at.
WRONG = {
    "VIPaintInpaint": {"fills": 0},
    "VIPaintRestore": {"noise": -1.0},
    "VIPaintFit": {"preset": "best"},
    "VIPaintSample": {"seed": -1},
    "VIPaintSavePosterior": {"posterior": "cat"},
    "VIPaintLoadPosterior": {"file": "missing.safetensors"},
    "VIPaintSampler": {"preset": "paper-2"},
    "VIPaintSigmas": {"preset": "best"},
    "VIPaintMask": {"mask": "cat"},
    "VIPaintCrop": {"width": 0},
    "VIPaintComposite": {"feather": -1},
    "VIPaintUncertainty": {"images": None},
    "VIPaintUnconditional": {"model": "sd3.safetensors"},
    "VIPaintBaseline": {"method": {"method": "magic"}},
}
USUAL = {
    "seed": 0,
    "cfg": 1.0,
    "fills": 1,
    "preset": "fast",
    "method": {"method": "ding", "steps": 2},
    "steps": 4,
    "attempts": 1,
    "degradation": {"degradation": "none"},
    "width": 16,
    "height": 16,
    "context": 2.0,
    "enlarge": 1.0,
    "feather": 0,
    "colour_match": 1.0,
    "full_scale": 0.0,
    "specks": 0,
    "grow": 0,
    "blur": 0.0,
}


def test_every_node_is_here(pack):
    assert {node.GET_SCHEMA().node_id for node in pack.NODES} == WRONG.keys()


@pytest.mark.parametrize("name", WRONG)
def test_an_input_error_arrives_with_the_display_name(pack, name):
    (node,) = (node for node in pack.NODES if node.GET_SCHEMA().node_id == name)
    schema = node.GET_SCHEMA()
    inputs = {socket.id: USUAL.get(socket.id) for socket in schema.inputs if not socket.optional} | WRONG[name]
    (wrong,) = WRONG[name]
    with pytest.raises(ValueError, match="VIPaint") as caught:
        node.execute(**inputs)
    assert str(caught.value).startswith(f"{schema.display_name}, input `{wrong}`: expected ")
    # As the host shows it: a plain ValueError, with where it came from.
    assert type(caught.value) is ValueError
    assert isinstance(caught.value.__cause__, pack.errors.InputError)


def test_an_error_from_deep_inside_arrives_too(pack, tiny, paint):
    """Of the network, and of what it returns."""
    model = tiny.model.clone()
    model.set_model_sampler_post_cfg_function(lambda given: given["denoised"] * torch.nan)
    with pytest.raises(ValueError, match=r"^VIPaint Inpaint, input `model`: expected .*, found NaN") as caught:
        paint(model=model)
    assert isinstance(caught.value.__cause__, pack.errors.InputError)


def test_other_errors_stay_as_they_are(pack, tiny, paint):
    def fails(given):
        raise KeyboardInterrupt

    model = tiny.model.clone()
    model.set_model_sampler_post_cfg_function(fails)
    with pytest.raises(KeyboardInterrupt):
        paint(model=model)
