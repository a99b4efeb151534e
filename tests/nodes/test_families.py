"""Every model family that a tiny network can stand for, through the host's own loaders and nodes."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tools import in_process

maker = in_process.load_module("vipaint_tiny_checkpoints", in_process.ROOT / "tests" / "tiny_checkpoints.py")

ALL = tuple(maker.FAMILIES)
PIXELS = "radiance", "z-image-pixel", "pixeldit"
# They round pixels to float32 whatever the precision of their weights is.
SINGLE = "radiance", "z-image-pixel"
# PixArt's positions divide by zero on smaller ones.
SIZES = {"pixart": (34, 32)}
LEVELS, STEP = (0.8, 3.0), 2.0**-8


@pytest.fixture(scope="module", params=ALL)
def family(request, pack, tmp_path_factory):
    """`name`, `model` and `vae` as the host loads them, in inference mode; `positive` and `negative` prompts."""
    import comfy.sd

    known = maker.FAMILIES[request.param]
    with torch.inference_mode():
        if known.loads:
            path = maker.make(known, tmp_path_factory.mktemp("families") / f"{request.param}.safetensors")
            model, _, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), output_clip=False)
            path.unlink()
        else:
            model, vae = maker.patcher(known), None
        positive, negative = prompt(pack, model, 3), prompt(pack, model, 4)
    size = (8, 12) if request.param in PIXELS else SIZES.get(request.param, (4, 6))
    yield SimpleNamespace(
        name=request.param, model=model, vae=vae, positive=positive, negative=negative, cfg=3.0, size=size
    )
    import comfy.model_management

    comfy.model_management.unload_all_models()


def prompt(pack, model, seed):
    """A random prompt of the shapes that VIPaintUnconditional finds."""
    generator = torch.Generator().manual_seed(seed)
    ((tokens, options),) = pack.unconditional.unconditional(model)
    options = {key: torch.randn(value.shape, generator=generator) for key, value in options.items()}
    return [[torch.randn(1, 5, tokens.shape[-1], generator=generator), options]]


def shape(case, rows=1):
    return rows, case.model.get_model_object("latent_format").latent_channels, *case.size


def opened(pack, case, work, gradient, rows=1, mode="full"):
    return pack.open_denoiser(
        case.model,
        case.positive,
        case.negative,
        cfg=case.cfg,
        shape=shape(case, rows),
        seed=0,
        gradient=gradient,
        work=work,
        mode=mode,
    )


@contextlib.contextmanager
def float64(*networks):
    """The host casts what it gives to a network to the network's precision; the result it rounds to float32."""
    import comfy.model_management

    def convert(dtype):
        for network in networks:
            network.to(dtype).dtype = dtype
            comfy.model_management.archive_model_dtypes(network)

    # Weights that a LoRA has changed are put back first.
    comfy.model_management.unload_all_models()
    with torch.inference_mode():
        convert(torch.float64)
    try:
        yield
    finally:
        comfy.model_management.unload_all_models()
        with torch.inference_mode():
            convert(torch.float32)


