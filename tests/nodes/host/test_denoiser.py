"""The host's model as a denoiser: its own predictions, its hooks and interrupts, and a host that is as before."""

from __future__ import annotations

import contextlib
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from family_cases import Case, opened, predict, prompt, with_control, with_guidance, with_lora, with_sizes
from torch.utils.flop_counter import FlopCounterMode

SHAPE = (2, 16, 6, 8)
LEVELS = torch.tensor([0.5, 4.0])


@pytest.mark.parametrize("gradient", [True, False])
def test_rows_are_the_host_s_own_prediction(tiny, open_denoiser, conditioning, gradient):
    """x0 equals the host's Euler step in flow coordinates, at the same noise level."""
    import comfy.samplers

    u, s = torch.randn(SHAPE), torch.full((2,), 1.0)
    x0 = open_denoiser(
        tiny.model, conditioning, lambda denoiser: denoiser(u, s), cfg=3.0, shape=SHAPE, gradient=gradient
    )

    class Once(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs):
            self.x0 = model_wrap((u / 2).to(noise.device), torch.full((2,), 0.5).to(noise.device), **extra_args).cpu()
            return noise

    positive, negative = conditioning
    once = Once()
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(tiny.model)
        guider.set_conds(positive, negative)
        guider.set_cfg(3.0)
        guider.sample(torch.zeros(SHAPE), torch.zeros(SHAPE), once, torch.linspace(1, 0, 3), seed=0)
    torch.testing.assert_close(x0, once.x0.clone(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gradient", [True, False])
def test_work_runs_with_ordinary_tensors_and_without_gradients(tiny, open_denoiser, conditioning, gradient):
    def work(denoiser):
        x0 = denoiser(torch.randn(SHAPE), LEVELS)
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), x0.is_inference(), x0.requires_grad

    found = open_denoiser(tiny.model, conditioning, work, shape=SHAPE, gradient=gradient)
    assert found == (False, False, False, False)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_state_is_restored_after_an_exception(tiny, open_denoiser, conditioning, kind):
    import comfy.model_management

    parameters = list(tiny.model.model.diffusion_model.parameters())
    wanted = [parameter.requires_grad for parameter in parameters]
    options = repr(tiny.model.model_options)
    seen = []

    def work(denoiser):
        with denoiser.gradients():
            seen.append(comfy.model_management.in_training)
            raise kind("stop")

    with pytest.raises(kind, match="stop"):
        open_denoiser(tiny.model, conditioning, work, shape=SHAPE, gradient=True)
    assert seen == [True]
    assert comfy.model_management.in_training is False
    assert repr(tiny.model.model_options) == options
    parameters = list(tiny.model.model.diffusion_model.parameters())
    assert [parameter.requires_grad for parameter in parameters] == wanted
    # Saved tensors are autograd's own again.
    a = 2 * torch.ones(3, requires_grad=True)
    total = a.square().sum()
    a.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_host_samples_after_a_fit_as_before(tiny, open_denoiser, conditioning):
    """The clones that replace inference tensors are equal: KSampler notices nothing."""
    import comfy.sample

    positive, negative = conditioning

    def run():
        latent = torch.zeros(SHAPE)
        with torch.inference_mode():
            noise = comfy.sample.prepare_noise(latent, 1)
            return comfy.sample.sample(
                tiny.model, noise, 2, 3.0, "euler", "simple", positive, negative, latent, disable_pbar=True
            )

    before = run()
    u = torch.randn(SHAPE)
    open_denoiser(tiny.model, conditioning, lambda denoiser: denoiser(u, LEVELS), shape=SHAPE, gradient=True)
    assert torch.equal(before, run())


@pytest.mark.parametrize("gradient", [False, True])
def test_counters_around_see_the_network(tiny, open_denoiser, conditioning, gradient):
    u = torch.randn(SHAPE)
    with FlopCounterMode(display=False) as counter:
        open_denoiser(tiny.model, conditioning, lambda denoiser: denoiser(u, LEVELS), shape=SHAPE, gradient=gradient)
    assert counter.get_total_flops() > 0


def test_interrupt_stops_at_the_next_call(tiny, open_denoiser, conditioning):
    import comfy.model_management as management

    def work(denoiser):
        management.interrupt_current_processing()
        denoiser(torch.randn(SHAPE), LEVELS)

    with pytest.raises(management.InterruptProcessingException):
        open_denoiser(tiny.model, conditioning, work, shape=SHAPE, gradient=True)
    assert management.in_training is False


def test_scheduled_lora_hooks_follow_the_level_up_again(tiny, open_denoiser, conditioning):
    """A hook that changes its strength along the schedule gives each level the same result in every pass."""
    import comfy.hooks

    with torch.inference_mode():
        weight = {"diffusion_model.final_layer.linear.weight": ("diff", (torch.ones(64, 128),))}
        group = comfy.hooks.create_hook_model_as_lora(None, None, 0.0, 0.0)
        hook = group.hooks[0]
        hook.weights, hook.need_weight_init, hook._strength_model = weight, False, 1.0
        frames = comfy.hooks.HookKeyframeGroup()
        frames.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=0.0, guarantee_steps=0))
        frames.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.5, guarantee_steps=0))
        group.set_keyframes_on_hooks(frames)
    positive, negative = conditioning
    hooked = [[positive[0][0], {**positive[0][1], "hooks": group}]]
    u = torch.randn(SHAPE)

    def work(denoiser):
        return [denoiser(u, torch.full((2,), s)) for s in (20.0, 0.2, 20.0, 0.2)]

    high, low, high_again, low_again = open_denoiser(tiny.model, (hooked, negative), work, shape=SHAPE, gradient=True)
    plain = open_denoiser(tiny.model, conditioning, work, shape=SHAPE, gradient=True)
    torch.testing.assert_close(high, plain[0])
    assert (low - plain[1]).abs().max() > 1e-2
    torch.testing.assert_close(high_again, high)
    torch.testing.assert_close(low_again, low)


