"""The end of memory and interrupts reach the host as they are; everything else gets a name."""

from __future__ import annotations

import gc

import pytest
import torch

PRESETS = ["fast", "balanced", "paper-2"]

pytestmark = pytest.mark.usefixtures("short_presets")


def test_other_errors_are_named(pack):
    failures = pack.host.failures
    with pytest.raises(failures.ModelError, match=r"^IndexError: no such layer") as caught, failures.named_failures():
        raise IndexError("no such layer")
    assert isinstance(caught.value.__cause__, IndexError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("no memory is left"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"), True),
        (RuntimeError("the network is broken"), False),
    ],
)
def test_the_end_of_memory_is_told_apart(pack, error, expected):
    failures = pack.host.failures
    assert failures.is_out_of_memory(error) == expected
    with pytest.raises(type(error) if expected else failures.ModelError), failures.named_failures():
        raise error


def interrupt():
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()
    comfy.model_management.throw_exception_if_processing_interrupted()


def run_out_of_memory():
    raise torch.OutOfMemoryError("no memory is left")


def paint_until(tiny, paint, preset, event):
    """Paints; the event comes with the network's second call and all after it, and reaches the host as it is."""
    from comfy.model_management import InterruptProcessingException

    calls = []

    def second(given):
        calls.append(None)
        if len(calls) > 1:
            event()
        return given["denoised"]

    model = tiny.model.clone()
    model.set_model_sampler_post_cfg_function(second)
    with pytest.raises(InterruptProcessingException if event is interrupt else torch.OutOfMemoryError):
        paint(preset=preset, model=model)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("event", [interrupt, run_out_of_memory])
def test_the_host_s_own_events_reach_it(tiny, paint, event, preset):
    """It frees memory, or says that the prompt was stopped, only where it sees them as they are."""
    import comfy.model_management

    before = paint(preset=preset)[0]["samples"]
    paint_until(tiny, paint, preset, event)
    assert not comfy.model_management.in_training
    assert torch.equal(paint(preset=preset)[0]["samples"], before)


def test_an_interrupt_of_older_hosts_reaches_them(tiny, paint, monkeypatch):
    """There it is an Exception."""
    import comfy.model_management

    class Interrupt(Exception):
        pass

    monkeypatch.setattr(comfy.model_management, "InterruptProcessingException", Interrupt)
    paint_until(tiny, paint, "balanced", interrupt)


def live_tensors():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("preset", PRESETS)
def test_no_tensor_outlives_a_run(tiny, paint, preset):
    def runs():
        paint(preset=preset)
        paint_until(tiny, paint, preset, interrupt)
        paint_until(tiny, paint, preset, run_out_of_memory)

    runs()
    before = live_tensors()
    runs()
    assert live_tensors() == before
