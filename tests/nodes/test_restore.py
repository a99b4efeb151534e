"""The differentiable decoder and VIPaintRestore on a real host."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

CELLS, SIZE = (2, 16, 4, 3), (29, 22)
BLUR = {"degradation": "gaussian blur", "sigma": 1.5}
LARGER = {"degradation": "super-resolution", "factor": "2", "kind": "area"}


def opened(pack, tiny, conditioning, work):
    """`work(decoder)` where the node calls the decoder; as the host runs nodes, in inference mode."""
    decoder = pack.decoder.HostDecoder(tiny.model, tiny.vae, SIZE)
    return pack.open_denoiser(
        tiny.model,
        *conditioning,
        cfg=1.0,
        shape=CELLS,
        seed=0,
        gradient=True,
        work=lambda *_: work(decoder),
        beside=[decoder.patcher],
    )


@pytest.fixture
def small(picture):
    """A 24 x 32 picture and a mask whose right half is painted."""
    return tuple(tensor[:, 20:44, 8:40] for tensor in picture)


@pytest.fixture
def restore(pack, tiny, conditioning, small):
    """Latents and pictures of VIPaintRestore on the small picture, with what a test wants different."""

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


def test_decoder_is_the_host_s_own(pack, tiny, conditioning):
    latents = torch.randn(CELLS)
    found = opened(pack, tiny, conditioning, lambda decoder: decoder(latents))
    with torch.inference_mode():
        expected = tiny.vae.decode(pack.bridge.to_host_latent(tiny.model, latents)).movedim(-1, 1)
    assert found.shape == (2, 3, *SIZE)
    torch.testing.assert_close(found.clamp(0, 1), expected[..., : SIZE[0], : SIZE[1]].clone(), rtol=1e-4, atol=1e-4)


def test_backward_through_the_decoder_outside_of_its_context_is_refused(pack, tiny, conditioning):
    def work(decoder):
        with decoder.gradients():
            point = torch.randn(CELLS).requires_grad_()
            pixels = decoder(point)
        torch.autograd.grad(pixels, point, torch.ones_like(pixels))

    with pytest.raises(RuntimeError, match=r"inside `denoiser.gradients\(\)`"):
        opened(pack, tiny, conditioning, work)


def test_decoder_s_gradient_agrees_with_finite_differences(pack, tiny, conditioning):
    point, direction = torch.randn(CELLS), torch.randn(CELLS)
    weights = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    # Short: the decoder has kinks.
    step = 1e-4

    def work(decoder):
        def value(at):
            return (decoder(at).double() * weights).sum()

        with decoder.gradients():
            start = point.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(start), start)
        return gradient, float((value(point + step * direction) - value(point - step * direction)) / (2 * step))

    gradient, numeric = opened(pack, tiny, conditioning, work)
    assert gradient.abs().max() > 1e-3
    assert float((gradient.double() * direction).sum()) == pytest.approx(numeric, rel=5e-3)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_vae_and_host_are_as_before_after_an_exception(pack, tiny, conditioning, kind):
    import comfy.model_management

    latents = torch.randn(CELLS)
    with torch.inference_mode():
        before = tiny.vae.decode(latents)
        tiny.vae.first_stage_model.requires_grad_(True)
    weights = {name: value.clone() for name, value in tiny.vae.first_stage_model.state_dict().items()}
    seen = []

    def work(decoder):
        with decoder.gradients():
            seen.append(comfy.model_management.in_training)
            seen.append(any(p.requires_grad for p in decoder.patcher.model.parameters()))
            raise kind("stop")

    try:
        with pytest.raises(kind, match="stop"):
            opened(pack, tiny, conditioning, work)
        assert seen == [True, False] and comfy.model_management.in_training is False
        assert all(p.requires_grad for p in tiny.vae.first_stage_model.parameters())
    finally:
        tiny.vae.first_stage_model.requires_grad_(False)
    after = tiny.vae.first_stage_model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in weights.items())
    assert not tiny.model.get_additional_models()
    with torch.inference_mode():
        assert torch.equal(tiny.vae.decode(latents), before)


def test_a_seed_fixes_the_pictures(tiny, restore):
    latents = torch.randn(CELLS)
    with torch.inference_mode():
        before = tiny.vae.decode(latents)
    samples, images = restore(fills=2)
    assert samples.shape == (2, 16, 3, 4) and images.shape == (2, 24, 32, 3)
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
        shown = tiny.vae.decode(torch.randn(2, 16, 5, 6)).movedim(-1, 1)[..., :36, :44].clone()
    operator, factor = pack.restore.operator_of(degradation, (9, 11))
    given, other = operator.A(shown).split(1)
    samples, images = restore(degradation=degradation, image=given.movedim(1, -1), steps=6, gradients=gradients)
    assert samples.shape[-2:] == (5, 6) and images.shape[1:3] == (36, 44) == (9 * 4, 11 * 4)
    found = operator.A(images.clone().movedim(-1, 1))
    assert found.shape[-1] * factor == 44
    assert F.mse_loss(found, given) < 0.5 * F.mse_loss(other, given)


def test_with_checkpoints_in_network_and_decoder_fills_are_the_same(restore):
    expected = restore(fills=2, gradients="full")[0]
    assert torch.equal(restore(fills=2)[0], expected)
    torch.testing.assert_close(restore(fills=2, gradients="checkpointed")[0], expected, rtol=1e-2, atol=1e-2)


def test_where_memory_ends_fewer_are_restored_at_once(pack, restore, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(pack.restore, "BATCH", 1)
        expected = restore(fills=3)[0]
    linear = pack.core.PixelObservation.linear

    def failing(self, x0):
        if len(x0) > 1:
            raise torch.OutOfMemoryError("injected")
        return linear(self, x0)

    monkeypatch.setattr(pack.core.PixelObservation, "linear", failing)
    with caplog.at_level("INFO"):
        assert torch.equal(restore(fills=3)[0], expected)
    assert caplog.text.count("out of memory; goes on with less") == 2


def test_streamed_weights_of_the_decoder_are_explained(restore, pack, monkeypatch):
    monkeypatch.setattr(pack.bridge, "is_elsewhere", lambda *_: True)
    with pytest.raises(ValueError, match=r"VIPaintRestore, input `vae`: expected networks that memory holds.*streamed"):
        restore()


def test_hidden_pixels_do_not_matter(restore, small):
    image, mask = small
    other = torch.where(mask[..., None] > 0, 1 - image, image)
    for degradation in ({"degradation": "none"}, BLUR):
        first, second = (restore(degradation=degradation, image=i, mask=mask)[0] for i in (image, other))
        assert torch.equal(first, second)
        assert (first - restore(degradation=degradation)[0]).abs().max() > 1e-3