# --- families ---


def test_a_diffusion_model_without_autoencoder_is_the_same(pack, open_denoiser, checkpoint):
    """Load Diffusion Model and Load Checkpoint give one model."""
    import comfy.sd

    path = str(checkpoint("flux"))
    with torch.inference_mode():
        loaded = comfy.sd.load_checkpoint_guess_config(path, output_clip=False)[0], comfy.sd.load_diffusion_model(path)
        prompts = [prompt(pack, loaded[0], seed) for seed in (3, 4)]
    cases = [Case("flux", model, None, *prompts, size=(4, 6), cfg=1.0) for model in loaded]
    assert torch.equal(*(predict(open_denoiser, case, gradient=True) for case in cases))


@pytest.mark.parametrize(
    ("family", "change", "counts"),
    [
        ("sdxl", with_sizes, True),
        # Distilled: guidance is an input of Flux dev, schnell was trained without it.
        ("flux", with_guidance, True),
        ("schnell", with_guidance, False),
    ],
    indirect=["family"],
)
def test_numbers_of_the_conditioning_reach_the_network(open_denoiser, family, change, counts):
    with torch.inference_mode():
        changed = change(family)
    for gradient in (False, True):
        moved = (predict(open_denoiser, changed, gradient) - predict(open_denoiser, family, gradient)).abs().max()
        assert moved > 1e-3 if counts else moved == 0


def jacobian_column(open_denoiser, case):
    u = torch.randn(case.shape(), generator=torch.Generator().manual_seed(2))

    def work(denoiser):
        with denoiser.gradients():
            point = u.clone().requires_grad_()
            return torch.autograd.grad(denoiser(point, torch.tensor([1.5]))[..., 0, 0].sum(), point)[0]

    return opened(open_denoiser, case, work, gradient=True)


def test_offloaded_and_loaded_again_is_the_same(open_denoiser, family):
    """With an adapter, whose weights the host puts back when it offloads."""
    import comfy.model_management

    with torch.inference_mode():
        case = with_lora(family)
    before, gradient = predict(open_denoiser, case, gradient=False), jacobian_column(open_denoiser, case)
    for _ in range(2):
        comfy.model_management.unload_all_models()
        assert torch.equal(predict(open_denoiser, case, gradient=False), before)
        assert torch.equal(jacobian_column(open_denoiser, case), gradient)


def test_one_picture_of_a_film_family_has_no_axis_of_frames(open_denoiser, load_family):
    """The host's latents have it, the core's do not; prompts count as they do for pictures."""
    family = load_family("qwen-image")
    first = predict(open_denoiser, family, gradient=False)
    assert first.shape == family.shape()
    assert (predict(open_denoiser, replace(family, cfg=1.0), gradient=False) - first).abs().max() > 1e-3


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("changed", ["plain", "wrapped", "controlled", "writing"])
def test_the_patcher_of_a_run_ends_with_it(pack, open_denoiser, load_family, monkeypatch, changed, gradient):
    """Not with the next collection: where the caller's has ended before, the host would know weights by none."""
    case, patchers = load_family("flux"), []
    model = case.model.clone()
    if changed == "wrapped":
        model.add_wrapper("apply_model", lambda executor, *args, **kwargs: executor(*args, **kwargs))
        model.set_model_unet_function_wrapper(
            lambda network, given: network(given["input"], given["timestep"], **given["c"])
        )
    if changed == "writing":
        model.set_model_sampler_post_cfg_function(lambda given: given["denoised"].square().add_(given["denoised"]))
    if changed == "controlled":
        with torch.inference_mode():
            case = with_control(case)
    u = torch.randn(case.shape(), generator=torch.Generator().manual_seed(2))

    def work(denoiser):
        patchers.append(weakref.ref(denoiser._denoiser._model_wrap.model_patcher))
        with denoiser.gradients() if gradient else contextlib.nullcontext():
            point = u.clone().requires_grad_(gradient)
            x0 = denoiser(point, torch.tensor([1.5]))
            return torch.autograd.grad(x0.sum(), point) if gradient else x0

    gc.collect()
    gc.disable()
    try:
        opened(open_denoiser, replace(case, model=model), work, gradient)
        caller = weakref.ref(model)
        assert all(patcher() is (None if gradient else model) for patcher in patchers)
        del model
        assert caller() is None
    finally:
        gc.enable()
