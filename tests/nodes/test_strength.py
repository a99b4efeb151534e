"""Strength below 1, as VIPaint Inpaint and VIPaint Fit Posterior take it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F


@pytest.fixture
def content(tiny, picture):
    """Latents of the whole picture, what is hidden included."""
    with torch.inference_mode():
        return tiny.vae.encode(picture[0])


def distance(latent, content):
    """Of fills of the right half from what is there."""
    return float((latent["samples"] - content)[..., 3:].abs().mean())


@pytest.mark.parametrize("preset", ["fast", "balanced", "paper-2"])
def test_lower_strength_keeps_more_of_what_is_in_the_hole(paint, content, short_presets, preset):
    whole, some, little = (paint(preset=preset, strength=strength)[0] for strength in (1.0, 0.5, 0.05))
    assert distance(little, content) < distance(some, content) < distance(whole, content)
    assert distance(little, content) < 0.3 * distance(whole, content)
    # What is visible is bound at least as well.
    before, now = ((latent["samples"] - content)[..., :3].abs().max() for latent in (whole, little))
    assert now < before + 0.1
    assert not torch.equal(little["samples"][0], little["samples"][1])


def test_strength_1_is_what_there_was_before(paint, picture):
    """Nothing hidden is looked at, whatever `content` says."""
    other = torch.where(picture[1][..., None] > 0, 1 - picture[0], picture[0])
    samples = [
        paint(**changes)[0]["samples"] for changes in ({}, {"strength": 1.0, "image": other, "content": "original"})
    ]
    assert torch.equal(*samples)


def test_strength_0_keeps_everything(paint, content, caplog):
    latent, posterior = paint(strength=0.0, preset="balanced")
    torch.testing.assert_close(latent["samples"], content.expand(2, -1, -1, -1), rtol=1e-4, atol=1e-4)
    assert posterior.evaluations.forward == 0 and "nothing to paint" in caplog.text


@pytest.mark.parametrize("name", ["sd3", "sd15"])
@pytest.mark.parametrize("strength", [0.3, 0.6])
def test_it_starts_where_ksampler_s_denoise_does(pack, load_family, name, strength):
    import comfy.samplers

    model = load_family(name).model
    coordinate = pack.host.model_info.model_info(model).coordinate
    schedule = comfy.samplers.KSampler(model, 30, torch.device("cpu"), "euler", "simple", denoise=strength)
    expected = float(coordinate.s_of_sigma(schedule.sigmas[0].double()))
    found = pack.host.model_info.level_of_strength(model, coordinate, strength)
    assert found == pytest.approx(expected, rel=0.05)


def test_soft_cells_keep_in_part(paint, tiny, content, picture):
    """Half of what a grey cell starts from is the picture, as at strength 1, and half what is there."""
    mask = 0.5 * picture[1]
    latent = {"samples": content, "noise_mask": mask[:, None]}
    inputs = {"latent_image": latent, "image": None, "mask": None, "vae": None}
    soft, posterior = paint(strength=0.2, **inputs)
    assert (posterior.observation.weight[..., 3:] == 0.5).all()
    torch.testing.assert_close(posterior.posterior.mu[-1], posterior.observation.y)
    assert distance(soft, content) < distance(paint(strength=0.2, **inputs | {"mask": picture[1]})[0], content)


def test_a_border_is_painted_from_its_surroundings(pack, paint, tiny, picture):
    """Pad Image for Outpainting puts grey there, which `content` can leave out."""
    from nodes import ImagePadForOutpaint

    with torch.inference_mode():
        image, mask = ImagePadForOutpaint().expand_image(picture[0], 0, 0, 16, 0, 0)
    grey, near = (
        paint(image=image, mask=mask, strength=0.05, content=content)[0]["samples"][..., -2:]
        for content in ("original", "surroundings")
    )
    beside = paint(image=image, mask=mask)[1].observation.y[..., 5:6]
    info = pack.host.model_info.model_info(tiny.model)
    moved = [float((info.to_model_scale(samples) - beside).abs().mean()) for samples in (grey, near)]
    assert moved[1] < 0.3 < moved[0]


def test_nothing_visible_has_no_surroundings(paint, picture):
    latent, posterior = paint(mask=torch.ones_like(picture[1]), strength=0.5, content="surroundings")
    assert not posterior.posterior.mu[-1].any() and torch.isfinite(latent["samples"]).all()


def test_several_pictures_and_masks_keep_their_own(paint, picture, tiny):
    image, mask = picture
    both = torch.cat([image, 1 - image])
    latent, _ = paint(image=both, strength=0.05)
    with torch.inference_mode():
        encoded = tiny.vae.encode(both)
    assert len(latent["samples"]) == 4
    for row, samples in enumerate(latent["samples"]):
        off = [float((samples - own)[..., 3:].abs().mean()) for own in encoded]
        assert off.index(min(off)) == row // 2
    latent, posterior = paint(mask=torch.cat([mask, mask.flip(2)]), strength=0.05)
    assert len(latent["samples"]) == 4 and len(posterior.observation.y) == 2


def test_a_fitted_posterior_keeps_the_same(pack, tiny, conditioning, paint, picture, tmp_path):
    """VIPaint Fit Posterior, a file and VIPaint Sample Posterior give the pixels of VIPaint Inpaint."""
    direct, _ = paint(strength=0.4, preset="balanced")
    image, mask = picture
    inputs = {"image": image, "mask": mask, "vae": tiny.vae, "strength": 0.4}
    with torch.inference_mode():
        (fitted,) = pack.fit.VIPaintFit.execute(tiny.model, *conditioning, 0, 1.0, "balanced", **inputs).result
    pack.core.save_posterior(fitted, tmp_path / "kept.safetensors")
    loaded = pack.core.load_posterior(tmp_path / "kept.safetensors")
    with torch.inference_mode():
        sampled = pack.sample.VIPaintSample.execute(tiny.model, *conditioning, loaded, 0, 1.0, 2, 0).result[0]
    assert torch.equal(sampled["samples"], direct["samples"])


def test_cuts_show_what_is_in_the_hole_where_it_is_wanted(pack, picture):
    image, mask = picture
    with torch.inference_mode():
        run = pack.crop.VIPaintCrop.execute
        covered, shown = (run(image, mask, 48, 64, 1.0, 1.0, keep_content=keep).result[0] for keep in (False, True))
    hidden = F.adaptive_max_pool2d(mask, covered.shape[1:3]) > 0
    assert torch.equal(covered[~hidden], shown[~hidden]) and not torch.equal(covered[hidden], shown[hidden])


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "much"])
def test_other_strengths_are_refused(paint, value):
    with pytest.raises(ValueError, match=r"strength.*a number from 0\.0 to 1\.0"):
        paint(strength=value)
