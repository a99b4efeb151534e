"""Gradients in the memory that there is: which mode, how many rows at once, and what to do when it ends."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import comfy.model_management
import comfy.ops
import torch
from comfy_api.latest import io

from ..vipaint_core import SampleState
from ..vipaint_core.denoiser import Denoiser
from . import bridge, validation

log = logging.getLogger(__name__)

T = TypeVar("T")
# work(denoiser, device, batch): with at most so many rows at once.
Work = Callable[[Denoiser, torch.device, int], T]

BATCH = 8
AUTO = "auto"
# Peak above the weights in units of the host's estimate for a plain pass of these rows: `benchmark memory`.
NEED = {"full": 12.0, "checkpointed": 4.0, "jacobian_free": 1.0}


def gradients_input() -> io.Input:
    return io.Combo.Input(
        "gradients",
        options=[AUTO, *bridge.MODES],
        default=AUTO,
        optional=True,
        advanced=True,
        tooltip="How presets with gradients get them. full: fastest, most memory. checkpointed: the same result in a "
        "part of the memory, about half as much time again. jacobian_free: nearly the same without a backward pass, in "
        "the memory of KSampler; also for quantised and streamed weights. auto: the first that fits. The next takes "
        "over where memory ends.",
    )


@dataclass(frozen=True)
class Demand:
    """shape: (C, H, W) of a latent. drawn: rows to draw in all. together: rows that cannot be split, of a fit or of
    particles. gradient: whether the network is differentiated."""

    shape: tuple[int, ...]
    drawn: int
    together: int
    gradient: bool

    @property
    def batch(self) -> int:
        return max(1, min(self.drawn, BATCH))


class Choice(NamedTuple):
    """How to get gradients, and how many rows to draw at once."""

    mode: str
    batch: int
    why: str


def choose(model: Any, demand: Demand, wanted: str = AUTO) -> Choice:
    """wanted: a mode, or `auto` for the first that fits. Quantised weights get `jacobian_free` in any case."""
    if (what := quantised(model)) is not None:
        return Choice(bridge.MODES[-1], demand.batch, f"the weights are quantised ({what})")
    if wanted != AUTO:
        return Choice(wanted, demand.batch, "as chosen")
    free = available(model)
    for mode in bridge.MODES[:-1]:
        batch = demand.batch
        while (needed := need(model, demand, batch, mode)) > free and batch > 1:
            batch = (batch + 1) // 2
        why = f"{mode} needs {_gb(needed)} beside the weights, {_gb(free)} are free for it"
        if needed <= free:
            return Choice(mode, batch, why)
    return Choice(bridge.MODES[-1], demand.batch, why)


def need(model: Any, demand: Demand, batch: int, mode: str) -> float:
    """Bytes beside the weights; guidance doubles them, as the host counts."""
    rows = max(batch, demand.together)
    return NEED[mode] * float(model.memory_required([2 * rows, *demand.shape]))


def available(model: Any) -> float:
    """Bytes for activations once the model is loaded and the others have made room."""
    device = model.load_device
    free = float(comfy.model_management.get_free_memory(device)) - comfy.model_management.extra_reserved_memory()
    if comfy.model_management.is_device_cpu(device):
        return free
    loaded = [other for other in comfy.model_management.loaded_models() if other.load_device == device]
    return free + sum(other.loaded_size() for other in loaded) - model.model_size()


def quantised(model: Any) -> str | None:
    """Name of what a network's weights are quantised with, if so.

    Their layers round activations too, of which the host's backward pass knows nothing.
    """
    for module in model.model.modules():
        if isinstance(module, comfy.ops.fp8_ops.Linear):
            return "fp8 products"
        for weight in module.parameters(recurse=False):
            if type(weight) not in (torch.nn.Parameter, torch.Tensor):
                return type(weight).__name__
    return None


def run(
    node: str,
    model: Any,
    opened: Callable[..., T],
    demand: Demand,
    wanted: str,
    work: Work[T],
    drawing: SampleState,
) -> T:
    """`bridge.open_denoiser` in a mode and with batches that fit; when memory ends, again with less.

    opened: `open_denoiser` with the model and its prompts. `work` goes on after a failure: it keeps what is
    finished, the fills in `drawing`. Smaller batches come before the next mode.
    """
    choice = choose(model, demand, wanted) if demand.gradient else Choice(bridge.MODES[-1], demand.batch, "")
    mode, batch = choice.mode, choice.batch
    if demand.gradient:
        log.info("%s: gradients %s, %d at once: %s", node, *choice)
    while True:
        try:
            with validation.explained(node):
                return opened(
                    shape=(max(batch, demand.together), *demand.shape),
                    gradient=demand.gradient,
                    mode=mode,
                    room=need(model, demand, batch, mode),
                    work=lambda denoiser, _place, device, batch=batch: work(denoiser, device, batch),
                )
        except bridge.StreamedWeights as error:
            mode, reason = bridge.MODES[-1], str(error)
        except Exception as error:
            if not bridge.is_out_of_memory(error):
                raise
            reason = "out of memory"
            if batch > 1 and drawing.latents is not None:
                batch = (batch + 1) // 2
            elif demand.gradient and mode != bridge.MODES[-1]:
                mode, batch = bridge.MODES[bridge.MODES.index(mode) + 1], demand.batch
            else:
                raise
        # The failed run's tensors live as long as its exception: until here.
        gc.collect()
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        way = f"gradients {mode}, " if demand.gradient else ""
        log.warning("%s: %s; goes on with %s%d at once", node, reason, way, batch)


def _gb(size: float) -> str:
    return f"{size / 2**30:.1f} GB"
