"""Families for which no tiny file exists, and models of changed sampling, through the nodes; files on a server."""

from __future__ import annotations

import pytest
import torch
from family_cases import PIXELS, autoencoder, resampled


@pytest.mark.parametrize(
    ("family", "preset"),
    [
        ("pixeldit", "balanced"),
        ("qwen-image", "balanced"),
        ("qwen-image", "fast"),
        ("chroma", "fast"),
        ("z-image", "fast"),
    ],
    indirect=["family"],
)
def test_families_paint(pack, family, preset):
    """Two pictures at once, whose order an autoencoder of films must not take for time."""
    info, generator = pack.host.model_info.model_info(family.model), torch.Generator().manual_seed(9)
    side = 16 if family.name in PIXELS else 32
    pictures = torch.rand(2, side, side, 3, generator=generator)
    mask = torch.zeros(1, side, side)
    mask[..., side // 2 :] = 1
    with torch.inference_mode():
        vae = autoencoder(family)
        prompts = {"positive": family.positive, "negative": family.negative, "cfg": 1.0, "seed": 0}
        inputs = {**prompts, "preset": preset, "fills": 2, "image": pictures, "mask": mask, "vae": vae}
        latent, posterior = pack.inpaint.VIPaintInpaint.execute(family.model, **inputs).result
        (again,) = pack.sample.VIPaintSample.execute(family.model, posterior=posterior, fills=2, **prompts).result
        alone = pack.inpaint.VIPaintInpaint.execute(family.model, **{**inputs, "image": pictures[1:]}).result[1]
        decoded = vae.decode(latent["samples"]).reshape(4, side, side, 3)
    torch.testing.assert_close(again["samples"], latent["samples"])
    assert latent["samples"].ndim == 4 + info.has_frame_axis
    assert torch.isfinite(decoded).all()
    # The second picture's latent is its own, whatever comes before it.
    torch.testing.assert_close(posterior.observation.y[1:], alone.observation.y, rtol=1e-4, atol=1e-4)
    fills = info.to_model_scale(latent["samples"].clone()).unflatten(0, (2, 2))
    kept, painted = fills.chunk(2, -1)
    observed = posterior.observation.y.chunk(2, -1)[0][:, None]
    # A cell beside the hole is moved by what the encoder owes to the filler.
    assert (kept - observed)[..., :-1].abs().max() < 0.1
    assert (painted[:, 0] - painted[:, 1]).abs().amax((1, 2, 3)).min() > 0.1


@pytest.mark.parametrize(
    ("node", "arguments", "preset"),
    [
        ("ModelSamplingDiscrete", ("lcm", False), "balanced"),
        ("ModelSamplingDiscrete", ("v_prediction", True), "fast"),
        ("ModelSamplingContinuousEDM", ("edm", 80.0, 0.002), "fast"),
    ],
)
@pytest.mark.parametrize("family", ["unet"], indirect=True)
def test_models_of_changed_sampling_paint(pack, family, node, arguments, preset):
    """The hole and nothing else, every fill in its own way, the same again after offloading."""
    import comfy.model_management

    case = resampled(family, node, arguments)
    picture, mask = torch.rand(1, 32, 48, 3), torch.zeros(1, 32, 48)
    mask[..., 24:] = 1
    inputs = {"seed": 0, "cfg": 1.0, "fills": 2, "preset": preset, "image": picture, "mask": mask}

    def paint():
        with torch.inference_mode():
            run = pack.inpaint.VIPaintInpaint.execute
            latent, _ = run(case.model, case.positive, case.negative, vae=vae, **inputs).result
            (fills,) = pack.composite.VIPaintComposite.execute(vae.decode(latent["samples"]), picture, mask).result
        return fills

    with torch.inference_mode():
        vae = autoencoder(case)
    fills = paint()
    assert torch.equal(fills[..., :24, :], picture.expand(2, -1, -1, -1)[..., :24, :])
    assert (fills[0] - fills[1])[:, 24:].abs().max() > 8 / 255
    comfy.model_management.unload_all_models()
    assert torch.equal(paint(), fills)


@pytest.mark.parametrize("preset", ["fast", "balanced"])
@pytest.mark.parametrize(("family", "distilled"), [("schnell", True), ("flux", False)], indirect=["family"])
def test_distilled_models_are_told_of_the_right_preset(pack, short_presets, caplog, family, preset, distilled):
    """What `benchmark distilled` has found."""
    caplog.set_level("INFO")
    latent = {"samples": torch.randn(family.shape()), "noise_mask": torch.ones(1, 1, *family.size)}
    inputs = {"seed": 0, "cfg": 1.0, "fills": 1, "preset": preset, "latent_image": latent}
    with torch.inference_mode():
        run = pack.inpaint.VIPaintInpaint.execute
        run(family.model, family.positive, family.negative, **inputs)
    assert ("distilled for few steps" in caplog.text) == (distilled and preset == "fast")


@pytest.mark.parametrize("family", ["pixeldit", "qwen-image"], indirect=True)
def test_families_restore_through_their_autoencoders(pack, family):
    """Pixels as they are, and the decoder of films."""
    small = {"degradation": "super-resolution", "factor": "2", "kind": "area"}
    inputs = {"seed": 0, "cfg": 1.0, "fills": 2, "steps": 4, "attempts": 1, "degradation": small, "noise": 0.0}
    with torch.inference_mode():
        vae = autoencoder(family)
        latent, images = pack.restore.VIPaintRestore.execute(
            family.model, family.positive, family.negative, image=torch.rand(1, 8, 8, 3), vae=vae, **inputs
        ).result
        shown = vae.decode(latent["samples"]).reshape(images.shape)
    assert images.shape == (2, 16, 16, 3) and torch.equal(images, shown) and torch.isfinite(images).all()


def test_a_loaded_film_model_is_refused(pack, checkpoint):
    import comfy.sd

    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(checkpoint("wan")))
        empty = [[torch.zeros(1, 1, 8), {}]]
        inputs = {"model": model, "positive": empty, "negative": empty, "seed": 0, "cfg": 1.0, "fills": 1}
        for node, more in (
            (pack.inpaint.VIPaintInpaint, {**inputs, "preset": "fast"}),
            (pack.baseline.VIPaintBaseline, {**inputs, "method": {"method": "ding"}}),
            (pack.unconditional.VIPaintUnconditional, {"model": model}),
        ):
            with pytest.raises(ValueError, match=r"WAN21 \(FLOW\), which makes films"):
                node.execute(**more)
