"""Step caches, of the host and as other extensions write them: left out, so that results are those without them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from unittest import mock

import pytest
import torch
from family_cases import opened

GRADIENT = pytest.mark.parametrize("gradient", [False, True])
CALLS = 6


class Cache:
    """Answers every second question with its input and an old difference."""

    def __init__(self):
        self.calls, self.difference, self.skipped = 0, None, 0

    def answer(self, x, ask):
        self.calls += 1
        if self.calls % 2 and self.difference is not None and self.difference.shape == x.shape:
            self.skipped += 1
            # As the host's: into the question.
            return x.add_(self.difference) if not x.requires_grad else x + self.difference
        found = ask()
        self.difference = found - x
        return found


# --- ways by which caches get into a model ---


def around_guider(model, cache):
    def wrapper(executor, x, *rest):
        return cache.answer(x, lambda: executor(x, *rest))

    model.add_wrapper("predict_noise", wrapper)


def around_conditions(model, cache):
    def wrapper(executor, network, conds, x, *rest):
        others = [torch.zeros_like(x) for _ in conds[1:]]
        return [cache.answer(x, lambda: executor(network, conds, x, *rest)[0]), *others]

    model.add_wrapper("calc_cond_batch", wrapper)


def around_model(model, cache):
    def wrapper(executor, x, *rest, **kwargs):
        return cache.answer(x, lambda: executor(x, *rest, **kwargs))

    model.add_wrapper("apply_model", wrapper)


def around_network(model, cache):
    def wrapper(executor, x, *rest, **kwargs):
        return cache.answer(x, lambda: executor(x, *rest, **kwargs))

    model.add_wrapper("diffusion_model", wrapper)


def around_function(model, cache):
    def wrapper(apply_model, given):
        return cache.answer(given["input"], lambda: apply_model(given["input"], given["timestep"], **given["c"]))

    model.set_model_unet_function_wrapper(wrapper)


class CachedBlocks(torch.nn.Module):
    """All blocks in a row as one, that runs the first only and takes the others' difference from the cache."""

    def __init__(self, blocks, cache):
        super().__init__()
        self.blocks, self.cache = blocks, cache

    def forward(self, x, *rest, **kwargs):
        return self.cache.answer(x, lambda: self.run(x, *rest, **kwargs))

    def run(self, x, *rest, **kwargs):
        for block in self.blocks:
            x = block(x, *rest, **kwargs)
        return x


def within_network(model, cache):
    """While the network runs, its blocks are others: TeaCache, WaveSpeed and their kin."""
    network = model.model.diffusion_model
    blocks = torch.nn.ModuleList([CachedBlocks(network.single_blocks, cache)])

    def wrapper(apply_model, given):
        with mock.patch.dict(network._modules, single_blocks=blocks):
            return apply_model(given["input"], given["timestep"], **given["c"])

    model.set_model_unet_function_wrapper(wrapper)


def around_sampler(model, cache):
    """What the sampler asks is not the guider."""

    def wrapper(executor, guider, *rest):
        def ask(x, sigma, **options):
            return cache.answer(x.clone(), lambda: guider(x, sigma, **options))

        return executor(ask, *rest)

    model.add_wrapper("sampler_sample", wrapper)


WAYS = (
    around_guider,
    around_conditions,
    around_model,
    around_network,
    around_function,
    within_network,
    around_sampler,
)


def answers(open_denoiser, case, gradient, model=None, calls=CALLS):
    """Estimates of states that change slowly at one level and, with gradients, those of their sums."""
    u = torch.randn(case.shape(2), generator=torch.Generator().manual_seed(2))

    def work(denoiser):
        found = []
        for call in range(calls):
            with denoiser.gradients() if gradient else contextlib.nullcontext():
                point = (u + 0.01 * call).requires_grad_(gradient)
                x0 = denoiser(point, torch.tensor([1.0, 1.0]))
                found.append(x0.detach().clone())
                if gradient:
                    found += torch.autograd.grad(x0.square().sum(), point)
        return found

    return opened(open_denoiser, replace(case, model=model or case.model, cfg=1.0), work, gradient, rows=2)


