"""Every error names node, input, what was expected, what was found and what to do."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def refuse(pack, tiny, conditioning, picture):
    """Runs VIPaintInpaint with changed inputs and returns the error's text."""
    image, mask = picture
    positive, negative = conditioning

    def run(**changes):
        arguments = {"model": tiny.model, "positive": positive, "negative": negative, "seed": 0, "cfg": 1.0}
        arguments.update({"fills": 1, "preset": "fast", "image": image, "mask": mask, "vae": tiny.vae}, **changes)
        with torch.inference_mode(), pytest.raises(ValueError, match="VIPaintInpaint, input ") as caught:
            pack.inpaint.VIPaintInpaint.execute(**arguments)
        text = str(caught.value)
        assert ": expected " in text and ", found " in text and text.endswith(".")
        return text

    return run


LATENT = {"samples": torch.zeros(2, 16, 8, 6), "noise_mask": torch.ones(1, 1, 64, 48)}
NO_IMAGE = {"image": None, "mask": None, "vae": None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": torch.ones(1, 32, 48)}, ["`mask`", "48 x 64 pixels", "48 x 32 pixels", "Resize"]),
        ({"mask": torch.ones(3, 64, 48)}, ["`mask`", "3 masks"]),
        ({"mask": torch.full((1, 64, 48), torch.nan)}, ["`mask`", "NaN"]),
        ({"mask": None}, ["`mask`", "no mask"]),
        ({"vae": None}, ["`vae`", "no vae"]),
        ({"image": None}, ["`latent_image`", "neither"]),
        (NO_IMAGE, ["`latent_image`", "neither"]),
        ({"latent_image": LATENT}, ["`image`", "both"]),
        ({"image": torch.full((1, 64, 48, 3), torch.nan)}, ["`image`", "NaN"]),
        ({"fills": 0}, ["`fills`", "at least 1"]),
        ({"preset": "best"}, ["`preset`", "balanced"]),
        ({"positive": []}, ["`positive`", "none"]),
        ({"positive": [[torch.zeros(2, 1, 64), {}]]}, ["`positive`", "batch of 2"]),
        ({**NO_IMAGE, "latent_image": {"samples": torch.zeros(1, 16, 8, 6)}}, ["`mask`", "Set Latent Noise Mask"]),
        ({**NO_IMAGE, "latent_image": {**LATENT, "samples": torch.zeros(1, 4, 8, 6)}}, ["16 channels", "4 channels"]),
        ({**NO_IMAGE, "latent_image": {**LATENT, "samples": torch.zeros(1, 16, 1, 8, 6)}}, ["SD3", "video"]),
        ({**NO_IMAGE, "latent_image": {**LATENT, "samples": torch.full((1, 16, 8, 6), torch.inf)}}, ["infinity"]),
        ({**NO_IMAGE, "latent_image": {**LATENT, "noise_mask": torch.ones(3, 1, 8, 6)}}, ["1 mask or 2", "3 masks"]),
    ],
)
def test_refused_inputs(refuse, changes, words):
    text = refuse(**changes)
    assert all(word in text for word in words), text


def test_video_models_are_refused_by_name(pack, tiny, refuse):
    import comfy.latent_formats

    video = tiny.model.clone()
    video.add_object_patch("latent_format", comfy.latent_formats.Wan21())
    assert "SD3 (FLOW)" in refuse(model=video)


def test_posteriors_of_other_models(pack, tiny, conditioning, picture):
    image, mask = picture
    positive, negative = conditioning
    with torch.inference_mode():
        (fitted,) = pack.fit.VIPaintFit.execute(
            tiny.model, positive, negative, 0, 1.0, "fast", image=image, mask=mask, vae=tiny.vae
        ).result
    check = pack.validation.check_posterior
    check("N", tiny.model, fitted)
    with pytest.raises(ValueError, match=r"N, input `posterior`.*SDXL \(EPS\)"):
        check("N", tiny.model, replace(fitted, family="SDXL (EPS)"))
    with pytest.raises(ValueError, match=r"N, input `posterior`.*found SimpleNamespace"):
        check("N", tiny.model, SimpleNamespace())


def test_composite_sizes(pack):
    run = pack.composite.VIPaintComposite.execute
    with pytest.raises(ValueError, match=r"VIPaintComposite, input `fills`.*8 x 8.*6 x 8"):
        run(torch.rand(1, 8, 6, 3), torch.rand(1, 8, 8, 3), torch.ones(1, 8, 8))
    for sizes in ((120, 72, 119, 8), (8, 80, 8, 8)):
        with pytest.raises(ValueError, match=r"VIPaintComposite, input `fills`.*padded to the VAE's cell"):
            run(torch.rand(1, *sizes[:2], 3), torch.rand(1, *sizes[2:], 3), torch.ones(1, *sizes[2:]))
    with pytest.raises(ValueError, match=r"VIPaintComposite, input `fills`.*multiple of 2"):
        run(torch.rand(3, 8, 8, 3), torch.rand(2, 8, 8, 3), torch.ones(1, 8, 8))


def test_uncertainty_needs_two_fills(pack):
    run = pack.uncertainty.VIPaintUncertainty.execute
    with pytest.raises(ValueError, match=r"VIPaintUncertainty, input `images`.*at least 2"):
        run(torch.rand(1, 8, 8, 3))
    with pytest.raises(ValueError, match=r"VIPaintUncertainty, input `images`.*multiple of 2"):
        run(torch.rand(3, 8, 8, 3), 2)