def directional_error(pack, case, rows=1):
    """The bound's derivative along a random direction of its means against a central difference, relative."""
    core, generator = pack.core, torch.Generator().manual_seed(1)

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    seen = torch.ones(rows, 1, *case.size, dtype=torch.float64)
    seen[..., case.size[1] // 2 :] = 0
    observation = core.Observation(normal(*shape(case, rows)), seen)
    posterior = core.HierarchicalPosterior.initial(observation, LEVELS)
    noise = [normal(*shape(case, rows)) for _ in LEVELS]
    direction = normal(*posterior.mu.shape) * torch.tensor(LEVELS).reshape(-1, 1, 1, 1, 1)

    def work(denoiser, _place, _device):
        counted = core.denoiser.Counted(denoiser, "fit", 0, None)

        def value(mu):
            return core.objective.negative_bound(counted, replace(posterior, mu=mu), observation, noise).total.sum()

        # Outside of it, and where autograd has nothing to follow, the host runs kernels that know no float64.
        with denoiser.gradients():
            mu = posterior.mu.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(mu), mu)
            ahead, behind = (value(mu + step * direction).detach() for step in (STEP, -STEP))
        numeric = (ahead - behind) / (2 * STEP)
        along = gradient * direction
        assert gradient[..., case.size[1] // 2 :].abs().amin() > 0, "hidden cells reach the bound through the network"
        return float((along.sum() - numeric).abs() / along.norm())

    return opened(pack, case, work, gradient=True, rows=rows)


def predict(pack, case, gradient, s=1.5):
    """The first prediction of a denoiser that has just been opened."""
    u = torch.randn(shape(case), generator=torch.Generator().manual_seed(2))

    def work(denoiser, _place, _device):
        with denoiser.gradients() if gradient else contextlib.nullcontext(), torch.no_grad():
            return denoiser(u, torch.tensor([s])).clone()

    return opened(pack, case, work, gradient)


def unguided(case):
    return SimpleNamespace(**{**vars(case), "cfg": 1.0})


def with_lora(case):
    """A LoRA on all attention layers, loaded by the host from the names that its files have."""
    import comfy.sd

    generator, tensors = torch.Generator().manual_seed(6), {}
    for name, weight in case.model.model.diffusion_model.named_parameters():
        if weight.ndim == 2 and name.endswith(".weight") and ("attn" in name or "attention" in name):
            stem = f"diffusion_model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_up.weight"] = torch.randn(len(weight), 2, generator=generator) / 8
            tensors[f"{stem}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator) / 8
    model, _ = comfy.sd.load_lora_for_models(case.model, None, tensors, 1.0, 0.0)
    return SimpleNamespace(**{**vars(case), "model": model})


def with_area(case):
    """A second prompt for a third of the picture, strong in the middle of it."""
    import nodes

    # The node counts in pixels, at 8 a cell.
    height, third = 8 * case.size[0], 8 * case.size[1] // 3
    (other,) = nodes.ConditioningSetArea().append(case.negative, third, height, third, 0, 1.0)
    return SimpleNamespace(**{**vars(case), "positive": [*case.positive, *other]})


def with_rescaled_guidance(case):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    (model,) = RescaleCFG().patch(case.model, 0.7)
    return SimpleNamespace(**{**vars(case), "model": model})


def with_control(case):
    import nodes

    control = maker.controlnet(maker.FAMILIES[case.name])
    hint = torch.rand(1, 8 * case.size[0], 8 * case.size[1], 3, generator=torch.Generator().manual_seed(7))
    if case.name == "sd3":
        # Its ControlNets read latents.
        hint = case.vae.encode(hint).movedim(1, -1)
    apply = nodes.ControlNetApplyAdvanced().apply_controlnet
    positive, negative = apply(case.positive, case.negative, control, hint, 0.8, 0.0, 1.0)
    changed = {"positive": positive, "negative": negative, "control": control.control_model}
    return SimpleNamespace(**{**vars(case), **changed})


def with_inpainting(case):
    """Mask and picture in the channels that inpainting networks have beside the latent."""
    import nodes

    generator = torch.Generator().manual_seed(8)
    pixels = torch.rand(1, 8 * case.size[0], 8 * case.size[1], 3, generator=generator)
    mask = torch.zeros(pixels.shape[:3])
    mask[..., mask.shape[-1] // 2 :] = 1
    encode = nodes.InpaintModelConditioning().encode
    positive, negative, _ = encode(case.positive, case.negative, pixels, case.vae, mask)
    return SimpleNamespace(**{**vars(case), "positive": positive, "negative": negative})


def with_sizes(case):
    """The sizes that SDXL is told, as its text encoding node sets them."""
    import node_helpers

    sizes = {"width": 640, "height": 480, "crop_w": 8, "crop_h": 0, "target_width": 512, "target_height": 512}
    positive = node_helpers.conditioning_set_values(case.positive, sizes)
    return SimpleNamespace(**{**vars(case), "positive": positive})


def with_everything(case):
    return with_control(with_area(with_lora(case)))


LIGHT = "sd3", "flux", "schnell", "krea2", "chroma", "radiance", "lumina2", "z-image", "qwen-image", "cosmos"
VARIANTS = {
    "guided": (lambda case: case, [name for name in ALL if name != "sdxl"]),
    "unguided": (unguided, LIGHT),
    "lora": (with_lora, ["sd15", *LIGHT]),
    "area": (with_area, ["sd15", *LIGHT]),
    "rescaled": (with_rescaled_guidance, ["sd15", "sd2"]),
    "control": (with_control, ["sd15", "sd3", "flux"]),
    "everything": (with_everything, ["sdxl"]),
    "inpainting": (with_inpainting, ["sd15-inpaint", "flux-fill"]),
}
CASES = [(name, variant) for name in ALL for variant, (_, names) in VARIANTS.items() if name in names]


def autoencoder(case):
    """What goes with a family that has no file: pixels as they are, the films' autoencoder, or TAESD's layout."""
    import comfy.sd

    latents = case.model.get_model_object("latent_format")
    if case.name in PIXELS:
        return comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    tensors = maker.wan_vae() if latents.latent_dimensions == 3 else maker.taesd(latents.latent_channels)
    return comfy.sd.VAE(sd=tensors)


@pytest.mark.parametrize(
    ("family", "preset"),
    [
        ("pixeldit", "balanced"),
        ("qwen-image", "balanced"),
        ("qwen-image", "fast"),
        ("chroma", "fast"),
        ("z-image", "fast"),
    ],
    indirect=["family"],
)
def test_families_without_files_paint_through_the_nodes(pack, family, preset):
    """Two pictures at once, whose order an autoencoder of films must not take for time."""
    generator = torch.Generator().manual_seed(9)
    side = 16 if family.name in PIXELS else 32
    pictures = torch.rand(2, side, side, 3, generator=generator)
    mask = torch.zeros(1, side, side)
    mask[..., side // 2 :] = 1
    with torch.inference_mode():
        vae = autoencoder(family)
        prompts = {"positive": family.positive, "negative": family.negative, "cfg": 1.0, "seed": 0}
        inputs = {**prompts, "preset": preset, "fills": 2, "image": pictures, "mask": mask, "vae": vae}
        latent, posterior = pack.inpaint.VIPaintInpaint.execute(family.model, **inputs).result
        (again,) = pack.sample.VIPaintSample.execute(family.model, posterior=posterior, fills=2, **prompts).result
        alone = pack.inpaint.VIPaintInpaint.execute(family.model, **{**inputs, "image": pictures[1:]}).result[1]
        decoded = vae.decode(latent["samples"]).reshape(4, side, side, 3)
    torch.testing.assert_close(again["samples"], latent["samples"])
    assert latent["samples"].ndim == 4 + pack.bridge.has_frame(family.model)
    assert torch.isfinite(decoded).all()
    # The second picture's latent is its own, whatever comes before it.
    torch.testing.assert_close(posterior.observation.latent[1:], alone.observation.latent, rtol=1e-4, atol=1e-4)
    fills = pack.bridge.to_model_scale(family.model, latent["samples"].clone()).unflatten(0, (2, 2))
    kept, painted = fills.chunk(2, -1)
    seen = posterior.observation.latent.chunk(2, -1)[0][:, None]
    # A cell beside the hole is moved by what the encoder owes to the filler.
    assert (kept - seen)[..., :-1].abs().max() < 0.1
    assert (painted[:, 0] - painted[:, 1]).abs().amax((1, 2, 3)).min() > 0.1


@pytest.mark.parametrize("family", ["pixeldit", "qwen-image"], indirect=True)
def test_families_restore_through_their_autoencoders(pack, family):
    """Pixels as they are, and the decoder of films, whose latents have means and deviations: gradients and pictures."""
    with torch.inference_mode():
        vae = autoencoder(family)
    latents, weights = torch.randn(shape(family, 2)), torch.randn(2, 3, 7, 11)
    decoder = pack.decoder.HostDecoder(family.model, vae, (7, 11))

    def work(*_):
        def value(at):
            return (decoder(at) * weights).double().sum()

        with decoder.gradients():
            point = latents.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(point), point)
        step = gradient / gradient.norm()
        return float(gradient.norm()), float(value(latents + step) - value(latents - step)) / 2

    inputs = {"cfg": 1.0, "shape": tuple(latents.shape), "seed": 0, "gradient": True, "beside": [decoder.patcher]}
    found, numeric = pack.open_denoiser(family.model, family.positive, family.negative, work=work, **inputs)
    assert found > 1e-3 and found == pytest.approx(numeric, rel=2e-2)
    small = {"degradation": "super-resolution", "factor": "2", "kind": "area"}
    inputs = {
        "seed": 0,
        "cfg": 1.0,
        "fills": 2,
        "steps": 4,
        "attempts": 1,
        "degradation": small,
        "noise": 0.0,
        "vae": vae,
    }
    with torch.inference_mode():
        run = pack.restore.VIPaintRestore.execute
        latent, images = run(
            family.model, family.positive, family.negative, image=torch.rand(1, 8, 8, 3), **inputs
        ).result
        shown = vae.decode(latent["samples"]).reshape(images.shape)
    assert images.shape == (2, 16, 16, 3) and torch.equal(images, shown) and torch.isfinite(images).all()


def test_a_diffusion_model_without_autoencoder_is_the_same(pack, tmp_path):
    """Load Diffusion Model and Load Checkpoint give one model."""
    import comfy.sd

    path = maker.make(maker.FAMILIES["flux"], tmp_path / "flux.safetensors")
    with torch.inference_mode():
        loaded = (
            comfy.sd.load_checkpoint_guess_config(str(path), output_clip=False)[0],
            comfy.sd.load_diffusion_model(str(path)),
        )
        prompts = [prompt(pack, loaded[0], seed) for seed in (3, 4)]
    cases = [
        SimpleNamespace(model=model, positive=prompts[0], negative=prompts[1], cfg=1.0, size=(4, 6)) for model in loaded
    ]
    assert torch.equal(*(predict(pack, case, gradient=True) for case in cases))


def networks(case):
    return [case.model.model.diffusion_model, *([case.control] if hasattr(case, "control") else [])]


def sampling_nodes():
    """Models that the host's nodes for sampling make of others: (family, node, arguments)."""
    discrete = [("sd15", "ModelSamplingDiscrete", (kind, zsnr)) for kind, zsnr in DISCRETE]
    edm = [("sd15", "ModelSamplingContinuousEDM", (kind, 120.0, 0.002)) for kind in EDM]
    rest = [
        ("sd15", "ModelSamplingContinuousV", ("v_prediction", 500.0, 0.03)),
        ("sd3", "ModelSamplingSD3", (8.0,)),
        ("sd3", "ModelSamplingAuraFlow", (1.73,)),
        ("sd3", "ModelNoiseScale", (7.5,)),
        ("flux", "ModelSamplingFlux", (1.15, 0.5, 512, 768)),
    ]
    return [*discrete, *edm, *rest]


DISCRETE = ("eps", True), ("v_prediction", False), ("v_prediction", True), ("lcm", False), ("x0", False)
EDM = "v_prediction", "edm", "edm_playground_v2.5", "eps", "cosmos_rflow"


def resampled(case, node, arguments):
    import comfy_extras.nodes_model_advanced as advanced

    made = getattr(advanced, node)()
    (model,) = getattr(made, made.FUNCTION)(case.model, *arguments)
    return SimpleNamespace(**{**vars(case), "model": model})


def check_coordinate(pack, case):
    """The adapter's map is the host's own way to add noise, and the prediction is the host's own at that point."""
    import comfy.samplers

    sampling, place = case.model.get_model_object("model_sampling"), pack.bridge.coordinate(case.model)
    highest = pack.bridge.largest_level(case.model)
    assert highest == math.inf if place.flow else 10 < highest < 5000
    x0, noise = (torch.randn(shape(case), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    for s in (0.05, 1.0, min(highest, 40.0)):
        u = (x0 + s * noise).double()
        z, sigma = place.to_host(u, s)
        time = torch.tensor([float(sigma) / place.noise_scale])
        torch.testing.assert_close(z.float(), sampling.noise_scaling(time, noise.clone(), x0), rtol=1e-5, atol=1e-5)
        again, level = place.from_host(z, sigma)
        torch.testing.assert_close(again, u)
        assert level == pytest.approx(s, rel=1e-9)

    class Once(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs):
            self.x0 = model_wrap(framed(z.float()).to(noise.device), time.to(noise.device), **extra_args).cpu()
            return noise

    def framed(latent):
        return latent.unsqueeze(2) if pack.bridge.has_frame(case.model) else latent

    once, zeros = Once(), framed(torch.zeros(shape(case)))
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(case.model)
        guider.set_conds(case.positive, case.negative)
        guider.set_cfg(case.cfg)
        guider.sample(zeros, zeros, once, torch.linspace(1, 0, 3), seed=0)
    ours = opened(pack, case, lambda d, _p, _v: d(u.float(), torch.tensor([s])), gradient=False)
    torch.testing.assert_close(framed(ours), once.x0.clone(), rtol=1e-4, atol=1e-4)


def test_coordinate_is_the_host_s_own(pack, family):
    check_coordinate(pack, family)


@pytest.mark.parametrize(("family", "node", "arguments"), sampling_nodes(), indirect=["family"])
def test_nodes_that_change_the_sampling(pack, family, node, arguments):
    with torch.inference_mode():
        case = resampled(family, node, arguments)
    check_coordinate(pack, case)
    with float64(*networks(case)):
        assert directional_error(pack, case) < 5e-4


@pytest.mark.parametrize("kind", ["img_to_img", "img_to_img_flow"])
@pytest.mark.parametrize("family", ["sd15"], indirect=True)
def test_networks_without_a_noise_level_are_refused(pack, family, kind):
    with pytest.raises(ValueError, match=r"N, input `model`.*SD15 \(EPS\).*IMG_TO_IMG"):
        pack.validation.check_model("N", resampled(family, "ModelSamplingDiscrete", (kind, False)).model)


OTHER_PRODUCTS = {
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
    return maker.patcher(maker.Family(config, network))


@pytest.mark.filterwarnings("ignore")
def test_models_that_make_no_single_pictures_are_refused_by_name(pack, comfyui):
    """Every family that the host knows is either painted with or refused for what it makes."""
    expected = {name: product for product, names in OTHER_PRODUCTS.items() for name in names.split()}
    assert expected.keys() <= set(known_families())
    for name in known_families():
        model = without_network(name)
        assert pack.bridge.product(model) == expected.get(name, "pictures"), name
        if name in expected:
            family = re.escape(pack.bridge.family(model))
            with pytest.raises(ValueError, match=rf"N, input `model`.*{family}, which makes {expected[name]}"):
                pack.validation.check_model("N", model)
        elif name != "LotusD":
            pack.validation.check_model("N", model)
    with pytest.raises(ValueError, match=r"N, input `model`.*Lotus \(IMG_TO_IMG\)"):
        pack.validation.check_model("N", without_network("LotusD"))


def test_a_loaded_film_model_is_refused(pack, tmp_path):
    import comfy.sd

    path = maker.make(maker.WAN, tmp_path / "wan.safetensors")
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(path))
        empty = [[torch.zeros(1, 1, 8), {}]]
        inputs = {"model": model, "positive": empty, "negative": empty, "seed": 0, "cfg": 1.0, "fills": 1}
        for node, more in (
            (pack.inpaint.VIPaintInpaint, {**inputs, "preset": "fast"}),
            (pack.baseline.VIPaintBaseline, {**inputs, "method": {"method": "ding"}}),
            (pack.unconditional.VIPaintUnconditional, {"model": model}),
        ):
            with pytest.raises(ValueError, match=r"WAN21 \(FLOW\), which makes films"):
                node.execute(**more)


@pytest.mark.parametrize("family", ["sd15-inpaint"], indirect=True)
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"pooled_output": torch.zeros(2, 8)}, "pooled prompts"),
        ({"mask": torch.ones(3, 8, 8)}, "masks"),
        ({"concat_mask": torch.ones(2, 1, 8, 8)}, "inpainting masks"),
        ({"concat_latent_image": torch.zeros(2, 4, 8, 8)}, "inpainting pictures"),
    ],
)
def test_conditioning_that_differs_by_row_is_refused(pack, family, change, what):
    """The host would deal the rows out to fills of one picture."""
    tokens, options = family.positive[0]
    pack.validation.check_conditioning("N", "positive", family.positive)
    with pytest.raises(ValueError, match=rf"N, input `positive`.*one of the {what}.*a batch of [23] {what}"):
        pack.validation.check_conditioning("N", "positive", [[tokens, {**options, **change}]])


