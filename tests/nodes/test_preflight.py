"""What nodes refuse before a model is loaded."""

from __future__ import annotations

import pytest
import torch

SOURCE = {"image": "IMAGE", "mask": "MASK", "vae": "VAE"}
OTHERS = {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING"}


@pytest.mark.parametrize("name", ["VIPaintInpaint", "VIPaintFit", "VIPaintBaseline"])
@pytest.mark.parametrize(
    ("links", "found"),
    [
        (SOURCE, None),
        ({"latent_image": "LATENT"}, None),
        ({"latent_image": "LATENT", "mask": "MASK"}, None),
        ({"latent_image": "LATENT", **SOURCE}, "input `image`.*both.*Disconnect"),
        ({"image": "IMAGE", "vae": "VAE"}, "input `mask`.*no mask.*Load Image"),
        ({"image": "IMAGE", "mask": "MASK"}, "input `vae`.*no vae"),
        ({}, "input `image`.*neither"),
        ({**SOURCE, "mask": "IMAGE"}, "input `mask`: expected a link of type MASK, found one of type IMAGE"),
    ],
)
def test_links_are_looked_at(pack, name, links, found):
    (node,) = (node for node in pack.NODES if node.GET_SCHEMA().node_id == name)
    answer = node.validate_inputs(input_types={**OTHERS, **links})
    if found is None:
        assert answer is True
    else:
        assert isinstance(answer, str)
        with pytest.raises(ValueError, match=found):
            raise ValueError(answer)


@pytest.mark.parametrize("name", ["inpaint.VIPaintInpaint", "restore.VIPaintRestore"])
def test_pictures_are_looked_at_before_models_are_asked_for(pack, name):
    module, _, node = name.partition(".")
    look = getattr(getattr(pack, module), node).check_lazy_status
    image, empty = torch.rand(1, 48, 64, 3), torch.zeros(1, 64, 64)
    given = {"model": None, "vae": None, "image": image, "mask": torch.ones(1, 48, 64), "fills": 4}
    assert look(**given) == ["model", "vae"]
    assert look(**{**given, "model": 1, "vae": 2}) == []
    with pytest.raises(ValueError, match=r"VIPaint \w+, input `mask`: .* black mask .* Mask Editor"):
        look(**{**given, "mask": empty})
    # Of a picture of its size, and of none, it is a mask like any other.
    assert look(**{**given, "image": torch.rand(1, 64, 64, 3), "mask": empty}) == ["model", "vae"]
    assert look(model=None, latent_image={}, mask=empty) == ["model"]


@pytest.mark.parametrize(
    ("degradation", "links", "refused"),
    [("none", {}, True), ("none", {"mask": None}, False), ("gaussian blur", {}, False)],
)
def test_restoring_nothing_is_refused(pack, degradation, links, refused):
    check = pack.restore.VIPaintRestore.validate_inputs
    answer = check(degradation={"degradation": degradation}, noise=0.0, **links)
    assert isinstance(answer, str) if refused else answer is True
    # What comes by a link is not known yet.
    assert check(degradation={"degradation": degradation}, noise=None, **links) is True
    assert check(degradation={"degradation": degradation}, noise=0.1, **links) is True


def test_lazy_inputs_are_those_that_load_models(pack):
    for node in pack.NODES:
        schema = node.GET_SCHEMA()
        lazy = {socket.id for socket in schema.inputs if getattr(socket, "lazy", None)}
        # The host loads only what a node asks for.
        assert not lazy or set(node.check_lazy_status(**dict.fromkeys(lazy))) == lazy, schema.node_id
        if schema.node_id in ("VIPaintInpaint", "VIPaintFit", "VIPaintBaseline", "VIPaintRestore"):
            assert lazy == {"model", "positive", "negative", "vae"}
