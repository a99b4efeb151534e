"""What is found out about a model: its family, what it makes, and the map to its noise levels."""

from __future__ import annotations

import math
import re

import pytest
import tiny_checkpoints
import torch
from family_cases import SAMPLING_NODES, opened, resampled
from tiny_families import Family


def test_facts_of_the_tiny_model(tiny_info):
    assert tiny_info.family == "SD3 (FLOW)"
    assert tiny_info.coordinate.flow
    assert tiny_info.largest_level == math.inf
    assert tiny_info.channels == 16
    assert not tiny_info.has_frame_axis


def test_coordinates_of_kinds_of_sampling(pack, tiny):
    import comfy.model_sampling as sampling

    model_info = pack.host.model_info.model_info

    def patched(kind, schedule):
        class Sampling(schedule, kind):
            pass

        clone = tiny.model.clone()
        clone.add_object_patch("model_sampling", Sampling())
        return clone

    exploding = model_info(patched(sampling.V_PREDICTION, sampling.ModelSamplingDiscrete))
    assert not exploding.coordinate.flow
    assert exploding.largest_level == pytest.approx(14.6, abs=0.1)
    with pytest.raises(ValueError, match=r"SD3.*IMG_TO_IMG"):
        model_info(patched(sampling.IMG_TO_IMG, sampling.ModelSamplingDiscrete))
    scaled = patched(sampling.CONST, sampling.ModelSamplingDiscreteFlow)
    scaled.object_patches["model_sampling"].noise_scale = 8.0
    assert model_info(scaled).coordinate.noise_scale == 8.0


def test_distilled_models_that_can_be_told(pack, load_family):
    is_distilled = pack.host.model_info.is_distilled
    assert is_distilled(load_family("schnell").model)
    assert not any(is_distilled(load_family(name).model) for name in ("flux", "sd3", "unet"))
    sampled = [resampled(load_family("unet"), "ModelSamplingDiscrete", (kind, False)) for kind in ("lcm", "eps")]
    assert [is_distilled(case.model) for case in sampled] == [True, False]


