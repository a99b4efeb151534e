"""What all painting nodes run through."""

from __future__ import annotations

import pytest
import torch


def test_latents_have_the_dtype_of_the_hosts_own_samplers(pack, tiny_info, monkeypatch):
    import comfy.model_management as management

    latents, to_latent = torch.zeros(1, 16, 8, 6, dtype=torch.float64), pack.sampling.to_latent
    monkeypatch.setattr(management, "intermediate_dtype", lambda: torch.float16, raising=False)
    assert to_latent(tiny_info, latents)["samples"].dtype == torch.float16
    monkeypatch.delattr(management, "intermediate_dtype")
    assert to_latent(tiny_info, latents)["samples"].dtype == torch.float32


def observation(pack, images):
    weight = torch.ones(images, 1, 4, 3)
    weight[..., 2] = 0
    return pack.core.LatentObservation.masked(torch.zeros(images, 16, 4, 3), weight)


@pytest.mark.parametrize(("images", "fills", "batch"), [(1, 1, 1), (2, 3, 6), (2, 10, 8)])
def test_draws_ask_for_a_batch_that_memory_may_split(pack, images, fills, batch):
    """Eight rows at once, at most; particles cannot be split."""
    preset, observed = pack.core.PRESETS["balanced"], observation(pack, images)
    method = pack.core.posterior_method(preset, pack.core.initial_posterior(observed, preset))
    demand = pack.sampling.Draws(observed, method, fills).demand
    assert (demand.shape, demand.batch, demand.inseparable, demand.gradient) == ((16, 4, 3), batch, 0, True)
    particles = pack.core.PRESETS["balanced"].with_changes(sampler={"smc": True})
    method = pack.core.posterior_method(particles, pack.core.initial_posterior(observed, particles))
    demand = pack.sampling.Draws(observed, method, fills).demand
    assert (demand.batch, demand.inseparable) == (1, fills)


def test_a_fit_asks_for_all_its_draws_at_once(pack, tiny_info):
    preset = pack.core.PRESETS["paper-2"]
    for fills in (0, 3):
        demand = pack.sampling.FitAndDraw(observation(pack, 2), preset, tiny_info, fills).demand
        # Two pictures with five draws each, two keypoints and the diffusion loss above them.
        assert (demand.inseparable, demand.passes, demand.gradient) == (10, 3, True)
        assert demand.batch == max(1, 2 * fills)
