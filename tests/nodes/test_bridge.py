"""Gradients through the host, and what must be as before afterwards."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

SHAPE = (2, 16, 6, 8)
LEVELS = torch.tensor([0.5, 4.0])


def opened(pack, tiny, conditioning, work, cfg=1.0, gradient=True, model=None):
    positive, negative = conditioning
    return pack.open_denoiser(
        model or tiny.model,
        positive,
        negative,
        cfg=cfg,
        shape=SHAPE,
        seed=0,
        gradient=gradient,
        work=work,
    )


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("rows", [1, 2])
def test_gradient_agrees_with_finite_differences(pack, tiny, conditioning, cfg, rows):
    u = torch.randn(rows, *SHAPE[1:]) * (1 + LEVELS[:rows, None, None, None])
    direction = torch.randn_like(u)
    weights = torch.randn(u.shape, dtype=torch.float64)
    step = 1e-2

    def work(denoiser, _coordinate, _device):
        def value(at):
            return (denoiser(at, LEVELS[:rows]).double() * weights).sum()

        with denoiser.gradients():
            point = u.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(point), point)
        numeric = (value(u + step * direction) - value(u - step * direction)) / (2 * step)
        return gradient, float(numeric)

    gradient, numeric = opened(pack, tiny, conditioning, work, cfg)
    analytic = float((gradient.double() * direction).sum())
    assert gradient.abs().max() > 1e-3
    assert analytic == pytest.approx(numeric, rel=2e-3, abs=2e-3)


def test_gradient_couples_cells_through_attention(pack, tiny, conditioning):
    def work(denoiser, _coordinate, _device):
        with denoiser.gradients():
            u = torch.randn(SHAPE).requires_grad_()
            (gradient,) = torch.autograd.grad(denoiser(u, LEVELS)[:, :, 0, 0].sum(), u)
        return gradient

    assert opened(pack, tiny, conditioning, work)[:, :, -1, -1].abs().min() > 0


@pytest.mark.parametrize("gradient", [True, False])
def test_rows_are_the_host_s_own_prediction(pack, tiny, conditioning, gradient):
    """The bridge's x0 equals the host's Euler step in flow coordinates, at the same noise level."""
    u, s = torch.randn(SHAPE), torch.full((2,), 1.0)
    x0 = opened(pack, tiny, conditioning, lambda d, _c, _v: d(u, s), cfg=3.0, gradient=gradient)

    import comfy.samplers

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
def test_work_runs_with_ordinary_tensors_and_without_gradients(pack, tiny, conditioning, gradient):
    def work(denoiser, _coordinate, _device):
        x0 = denoiser(torch.randn(SHAPE), LEVELS)
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), x0.is_inference(), x0.requires_grad

    assert opened(pack, tiny, conditioning, work, gradient=gradient) == (False, False, False, False)


def test_gradients_only_where_they_are_safe(pack, tiny, conditioning):
    def careless(denoiser, _coordinate, _device):
        with torch.enable_grad():
            denoiser(torch.randn(SHAPE).requires_grad_(), LEVELS)

    with pytest.raises(RuntimeError, match="inside `denoiser"):
        opened(pack, tiny, conditioning, careless)
    with pytest.raises(RuntimeError, match="opened without gradients"):
        opened(pack, tiny, conditioning, lambda d, _c, _v: d.gradients().__enter__(), gradient=False)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_state_is_restored_after_an_exception(pack, tiny, conditioning, kind):
    import comfy.model_management

    parameters = list(tiny.model.model.diffusion_model.parameters())
    options = repr(tiny.model.model_options)
    seen = []

    def work(denoiser, _coordinate, _device):
        with denoiser.gradients():
            seen.append(comfy.model_management.in_training)
            raise kind("stop")

    with pytest.raises(kind, match="stop"):
        opened(pack, tiny, conditioning, work)
    assert seen == [True]
    assert comfy.model_management.in_training is False
    assert repr(tiny.model.model_options) == options
    assert not any(p.requires_grad for p in parameters)
    # Saved tensors are autograd's own again.
    a = 2 * torch.ones(3, requires_grad=True)
    total = a.square().sum()
    a.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_parameters_get_no_gradient_and_keep_their_flag(pack, tiny, conditioning):
    weight = tiny.model.model.diffusion_model.final_layer.linear.bias
    if weight.is_inference():
        opened(pack, tiny, conditioning, lambda *_: None)
        weight = tiny.model.model.diffusion_model.final_layer.linear.bias
    weight.requires_grad_(True)
    try:

        def work(denoiser, _coordinate, _device):
            with denoiser.gradients():
                u = torch.randn(SHAPE).requires_grad_()
                denoiser(u, LEVELS).sum().backward()
            return u.grad

        assert opened(pack, tiny, conditioning, work).abs().max() > 0
        assert weight.grad is None
        assert weight.requires_grad
    finally:
        weight.requires_grad_(False)


def test_host_samples_after_a_fit_as_before(pack, tiny, conditioning):
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
    opened(pack, tiny, conditioning, lambda d, _c, _v: d(torch.randn(SHAPE), LEVELS))
    assert torch.equal(before, run())


@pytest.mark.parametrize("gradient", [False, True])
def test_counters_around_see_the_network(pack, tiny, conditioning, gradient):
    with FlopCounterMode(display=False) as counter:
        opened(pack, tiny, conditioning, lambda d, _c, _v: d(torch.randn(SHAPE), LEVELS), gradient=gradient)
    assert counter.get_total_flops() > 0


def test_interrupt_stops_at_the_next_call(pack, tiny, conditioning):
    import comfy.model_management as management

    def work(denoiser, _coordinate, _device):
        management.interrupt_current_processing()
        denoiser(torch.randn(SHAPE), LEVELS)

    with pytest.raises(management.InterruptProcessingException):
        opened(pack, tiny, conditioning, work)
    assert management.in_training is False


def test_scheduled_lora_hooks_follow_the_level_up_again(pack, tiny, conditioning):
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

    def work(denoiser, _coordinate, _device):
        return [denoiser(u, torch.full((2,), s)) for s in (20.0, 0.2, 20.0, 0.2)]

    high, low, high_again, low_again = opened(pack, tiny, (hooked, negative), work)
    plain = opened(pack, tiny, conditioning, work)
    torch.testing.assert_close(high, plain[0])
    assert (low - plain[1]).abs().max() > 1e-2
    torch.testing.assert_close(high_again, high)
    torch.testing.assert_close(low_again, low)


def test_coordinates_of_families(pack, tiny):
    import comfy.model_sampling as sampling

    assert pack.bridge.coordinate(tiny.model).flow
    assert pack.bridge.largest_level(tiny.model) == math.inf
    assert pack.bridge.family(tiny.model) == "SD3 (FLOW)"

    def patched(kind, schedule):
        class Sampling(schedule, kind):
            pass

        clone = tiny.model.clone()
        clone.add_object_patch("model_sampling", Sampling())
        return clone

    exploding = patched(sampling.V_PREDICTION, sampling.ModelSamplingDiscrete)
    assert not pack.bridge.coordinate(exploding).flow
    assert pack.bridge.largest_level(exploding) == pytest.approx(14.6, abs=0.1)
    with pytest.raises(ValueError, match=r"SD3.*IMG_TO_IMG"):
        pack.bridge.coordinate(patched(sampling.IMG_TO_IMG, sampling.ModelSamplingDiscrete))
    scaled = patched(sampling.CONST, sampling.ModelSamplingDiscreteFlow)
    scaled.object_patches["model_sampling"].noise_scale = 8.0
    assert pack.bridge.coordinate(scaled).noise_scale == 8.0


@pytest.mark.parametrize("mode", ["full", "checkpointed"])
def test_writes_into_what_backward_needs_are_found_and_guarded(pack, tiny, conditioning, mode):
    """The work runs again with a guard, and with it from the beginning where the network is known."""
    u = torch.randn(SHAPE)

    def opened(write):
        def wrapper(network, given):
            x0 = network(given["input"], given["timestep"], **given["c"])
            return x0.square() + write(x0)

        model, runs = tiny.model.clone(), []
        model.set_model_unet_function_wrapper(wrapper)

        def work(denoiser, _place, _device):
            runs.append(None)
            with denoiser.gradients():
                point = u.clone().requires_grad_()
                return torch.autograd.grad(denoiser(point, LEVELS).sum(), point)[0]

        shape = {"cfg": 1.0, "shape": SHAPE, "seed": 0}
        return pack.open_denoiser(model, *conditioning, **shape, gradient=True, mode=mode, work=work), len(runs)

    network = tiny.model.model
    expected, once = opened(lambda x0: x0 + 1)
    assert once == 1 and network not in pack.bridge._WRITERS
    try:
        found, twice = opened(lambda x0: x0.add_(1))
        assert twice == 2 and network in pack.bridge._WRITERS
        again, once = opened(lambda x0: x0.add_(1))
        assert once == 1
    finally:
        pack.bridge._WRITERS.discard(network)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(again, expected)


def test_backward_outside_of_its_context_is_refused(pack, tiny, conditioning):
    def work(denoiser, _place, _device):
        with denoiser.gradients():
            u = torch.randn(SHAPE).requires_grad_()
            x0 = denoiser(u, LEVELS)
        torch.autograd.grad(x0, u, torch.ones_like(x0))

    with pytest.raises(RuntimeError, match=r"inside `denoiser.gradients\(\)`"):
        opened(pack, tiny, conditioning, work)
