"""The host's VAE as a differentiable decoder."""

from __future__ import annotations

import pytest
import torch
from family_cases import autoencoder

CELLS, SIZE = (2, 16, 4, 3), (29, 22)


@pytest.fixture
def decoder(pack, tiny, tiny_info):
    return pack.host.decoder.HostDecoder(tiny_info, tiny.vae, SIZE)


@pytest.fixture
def decoding(tiny, open_denoiser, conditioning, decoder):
    """`work()` where VIPaint Restore calls the decoder."""

    def run(work):
        options = {"shape": CELLS, "gradient": True, "extra_networks": [decoder.patcher]}
        return open_denoiser(tiny.model, conditioning, lambda _denoiser: work(), **options)

    return run


def test_pictures_are_the_host_s_own(tiny, tiny_info, decoder, decoding):
    latents = torch.randn(CELLS)
    found = decoding(lambda: decoder(latents))
    with torch.inference_mode():
        expected = tiny.vae.decode(tiny_info.to_host_latent(latents)).movedim(-1, 1)
    assert found.shape == (2, 3, *SIZE)
    torch.testing.assert_close(found.clamp(0, 1), expected[..., : SIZE[0], : SIZE[1]].clone(), rtol=1e-4, atol=1e-4)


def test_backward_outside_of_its_context_is_refused(decoder, decoding):
    def work():
        with decoder.gradients():
            point = torch.randn(CELLS).requires_grad_()
            pixels = decoder(point)
        torch.autograd.grad(pixels, point, torch.ones_like(pixels))

    with pytest.raises(RuntimeError, match=r"inside `denoiser.gradients\(\)`"):
        decoding(work)


def test_gradient_agrees_with_finite_differences(decoder, decoding):
    point, direction = torch.randn(CELLS), torch.randn(CELLS)
    weights = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    # Short: the decoder has kinks.
    step = 1e-4

    def work():
        def value(at):
            return (decoder(at).double() * weights).sum()

        with decoder.gradients():
            start = point.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(start), start)
        return gradient, float((value(point + step * direction) - value(point - step * direction)) / (2 * step))

    gradient, numeric = decoding(work)
    assert gradient.abs().max() > 1e-3
    assert float((gradient.double() * direction).sum()) == pytest.approx(numeric, rel=5e-3)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_vae_and_host_are_as_before_after_an_exception(tiny, decoder, decoding, kind):
    import comfy.model_management

    latents = torch.randn(CELLS)
    with torch.inference_mode():
        before = tiny.vae.decode(latents)
        tiny.vae.first_stage_model.requires_grad_(True)
    weights = {name: value.clone() for name, value in tiny.vae.first_stage_model.state_dict().items()}
    seen = []

    def work():
        with decoder.gradients():
            seen.append(comfy.model_management.in_training)
            seen.append(any(p.requires_grad for p in decoder.patcher.model.parameters()))
            raise kind("stop")

    try:
        with pytest.raises(kind, match="stop"):
            decoding(work)
        assert seen == [True, False] and comfy.model_management.in_training is False
        assert all(p.requires_grad for p in tiny.vae.first_stage_model.parameters())
    finally:
        tiny.vae.first_stage_model.requires_grad_(False)
    after = tiny.vae.first_stage_model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in weights.items())
    assert not tiny.model.get_additional_models()
    with torch.inference_mode():
        assert torch.equal(tiny.vae.decode(latents), before)


@pytest.mark.parametrize("family", ["pixeldit", "qwen-image"], indirect=True)
def test_gradients_of_other_kinds_of_decoders(pack, open_denoiser, family):
    """Pixels as they are, and the decoder of films, whose latents have means and deviations."""
    with torch.inference_mode():
        vae = autoencoder(family)
    latents, weights = torch.randn(family.shape(2)), torch.randn(2, 3, 7, 11)
    decoder = pack.host.decoder.HostDecoder(pack.host.model_info.model_info(family.model), vae, (7, 11))

    def work(_denoiser):
        def value(at):
            return (decoder(at) * weights).double().sum()

        with decoder.gradients():
            point = latents.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(point), point)
        step = gradient / gradient.norm()
        return float(gradient.norm()), float(value(latents + step) - value(latents - step)) / 2

    options = {"shape": tuple(latents.shape), "gradient": True, "extra_networks": [decoder.patcher]}
    found, numeric = open_denoiser(family.model, (family.positive, family.negative), work, **options)
    assert found > 1e-3 and found == pytest.approx(numeric, rel=2e-2)
