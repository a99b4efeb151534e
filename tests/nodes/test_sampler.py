"""VIPaint Sampler in the host's Sampler Custom nodes, and VIPaint Sigmas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from family_cases import with_everything


@pytest.fixture(autouse=True)
def short(request) -> None:
    """Presets of few steps, but for the toy model."""
    if "toy" not in request.node.name:
        request.getfixturevalue("short_presets")


@pytest.fixture
def stock(comfyui):
    """The host's nodes for samplers."""
    from comfy_extras import nodes_custom_sampler

    return nodes_custom_sampler


@pytest.fixture
def latent(tiny, picture):
    """Three rows of one picture whose right half is painted."""
    image, mask = picture
    with torch.inference_mode():
        samples = tiny.vae.encode(image)
    return {"samples": samples.repeat(3, 1, 1, 1), "noise_mask": mask[:, None]}


@pytest.fixture
def run(pack, stock, tiny, conditioning, latent):
    """Output and denoised output of Sampler Custom with VIPaint Sampler at the preset's own levels."""

    def sample(preset="fast", sigmas=None, gradients="auto", **changes):
        inputs = {"model": tiny.model, "latent_image": latent, "add_noise": True, "noise_seed": 3, "cfg": 1.0}
        inputs = {**inputs, "positive": conditioning[0], "negative": conditioning[1], **changes}
        with torch.inference_mode():
            if sigmas is None:
                sigmas = levels(pack, inputs["model"], inputs["latent_image"], preset)[0]
            if "sampler" not in inputs:
                (inputs["sampler"],) = pack.sampler.VIPaintSampler.execute(preset, gradients).result
            return stock.SamplerCustom.execute(sigmas=sigmas, **inputs).result

    return sample


def levels(pack, model, latent, preset="fast", **settings):
    """SIGMAS for VIPaint Sampler, and those that are left."""
    return pack.sigmas.VIPaintSigmas.execute(model, latent, preset, **settings).result


def observed(tiny_info, samples):
    """The left half in model scale."""
    return tiny_info.to_model_scale(samples)[..., :3]


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_it_is_the_core_s_own_descent(pack, tiny, tiny_info, conditioning, latent, open_denoiser, run, preset):
    """From the host's noise, with a noise stream a row, at the guidance of the host's guider."""
    import comfy.sample

    core, preset_of = pack.core, pack.core.PRESETS[preset]
    out, denoised = run(preset, cfg=3.0)
    samples = tiny_info.to_model_scale(latent["samples"]).clone()
    weight = torch.zeros(3, 1, 8, 6)
    weight[..., :3] = 1
    observation = core.LatentObservation.masked(samples, weight)
    with torch.inference_mode():
        sigmas, _ = levels(pack, tiny.model, latent, preset)
    steps = [float(sigma / (1 - sigma)) for sigma in sigmas.double()]
    start = core.HierarchicalPosterior.initial(observation, steps[:1])
    states = start.mu[0] + start.log_tau[0].exp() * comfy.sample.prepare_noise(samples, 3)
    estimates = torch.zeros_like(samples)
    method = core.descent_method(preset_of, steps, states, estimates)
    expected = open_denoiser(
        tiny.model,
        conditioning,
        lambda denoiser: core.draw_fills(denoiser, observation, method, 3, 1).latents,
        cfg=3.0,
        shape=(3, 16, 8, 6),
        gradient=preset_of.needs_gradient,
    )
    torch.testing.assert_close(tiny_info.to_model_scale(out["samples"]), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tiny_info.to_model_scale(denoised["samples"]), estimates, rtol=1e-4, atol=1e-4)
    # Rows are fills: alike where something is seen only.
    first, second, _ = out["samples"]
    assert (first - second)[..., 3:].abs().max() > 0.1
    assert torch.equal(run(preset, cfg=3.0)[0]["samples"], out["samples"])


GUIDERS = ("basic", "cfg", "dual", "perp_neg", "nag", "everything", "hooks", "two_models")


