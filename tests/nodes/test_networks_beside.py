"""Networks beside the model, as other nodes bring them: they paint, are differentiated, and are named when they fail."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from family_cases import autoencoder, opened, with_control, with_encoding_control, with_patch_network

pytestmark = pytest.mark.usefixtures("short_presets")
MODES = pytest.mark.parametrize("mode", ["full", "checkpointed"])


def given(case, **changes):
    vae = case.vae or autoencoder(case)
    inputs = {"model": case.model, "positive": case.positive, "negative": case.negative, "cfg": 3.0, "vae": vae}
    return {**inputs, "preset": "balanced", **changes}


def with_vae_of_advanced(case):
    """Apply ControlNet with its input `vae`, and two of them in a chain."""
    import nodes

    case = with_encoding_control(case)
    control, hint = case.positive[0][1]["control"], torch.rand(1, 48, 32, 3)
    add = nodes.ControlNetApplyAdvanced().apply_controlnet
    positive, negative = add(case.positive, case.negative, control, hint, 0.5, 0.0, 1.0, vae=case.vae)
    return replace(case, positive=positive, negative=negative)


CHANGES = [
    ("sd3", with_encoding_control),
    ("sd3", with_vae_of_advanced),
    ("flux", with_encoding_control),
    ("qwen-image", with_patch_network),
    ("z-image", with_patch_network),
]


@pytest.mark.parametrize(("family", "change"), CHANGES, indirect=["family"])
def test_they_paint_with_every_way_to_get_gradients(paint, family, change):
    with torch.inference_mode():
        case = change(family)
    plain = paint(**given(family, gradients="full"))[0]["samples"]
    full = paint(**given(case, gradients="full"))[0]["samples"]
    assert (full - plain).abs().max() > 1e-3
    for mode in ("checkpointed", "auto"):
        torch.testing.assert_close(paint(**given(case, gradients=mode))[0]["samples"], full, rtol=1e-3, atol=1e-3)
    assert torch.isfinite(paint(**given(case, preset="fast"))[0]["samples"]).all()


def test_a_picture_is_encoded_once(paint, load_family, monkeypatch):
    """At every size of which latents are asked, not in every pass."""
    family = load_family("sd3")
    with torch.inference_mode():
        case = with_encoding_control(family)
    calls, encode = [], type(family.vae).encode

    def counted(self, pixels):
        calls.append(torch.is_grad_enabled())
        return encode(self, pixels)

    monkeypatch.setattr(type(family.vae), "encode", counted)
    paint(**given(family, gradients="full"))
    without = len(calls)
    paint(**given(case, gradients="full"))
    assert len(calls) - 2 * without == 1
    assert not any(calls)


# --- all ways by which a network gets into a pass ---


class Beside(torch.nn.Module):
    """Changes what the model predicts."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.7))
        self.register_buffer("shift", torch.tensor(0.1))

    def forward(self, x):
        return x * self.scale + torch.sin(x) * self.shift


def beside():
    """A patcher of such a network, with inference tensors as nodes load them."""
    from comfy.model_patcher import ModelPatcher

    cpu = torch.device("cpu")
    with torch.inference_mode():
        return ModelPatcher(Beside(), cpu, cpu)


class Patch:
    def __init__(self, patcher):
        self.patcher = patcher

    def __call__(self, given, _extra=None):
        return {**given, "img": self.patcher.model(given["img"])}

    def models(self):
        return [self.patcher]


def after(model, network):
    model.set_model_sampler_post_cfg_function(lambda given: network(given["denoised"]))


def as_patch(case, patcher):
    model = case.model.clone()
    model.set_model_post_input_patch(Patch(patcher))
    return replace(case, model=model)


def as_replacement(case, patcher):
    class Replacement(Patch):
        def __call__(self, given, extra):
            found = extra["original_block"](given)
            return {**found, "img": self.patcher.model(found["img"])}

    model = case.model.clone()
    model.set_model_patch_replace(Replacement(patcher), "dit", "double_block", 0)
    return replace(case, model=model)


def as_additional_model(case, patcher):
    model = case.model.clone()
    model.set_additional_models("beside", [patcher])
    after(model, patcher.model)
    return replace(case, model=model)


def of_an_additional_model(case, patcher):
    """A model that a model has that a model has."""
    other = beside()
    other.set_additional_models("beside", [patcher])
    return replace(as_additional_model(case, other), model=as_additional_model(case, patcher).model)


