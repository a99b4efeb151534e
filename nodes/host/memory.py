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
from comfy.model_patcher import ModelPatcher
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...vipaint_core import Denoiser, SampleState
from ..errors import InputError
from .decoder import HostDecoder
from .denoiser import GRADIENT_MODES, GuidedModel, open_denoiser
from .failures import ModelError, is_out_of_memory
from .loading import StreamedWeightsError

log = logging.getLogger(__name__)

T = TypeVar("T")
# work(denoiser, device, batch): with at most so many rows at once.
Work = Callable[[Denoiser, torch.device, int], T]

AUTO = "auto"
# What backward needs at once, of all bytes that a plain pass allocates one after the other, and the most that `full`
# needs of what the host reckons for the pass; `benchmark memory` finds up to 0.75, 0.22 and 21.
SHARES = {"full": 0.8, "checkpointed": 0.25}
LARGEST_FACTOR = 32


@dataclass(frozen=True)
class MemoryDemand:
    """What a run asks of memory.

    shape: (C, H, W) of a latent.
    batch: rows that it would draw at once.
    inseparable: rows that cannot be split, of a fit or of particles.
    gradient: whether the network is differentiated.
    passes: through the network, in one graph.
    decoder: latents go through it, and it is differentiated too.
    differentiated: of the batch so many rows at most, the others are drawn without gradients; None for all.
    """

    shape: tuple[int, int, int]
    batch: int
    inseparable: int
    gradient: bool
    passes: int = 1
    decoder: HostDecoder | None = None
    differentiated: int | None = None

    def rows(self, batch: int) -> int:
        """Rows that are differentiated at once where a batch has so many."""
        return max(min(batch, self.differentiated or batch), self.inseparable * self.passes)


class Choice(NamedTuple):
    """How to get gradients, how many rows to draw at once, and bytes for them beside the weights."""

    mode: str
    batch: int
    need: float
    why: str


def choose(demand: MemoryDemand, row: float, free: float) -> Choice:
    """The first mode that fits, with as many rows as fit.

    row: bytes that a plain pass of one row allocates in all.
    free: bytes beside the weights.
    """
    for mode, share in SHARES.items():
        batch = demand.batch
        while (need := share * row * demand.rows(batch)) > free and batch > 1:
            batch = (batch + 1) // 2
        why = f"{mode} needs {_gb(need)} beside the weights, {_gb(free)} are free for it"
        if need <= free:
            return Choice(mode, batch, need, why)
    return Choice(GRADIENT_MODES[-1], demand.batch, 0.0, why)


def first_choice(model: ModelPatcher, demand: MemoryDemand, wanted: str) -> Choice | None:
    """What can be known before the model is loaded, if anything.

    Quantised weights get `jacobian_free` in any case.

    wanted: a mode, or `AUTO`.
    """
    if not demand.gradient:
        return Choice(GRADIENT_MODES[-1], demand.batch, 0.0, "no gradients")
    if (what := quantisation(model)) is not None:
        return Choice(GRADIENT_MODES[-1], demand.batch, 0.0, f"the weights are quantised ({what})")
    if wanted != AUTO:
        return Choice(wanted, demand.batch, 0.0, "as chosen")
    free, plain = available_bytes(model), reckoned_bytes(model, demand.shape, 2)
    if free < plain:
        why = f"the weights leave {_gb(free)} free, a plain pass needs {_gb(plain)}"
        return Choice(GRADIENT_MODES[-1], demand.batch, 0.0, why)
    if demand.decoder is not None:
        return None
    choice = choose(demand, LARGEST_FACTOR / SHARES[GRADIENT_MODES[0]] * plain, free)
    return choice if choice[:2] == (GRADIENT_MODES[0], demand.batch) else None


def reckoned_bytes(model: ModelPatcher, shape: tuple[int, ...], rows: int) -> float:
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


def allocated_bytes(
    denoiser: Denoiser, shape: tuple[int, ...], device: torch.device, decoder: HostDecoder | None = None
) -> float:
    """Bytes that plain passes of one latent (C, H, W) allocate in all."""
    latent = torch.zeros(1, *shape, device=device)
    with Allocations() as allocations:
        denoiser(latent, torch.ones(1, device=device))
        if decoder is not None:
            decoder(latent)
    return float(allocations.total)


def available_bytes(model: ModelPatcher) -> float:
    """Bytes for activations once the model is loaded and the others have made room."""
    device = model.load_device
    free = float(comfy.model_management.get_free_memory(device)) - comfy.model_management.extra_reserved_memory()
    if comfy.model_management.is_device_cpu(device):
        return free
    # None where a patcher has ended and its weights have not.
    loaded = [other for other in comfy.model_management.loaded_models() if other and other.load_device == device]
    return free + sum(other.loaded_size() for other in loaded) - model.model_size()