@pytest.mark.parametrize("family", ["sd15"], indirect=True)
def test_control_pictures_that_differ_by_row_are_refused(pack, family):
    """Also of a ControlNet below another."""
    import nodes

    apply, control = nodes.ControlNetApplyAdvanced().apply_controlnet, maker.controlnet(maker.FAMILIES["sd15"])
    positive, negative = family.positive, family.negative
    for pictures in (2, 1):
        hint = torch.rand(pictures, 32, 48, 3)
        positive, negative = apply(positive, negative, control, hint, 1.0, 0.0, 1.0)
        with pytest.raises(ValueError, match="a batch of 2 control pictures"):
            pack.validation.check_conditioning("N", "positive", positive)


def with_guidance(case):
    from comfy_extras.nodes_flux import FluxGuidance

    return SimpleNamespace(**{**vars(case), "positive": FluxGuidance.execute(case.positive, 9.0).result[0]})


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
def test_numbers_of_the_conditioning_reach_the_network(pack, family, change, counts):
    with torch.inference_mode():
        changed = change(family)
    for gradient in (False, True):
        moved = (predict(pack, changed, gradient) - predict(pack, family, gradient)).abs().max()
        assert moved > 1e-3 if counts else moved == 0


def test_offloaded_and_loaded_again_is_the_same(pack, family):
    """With an adapter, whose weights the host puts back when it offloads."""
    import comfy.model_management

    with torch.inference_mode():
        case = with_lora(family)
    before, gradient = predict(pack, case, gradient=False), jacobian_column(pack, case)
    for _ in range(2):
        comfy.model_management.unload_all_models()
        assert torch.equal(predict(pack, case, gradient=False), before)
        assert torch.equal(jacobian_column(pack, case), gradient)


