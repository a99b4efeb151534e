"""Gradients through the host's networks: against finite differences, where they are safe, and refused elsewhere."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch
from family_cases import (
    ALL,
    SAMPLING_NODES,
    SINGLE,
    float64,
    guided,
    opened,
    predict,
    resampled,
    unguided,
    with_area,
    with_control,
    with_encoding_control,
    with_everything,
    with_freeu,
    with_inpainting,
    with_lora,
    with_patch_network,
    with_perturbed_attention,
    with_reference,
    with_rescaled_guidance,
    with_skipped_layers,
)

SHAPE = (2, 16, 6, 8)
LEVELS = torch.tensor([0.5, 4.0])


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("rows", [1, 2])
def test_gradient_agrees_with_finite_differences(tiny, open_denoiser, conditioning, cfg, rows):
    u = torch.randn(rows, *SHAPE[1:]) * (1 + LEVELS[:rows, None, None, None])
    direction = torch.randn_like(u)
    weights = torch.randn(u.shape, dtype=torch.float64)
    step = 1e-2

    def work(denoiser):
        def value(at):
            return (denoiser(at, LEVELS[:rows]).double() * weights).sum()

        with denoiser.gradients():
            point = u.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(point), point)
        numeric = (value(u + step * direction) - value(u - step * direction)) / (2 * step)
        return gradient, float(numeric)

    gradient, numeric = open_denoiser(tiny.model, conditioning, work, cfg=cfg, shape=SHAPE, gradient=True)
    analytic = float((gradient.double() * direction).sum())
    assert gradient.abs().max() > 1e-3
    assert analytic == pytest.approx(numeric, rel=2e-3, abs=2e-3)


def test_gradient_couples_cells_through_attention(tiny, open_denoiser, conditioning):
    def work(denoiser):
        with denoiser.gradients():
            u = torch.randn(SHAPE).requires_grad_()
            (gradient,) = torch.autograd.grad(denoiser(u, LEVELS)[:, :, 0, 0].sum(), u)
        return gradient

    gradient = open_denoiser(tiny.model, conditioning, work, shape=SHAPE, gradient=True)
    assert gradient[:, :, -1, -1].abs().min() > 0


def test_gradients_only_where_they_are_safe(tiny, open_denoiser, conditioning):
    def careless(denoiser):
        with torch.enable_grad():
            denoiser(torch.randn(SHAPE).requires_grad_(), LEVELS)

    with pytest.raises(RuntimeError, match="inside `denoiser"):
        open_denoiser(tiny.model, conditioning, careless, shape=SHAPE, gradient=True)
    with pytest.raises(RuntimeError, match="opened without gradients"):
        open_denoiser(
            tiny.model,
            conditioning,
            lambda denoiser: denoiser.gradients().__enter__(),
            shape=SHAPE,
            gradient=False,
        )


def test_backward_outside_of_its_context_is_refused(tiny, open_denoiser, conditioning):
    def work(denoiser):
        with denoiser.gradients():
            u = torch.randn(SHAPE).requires_grad_()
            x0 = denoiser(u, LEVELS)
        torch.autograd.grad(x0, u, torch.ones_like(x0))

    with pytest.raises(RuntimeError, match=r"inside `denoiser.gradients\(\)`"):
        open_denoiser(tiny.model, conditioning, work, shape=SHAPE, gradient=True)


def test_parameters_get_no_gradient_and_keep_their_flag(tiny, open_denoiser, conditioning):
    def bias():
        return tiny.model.model.diffusion_model.final_layer.linear.bias

    if bias().is_inference():
        open_denoiser(tiny.model, conditioning, lambda _denoiser: None, shape=SHAPE, gradient=True)
    weight = bias()
    weight.requires_grad_(True)
    try:

        def work(denoiser):
            with denoiser.gradients():
                u = torch.randn(SHAPE).requires_grad_()
                denoiser(u, LEVELS).sum().backward()
            return u.grad

        gradient = open_denoiser(tiny.model, conditioning, work, shape=SHAPE, gradient=True)
        assert gradient.abs().max() > 0
        assert weight.grad is None
        assert weight.requires_grad
    finally:
        weight.requires_grad_(False)


@pytest.mark.parametrize("mode", ["full", "checkpointed"])
def test_writes_into_what_backward_needs_are_found_and_guarded(pack, tiny, open_denoiser, conditioning, mode):
    """The work runs again with a guard, and with it from the beginning where the network is known."""
    u, known = torch.randn(SHAPE), pack.host.autograd._WRITERS

    def gradient(write):
        def wrapper(network, given):
            x0 = network(given["input"], given["timestep"], **given["c"])
            return x0.square() + write(x0)

        model, runs = tiny.model.clone(), []
        model.set_model_unet_function_wrapper(wrapper)

        def work(denoiser):
            runs.append(None)
            with denoiser.gradients():
                point = u.clone().requires_grad_()
                return torch.autograd.grad(denoiser(point, LEVELS).sum(), point)[0]

        return open_denoiser(model, conditioning, work, shape=SHAPE, gradient=True, mode=mode), len(runs)

    network = tiny.model.model
    expected, once = gradient(lambda x0: x0 + 1)
    assert once == 1 and network not in known
    try:
        found, twice = gradient(lambda x0: x0.add_(1))
        assert twice == 2 and network in known
        again, once = gradient(lambda x0: x0.add_(1))
        assert once == 1
    finally:
        known.discard(network)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(again, expected)


# --- families ---

KEYPOINTS, STEP = (0.8, 3.0), 2.0**-8


def directional_error(pack, open_denoiser, case, rows=1):
    """The bound's derivative along a random direction of its means against a central difference, relative."""
    core, generator = pack.core, torch.Generator().manual_seed(1)

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    weight = torch.ones(rows, 1, *case.size, dtype=torch.float64)
    weight[..., case.size[1] // 2 :] = 0
    observation = core.LatentObservation.masked(normal(*case.shape(rows)), weight)
    posterior = core.HierarchicalPosterior.initial(observation, KEYPOINTS)
    noise = [normal(*case.shape(rows)) for _ in KEYPOINTS]
    direction = normal(*posterior.mu.shape) * torch.tensor(KEYPOINTS).reshape(-1, 1, 1, 1, 1)

    def work(denoiser):
        counting = core.diffusion.denoiser.CountingDenoiser(denoiser, "fit", 0, None)

        def value(mu):
            bound = core.posterior.objective.negative_bound
            return bound(counting, replace(posterior, mu=mu), observation, noise).total.sum()

        # Outside of it, and where autograd has nothing to follow, the host runs kernels that know no float64.
        with denoiser.gradients():
            mu = posterior.mu.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(mu), mu)
            ahead, behind = (value(mu + step * direction).detach() for step in (STEP, -STEP))
        numeric = (ahead - behind) / (2 * STEP)
        along = gradient * direction
        assert gradient[..., case.size[1] // 2 :].abs().amin() > 0, "hidden cells reach the bound through the network"
        return float((along.sum() - numeric).abs() / along.norm())

    return opened(open_denoiser, case, work, gradient=True, rows=rows)


LIGHT = "unet", "sd3", "flux", "schnell", "krea2", "chroma", "radiance", "lumina2", "z-image", "qwen-image", "cosmos"
VARIANTS = {
    guided: [name for name in ALL if name != "sdxl"],
    unguided: LIGHT,
    with_lora: ["sd15", *LIGHT],
    with_area: LIGHT,
    with_rescaled_guidance: ["unet", "sd2"],
    with_control: ["sd15", "sd3", "flux"],
    with_encoding_control: ["sd3", "flux"],
    with_patch_network: ["qwen-image", "z-image"],
    with_freeu: ["deep-unet"],
    with_perturbed_attention: ["deep-unet"],
    with_skipped_layers: ["sd3", "flux"],
    with_everything: ["sdxl"],
    with_inpainting: ["sd15-inpaint", "flux-fill"],
    with_reference: ["flux", "flux2", "qwen-image"],
}
CASES = [(name, change) for change, names in VARIANTS.items() for name in names]


@pytest.mark.parametrize(("family", "change"), CASES, indirect=["family"])
def test_gradient_of_the_bound_agrees_with_finite_differences(pack, open_denoiser, family, change):
    with torch.inference_mode():
        case = change(family)
        before = predict(open_denoiser, family, gradient=False)
        # Adapters count from the first call, with gradients and without.
        changed = predict(open_denoiser, case, gradient=False)
        torch.testing.assert_close(predict(open_denoiser, case, gradient=True), changed, rtol=1e-4, atol=1e-4)
        assert change is guided or (changed - before).abs().max() > 1e-3
    with contextlib.nullcontext() if family.name in SINGLE else float64(*case.networks):
        assert directional_error(pack, open_denoiser, case) < 5e-4


@pytest.mark.parametrize(("family", "node", "arguments"), SAMPLING_NODES, indirect=["family"])
def test_gradients_follow_nodes_that_change_the_sampling(pack, open_denoiser, family, node, arguments):
    with torch.inference_mode():
        case = resampled(family, node, arguments)
    with float64(*case.networks):
        assert directional_error(pack, open_denoiser, case) < 5e-4
