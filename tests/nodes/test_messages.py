"""What nodes say beside their results: on the node in the editor, under `text` in the prompt's history."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch


@pytest.fixture
def said(pack, tiny, conditioning, picture):
    """The messages of a node that paints in the picture."""
    image, mask = picture

    def run(node, **changes):
        positive, negative = conditioning
        given = {"model": tiny.model, "positive": positive, "negative": negative, "seed": 0, "cfg": 1.0, "fills": 1}
        given |= {"image": image, "mask": mask, "vae": tiny.vae, **changes}
        with torch.inference_mode():
            return "\n".join((node.execute(**given).ui or {}).get("text", []))

    return run


def test_a_run_tells_its_price(pack, said):
    words = said(pack.inpaint.VIPaintInpaint, preset="fast")
    assert words.startswith("1 fill in ") and words.endswith(" s, 28 passes through the model")


def test_a_black_mask_is_told(pack, said, picture):
    words = said(pack.inpaint.VIPaintInpaint, preset="fast", mask=0 * picture[1])
    assert "⚠ the mask is black everywhere, so there is nothing to paint" in words
    assert "strength 0" in said(pack.inpaint.VIPaintInpaint, preset="fast", strength=0.0)


def test_a_restoration_that_explains_nothing_is_told(pack, said, picture):
    """A tiny network with random weights explains no picture."""
    small = picture[0][:, :32, :32]
    given = {"image": small, "mask": None, "steps": 4, "attempts": 1, "noise": 0.0}
    words = said(pack.restore.VIPaintRestore, degradation={"degradation": "gaussian blur", "sigma": 2.0}, **given)
    assert "⚠" in words and "explain" in words


def test_cuts_are_told_with_their_places(pack, picture):
    image, mask = picture
    told = pack.crop.VIPaintCrop.execute(image, mask, 32, 32, 2.0, 1.0).ui["text"]
    assert len(told) == 1 and told[0].startswith("cut ") and "scaled to 32 x 32" in told[0]
    told = pack.crop.VIPaintCrop.execute(image, 0 * mask, 32, 32, 2.0, 1.0).ui["text"]
    assert told[0].startswith("⚠ the mask of picture 1 is black")


def test_a_run_tells_the_editor_what_its_passes_took(pack, tiny, conditioning, picture, said):
    image, mask = picture
    given = {"fills": 2, "preset": "fast", "image": image, "mask": mask, "vae": tiny.vae}
    with torch.inference_mode():
        ui = pack.inpaint.VIPaintInpaint.execute(tiny.model, *conditioning, 0, 1.0, **given).ui
    passes, seconds = ui["vipaint_cost"]
    assert passes == 2 * 28 and 0 < seconds < 60
    assert "vipaint_cost" not in pack.crop.VIPaintCrop.execute(image, mask, 32, 32, 2.0, 1.0).ui


def test_prices_are_those_of_the_tooltips(pack):
    prices = json.loads(asyncio.run(pack.routes.get_prices(None)).body)
    assert prices.keys() == pack.core.PRESETS.keys()
    assert prices["fast"] == {"fit": 0, "fill": 28, "chain": 28, "further": 23, "chains": 3}
    for name, preset in pack.core.PRESETS.items():
        price, found = pack.sockets.price(preset), prices[name]
        assert price.startswith(f"{found['fill']} passes a fill")
        assert f"{found['fit']} for the picture" in price or not found["fit"]
        assert f"{found['chain']} from fill 2 on" in price or found["chain"] == found["fill"]
        assert f"{found['further']} from fill {found['chains'] + 1} on" in price or found["further"] == found["chain"]
