"""Gradients in the memory that there is: which mode, how many rows at once, and what to do when it ends."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import comfy.model_management
import comfy.ops
import torch
from comfy_api.latest import io
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..vipaint_core import SampleState
from ..vipaint_core.denoiser import Denoiser
from . import bridge, validation
from .decoder import HostDecoder

log = logging.getLogger(__name__)

T = TypeVar("T")
# work(denoiser, device, batch): with at most so many rows at once.
Work = Callable[[Denoiser, torch.device, int], T]

BATCH = 8
AUTO = "auto"
# What backward needs at once, of all bytes that a plain pass allocates one after the other, and the most that `full`
# needs of what the host reckons for the pass; `benchmark memory` finds up to 0.75, 0.22 and 21.
SHARES = {"full": 0.8, "checkpointed": 0.25}
WORST = 32


def gradients_input() -> io.Input:
    return io.Combo.Input(
        "gradients",
        options=[AUTO, *bridge.MODES],
        default=AUTO,
        optional=True,
        advanced=True,
        tooltip="How presets with gradients get them. full: exact, most memory. checkpointed: the same result in a part "
        "of the memory, in up to two and a half times the time. jacobian_free: nearly the same without a backward pass, "
        "in the memory of KSampler; also for quantised and streamed weights. auto: the first that fits. The next takes "
        "over where memory ends.",
    )


@dataclass(frozen=True)
class Demand:
    """shape: (C, H, W) of a latent. drawn: rows to draw in all. together: rows that cannot be split, of a fit or of
    particles; passes: through the network, in one graph. gradient: whether it is differentiated.
    beside: a decoder that latents go through, differentiated too."""

    shape: tuple[int, ...]
    drawn: int
    together: int
    gradient: bool
    passes: int = 1
    beside: HostDecoder | None = None

    @property
    def batch(self) -> int:
        return max(1, min(self.drawn, BATCH))


class Choice(NamedTuple):
    """How to get gradients, how many rows to draw at once, and bytes for them beside the weights."""

    mode: str
    batch: int
    need: float
    why: str


def choose(demand: Demand, row: float, free: float) -> Choice:
    """The first mode that fits, with as many rows as fit.

    row: bytes that a plain pass of one row allocates in all. free: bytes beside the weights.
    """
    for mode, share in SHARES.items():
        batch = demand.batch
        while (need := share * row * max(batch, demand.together * demand.passes)) > free and batch > 1:
            batch = (batch + 1) // 2
        why = f"{mode} needs {_gb(need)} beside the weights, {_gb(free)} are free for it"
        if need <= free:
            return Choice(mode, batch, need, why)
    return Choice(bridge.MODES[-1], demand.batch, 0.0, why)


def first_choice(model: Any, demand: Demand, wanted: str) -> Choice | None:
    """What can be known before the model is loaded, if anything; wanted: a mode, or `auto`.

    Quantised weights get `jacobian_free` in any case.
    """
    if not demand.gradient:
        return Choice(bridge.MODES[-1], demand.batch, 0.0, "no gradients")
    if (what := quantised(model)) is not None:
        return Choice(bridge.MODES[-1], demand.batch, 0.0, f"the weights are quantised ({what})")
    if wanted != AUTO:
        return Choice(wanted, demand.batch, 0.0, "as chosen")
    free, plain = available(model), unit(model, demand.shape, 2)
    if free < plain:
        why = f"the weights leave {_gb(free)} free, a plain pass needs {_gb(plain)}"
        return Choice(bridge.MODES[-1], demand.batch, 0.0, why)
    if demand.beside is not None:
        return None
    choice = choose(demand, WORST / SHARES[bridge.MODES[0]] * plain, free)
    return choice if choice[:2] == (bridge.MODES[0], demand.batch) else None


def unit(model: Any, shape: tuple[int, ...], rows: int) -> float:
    """Bytes that the host reckons for a plain pass of latents (C, H, W) where attention takes no memory of its own."""
    network = model.model
    cells = rows * math.prod(shape[1:]) * comfy.model_management.dtype_size(network.get_dtype_inference())
    return 0.01 * float(network.memory_usage_factor) * cells * 2**20


class Allocations(TorchDispatchMode):
    """total: bytes that operations have allocated for their results, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for out in tree_leaves(result):
            if isinstance(out, torch.Tensor) and out.untyped_storage()._cdata not in given:
                self.total += out.untyped_storage().nbytes()
        return result


