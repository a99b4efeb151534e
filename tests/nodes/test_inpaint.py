"""VIPaint Inpaint as the host calls it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_draws_different_fills(paint, preset):
    latent, posterior = paint(preset=preset)
    samples = latent["samples"]
    assert samples.shape == (2, 16, 8, 6) and set(latent) == {"samples", "noise_mask"}
    assert torch.isfinite(samples).all()
    observed = posterior.observation.weight[0, 0] > 0
    # A sampler that goes on from here leaves what is visible alone.
    assert torch.equal(latent["noise_mask"], (~observed).float().expand(2, 1, 8, 6))
    assert observed[:, :3].all() and not observed[:, 3:].any()
    assert (samples[0] - samples[1])[:, ~observed].abs().max() > 0.1
    again, _ = paint(preset=preset)
    assert torch.equal(samples, again["samples"])


def test_hidden_pixels_never_reach_the_fit(paint, picture):
    image, mask = picture
    other = torch.where(mask[..., None] > 0, 1 - image, image)
    first, second = paint(), paint(image=other)
    assert torch.equal(first[0]["samples"], second[0]["samples"])


@pytest.mark.parametrize("node", ["inpaint", "baseline"])
def test_pictures_of_any_size(pack, tiny, conditioning, paint, node):
    """Visible pixels come back bit for bit, and the latent is that of a picture padded on the right and the bottom."""
    picture = torch.rand(2, 37, 31, 3)
    mask = torch.zeros(2, 37, 31)
    mask[0, 10:20, 12:] = 1
    if node == "inpaint":
        latent, _ = paint(image=picture, mask=mask)
    else:
        method = {"method": "blended", "steps": 2}
        inputs = {"image": picture, "mask": mask, "vae": tiny.vae}
        with torch.inference_mode():
            run = pack.baseline.VIPaintBaseline.execute
            (latent,) = run(tiny.model, *conditioning, 0, 1.0, 2, method, **inputs).result
    assert latent["samples"].shape == (4, 16, 5, 4)
    with torch.inference_mode():
        decoded = tiny.vae.decode(latent["samples"])
        (out,) = pack.composite.VIPaintComposite.execute(decoded, picture, mask).result
        by_hand = F.pad(picture.movedim(-1, 1), (0, 1, 0, 3), mode="replicate").movedim(1, -1)
        torch.testing.assert_close(latent["samples"][2:], tiny.vae.encode(by_hand)[1:].expand(2, -1, -1, -1))
    assert decoded.shape[1:3] == (40, 32) and out.shape == (4, 37, 31, 3)
    visible = mask.repeat_interleave(2, 0) == 0
    assert torch.equal(out[visible], picture.repeat_interleave(2, 0)[visible])
    assert (out[0] - picture[0])[mask[0] > 0].abs().max() > 0.01


def test_latent_image_with_noise_mask(tiny, paint, picture):
    image, mask = picture
    with torch.inference_mode():
        samples = tiny.vae.encode(image)
    latent = {"samples": samples, "noise_mask": mask[:, None]}
    out, _ = paint(latent_image=latent, image=None, mask=None, vae=None)
    assert out["samples"].shape == (2, 16, 8, 6)
    moved = out["samples"][:, :, :, :3] - samples[:, :, :, :3]
    assert moved.abs().max() < 0.2


def test_nothing_to_paint_returns_the_latent(paint, picture, caplog):
    latent, posterior = paint(mask=torch.zeros_like(picture[1]), preset="balanced", fills=3)
    assert len(latent["samples"]) == 3
    assert torch.equal(latent["samples"][0], latent["samples"][2])
    assert posterior.evaluations.forward == posterior.evaluations.backward == 0
    assert "nothing to paint" in caplog.text


def test_batches_are_image_major(paint, picture):
    image = picture[0]
    both = torch.cat([image, 1 - image])
    latent, _ = paint(image=both, fills=2)
    samples = latent["samples"]
    assert len(samples) == 4
    left = samples[:, :, :, :3]
    assert (left[0] - left[1]).abs().max() < (left[0] - left[2]).abs().max()


def test_each_mask_of_one_picture_has_fills_of_its_own(pack, tiny, paint, picture, short_presets):
    """Through painting, compositing and the map of uncertainty; a latent with several noise masks is painted alike."""
    image, mask = picture
    masks = torch.cat([mask, mask.flip(2), 0 * mask])
    # Without fillers, whose number decides the batches that pictures are encoded in, and so their rounding.
    paint = partial(paint, preset="paper-2")
    latent, posterior = paint(mask=masks)
    assert latent["samples"].shape == (6, 16, 8, 6) and len(posterior.observation.y) == 3
    for number, own in enumerate(masks):
        alone = paint(mask=own[None])[1].observation
        torch.testing.assert_close(posterior.observation.y[number], alone.y[0])
        assert torch.equal(posterior.observation.weight[number], alone.weight[0])
    assert (latent["samples"][0] - latent["samples"][1]).abs().max() > 0.1
    with torch.inference_mode():
        decoded = tiny.vae.decode(latent["samples"])
        (out,) = pack.composite.VIPaintComposite.execute(decoded, image, masks).result
        heat, spread, _ = pack.uncertainty.VIPaintUncertainty.execute(out, mask=masks).result
        encoded = {"samples": tiny.vae.encode(image), "noise_mask": masks[:, None]}
    assert out.shape == (6, 64, 48, 3) and heat.shape == (3, 64, 48, 3)
    assert torch.equal(out[4], image[0]) and not spread[2].any()
    assert all(
        (values[own == 0] == 0).all() and values[own == 1].any()
        for values, own in zip(spread[:2], masks[:2], strict=True)
    )
    again, _ = paint(latent_image=encoded, image=None, mask=None, vae=None)
    assert again["samples"].shape == (6, 16, 8, 6)
