"""Gradient modes: which is chosen, and what happens when memory ends."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

SHAPE = (16, 6, 8)


@pytest.fixture
def memory(pack):
    return pack.host.memory


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
def test_the_first_mode_that_fits_is_chosen(memory, free, expected):
    """free: in units of what a pass allocates."""
    found = memory.choose(memory.MemoryDemand(SHAPE, 8, 0, True), ROW, free * ROW)
    assert (found.mode, found.batch) == expected
    assert found.need <= max(free, 0) * ROW
    assert "beside the weights" in found.why


def test_rows_that_cannot_be_split_count_with_all_their_passes(memory):
    found = memory.choose(memory.MemoryDemand(SHAPE, 4, 5, True, passes=3), ROW, 15 * 0.8 * ROW - 1)
    assert (found.mode, found.batch) == ("checkpointed", 4)


def test_rows_without_gradients_need_no_room_for_them(memory):
    """Of eight fills the first alone is differentiated."""
    demand = memory.MemoryDemand(SHAPE, 8, 0, True, differentiated=1)
    found = [memory.choose(demand, ROW, free * ROW) for free in (0.8, 0.79, 0.24)]
    assert [(choice.mode, choice.batch) for choice in found] == [("full", 8), ("checkpointed", 8), ("jacobian_free", 8)]


def test_the_network_is_measured_where_the_worst_case_does_not_fit(memory, tiny, paint, monkeypatch, messages):
    """A plain pass tells what the graph needs: more than the activations that are saved, not many times as much."""
    expected = paint(preset="balanced", fills=3)[0]["samples"]
    demand = memory.MemoryDemand((16, 8, 6), 1, 0, True)
    worst = memory.LARGEST_FACTOR * memory.reckoned_bytes(tiny.model, demand.shape, 2)
    assert memory.first_choice(tiny.model, demand, "auto").mode == "full"
    free = [0.99 * worst]
    monkeypatch.setattr(memory, "available_bytes", lambda _: free[0])
    assert memory.first_choice(tiny.model, demand, "auto") is None
    assert torch.equal(paint(preset="balanced", fills=3)[0]["samples"], expected)
    assert "gradients full, 1 at once" in messages()[-1]
    monkeypatch.setattr(memory, "allocated_bytes", lambda *_: 1.3 * free[0])
    paint(preset="balanced", fills=3)
    assert "gradients checkpointed, 1 at once" in messages()[-1]
    free[0] = 0
    paint(preset="balanced", fills=3)
    assert "gradients jacobian_free, 1 at once: the weights leave 0.0 GB" in messages()[-1]


def saved(memory, tiny, open_denoiser, conditioning, mode, cfg=1.0):
    """Bytes that autograd keeps of a pass beside the weights, and those that a plain pass allocates in all."""
    kept = []

    def work(denoiser):
        total = memory.allocated_bytes(denoiser, SHAPE, denoiser.device)
        with denoiser.gradients(), torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            denoiser(torch.randn(1, *SHAPE).requires_grad_(), torch.ones(1))
        return total

    total = open_denoiser(tiny.model, conditioning, work, cfg=cfg, shape=(1, *SHAPE), gradient=True, mode=mode)
    weights = {weight.untyped_storage().data_ptr() for weight in tiny.model.model.parameters()}
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}
    return sum(size for place, size in storages.items() if place not in weights), total


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_a_plain_pass_tells_the_size_of_the_graph(memory, tiny, open_denoiser, conditioning, cfg):
    graph, total = saved(memory, tiny, open_denoiser, conditioning, "full", cfg)
    assert 0.2 * total < graph < 0.8 * total


def test_checkpoints_are_small(memory, tiny, open_denoiser, conditioning):
    full, checkpointed = (
        saved(memory, tiny, open_denoiser, conditioning, mode)[0] for mode in ("full", "checkpointed")
    )
    assert checkpointed < 0.3 * full


class Failing:
    """A model whose network runs out of memory where `fails(rows, graph)`; counts the rows that went through."""

    def __init__(self, model, fails):
        import comfy.model_management

        def call(given):
            rows, graph = len(given["input"]), torch.is_grad_enabled() and given["input"].requires_grad
            if fails(rows, graph):
                raise comfy.model_management.OOM_EXCEPTION("CUDA out of memory")
            self.rows += rows
            return given["denoised"]

        self.rows, self.model = 0, model.clone()
        self.model.set_model_sampler_post_cfg_function(call)


def test_batches_shrink_until_they_fit(tiny, paint, messages):
    expected = paint(preset="balanced", fills=11)[0]["samples"]
    failing = Failing(tiny.model, lambda rows, graph: rows > 4)
    found = paint(preset="balanced", fills=11, model=failing.model)[0]["samples"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert [message.split(":")[1] for message in messages() if "gradients" in message][-2:] == [
        " gradients full, 8 at once",
        " gradients full, 4 at once",
    ]
    assert sum("out of memory; goes on with less" in message for message in messages()) == 1


def test_the_next_mode_takes_over(tiny, paint, messages):
    """Also from the mode that was asked for. Fills are those of that mode."""
    expected = paint(preset="balanced", gradients="jacobian_free")[0]["samples"]
    failing = Failing(tiny.model, lambda _rows, graph: graph)
    found = paint(preset="balanced", gradients="checkpointed", model=failing.model)[0]["samples"]
    assert torch.equal(found, expected)
    assert "gradients checkpointed, 1 at once: as chosen" in messages()[-3]
    assert messages()[-1] == "VIPaint: gradients jacobian_free, 1 at once: out of memory"


def test_finished_fills_and_steps_are_kept(pack, tiny, paint, monkeypatch):
    """Memory ends once in the fit and once while the second batch is drawn."""
    short = pack.core.PRESETS["paper-2"].with_changes(fit={"steps": 4, "draws": 2}, schedule={"steps": 3})
    monkeypatch.setitem(pack.core.PRESETS, "paper-2", short)
    monkeypatch.setattr(pack.sampling, "Draws", partial(pack.sampling.Draws, batch=2))
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


def test_quantised_weights_are_not_differentiated(memory, tiny, load_model, paint, tmp_path, messages):
    """Whatever was asked for. The file is one that the host's loader quantises layers of."""
    assert memory.quantisation(tiny.model) is None
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
    model = load_model(tmp_path / "quantised.safetensors", model_options={"dtype": torch.bfloat16})
    found = paint(model=model, preset="balanced", gradients="full")[0]["samples"]
    assert torch.isfinite(found).all()
    assert "jacobian_free, 1 at once: the weights are quantised (QuantizedTensor)" in messages()[-1]


def test_weights_that_are_only_stored_in_8_bits_are_differentiated(
    memory, tiny, load_model, open_denoiser, conditioning
):
    """The host casts them; the gradient is that of the network that it runs."""
    model = load_model(tiny.path, model_options={"dtype": torch.float8_e4m3fn})
    assert model.model.get_dtype() == torch.float8_e4m3fn and memory.quantisation(model) is None
    u, v, w = (torch.randn(1, *SHAPE) for _ in range(3))

    def work(denoiser):
        s, step = torch.tensor([1.5]), 1e-2
        with denoiser.gradients():
            point = u.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(denoiser(point, s), point, w)
        ahead, behind = (denoiser(u + size * v, s).double() for size in (step, -step))
        return (gradient * v).sum(), ((ahead - behind) * w).sum() / (2 * step)

    analytic, numeric = open_denoiser(model, conditioning, work, shape=(1, *SHAPE), gradient=True)
    assert float(analytic) == pytest.approx(float(numeric), rel=2e-3, abs=2e-3)