def as_attachment(case, patcher):
    """The host does not load it."""
    model = case.model.clone()
    model.set_attachments("beside", patcher)
    after(model, patcher.model)
    return replace(case, model=model)


def as_injection(case, patcher):
    """Part of a network for as long as it is used."""
    from comfy.patcher_extension import PatcherInjection

    model, handles = case.model.clone(), []

    def inject(patched):
        block = patched.model.diffusion_model.final_layer
        handles.append(block.register_forward_pre_hook(lambda _, args: (patcher.model(args[0]), *args[1:])))

    model.set_injections("beside", [PatcherInjection(inject, lambda _: handles.pop().remove())])
    return replace(case, model=model)


def as_hook(case, patcher):
    import comfy.hooks

    group = comfy.hooks.HookGroup()
    group.add(comfy.hooks.AdditionalModelsHook([patcher]))
    positive = [[tokens, {**options, "hooks": group}] for tokens, options in case.positive]
    model = case.model.clone()
    after(model, patcher.model)
    return replace(case, model=model, positive=positive)


def of_the_conditioning(case, patcher):
    positive = [[tokens, {**options, "additional_models": [patcher]}] for tokens, options in case.positive]
    model = case.model.clone()
    after(model, patcher.model)
    return replace(case, model=model, positive=positive)


def within_a_function(case, patcher):
    """Of which nobody knows."""
    model = case.model.clone()
    model.set_model_unet_function_wrapper(
        lambda network, given: patcher.model(network(given["input"], given["timestep"], **given["c"]))
    )
    return replace(case, model=model)


WAYS = [
    as_patch,
    as_replacement,
    as_additional_model,
    of_an_additional_model,
    as_attachment,
    as_injection,
    as_hook,
    of_the_conditioning,
    within_a_function,
]


@MODES
@pytest.mark.parametrize("way", WAYS)
def test_gradients_pass_through_them(open_denoiser, load_family, way, mode):
    """Against central differences, whatever the host knows of the network."""
    family = load_family("flux")
    with torch.inference_mode():
        patcher = beside()
        case = way(family, patcher)
    generator = torch.Generator().manual_seed(2)
    u, direction, weights = torch.randn((3, *case.shape()), generator=generator)
    step = 1e-2

    def work(denoiser):
        def value(at):
            return (denoiser(at, torch.tensor([1.0])).double() * weights).sum()

        with denoiser.gradients():
            point = u.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(point), point)
        numeric = (value(u + step * direction) - value(u - step * direction)) / (2 * step)
        return float((gradient.double() * direction).sum()), float(numeric), float(value(u))

    analytic, numeric, value = opened(open_denoiser, case, work, gradient=True, mode=mode)
    assert analytic == pytest.approx(numeric, rel=5e-3, abs=5e-3)
    assert value != pytest.approx(opened(open_denoiser, family, work, gradient=True)[2], rel=1e-4)


# --- and when they fail ---


def message(paint, case, **changes):
    with pytest.raises(ValueError) as caught:
        paint(**given(case, **changes))
    return str(caught.value)


class Broken(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("no such layer")


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_what_fails_is_named(paint, load_family, preset):
    from comfy.model_patcher import ModelPatcher

    case, cpu = load_family("flux"), torch.device("cpu")
    broken = as_patch(case, ModelPatcher(Broken(), cpu, cpu))
    found = message(paint, broken, preset=preset)
    assert (
        "found that Broken, a network beside it, stopped in `forward` of nodes/test_networks_beside.py with " in found
    )
    assert "RuntimeError: no such layer. Check that Broken belongs to the model" in found


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_a_control_network_that_cannot_take_a_size_is_named(paint, load_family, preset):
    """Half a patch: 37 x 31 pixels are 5 x 4 cells, of which the network takes pairs."""
    with torch.inference_mode():
        case = with_control(load_family("flux"))
    picture, mask = torch.rand(1, 37, 31, 3), torch.zeros(1, 37, 31)
    mask[..., 16:] = 1
    found = message(paint, case, preset=preset, image=picture, mask=mask)
    assert "ControlNetFlux, a network beside it, stopped with EinopsError" in found
    assert "multiples of 16 pixels" in found
    # And without it the size is no matter.
    assert paint(**given(load_family("flux"), preset=preset, image=picture, mask=mask))[0]["samples"].shape[-2:] == (
        5,
        4,
    )