def jacobian_column(pack, case):
    u = torch.randn(shape(case), generator=torch.Generator().manual_seed(2))

    def work(denoiser, _place, _device):
        with denoiser.gradients():
            point = u.clone().requires_grad_()
            return torch.autograd.grad(denoiser(point, torch.tensor([1.5]))[..., 0, 0].sum(), point)[0]

    return opened(pack, case, work, gradient=True)


@pytest.mark.parametrize(("family", "variant"), CASES, indirect=["family"])
def test_gradient_of_the_bound_agrees_with_finite_differences(pack, family, variant):
    with torch.inference_mode():
        case = VARIANTS[variant][0](family)
        before = predict(pack, family, gradient=False)
        # Adapters count from the first call, with gradients and without.
        changed = predict(pack, case, gradient=False)
        torch.testing.assert_close(predict(pack, case, gradient=True), changed, rtol=1e-4, atol=1e-4)
        assert variant == "guided" or (changed - before).abs().max() > 1e-3
    precise = contextlib.nullcontext() if family.name in SINGLE else float64(*networks(case))
    with precise:
        assert directional_error(pack, case) < 5e-4


def products(pack, case, mode, count=3):
    """x0 and products of its Jacobian with `count` random latents, of one graph."""
    generator = torch.Generator().manual_seed(2)
    u, *given = (torch.randn(shape(case, 2), generator=generator) for _ in range(1 + count))

    def work(denoiser, _place, _device):
        denoiser = pack.core.denoiser.Counted(denoiser, "sample", 1, None)
        with denoiser.gradients():
            point = u.clone().requires_grad_()
            x0 = denoiser(point, 1.5)
            return x0.detach(), [torch.autograd.grad(x0, point, v, retain_graph=True)[0] for v in given]

    return opened(pack, case, work, gradient=True, rows=2, mode=mode)


WRITES_INTO_INPUTS = {"sd15": with_control, "flux": with_control}


def test_checkpointed_gradients_are_exact(pack, family):
    """In every pass over the same graph, also where networks write into what they got."""
    with torch.inference_mode():
        case = WRITES_INTO_INPUTS.get(family.name, with_lora)(family)
    x0, expected = products(pack, case, "full")
    again, found = products(pack, case, "checkpointed")
    torch.testing.assert_close(again, x0)
    torch.testing.assert_close(found, expected)
    assert not any("forward" in vars(module) for network in networks(case) for module in network.modules())