def guider_of(kind, stock, case):
    """A guider of the host's."""
    from comfy_extras import nodes_nag, nodes_perpneg

    if kind == "everything":
        case = with_everything(case)
    if kind == "hooks":
        case = with_hooks(case)
    model, positive, negative, third = case.model, case.positive, case.negative, prompt_of(case)
    if kind == "nag":
        (model,) = nodes_nag.NAGuidance.execute(model, 5.0, 0.5, 1.5).result
    makers = {
        "basic": lambda: stock.BasicGuider.execute(model, positive),
        **dict.fromkeys(
            ("cfg", "everything", "hooks"), lambda: stock.CFGGuider.execute(model, positive, negative, 3.0)
        ),
        "nag": lambda: stock.CFGGuider.execute(model, positive, negative, 1.0),
        "dual": lambda: stock.DualCFGGuider.execute(model, positive, third, negative, 3.0, 2.0, "regular"),
        "perp_neg": lambda: nodes_perpneg.PerpNegGuider.execute(model, positive, negative, third, 3.0, 1.0),
        "two_models": lambda: stock.DualModelGuider.execute(model, positive, 3.0, model.clone(), negative),
    }
    (guider,) = makers[kind]().result
    return guider


def with_hooks(case):
    """A LoRA that only the positive prompt sees."""
    import comfy.hooks

    name = "diffusion_model.x_embedder.proj.weight"
    weight = dict(case.model.model.named_parameters())[name]
    hooks = comfy.hooks.create_hook_model_as_lora(None, None, 0.0, 0.0)
    hook = hooks.hooks[0]
    hook.weights, hook.need_weight_init, hook._strength_model = {name: (0.5 * weight.clone(),)}, False, 1.0
    return replace(case, positive=comfy.hooks.set_hooks_for_conditioning(case.positive, hooks))


def prompt_of(case):
    return [[tensor + 0.5, options] for tensor, options in case.positive]


@pytest.mark.parametrize(
    ("kind", "gradient"), [(kind, False) for kind in GUIDERS] + [(kind, True) for kind in GUIDERS[:-1]]
)
def test_every_guider_guides(pack, stock, load_family, kind, gradient):
    """Asked by VIPaint, a guider answers as it answers the host's own samplers; with gradients, of that answer."""
    import comfy.samplers

    case = load_family("sd3")
    host, info = pack.host, pack.host.model_info.model_info(case.model)
    shape, u, s = case.shape(2), torch.randn(case.shape(2)), torch.full((2,), 1.0)
    found = {}

    def draw(run):
        inputs = host.sampler.RunningGuider(run.guider, info, 0, "full")
        found["others"] = inputs.has_other_models

        def work(denoiser, device):
            if not gradient:
                return denoiser(u.to(device), s.to(device)).cpu(), None
            with denoiser.gradients():
                point = u.to(device).requires_grad_()
                x0 = denoiser(point, s.to(device))
                (slope,) = torch.autograd.grad(x0.square().sum(), point)
            return x0.detach().cpu(), slope.cpu()

        found["x0"], found["slope"] = host.denoiser.open_denoiser(inputs, work, shape=shape, gradient=gradient)
        return run.latents

    class Once(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs):
            def answer(z):
                return model_wrap(z.to(noise.device), torch.full((2,), 0.5).to(noise.device), **extra_args).cpu()

            step = 1e-3 * torch.ones(shape)
            found["own"], found["beside"] = answer(u / 2), answer((u + step) / 2)
            return noise

    with torch.inference_mode():
        guider = guider_of(kind, stock, case)
        for sampler in (Once(), host.sampler.FunctionSampler(draw), Once()):
            guider.sample(torch.zeros(shape), torch.zeros(shape), sampler, torch.linspace(1, 0, 3), seed=0)
    torch.testing.assert_close(found["x0"], found["own"], rtol=1e-4, atol=1e-4)
    assert found["others"] == (kind == "two_models")
    if kind in ("nag", "everything", "hooks"):
        # What is added to model or prompts counts.
        once = Once()
        with torch.inference_mode():
            guider_of("cfg", stock, case).sample(torch.zeros(shape), torch.zeros(shape), once, torch.linspace(1, 0, 3))
        assert (found["x0"] - found["own"]).abs().max() > 1e-3
    if gradient:
        change = float((found["beside"].square() - found["own"].square()).sum())
        assert float(1e-3 * found["slope"].sum()) == pytest.approx(change, rel=0.1, abs=2e-2)


