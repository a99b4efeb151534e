"""VIPaint Restore as the host calls it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

BLUR = {"degradation": "gaussian blur", "sigma": 1.5}
LARGER = {"degradation": "super-resolution", "factor": "2", "kind": "area"}


@pytest.fixture
def small(picture):
    """A 16 x 24 picture and a mask whose right half is painted."""
    return tuple(tensor[:, 20:36, 12:36] for tensor in picture)


@pytest.fixture
def restore(pack, tiny, conditioning, small):
    """Latents and pictures of VIPaint Restore on the small picture, with what a test wants different."""

    def run(**changes):
        arguments = {
            "model": tiny.model,
            "positive": conditioning[0],
            "negative": conditioning[1],
            "seed": 0,
            "cfg": 1.0,
            "fills": 1,
            "steps": 4,
            "attempts": 1,
            "degradation": BLUR,
            "noise": 0.0,
            "image": small[0],
            "vae": tiny.vae,
        }
        with torch.inference_mode():
            latent, images = pack.restore.VIPaintRestore.execute(**{**arguments, **changes}).result
        return latent["samples"], images

    return run


def test_a_seed_fixes_the_pictures(tiny, restore):
    latents = torch.randn(2, 16, 4, 3)
    with torch.inference_mode():
        before = tiny.vae.decode(latents)
    samples, images = restore(fills=2)
    assert samples.shape == (2, 16, 2, 3) and images.shape == (2, 16, 24, 3)
    assert torch.equal(samples, restore(fills=2)[0])
    assert (samples[0] - samples[1]).abs().max() > 0.1
    assert (samples - restore(fills=2, seed=1)[0]).abs().max() > 0.1
    with torch.inference_mode():
        assert torch.equal(images, tiny.vae.decode(samples)) and torch.equal(tiny.vae.decode(latents), before)


@pytest.mark.parametrize(
    ("degradation", "gradients"),
    [
        ({"degradation": "none"}, "auto"),
        ({"degradation": "none"}, "jacobian_free"),
        (BLUR, "auto"),
        ({"degradation": "motion blur", "length": 7.0, "angle": 30.0}, "auto"),
        (LARGER, "auto"),
        (LARGER, "jacobian_free"),
        ({"degradation": "super-resolution", "factor": "4", "kind": "bicubic"}, "auto"),
    ],
)
def test_pictures_of_any_size_explain_what_is_seen(pack, tiny, restore, degradation, gradients):
    """What the decoder can show, degraded, is explained better than by another such picture."""
    with torch.inference_mode():
        # Of a size that is no multiple of the VAE's cell.
        shown = tiny.vae.decode(torch.randn(2, 16, 4, 5)).movedim(-1, 1)[..., :28, :36].clone()
    operator, factor = pack.restore.operator_of(degradation, (7, 9))
    given, other = operator.A(shown).split(1)
    samples, images = restore(
        degradation=degradation, image=given.movedim(1, -1), noise=1e-4, steps=6, gradients=gradients
    )
    assert samples.shape[-2:] == (4, 5) and images.shape[1:3] == (28, 36)
    found = operator.A(images.clone().movedim(-1, 1))
    assert found.shape[-1] * factor == 36
    assert F.mse_loss(found, given) < 0.5 * F.mse_loss(other, given)


def test_with_checkpoints_in_network_and_decoder_fills_are_the_same(restore):
    expected = restore(fills=2, gradients="full")[0]
    assert torch.equal(restore(fills=2)[0], expected)
    torch.testing.assert_close(restore(fills=2, gradients="checkpointed")[0], expected, rtol=1e-2, atol=1e-2)


def test_where_memory_ends_fewer_are_restored_at_once(pack, restore, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(pack.restore, "BATCH", 1)
        expected = restore(fills=3)[0]
    linearise = pack.core.PixelObservation.linearise

    def failing(self, x0):
        if len(x0) > 1:
            raise torch.OutOfMemoryError("injected")
        return linearise(self, x0)

    monkeypatch.setattr(pack.core.PixelObservation, "linearise", failing)
    with caplog.at_level("INFO"):
        assert torch.equal(restore(fills=3)[0], expected)
    assert caplog.text.count("out of memory; goes on with less") == 2


def test_streamed_weights_of_the_decoder_are_explained(restore, pack, monkeypatch):
    monkeypatch.setattr(pack.host.loading, "is_elsewhere", lambda *_: True)
    with pytest.raises(
        ValueError, match=r"VIPaint Restore, input `vae`: expected networks that memory holds.*streamed"
    ):
        restore()


def test_hidden_pixels_do_not_matter(restore, small):
    image, mask = small
    other = torch.where(mask[..., None] > 0, 1 - image, image)
    for degradation in ({"degradation": "none"}, BLUR):
        first, second = (restore(degradation=degradation, image=i, mask=mask)[0] for i in (image, other))
        assert torch.equal(first, second)
        assert (first - restore(degradation=degradation, noise=1e-4)[0]).abs().max() > 1e-3


def test_a_picture_that_was_drawn_for_nothing_is_refused(restore):
    with pytest.raises(ValueError, match=r"VIPaint Restore, input `degradation`: .* none, no noise and no mask.*mask"):
        restore(degradation={"degradation": "none"})


def test_what_does_not_explain_the_picture_is_said(pack, tiny, restore, caplog):
    """An untrained network's pictures explain nothing in one attempt; what was drawn from them is explained."""
    restore()
    assert "does not explain the given picture: 1 (" in caplog.text
    caplog.clear()
    with torch.inference_mode():
        shown = torch.rand(1, 16, 24, 3)
    decoder = pack.host.decoder.HostDecoder(pack.host.model_info.model_info(tiny.model), tiny.vae, (16, 24))
    observation = pack.restore.observed(shown, None, pack.restore.operator_of(BLUR, (16, 24))[0], decoder, 0.0)
    blurred = replace(observation, y=observation.operator.A(observation.y))
    pack.restore.judge(blurred, shown)
    assert "does not explain" not in caplog.text