@GRADIENT
@pytest.mark.parametrize("way", WAYS)
def test_a_cache_is_found_wherever_it_sits(open_denoiser, load_family, messages, way, gradient):
    case, cache = load_family("flux"), Cache()
    model = case.model.clone()
    way(model, cache)
    expected = answers(open_denoiser, case, gradient)
    found = answers(open_denoiser, case, gradient, model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    # It would have: once, before it was found.
    assert cache.skipped == 1
    assert (
        sum("answers in place of the network (a step cache) and is left out" in message for message in messages()) == 1
    )


@GRADIENT
@pytest.mark.parametrize("way", [around_guider, around_network])
def test_a_cache_that_fails_at_another_size_is_left_out(open_denoiser, load_family, messages, way, gradient):
    """Its old difference has the size of before: finer and coarser grids take turns."""
    case, cache = load_family("flux"), Cache()

    def answer(x, ask):
        if cache.difference is not None:
            # Looks at what it has before it asks.
            cache.difference = cache.difference + 0 * x.detach()
        found = ask()
        cache.difference = (found - x).detach()
        return found

    cache.answer = answer
    model = case.model.clone()
    way(model, cache)

    def run(model):
        def work(denoiser):
            found = []
            for side in (4, 8, 4):
                with denoiser.gradients() if gradient else contextlib.nullcontext():
                    point = torch.linspace(-1, 1, 2 * 16 * 4 * side).reshape(2, 16, 4, side).requires_grad_(gradient)
                    x0 = denoiser(point, torch.tensor([1.0, 1.0]))
                    found += torch.autograd.grad(x0.square().sum(), point) if gradient else [x0.clone()]
            return found

        return opened(open_denoiser, replace(case, model=model, cfg=1.0, size=(4, 8)), work, gradient, rows=2)

    torch.testing.assert_close(run(model), run(case.model), rtol=1e-4, atol=1e-4)
    assert sum("is left out" in message for message in messages()) == 1


@GRADIENT
def test_wrappers_that_fail_are_named(pack, open_denoiser, load_family, gradient):
    def broken(executor, x, *rest, **kwargs):
        raise IndexError("no such step")

    case = load_family("flux")
    model = case.model.clone()
    model.add_wrapper("apply_model", broken)
    with pytest.raises(pack.host.failures.ModelError, match="IndexError: no such step") as caught:
        answers(open_denoiser, case, gradient, model)
    assert caught.value.extension == "`broken` of host/test_step_caches.py"


@GRADIENT
def test_caches_that_never_skip_hold_no_graph(open_denoiser, load_family, gradient):
    case, cache = load_family("flux"), Cache()
    cache.calls = -1000
    model = case.model.clone()
    around_network(model, cache)
    answers(open_denoiser, case, gradient, model, calls=1)
    assert cache.difference is not None and not cache.difference.requires_grad


def from_within(model, cache, _monkeypatch):
    """A patch that replaces a block: it cannot be told from the network's own changes."""

    def patch(given, extra):
        answer = cache.answer(given["img"], lambda: extra["original_block"](given)["img"])
        return {"img": answer}

    model.set_model_patch_replace(patch, "dit", "single_block", 0)


def instead_of_forward(model, cache, monkeypatch):
    """Whichever clone of the model runs."""
    network = model.model.diffusion_model
    forward = network.forward
    monkeypatch.setattr(
        network,
        "forward",
        lambda x, *rest, **kwargs: cache.answer(x, lambda: forward(x, *rest, **kwargs)),
        raising=False,
    )


@GRADIENT
@pytest.mark.parametrize(
    ("way", "named"), [(from_within, r" \(patches: dit\)"), (instead_of_forward, "")], ids=["replacement", "forward"]
)
def test_a_cache_that_cannot_be_left_out_is_refused(
    pack, open_denoiser, load_family, monkeypatch, way, named, gradient
):
    case, cache = load_family("flux"), Cache()
    model = case.model.clone()
    way(model, cache, monkeypatch)
    with pytest.raises(pack.errors.InputError, match=rf"input `model`.*skips blocks of it{named}\. Disconnect"):
        answers(open_denoiser, case, gradient, model)


# --- what is no cache ---


def louder(executor, x, *rest, **kwargs):
    return 1.1 * executor(x, *rest, **kwargs)


def louder_in_place(executor, x, *rest, **kwargs):
    return executor(x, *rest, **kwargs).mul_(1.1)


def moved(executor, x, *rest, **kwargs):
    return executor(x + 0.1, *rest, **kwargs)


def moved_in_place(executor, x, *rest, **kwargs):
    return executor(x.add_(0.1), *rest, **kwargs)


def twice(executor, x, *rest, **kwargs):
    return (executor(x, *rest, **kwargs) + executor(-x, *rest, **kwargs)) / 2


def by_itself(executor, *args, **kwargs):
    """Not the executor but what it wraps."""
    return executor.original(*args, **kwargs)


@GRADIENT
@pytest.mark.parametrize("place", ["apply_model", "diffusion_model"])
@pytest.mark.parametrize("wrapper", [louder, louder_in_place, moved, moved_in_place, twice, by_itself])
def test_wrappers_that_change_questions_or_answers_count(
    pack, open_denoiser, load_family, messages, monkeypatch, wrapper, place, gradient
):
    """As without the guard against caches, and with its gradients."""
    case = load_family("flux")
    model = case.model.clone()
    model.add_wrapper(place, wrapper)
    found = answers(open_denoiser, case, gradient, model, calls=3)
    assert not messages()
    monkeypatch.setattr(pack.host.step_caches, "_is_changed", lambda *_: False)
    expected = answers(open_denoiser, case, gradient, model, calls=3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def guided_by_skipped_layers(model, node):
    import comfy_extras.nodes_slg as slg

    given = {"start_percent": 0.1, "end_percent": 1.0, "double_layers": "", "single_layers": "0"}
    given |= {"scale": 2.0} if node == "SkipLayerGuidanceDiT" else {}
    return getattr(slg, node).execute(model, **given).result[0]


@GRADIENT
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("node", ["SkipLayerGuidanceDiT", "SkipLayerGuidanceDiTSimple"])
def test_blocks_left_out_on_purpose_stay_out(
    pack, open_denoiser, load_family, messages, monkeypatch, node, cached, gradient
):
    """Skip layer guidance, from a level on that is not the first; a cache beside it is still found."""
    case = replace(load_family("flux"), cfg=3.0)
    model = guided_by_skipped_layers(case.model, node)
    model.add_wrapper("apply_model", louder)
    u = torch.randn(case.shape(2), generator=torch.Generator().manual_seed(2))

    def run(model):
        def work(denoiser):
            found = []
            for s in (30.0, 1.0, 0.99, 0.98, 0.97, 0.96):
                with denoiser.gradients() if gradient else contextlib.nullcontext():
                    point = u.clone().requires_grad_(gradient)
                    x0 = denoiser(point, torch.tensor([s, s]))
                    found += torch.autograd.grad(x0.square().sum(), point) if gradient else [x0.clone()]
            return found

        return opened(open_denoiser, replace(case, model=model), work, gradient, rows=2)

    given, cache = model.clone(), Cache()
    if cached:
        around_guider(given, cache)
    found = run(given)
    assert cache.skipped == cached and len(messages()) == cached
    monkeypatch.setattr(pack.host.step_caches, "_is_changed", lambda *_: False)
    torch.testing.assert_close(found, run(model), rtol=1e-4, atol=1e-4)
    with pytest.raises(AssertionError):
        plain = case.model.clone()
        plain.add_wrapper("apply_model", louder)
        torch.testing.assert_close(found[1:], run(plain)[1:], rtol=1e-4, atol=1e-4)


def test_where_no_prompt_counts_nothing_is_missed(open_denoiser, load_family, messages):
    """A level at which all prompts are switched off: the network is not asked at all, as in a sampler of the host's."""
    import node_helpers

    case = load_family("flux")
    late = node_helpers.conditioning_set_values(case.positive, {"start_percent": 0.9, "end_percent": 1.0})
    model = case.model.clone()
    around_network(model, cache := Cache())
    found = answers(open_denoiser, replace(case, positive=late), False, model, calls=2)
    assert all(not x0.any() for x0 in found) and not cache.calls and not messages()


def test_the_caller_s_model_keeps_its_wrappers_and_no_hooks(open_denoiser, load_family):
    case, cache = load_family("flux"), Cache()
    model = case.model.clone()
    around_network(model, cache)
    before = repr(model.wrappers), repr(model.model_options)
    answers(open_denoiser, case, True, model)
    assert (repr(model.wrappers), repr(model.model_options)) == before
    assert not any(module._forward_pre_hooks for module in model.model.modules())


@pytest.mark.parametrize("node", ["EasyCacheNode", "LazyCacheNode"])
@pytest.mark.parametrize(
    ("preset", "gradients"), [("fast", "auto"), ("balanced", "jacobian_free"), ("paper-2", "full")]
)
@pytest.mark.parametrize("family", ["sd15", "qwen-image"], indirect=True)
def test_the_host_s_own_caches(pack, paint, short_presets, messages, family, preset, gradients, node):
    """Bit by bit as without them; gradients but for the order of their sums."""
    import comfy_extras.nodes_easycache as caches
    from family_cases import autoencoder

    with torch.inference_mode():
        (cached,) = getattr(caches, node).execute(family.model, 3.0, 0.0, 1.0, False).result
        vae = family.vae or autoencoder(family)
    given = {"positive": family.positive, "negative": family.negative, "cfg": 3.0, "preset": preset, "vae": vae}
    given["gradients"] = gradients
    expected = paint(model=family.model, **given)[0]["samples"]
    found = paint(model=cached, **given)[0]["samples"]
    assert torch.equal(found, expected) or (
        gradients == "full" and torch.allclose(found, expected, rtol=1e-4, atol=1e-3)
    )
    assert any("`easycache" in message or "`lazycache" in message for message in messages())


# --- other ways to change how a model is asked ---


@GRADIENT
def test_compiled_networks(open_denoiser, load_family, messages, gradient):
    """TorchCompileModel: as without it."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    case = load_family("flux")
    model = case.model.clone()
    set_torch_compile_wrapper(model=model, backend="eager")
    found = answers(open_denoiser, case, gradient, model, calls=2)
    torch.testing.assert_close(found, answers(open_denoiser, case, gradient, calls=2), rtol=1e-4, atol=1e-4)
    assert any("torch.compile is left out" in message for message in messages()) == gradient


@GRADIENT
def test_compiled_networks_behind_a_cache(open_denoiser, load_family, messages, gradient):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    case, cache = load_family("flux"), Cache()
    model = case.model.clone()
    around_guider(model, cache)
    set_torch_compile_wrapper(model=model, backend="eager")
    found = answers(open_denoiser, case, gradient, model)
    torch.testing.assert_close(found, answers(open_denoiser, case, gradient), rtol=1e-4, atol=1e-4)
    assert cache.skipped == 1


@GRADIENT
@pytest.mark.parametrize("place", ["wrapper", "function", "guidance"])
def test_steps_are_found_in_the_schedule(open_denoiser, load_family, place, gradient):
    """By equality, as wrappers do whose strength follows the steps: at all levels of all rows."""
    case, steps = load_family("flux"), []

    def look_up(options, sigma):
        schedule = options["sample_sigmas"]
        assert torch.equal(schedule, schedule.sort(descending=True).values)
        for level in sigma:
            (step,) = torch.nonzero(schedule == level)
            steps.append((int(step), len(schedule)))

    def wrapper(executor, x, t, *rest, **kwargs):
        look_up(kwargs.get("transformer_options") or rest[-1], t)
        return executor(x, t, *rest, **kwargs)

    def function(apply_model, given):
        look_up(given["c"]["transformer_options"], given["timestep"])
        return apply_model(given["input"], given["timestep"], **given["c"])

    def guidance(given):
        look_up(given["model_options"]["transformer_options"], given["sigma"])
        return given["conds_out"]

    model = case.model.clone()
    if place == "wrapper":
        model.add_wrapper("apply_model", wrapper)
    elif place == "function":
        model.set_model_unet_function_wrapper(function)
    else:
        model.set_model_sampler_pre_cfg_function(guidance)
    u = torch.randn(case.shape(2), generator=torch.Generator().manual_seed(2))

    def work(denoiser):
        for s in (7.0, 0.3, 1.234567):
            with denoiser.gradients() if gradient else contextlib.nullcontext():
                denoiser(u.clone().requires_grad_(gradient), torch.tensor([s, 1.1 * s]))

    opened(open_denoiser, replace(case, model=model, cfg=1.0), work, gradient, rows=2)
    places = [step / length for step, length in steps[-6:]]
    assert min(places[2:4]) > max(places[4:]) and min(places[4:]) > max(places[:2])


def test_differential_diffusion_is_named(paint, tiny, short_presets, messages):
    """Its ramp is the soft mask, which counts without it."""
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    model = DifferentialDiffusion.execute(tiny.model).result[0]
    mask = torch.zeros(1, 64, 48)
    mask[..., 24:] = torch.linspace(0, 1, 24)
    expected = paint(mask=mask)[0]["samples"]
    assert torch.equal(paint(model=model, mask=mask)[0]["samples"], expected)
    assert sum("Differential Diffusion" in message for message in messages()) == 1
