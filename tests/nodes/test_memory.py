"""Gradient modes: which is chosen, and what happens when memory ends."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

SHAPE = (16, 6, 8)


@pytest.fixture
def messages(caplog):
    """What the pack has logged so far."""
    caplog.set_level(logging.INFO, "vipaint_pack")
    return lambda: [record.getMessage() for record in caplog.records if "VIPaint" in record.getMessage()]


ROW = 1000.0


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (0.8 * 8, ("full", 8)),
        (0.8 * 8 - 0.1, ("full", 4)),
        (0.8, ("full", 1)),
        (0.79, ("checkpointed", 2)),
        (0.25, ("checkpointed", 1)),
        (0.24, ("jacobian_free", 8)),
        (-1.0, ("jacobian_free", 8)),
    ],
)
def test_the_first_mode_that_fits_is_chosen(pack, free, expected):
    """free: in units of what a pass allocates."""
    found = pack.memory.choose(pack.memory.Demand(SHAPE, 20, 0, True), ROW, free * ROW)
    assert (found.mode, found.batch) == expected
    assert found.need <= max(free, 0) * ROW
    assert "beside the weights" in found.why


def test_rows_that_cannot_be_split_count_with_all_their_passes(pack):
    found = pack.memory.choose(pack.memory.Demand(SHAPE, 4, 5, True, passes=3), ROW, 15 * 0.8 * ROW - 1)
    assert (found.mode, found.batch) == ("checkpointed", 4)


def test_the_network_is_measured_where_the_worst_case_does_not_fit(pack, tiny, paint, monkeypatch, messages):
    """A plain pass tells what the graph needs: more than the activations that are saved, not many times as much."""
    expected = paint(preset="balanced", fills=3)[0]["samples"]
    demand = pack.memory.Demand((16, 8, 6), 3, 0, True)
    worst = 3 * pack.memory.WORST * pack.memory.unit(tiny.model, demand.shape, 2)
    assert pack.memory.first_choice(tiny.model, demand, "auto").mode == "full"
    free = [0.99 * worst]
    monkeypatch.setattr(pack.memory, "available", lambda _: free[0])
    assert pack.memory.first_choice(tiny.model, demand, "auto") is None
    assert torch.equal(paint(preset="balanced", fills=3)[0]["samples"], expected)
    assert "gradients full, 3 at once" in messages()[-1]
    monkeypatch.setattr(pack.memory, "allocated", lambda *_: 1.3 * free[0])
    paint(preset="balanced", fills=3)
    assert "gradients checkpointed, 3 at once" in messages()[-1]
    free[0] = 0
    paint(preset="balanced", fills=3)
    assert "gradients jacobian_free, 3 at once: the weights leave 0.0 GB" in messages()[-1]


def saved(pack, tiny, conditioning, mode, cfg=1.0):
    """Bytes that autograd keeps of a pass beside the weights, and those that a plain pass allocates in all."""
    kept = []

    def work(denoiser, _place, device):
        total = pack.memory.allocated(denoiser, SHAPE, device)
        with denoiser.gradients(), torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            denoiser(torch.randn(1, *SHAPE).requires_grad_(), torch.ones(1))
        return total

    total = pack.open_denoiser(
        tiny.model, *conditioning, cfg=cfg, shape=(1, *SHAPE), seed=0, gradient=True, mode=mode, work=work
    )
    weights = {weight.untyped_storage().data_ptr() for weight in tiny.model.model.parameters()}
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}
    return sum(size for place, size in storages.items() if place not in weights), total


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_a_plain_pass_tells_the_size_of_the_graph(pack, tiny, conditioning, cfg):
    graph, total = saved(pack, tiny, conditioning, "full", cfg)
    assert 0.2 * total < graph < 0.8 * total


def test_checkpoints_are_small(pack, tiny, conditioning):
    full, checkpointed = (saved(pack, tiny, conditioning, mode)[0] for mode in ("full", "checkpointed"))
    assert checkpointed < 0.3 * full


class Failing:
    """A model whose network runs out of memory where `fails(rows, graph)`; counts the rows that went through."""

    def __init__(self, model, fails):
        import comfy.model_management

        def call(network, given):
            rows, graph = len(given["input"]), torch.is_grad_enabled() and given["input"].requires_grad
            if fails(rows, graph):
                raise comfy.model_management.OOM_EXCEPTION("CUDA out of memory")
            self.rows += rows
            return network(given["input"], given["timestep"], **given["c"])

        self.rows, self.model = 0, model.clone()
        self.model.set_model_unet_function_wrapper(call)


def test_batches_shrink_until_they_fit(tiny, paint, messages):
    expected = paint(preset="balanced", fills=7)[0]["samples"]
    failing = Failing(tiny.model, lambda rows, graph: graph and rows > 2)
    found = paint(preset="balanced", fills=7, model=failing.model)[0]["samples"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert [message.split(":")[1] for message in messages() if "gradients" in message][-3:] == [
        " gradients full, 7 at once",
        " gradients full, 4 at once",
        " gradients full, 2 at once",
    ]
    assert sum("out of memory; goes on with less" in message for message in messages()) == 2


def test_the_next_mode_takes_over(tiny, paint, messages):
    """Also from the mode that was asked for. Fills are those of that mode."""
    expected = paint(preset="balanced", gradients="jacobian_free")[0]["samples"]
    failing = Failing(tiny.model, lambda _rows, graph: graph)
    found = paint(preset="balanced", gradients="checkpointed", model=failing.model)[0]["samples"]
    assert torch.equal(found, expected)
    assert "gradients checkpointed, 2 at once: as chosen" in messages()[-5]
    assert messages()[-1] == "VIPaintInpaint: gradients jacobian_free, 2 at once: out of memory"


def test_finished_fills_and_steps_are_kept(pack, tiny, paint, monkeypatch):
    """Memory ends once in the fit and once while the second batch is drawn."""
    short = replace(pack.core.PRESETS["paper-2"], steps=4, draws=2, refine_steps=3)
    monkeypatch.setitem(pack.core.PRESETS, "paper-2", short)
    monkeypatch.setattr(pack.memory, "BATCH", 2)
    whole = Failing(tiny.model, lambda *_: False)
    expected, posterior = paint(preset="paper-2", fills=4, model=whole.model)
    calls, at = [], (2 * 3 + 1, 3 * 4 + 1 + 4 + 2)

    def fails(*_):
        calls.append(None)
        return len(calls) in at

    failing = Failing(tiny.model, fails)
    found, again = paint(preset="paper-2", fills=4, model=failing.model)
    torch.testing.assert_close(found["samples"], expected["samples"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again.posterior.mu, posterior.posterior.mu)
    assert len(again.history) == 4
    # Lost are a call of a fit step and one of a batch.
    assert failing.rows - whole.rows <= 2 * 2


def test_memory_that_is_never_enough_is_the_host_s_error(tiny, paint):
    import comfy.model_management

    failing = Failing(tiny.model, lambda *_: True)
    with pytest.raises(comfy.model_management.OOM_EXCEPTION):
        paint(preset="fast", model=failing.model)


def test_streamed_weights_are_not_differentiated(pack, tiny, paint, monkeypatch, messages):
    """Whatever was asked for: the host overwrites them before backward reads them."""
    expected = paint(preset="balanced", gradients="jacobian_free")[0]["samples"]
    elsewhere = torch.nn.Linear(2, 2, device="meta")
    assert pack.bridge.is_elsewhere(elsewhere, tiny.model)
    monkeypatch.setattr(pack.bridge, "is_elsewhere", lambda *_: True)
    found = paint(preset="balanced", gradients="full")[0]["samples"]
    assert torch.equal(found, expected)
    assert "gradients jacobian_free, 2 at once: the weights of SD3 are streamed" in messages()[-1]


def test_streamed_control_networks_are_found(pack, tiny):
    """The host loads them beside the model, as it sees fit."""
    cpu = torch.device("cpu")
    for device, dynamic, found in (("cpu", False, False), ("cpu", True, True), ("meta", False, True)):
        network = torch.nn.Linear(2, 2, device=device)
        control = SimpleNamespace(model=network, load_device=cpu, is_dynamic=lambda dynamic=dynamic: dynamic)
        with pytest.raises(pack.bridge.StreamedWeights, match="Linear") if found else contextlib.nullcontext():
            pack.bridge.check_weights([tiny.model, control])


def loaded(path, **options):
    import comfy.sd

    with torch.inference_mode():
        return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False, **options)[0]


def streaming(path, monkeypatch):
    """A patcher that says of itself that it streams, and the network with weights that stay that the host has for it."""
    import comfy.memory_management
    import comfy.sd
    from comfy.model_patcher import ModelPatcher

    model, tensors = loaded(path), load_file(path)
    with monkeypatch.context() as patch, torch.inference_mode():
        # As on a GPU, where linear layers get their weights as the file has them.
        patch.setattr(comfy.memory_management, "aimdo_enabled", True)
        other = comfy.sd.load_state_dict_guess_config(tensors, output_vae=False, output_clip=False)[0]

    class Streaming(ModelPatcher):
        def is_dynamic(self):
            return True

        def get_non_dynamic_delegate(self):
            return self.clone(disable_dynamic=True, model_override=other.get_clone_model_override())

    return Streaming(model.model, model.load_device, model.offload_device), other.model


def test_weights_that_stay_have_the_model_s_precision(paint, tiny, tmp_path, monkeypatch):
    save_file({name: tensor.half() for name, tensor in load_file(tiny.path).items()}, tmp_path / "half.safetensors")
    expected = paint(model=loaded(tmp_path / "half.safetensors"), preset="balanced", gradients="full")
    model, network = streaming(tmp_path / "half.safetensors", monkeypatch)
    assert {weight.dtype for weight in network.parameters()} > {torch.float16}
    found = paint(model=model, preset="balanced", gradients="full")
    assert torch.equal(found[0]["samples"], expected[0]["samples"])


def test_weights_that_stay_are_the_host_s_to_free(paint, tiny, monkeypatch):
    """Loaded weights belong to the patcher that the host has last seen, or to its parent when that has ended."""
    from comfy.model_management import current_loaded_models, unload_all_models

    model, network = streaming(tiny.path, monkeypatch)
    # As extensions do.
    model.model_options["patcher"] = model
    expected = paint(preset="balanced", gradients="full")[0]["samples"]
    for _ in range(3):
        assert torch.equal(paint(model=model, preset="balanced", gradients="full")[0]["samples"], expected)
        # Patchers in a circle would end together, parent and all.
        gc.collect()
        (entry,) = [entry for entry in current_loaded_models if entry.real_model() is network]
        assert entry.model is not None and entry.model.model is network
    unload_all_models()
    ended = [weakref.ref(entry) for entry in (model, network)]
    del model, network, entry
    gc.collect()
    assert [end() for end in ended] == [None, None]


def test_quantised_weights_are_not_differentiated(pack, tiny, paint, tmp_path, messages):
    """Whatever was asked for. The file is one that the host's loader quantises layers of."""
    assert pack.memory.quantised(tiny.model) is None
    tensors = load_file(tiny.path)
    config = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
    for name in [name for name in tensors if "joint_blocks" in name and name.endswith(".weight")]:
        weight, stem = tensors[name], name.removesuffix("weight")
        if weight.ndim == 2:
            scale = weight.abs().max() / 448
            tensors |= {name: (weight / scale).to(torch.float8_e4m3fn), f"{stem}weight_scale": scale}
            tensors[f"{stem}comfy_quant"] = config.clone()
    save_file(tensors, tmp_path / "quantised.safetensors")
    # On a GPU the host's products of 8 bits have no result in float32.
    model = loaded(tmp_path / "quantised.safetensors", model_options={"dtype": torch.bfloat16})
    found = paint(model=model, preset="balanced", gradients="full")[0]["samples"]
    assert torch.isfinite(found).all()
    assert "jacobian_free, 2 at once: the weights are quantised (QuantizedTensor)" in messages()[-1]


