"""Gradient modes: which is chosen, and what happens when memory ends."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

SHAPE = (16, 6, 8)


@pytest.fixture
def messages(caplog):
    """What the pack has logged so far."""
    caplog.set_level(logging.INFO, "vipaint_pack")
    return lambda: [record.getMessage() for record in caplog.records if "VIPaint" in record.getMessage()]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ({"full": 1.01}, ("full", 8)),
        ({"full": 0.6}, ("full", 4)),
        ({"full": 0.13}, ("full", 1)),
        ({"full": 0.1, "checkpointed": 1.01}, ("checkpointed", 8)),
        ({"checkpointed": 0.13}, ("checkpointed", 1)),
        ({"checkpointed": 0.1}, ("jacobian_free", 8)),
    ],
)
def test_the_first_mode_that_fits_is_chosen(pack, tiny, monkeypatch, share, expected):
    """share: of what a mode needs for all rows at once."""
    demand = pack.memory.Demand(SHAPE, 20, 0, True)
    monkeypatch.setattr(pack.memory, "NEED", {"full": 20.0, "checkpointed": 1.0, "jacobian_free": 1.0})
    free = min(part * pack.memory.need(tiny.model, demand, 8, mode) for mode, part in share.items())
    monkeypatch.setattr(pack.memory, "available", lambda _: free)
    found = pack.memory.choose(tiny.model, demand)
    assert found[:2] == expected
    assert "beside the weights" in found.why
    assert pack.memory.choose(tiny.model, demand, "full")[:2] == ("full", 8)


def test_rows_that_cannot_be_split_count_in_full(pack, tiny, monkeypatch):
    demand = pack.memory.Demand(SHAPE, 4, 50, True)
    monkeypatch.setattr(pack.memory, "available", lambda _: 0.9 * pack.memory.need(tiny.model, demand, 1, "full"))
    assert pack.memory.choose(tiny.model, demand).mode == "checkpointed"


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
    modes = [message.split("; ")[-1] for message in messages() if "out of memory" in message]
    assert modes == ["goes on with gradients full, 4 at once", "goes on with gradients full, 2 at once"]


def test_the_next_mode_takes_over(tiny, paint, messages):
    """Also from the mode that was asked for. Fills are those of that mode."""
    expected = paint(preset="balanced", gradients="jacobian_free")[0]["samples"]
    failing = Failing(tiny.model, lambda _rows, graph: graph)
    found = paint(preset="balanced", gradients="checkpointed", model=failing.model)[0]["samples"]
    assert torch.equal(found, expected)
    assert "as chosen" in messages()[-3]
    assert messages()[-1].endswith("goes on with gradients jacobian_free, 2 at once")


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
    assert "streamed; goes on with gradients jacobian_free" in messages()[-1]


def test_quantised_weights_are_not_differentiated(pack, tiny, paint, monkeypatch):
    from comfy.quant_ops import QuantizedTensor

    assert pack.memory.quantised(tiny.model) is None
    layer = torch.nn.Linear(16, 16)
    weight = QuantizedTensor.from_float(layer.weight.detach(), "TensorCoreFP8E4M3Layout")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    choice = pack.memory.choose(SimpleNamespace(model=layer), pack.memory.Demand(SHAPE, 1, 0, True), "full")
    assert choice.mode == "jacobian_free" and "QuantizedTensor" in choice.why


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