def check_coordinate(pack, open_denoiser, case):
    """The map is the host's own way to add noise, and the prediction is the host's own at that point."""
    import comfy.samplers

    info, sampling = pack.host.model_info.model_info(case.model), case.model.get_model_object("model_sampling")
    coordinate, highest = info.coordinate, info.largest_level
    assert highest == math.inf if coordinate.flow else 10 < highest < 5000
    x0, noise = (torch.randn(case.shape(), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    for s in (0.05, 1.0, min(highest, 40.0)):
        u = (x0 + s * noise).double()
        z, sigma = coordinate.to_host(u, s)
        time = torch.tensor([float(sigma) / coordinate.noise_scale])
        torch.testing.assert_close(z.float(), sampling.noise_scaling(time, noise.clone(), x0), rtol=1e-5, atol=1e-5)
        again, level = coordinate.from_host(z, sigma)
        torch.testing.assert_close(again, u)
        assert level == pytest.approx(s, rel=1e-9)

    class Once(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs):
            given = info.add_frame_axis(z.float()).to(noise.device)
            self.x0 = model_wrap(given, time.to(noise.device), **extra_args).cpu()
            return noise

    once, zeros = Once(), info.add_frame_axis(torch.zeros(case.shape()))
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(case.model)
        guider.set_conds(case.positive, case.negative)
        guider.set_cfg(case.cfg)
        guider.sample(zeros, zeros, once, torch.linspace(1, 0, 3), seed=0)
    ours = opened(open_denoiser, case, lambda denoiser: denoiser(u.float(), torch.tensor([s])), gradient=False)
    torch.testing.assert_close(info.add_frame_axis(ours), once.x0.clone(), rtol=1e-4, atol=1e-4)


def test_the_coordinate_is_the_host_s_own(pack, open_denoiser, family):
    check_coordinate(pack, open_denoiser, family)


@pytest.mark.parametrize(("family", "node", "arguments"), SAMPLING_NODES, indirect=["family"])
def test_the_coordinate_follows_nodes_that_change_the_sampling(pack, open_denoiser, family, node, arguments):
    with torch.inference_mode():
        case = resampled(family, node, arguments)
    check_coordinate(pack, open_denoiser, case)


@pytest.mark.parametrize("kind", ["img_to_img", "img_to_img_flow"])
@pytest.mark.parametrize("family", ["unet"], indirect=True)
def test_networks_without_a_noise_level_are_refused(pack, family, kind):
    with pytest.raises(ValueError, match=r"^input `model`.*SD15 \(EPS\).*IMG_TO_IMG"):
        pack.host.model_info.model_info(resampled(family, "ModelSamplingDiscrete", (kind, False)).model)


def test_the_input_that_a_model_comes_from_is_named(pack):
    with pytest.raises(pack.errors.InputError, match=r"^input `other`: expected a model, found str"):
        pack.host.model_info.model_info("sd3.safetensors", "other")


@pytest.mark.parametrize("family", ["sd3", "qwen-image"], indirect=True)
def test_latents_go_to_model_scale_and_back(pack, family):
    """With an axis of frames where the family has one, and the format's own means and deviations."""
    info = pack.host.model_info.model_info(family.model)
    latents = torch.randn(family.shape(2))
    samples = info.to_host_latent(latents)
    assert samples.ndim == (5 if family.name == "qwen-image" else 4)
    assert info.has_frame_axis == (samples.ndim == 5)
    torch.testing.assert_close(info.to_model_scale(samples), latents)
    torch.testing.assert_close(info.latent_format.process_in(samples), info.add_frame_axis(latents))
    assert torch.equal(info.drop_frame_axis(info.add_frame_axis(latents)), latents)


OTHER_KINDS = {
    "films": "GenmoMochi LTXV LTXAV MiniMaxH3 HunyuanVideo HunyuanVideoI2V HunyuanVideoSkyreelsI2V HunyuanVideo15 "
    "HunyuanVideo15_SR_Distilled CosmosT2V CosmosI2V CosmosI2VPredict2 WAN21_T2V WAN21_CausalAR_T2V WAN21_I2V "
    "WAN21_FunControl2V WAN21_Vace WAN21_Camera WAN21_HuMo WAN21_FlowRVS WAN21_SCAIL WAN21_SCAIL2 WAN22_T2V "
    "WAN22_Camera WAN22_S2V WAN22_Animate WAN22_WanDancer Kandinsky5 CogVideoX_T2V CogVideoX_I2V CogVideoX_Inpaint "
    "SVD_img2vid SV3D_u SV3D_p",
    "sharper copies": "HunyuanImage21Refiner SeedVR2",
    "sound": "ACEStep ACEStep15",
    "no pictures": "Hunyuan3Dv2 Hunyuan3Dv2mini Hunyuan3Dv2_1 TripoSplat RT_DETR_v4 SAM3 SAM31 DepthAnything3",
}
# The host cannot make them without their weights.
UNKNOWN = "Stable_Zero123", "StableAudio", "StableAudio3", "Flux2"


def known_families():
    import comfy.supported_models

    return [known.__name__ for known in comfy.supported_models.models if known.__name__ not in UNKNOWN]


def without_network(config):
    import comfy.supported_models

    known = getattr(comfy.supported_models, config).unet_config
    network = {"in_channels": 4, **known, "disable_unet_model_creation": True}
    return tiny_checkpoints.patcher(Family(config, network))


@pytest.mark.filterwarnings("ignore")
def test_models_that_make_no_single_pictures_are_refused_by_name(pack, comfyui):
    """Every family that the host knows is either painted with or refused for what it makes."""
    facts = pack.host.model_info
    expected = {name: kind for kind, names in OTHER_KINDS.items() for name in names.split()}
    assert expected.keys() <= set(known_families())
    for name in known_families():
        model = without_network(name)
        assert facts.output_kind(model) == expected.get(name, "pictures"), name
        if name in expected:
            family = re.escape(facts.family_of(model))
            with pytest.raises(ValueError, match=rf"^input `model`.*{family}, which makes {expected[name]}"):
                facts.model_info(model)
        elif name != "LotusD":
            facts.model_info(model)
    with pytest.raises(ValueError, match=r"^input `model`.*Lotus \(IMG_TO_IMG\)"):
        facts.model_info(without_network("LotusD"))