def quantisation(model: ModelPatcher) -> str | None:
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


def run_within_memory(inputs: GuidedModel, demand: MemoryDemand, work: Work[T], *drawings: SampleState) -> T:
    """`open_denoiser` in a mode and with batches that fit; when memory ends, again with less.

    Smaller batches come before the next mode. `work` goes on after a failure: it keeps what is finished, the fills in
    `drawings`.

    Raises InputError where the model cannot be run, and what the host raises where nothing smaller is left.
    """
    if "denoise_mask_function" in inputs.model.model_options:
        log.warning(
            "VIPaint: the model's own way with masks (Differential Diffusion) is left out: grey parts of a mask count here "
            "by themselves, the darker the more of the picture stays"
        )
    extra = [] if demand.decoder is None else [demand.decoder.patcher]
    opened = partial(open_denoiser, inputs, extra_networks=extra)
    choice = first_choice(inputs.model, demand, inputs.gradients)
    while True:
        try:
            if choice is None:
                row: float = opened(
                    lambda denoiser, device: allocated_bytes(denoiser, demand.shape, device, demand.decoder),
                    shape=(1, *demand.shape),
                    gradient=True,
                )
                choice = choose(demand, row, available_bytes(inputs.model))
            mode, batch, need, why = choice
            if demand.gradient:
                log.info("VIPaint: gradients %s, %d at once: %s", mode, batch, why)
            return opened(
                partial(_with_batch, work, batch),
                shape=(max(batch, demand.inseparable), *demand.shape),
                gradient=demand.gradient,
                mode=mode,
                activation_bytes=need,
            )
        except ModelError as error:
            raise failed_pass(error, demand.shape) from error
        except torch.linalg.LinAlgError as error:
            # Solvers meet NaN before the result does.
            raise not_finite() from error
        except StreamedWeightsError as error:
            if choice is not None and choice.mode == GRADIENT_MODES[-1]:
                fix = "Free memory, or load smaller ones."
                raise InputError("vae", "networks that memory holds as a whole", str(error), fix) from error
            choice = Choice(GRADIENT_MODES[-1], demand.batch, 0.0, str(error))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            choice = smaller_choice(demand, choice, any(drawing.latents is not None for drawing in drawings))
            if choice is None:
                raise
        # The failed run's tensors live as long as its exception: until here.
        gc.collect()
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        log.warning("VIPaint: %s; goes on with less", choice.why)


def _with_batch(work: Work[T], batch: int, denoiser: Denoiser, device: torch.device) -> T:
    return work(denoiser, device, batch)


def smaller_choice(demand: MemoryDemand, choice: Choice | None, in_batches: bool) -> Choice | None:
    """What to try where memory has ended, None where nothing is left. in_batches: smaller ones may help."""
    why = "out of memory"
    if choice is None:
        return Choice(GRADIENT_MODES[-1], demand.batch, 0.0, why)
    if choice.batch > 1 and in_batches:
        return choice._replace(batch=(choice.batch + 1) // 2, why=why)
    if demand.gradient and choice.mode != GRADIENT_MODES[-1]:
        return Choice(GRADIENT_MODES[GRADIENT_MODES.index(choice.mode) + 1], demand.batch, 0.0, why)
    return None


def failed_pass(error: ModelError, shape: tuple[int, int, int]) -> InputError:
    """What has stopped a pass, and how to go on. shape: (C, H, W) of a latent."""
    name, extension = error.network, error.extension
    if name is not None:
        found = f"that {name}, a network beside it, stopped {f'in {extension} ' if extension else ''}with {error}"
        fix = f"Check that {name} belongs to the model, or leave it out."
        if shape[-2] % 2 or shape[-1] % 2:
            fix = f"Cut the picture to sides that are multiples of 16 pixels with VIPaint Crop, or leave {name} out."
    elif extension is not None:
        found = f"that {extension}, which belongs to another extension, stopped it with {error}"
        fix = "Take the node that adds it out of the model's way; it may follow a sampler's steps, which there are not."
    else:
        found = f"that it stopped with {error}"
        fix = "Check that text encoder and VAE belong to the model, and that it paints pictures of this size."
    return InputError("model", "a model that runs with this picture and these prompts", found, fix)


def not_finite() -> InputError:
    """A model has returned NaN or infinity."""
    return InputError(
        "model",
        "a model that returns finite numbers",
        "NaN or infinity in its result",
        "Lower cfg; some models need more precision: start ComfyUI with --fp32-unet.",
    )


def _gb(size: float) -> str:
    return f"{size / 2**30:.1f} GB"