def test_weights_that_are_only_stored_in_8_bits_are_differentiated(pack, tiny, conditioning):
    """The host casts them; the gradient is that of the network that it runs."""
    model = loaded(tiny.path, model_options={"dtype": torch.float8_e4m3fn})
    assert model.model.get_dtype() == torch.float8_e4m3fn and pack.memory.quantised(model) is None
    u, v, w = (torch.randn(1, *SHAPE) for _ in range(3))

    def work(denoiser, _place, _device):
        s, step = torch.tensor([1.5]), 1e-2
        with denoiser.gradients():
            point = u.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(denoiser(point, s), point, w)
        ahead, behind = (denoiser(u + size * v, s).double() for size in (step, -step))
        return (gradient * v).sum(), ((ahead - behind) * w).sum() / (2 * step)

    analytic, numeric = pack.open_denoiser(
        model, *conditioning, cfg=1.0, shape=(1, *SHAPE), seed=0, gradient=True, work=work
    )
    assert float(analytic) == pytest.approx(float(numeric), rel=2e-3, abs=2e-3)


@pytest.mark.parametrize(
    ("mode", "share"),
    [
        ("checkpointed", 1e-8),
        # The Jacobian of a network with random weights is not symmetric.
        ("jacobian_free", 0.1),
    ],
)
def test_modes_agree_on_fills(paint, mode, share):
    """share: of the fills' variance."""
    expected, found = (paint(preset="balanced", gradients=wanted)[0]["samples"] for wanted in ("full", mode))
    assert (found - expected).square().mean() < share * expected.var()