def allocated(
    denoiser: Denoiser, shape: tuple[int, ...], device: torch.device, beside: HostDecoder | None = None
) -> float:
    """Bytes that plain passes of one latent (C, H, W) allocate in all."""
    latent = torch.zeros(1, *shape, device=device)
    with Allocations() as allocations:
        denoiser(latent, torch.ones(1, device=device))
        if beside is not None:
            beside(latent)
    return float(allocations.total)


def available(model: Any) -> float:
    """Bytes for activations once the model is loaded and the others have made room."""
    device = model.load_device
    free = float(comfy.model_management.get_free_memory(device)) - comfy.model_management.extra_reserved_memory()
    if comfy.model_management.is_device_cpu(device):
        return free
    # None where a patcher has ended and its weights have not.
    loaded = [other for other in comfy.model_management.loaded_models() if other and other.load_device == device]
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
    positive: Any,
    negative: Any,
    demand: Demand,
    work: Work[T],
    drawing: SampleState,
    *,
    cfg: float,
    seed: int,
    wanted: str,
) -> T:
    """`bridge.open_denoiser` in a mode and with batches that fit; when memory ends, again with less.

    `work` goes on after a failure: it keeps what is finished, the fills in `drawing`. wanted: as in `first_choice`.
    Smaller batches come before the next mode.
    """
    beside = [] if demand.beside is None else [demand.beside.patcher]
    opened = partial(bridge.open_denoiser, model, positive, negative, cfg=cfg, seed=seed, beside=beside)
    choice = first_choice(model, demand, wanted)
    while True:
        try:
            with validation.explained(node):
                if choice is None:
                    row: float = opened(
                        shape=(1, *demand.shape),
                        gradient=True,
                        work=lambda denoiser, _place, device: allocated(denoiser, demand.shape, device, demand.beside),
                    )
                    choice = choose(demand, row, available(model))
                mode, batch, need, why = choice
                if demand.gradient:
                    log.info("%s: gradients %s, %d at once: %s", node, mode, batch, why)
                return opened(
                    shape=(max(batch, demand.together), *demand.shape),
                    gradient=demand.gradient,
                    mode=mode,
                    room=need,
                    work=lambda denoiser, _place, device, batch=batch: work(denoiser, device, batch),
                )
        except bridge.StreamedWeights as error:
            if choice is not None and choice.mode == bridge.MODES[-1]:
                fix = "Free memory, or load smaller ones."
                raise validation.problem(
                    node, "vae", "networks that memory holds as a whole", str(error), fix
                ) from error
            choice = Choice(bridge.MODES[-1], demand.batch, 0.0, str(error))
        except Exception as error:
            if not bridge.is_out_of_memory(error):
                raise
            choice = less(demand, choice, drawing.latents is not None)
            if choice is None:
                raise
        # The failed run's tensors live as long as its exception: until here.
        gc.collect()
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        log.warning("%s: %s; goes on with less", node, choice.why)


def less(demand: Demand, choice: Choice | None, in_batches: bool) -> Choice | None:
    """What to try where memory has ended, None where nothing is left. in_batches: smaller ones may help."""
    why = "out of memory"
    if choice is None:
        return Choice(bridge.MODES[-1], demand.batch, 0.0, why)
    if choice.batch > 1 and in_batches:
        return choice._replace(batch=(choice.batch + 1) // 2, why=why)
    if demand.gradient and choice.mode != bridge.MODES[-1]:
        return Choice(bridge.MODES[bridge.MODES.index(choice.mode) + 1], demand.batch, 0.0, why)
    return None


def _gb(size: float) -> str:
    return f"{size / 2**30:.1f} GB"
