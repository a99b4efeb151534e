"""Conditioning for latents of other sizes, as the host processes it for them."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

import pytest
import torch
from family_cases import guided, opened, with_area, with_control, with_inpainting


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(
    ("family", "nodes"),
    [("sd15", guided), ("sd15", with_area), ("sd15", with_control), ("sd15-inpaint", with_inpainting)],
    indirect=["family"],
)
def test_beyond_the_largest_level_the_network_is_asked_on_a_coarser_grid(pack, open_denoiser, family, nodes, gradient):
    """The same as in a run of that size: masks, areas, control pictures and pictures of inpainting models with it."""
    with torch.inference_mode():
        whole, half = (nodes(replace(family, size=size)) for size in ((16, 32), (8, 16)))
    top = pack.host.model_info.model_info(family.model).largest_level
    u = top * torch.randn(1, 4, 16, 32, generator=torch.Generator().manual_seed(1))
    u = u.repeat_interleave(2, 0)
    s = torch.tensor([1.5 * top])

    def work(denoiser):
        def ask(state, level):
            with denoiser.gradients() if gradient else contextlib.nullcontext(), torch.no_grad():
                return denoiser(state, level.expand(len(state))).clone()

        # Before and after: the conditioning of the run's own size is as it was.
        return ask(u, s / 3), ask(u, s), ask(u, s / 3)

    before, coarse, after = opened(open_denoiser, whole, work, gradient, rows=2)
    assert math.isfinite(top) and torch.equal(before, after)
    means = torch.nn.functional.avg_pool2d(u, 2)

    def ask_half(denoiser):
        with denoiser.gradients() if gradient else contextlib.nullcontext(), torch.no_grad():
            return denoiser(means, (s / 2).expand(2)).clone()

    expected = opened(open_denoiser, half, ask_half, gradient, rows=2)
    found = torch.nn.functional.avg_pool2d(coarse, 2)
    torch.testing.assert_close(coarse, torch.nn.functional.interpolate(found, scale_factor=2.0))
    # Pictures and masks are resized by the host on the way: those that are halved here are not the halves there.
    tolerance = 0.05 if nodes in (with_control, with_inpainting) else 1e-5
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("family", ["sd15"], indirect=True)
def test_large_pictures_are_painted_from_beyond_the_largest_level(pack, family, short_presets):
    """256 x 512 pixels of a model that ends at 14.6."""
    asked = []

    def remember(network, given):
        asked.append(tuple(given["input"].shape[-2:]))
        return network(given["input"], given["timestep"], **given["c"])

    model = family.model.clone()
    model.set_model_unet_function_wrapper(remember)
    mask = torch.zeros(1, 256, 512)
    mask[..., 200:] = 1
    prompts = {"positive": family.positive, "negative": family.negative, "cfg": 1.0, "seed": 0}
    picture = {"image": torch.rand(1, 256, 512, 3), "mask": mask, "vae": family.vae}
    with torch.inference_mode():
        latent, posterior = pack.inpaint.VIPaintInpaint.execute(
            model, preset="fast", fills=1, **prompts, **picture
        ).result
        (again,) = pack.sample.VIPaintSample.execute(model, posterior=posterior, fills=1, **prompts).result
    top = pack.host.model_info.model_info(model).largest_level
    assert posterior.posterior.levels[-1] == pytest.approx(2 * top, rel=1e-6)
    assert {(16, 32), (32, 64)} == set(asked)
    assert torch.isfinite(latent["samples"]).all() and torch.equal(latent["samples"], again["samples"])