@pytest.mark.parametrize("kind", GUIDERS)
def test_sampler_custom_advanced_takes_every_guider(pack, stock, load_family, kind, caplog):
    caplog.set_level("INFO")
    case = load_family("sd3")
    latent = {"samples": torch.randn(case.shape(2)), "noise_mask": torch.ones(1, 1, *case.size)}
    latent["noise_mask"][..., : case.size[1] // 2] = 0
    with torch.inference_mode():
        (sampler,) = pack.sampler.VIPaintSampler.execute("balanced").result
        sigmas, _ = levels(pack, case.model, latent, "balanced")
        guider = guider_of(kind, stock, case)
        out, denoised = stock.SamplerCustomAdvanced.execute(
            stock.Noise_RandomNoise(1), guider, sampler, sigmas, latent
        ).result
    assert out["samples"].shape == case.shape(2) and torch.isfinite(out["samples"]).all()
    torch.testing.assert_close(out["samples"], denoised["samples"])
    assert ("without backward passes" in caplog.text) == (kind == "two_models")


@pytest.mark.parametrize("name", ["sd3", "sd15", "qwen-image"])
def test_families(pack, stock, load_family, name):
    """With and without an axis of frames, diffusion and flow; levels are the core's both ways."""
    case = load_family(name)
    info = pack.host.model_info.model_info(case.model)
    latents = info.add_frame_axis(torch.randn(case.shape(2)))
    mask = torch.ones(1, 1, *case.size)
    mask[..., : case.size[1] // 2] = 0
    latent = {"samples": latents, "noise_mask": mask}
    with torch.inference_mode():
        sigmas, rest = levels(pack, case.model, latent, "balanced")
        (sampler,) = pack.sampler.VIPaintSampler.execute("balanced").result
        out, _ = stock.SamplerCustom.execute(
            case.model, True, 0, 3.0, case.positive, case.negative, sampler, sigmas, latent
        ).result
    expected = pack.core.PRESETS["balanced"].levels((min(30.0, info.largest_level),))
    assert [pack.sampler.level_of(info, float(sigma)) for sigma in sigmas] == pytest.approx(expected, rel=1e-4)
    assert rest.tolist() == [0.0]
    assert out["samples"].shape == latents.shape and torch.isfinite(out["samples"]).all()
    moved = info.drop_frame_axis(info.to_model_scale(out["samples"])) - info.to_model_scale(latents)
    assert moved[..., : case.size[1] // 2].abs().max() < 0.2 < moved[..., case.size[1] // 2 :].abs().max()


@pytest.mark.parametrize("scheduler", ["simple", "karras", "beta", "ddim_uniform"])
def test_any_sigmas(stock, tiny, tiny_info, latent, run, scheduler):
    with torch.inference_mode():
        (sigmas,) = stock.BasicScheduler.execute(tiny.model, scheduler, 6, 1.0).result
    out, _ = run("balanced", sigmas)
    assert torch.isfinite(out["samples"]).all()
    assert (observed(tiny_info, out["samples"]) - observed(tiny_info, latent["samples"])).abs().max() < 0.3


def test_lower_sigmas_keep_what_is_in_the_hole(pack, tiny, tiny_info, latent, run):
    """As KSampler's denoise does, and `strength`; from the top nothing hidden counts."""
    whole = run()[0]["samples"]
    other = {**latent, "samples": latent["samples"].clone()}
    other["samples"][..., 3:] += 1
    torch.testing.assert_close(run(latent_image=other)[0]["samples"], whole)
    with torch.inference_mode():
        low, _ = levels(pack, tiny.model, latent, strength=0.1)
    little, another = run(sigmas=low)[0]["samples"], run(sigmas=low, latent_image=other)[0]["samples"]
    distance = [(fills - latent["samples"])[..., 3:].abs().mean() for fills in (little, whole)]
    assert distance[0] < 0.5 * distance[1]
    assert (another - little)[..., 3:].mean() > 0.5


@pytest.mark.parametrize("name", ["sd3", "sd15"])
def test_another_sampler_takes_over(pack, stock, load_family, name):
    """VIPaint stops at a level; a stock sampler goes on from its state without a mask, or from its estimate with it."""
    from comfy.samplers import sampler_object

    case = load_family(name)
    info = pack.host.model_info.model_info(case.model)
    mask = torch.ones(1, 1, *case.size)
    mask[..., : case.size[1] // 2] = 0
    latent = {"samples": torch.randn(case.shape(2)), "noise_mask": mask}

    def sample(sampler, sigmas, latent, add_noise=True):
        return stock.SamplerCustom.execute(
            case.model, add_noise, 0, 1.0, case.positive, case.negative, sampler, sigmas, latent
        ).result

    with torch.inference_mode():
        ours, rest = levels(pack, case.model, latent, "balanced", stop_at=0.7)
        stop = pack.host.model_info.level_of_strength(case.model, info.coordinate, 0.3)
        found = [pack.sampler.level_of(info, float(sigmas[place])) for sigmas, place in ((ours, -1), (rest, 0))]
        assert found == pytest.approx([stop, stop], rel=1e-4) and rest[-1] == 0
        (sampler,) = pack.sampler.VIPaintSampler.execute("balanced").result
        state, estimate = sample(sampler, ours, latent)
        euler = sampler_object("euler")
        plain, _ = sample(euler, rest, {"samples": state["samples"]}, add_noise=False)
        masked, _ = sample(euler, rest, estimate)
    # The state is the picture in noise of that level, the estimate is the picture.
    half = slice(0, case.size[1] // 2)
    noise = info.to_model_scale(state["samples"]) - info.to_model_scale(latent["samples"])
    assert noise[..., half].std() == pytest.approx(stop, rel=0.35)
    for fills in (estimate, masked):
        torch.testing.assert_close(
            info.to_model_scale(fills["samples"])[..., half],
            info.to_model_scale(latent["samples"])[..., half],
            atol=0.25,
            rtol=0,
        )
    assert all(torch.isfinite(fills["samples"]).all() for fills in (plain, masked))
    assert (plain["samples"] - state["samples"]).abs().max() > 0.01


def test_every_row_has_its_own_picture_and_mask(pack, tiny, tiny_info, picture, run):
    image, mask = picture
    masks = torch.cat([mask, mask.flip(2), 0 * mask])[:, None]
    with torch.inference_mode():
        samples = tiny.vae.encode(torch.cat([image, 1 - image, image.flip(1)]))
    latent = {"samples": samples, "noise_mask": masks}
    out, _ = run(latent_image=latent)
    moved = tiny_info.to_model_scale(out["samples"]) - tiny_info.to_model_scale(samples)
    assert moved[0, ..., :3].abs().max() < 0.2 < moved[0, ..., 3:].abs().max()
    assert moved[1, ..., 3:].abs().max() < 0.2 < moved[1, ..., :3].abs().max()
    assert moved[2].abs().max() < 1e-5
    first = {"samples": samples[:1], "noise_mask": masks[:1]}
    torch.testing.assert_close(run(latent_image=first)[0]["samples"], out["samples"][:1], rtol=1e-4, atol=1e-4)


def test_without_a_mask_everything_is_painted(tiny_info, latent, run, caplog):
    out, _ = run(latent_image={"samples": latent["samples"]})
    assert "no noise mask" in caplog.text
    assert (observed(tiny_info, out["samples"]) - observed(tiny_info, latent["samples"])).abs().max() > 0.5


def test_jpeg_masks_are_snapped(latent, run):
    noisy = {**latent, "noise_mask": latent["noise_mask"] * 0.94 + 0.03}
    torch.testing.assert_close(run(latent_image=noisy)[0]["samples"], run()[0]["samples"])


def test_progress_previews_and_the_host_s_state(run, latent, tiny, conditioning, monkeypatch):
    """The host's callback hears of every pass, of all rows at last; KSampler paints as before."""
    import comfy.sample
    import latent_preview

    heard, prepare = [], latent_preview.prepare_callback

    def spied(model, steps, x0_output=None):
        callback = prepare(model, steps, x0_output)

        def spy(step, x0, x, total):
            heard.append((step, len(x0), total))
            callback(step, x0, x, total)

        return spy

    def ksampler():
        with torch.inference_mode():
            noise = comfy.sample.prepare_noise(latent["samples"], 0)
            return comfy.sample.sample(
                tiny.model, noise, 2, 2.0, "euler", "simple", *conditioning, latent["samples"], seed=0
            )

    before = ksampler()
    monkeypatch.setattr(latent_preview, "prepare_callback", spied)
    run("balanced")
    assert [step for step, *_ in heard] == list(range(len(heard))) and heard[-1][1] == 3
    assert all(total == len(heard) for *_, total in heard)
    assert torch.equal(ksampler(), before)


def test_it_can_be_cancelled(run, monkeypatch):
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run("balanced")
    comfy.model_management.interrupt_current_processing(False)
    assert torch.isfinite(run("balanced")[0]["samples"]).all()


@pytest.mark.parametrize(
    ("sigmas", "words"),
    [
        ([0.5, 0.9, 0.0], "at least two levels that fall, found 3: 0.5, 0.9, 0"),
        ([0.5], "at least two levels that fall, found 1"),
        ([0.9, 0.9], "at least two levels that fall"),
        ([math.nan, 0.0], "at least two levels that fall"),
    ],
)
def test_sigmas_that_do_not_fall_are_refused(run, sigmas, words):
    with pytest.raises(ValueError, match=rf"VIPaint Sampler, input `sigmas`: expected .*{words}"):
        run(sigmas=torch.tensor(sigmas))


def test_a_zero_twice_is_a_zero(run, pack, tiny, latent):
    with torch.inference_mode():
        sigmas, _ = levels(pack, tiny.model, latent)
    twice = torch.cat([sigmas, torch.zeros(1)])
    torch.testing.assert_close(run(sigmas=twice)[0]["samples"], run(sigmas=sigmas)[0]["samples"])


def test_conditioning_that_differs_by_row_is_refused(run, conditioning):
    several = [[cross.repeat(3, 1, 1), options] for cross, options in conditioning[0]]
    with pytest.raises(ValueError, match=r"VIPaint Sampler, input `positive`.*batch of 3 prompts"):
        run(positive=several)


def test_latents_that_are_not_finite_are_refused(pack, tiny, run, latent):
    broken = {**latent, "samples": latent["samples"] * math.nan}
    with torch.inference_mode():
        sigmas, _ = levels(pack, tiny.model, latent)
    with pytest.raises(ValueError, match=r"VIPaint Sampler, input `latent_image`.*NaN"):
        run(sigmas=sigmas, latent_image=broken)


def test_sigmas_refuse_a_stop_before_the_start(pack, tiny, latent):
    with pytest.raises(ValueError, match=r"VIPaint Sigmas, input `stop_at`"):
        levels(pack, tiny.model, latent, strength=0.2, stop_at=0.3)


def test_sigmas_of_larger_latents_are_higher(pack, tiny):
    small, large = (
        levels(pack, tiny.model, {"samples": torch.zeros(1, 16, side, side)}, "balanced")[0][0] for side in (16, 64)
    )
    assert float(large / (1 - large)) == pytest.approx(4 * float(small / (1 - small)), rel=1e-3)


def test_fills_of_the_toy_model_agree_with_what_is_visible(pack, stock):
    """As those of VIPaint Inpaint, in a picture of which the hidden half is another one's."""
    from benchmarks.portraits.prior import held_out, prior
    from benchmarks.toy import judge
    from toy_prior import CHECKPOINT, model, pictures

    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    truth, hole = held_out(1), pictures.hole("right")
    original = pictures.render(truth)
    with torch.inference_mode():
        shown = pack.observation.fill_from_nearest(original.movedim(1, -1), hole.float()[None, None])
        samples = prior().vae.encode(shown).repeat(4, 1, 1, 1)
        latent = {"samples": samples, "noise_mask": hole.float()[None, None]}
        prompt = pack.host.text_inputs.zero_conditioning(prior().model)
        sigmas, _ = levels(pack, prior().model, latent, "fast")
        (sampler,) = pack.sampler.VIPaintSampler.execute("fast").result
        out, _ = stock.SamplerCustom.execute(
            prior().model, True, 0, 1.0, prompt, prompt, sampler, sigmas, latent
        ).result
        score = judge(model.decode(prior().vae, out["samples"]), truth, original, hole, 4)
    assert score["both"] == 1
