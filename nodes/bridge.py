"""The one gradient boundary: the host's MODEL and CONDITIONING as a differentiable denoiser.

Everything runs inside the host's own guider, so that CFG, LoRA, ControlNet, area conditioning and
hooks work as they do in KSampler; `model_wrap` below is the host's CFG-combined x0 prediction.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import comfy.conds
import comfy.controlnet
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.patcher_extension
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch.overrides import TorchFunctionMode

from ..vipaint_core import VARIANCE_EXPLODING, Coordinate, Progress, rectified_flow
from ..vipaint_core.denoiser import Denoiser
from ..vipaint_core.jacobian_free import JacobianFree, step_for
from .checkpointing import checkpointed
from .saved_tensors import cloned_before_writes

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Denoiser, Coordinate, torch.device], T]

# Ways to get gradients, each in less memory than the one before.
MODES = ("full", "checkpointed", "jacobian_free")
# Image-to-image networks have no noise level; CogVideoX's v-prediction mixes two coordinates.
_REFUSED = ("IMG_TO_IMG", "IMG_TO_IMG_FLOW", "V_PREDICTION_DDPM")
# The host runs these at z = x0 + sigma * eps, whatever the network inside predicts.
_EXPLODING = ("EPS", "COSMOS_RFLOW")
# Image families whose latents have an axis of frames, of which they use one: they share a film's autoencoder.
_ONE_FRAME = ("QwenImage", "JoyImage", "Krea2", "Anima", "CosmosPredict2")
# What families make of which the shape of the latents does not tell it.
_PRODUCTS = {
    "films": ("SVD_img2vid",),
    "sharper copies": ("HunyuanImage21Refiner", "SeedVR2"),
    "no pictures": ("TripoSplat", "RT_DETR_v4", "SAM3", "DepthAnything3"),
}
# Networks whose backward needs `cloned_before_writes`.
_WRITERS = WeakSet[torch.nn.Module]()
# Parents of patchers whose weights stay, for those that stream them: see `resident`.
_RESIDENT = WeakKeyDictionary[Any, Any]()
# Hooks and patches read the schedule of a run to know where they are in it.
_SCHEDULE_STEPS = 30
_PREVIEW_SECONDS = 0.1


class ModelError(RuntimeError):
    """The host's model failed."""


class Overwritten(RuntimeError):
    """A network has written into what its backward pass needs."""


class StreamedWeights(RuntimeError):
    """The host streams weights through buffers that are overwritten before a backward pass reads them."""


def is_out_of_memory(error: Exception) -> bool:
    # The host's own check clears the device's error, too.
    check = getattr(comfy.model_management, "is_oom", lambda _: False)
    words = ("out of memory", "can't allocate memory")
    known = isinstance(error, (MemoryError, comfy.model_management.OOM_EXCEPTION)) or check(error)
    return known or any(word in str(error).lower() for word in words)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """The host treats its memory's end and interrupts itself, everything else gets a name."""
    try:
        yield
    except Exception as error:
        # Interrupts are an Exception in older hosts (0.18).
        if is_out_of_memory(error) or isinstance(error, comfy.model_management.InterruptProcessingException):
            raise
        raise ModelError(f"{type(error).__name__}: {error}") from error


def family(model: Any) -> str:
    """Name of a model's family, e.g. `SD3 (FLOW)`: posteriors are exchanged within one family only."""
    kind = getattr(getattr(model.model, "model_type", None), "name", "unknown")
    known = model.model.model_config if type(model.model) is comfy.model_base.BaseModel else model.model
    return f"{type(known).__name__} ({kind})"


def _is_one_of(value: Any, module: Any, names: tuple[str, ...]) -> bool:
    """Whether `value` is of one of the classes; a host may not have all of them."""
    return any(isinstance(value, getattr(module, name, ())) for name in names)


def product(model: Any) -> str:
    """What a model makes: `pictures`, `films`, `sharper copies`, `sound` or `no pictures`."""
    network = model.model
    for what, names in _PRODUCTS.items():
        if _is_one_of(network, comfy.model_base, names):
            return what
    if "audio_model" in network.model_config.unet_config:
        return "sound"
    dimensions = model.get_model_object("latent_format").latent_dimensions
    one_frame = _is_one_of(network, comfy.model_base, _ONE_FRAME) and not getattr(network, "image_to_video", False)
    return {1: "no pictures", 2: "pictures", 3: "pictures" if one_frame else "films"}.get(dimensions, "no pictures")


def has_frame(model: Any) -> bool:
    """Whether the host's latents of single pictures are (B, C, 1, H, W). The core's never have that axis."""
    return bool(model.get_model_object("latent_format").latent_dimensions == 3)


def to_model_scale(model: Any, samples: torch.Tensor) -> torch.Tensor:
    """The host's latents of pictures, (B, C, H, W) or (B, C, 1, H, W), as the core's (B, C, H, W)."""
    framed = has_frame(model)
    if framed and samples.ndim == 4:
        samples = samples.unsqueeze(2)
    latents = model.get_model_object("latent_format").process_in(samples)
    return latents.squeeze(2) if framed else latents


def to_host_latent(model: Any, latents: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_model_scale`, with an axis of frames where the family has one."""
    return model.get_model_object("latent_format").process_out(latents.unsqueeze(2) if has_frame(model) else latents)


def coordinate(model: Any) -> Coordinate:
    """The map between the core's noise levels and a model's. Raises ValueError for unknown families."""
    sampling = model.get_model_object("model_sampling")
    if not _is_one_of(sampling, comfy.model_sampling, _REFUSED):
        if isinstance(sampling, comfy.model_sampling.CONST):
            return rectified_flow(float(getattr(sampling, "noise_scale", 1.0)))
        if _is_one_of(sampling, comfy.model_sampling, _EXPLODING):
            return VARIANCE_EXPLODING
    kinds = [base.__name__ for base in type(sampling).__mro__ if base.__module__ == comfy.model_sampling.__name__]
    raise ValueError(
        f"the family {family(model)} with sampling {' / '.join(kinds)}, whose noise levels VIPaint does not know"
    )


def largest_level(model: Any) -> float:
    """The largest noise-to-signal ratio that the model was trained for; infinite for flows."""
    place = coordinate(model)
    # A flow's largest sigma is the time 1, at which nothing of the picture is left.
    sigma = float(model.get_model_object("model_sampling").sigma_max) * place.noise_scale
    if place.flow and sigma >= place.noise_scale * (1 - 1e-6):
        return math.inf
    return float(place.s_of_sigma(sigma))


def open_denoiser(
    model: Any,
    positive: Any,
    negative: Any,
    *,
    cfg: float,
    shape: tuple[int, ...],
    seed: int,
    gradient: bool,
    work: Work[T],
    beside: Sequence[Any] = (),
    mode: str = "full",
    room: float = 0.0,
) -> T:
    """Runs `work(denoiser, coordinate, device)` inside the host's guider and returns its result.

    shape: (rows, C, H, W) of the largest batch that `work` will ask for, in model scale; the host
    plans its memory with it. gradient: the denoiser is differentiable in u inside its `gradients()`.
    beside: patchers of other networks that `work` calls, loaded and made differentiable together with the model.
    mode: one of `MODES`: `full` keeps every activation for backward, `checkpointed` the inputs of the network's
    blocks, to the same result, `jacobian_free` nothing: see `JacobianFree`. Networks beside are differentiated in any
    case, in blocks where it is not `full`. room: bytes that activations will take, for which the host unloads other
    models.
    `work` runs without inference mode and without gradients; again, once, where a network turns out to write into what
    backward needs. The caller's model, its parameters' flags and the host's state are as before when this returns.
    Raises ModelError where the host cannot run the model on these inputs, StreamedWeights where it cannot load it as a
    whole for backward.
    """
    place = coordinate(model)
    backward = gradient and mode != "jacobian_free"
    patcher = _for_gradients(model, room) if backward else model
    if beside:
        patcher = patcher.clone()
        # Loaded later they could push the model out of memory while it is in use.
        patcher.set_additional_models("vipaint", list(beside))
    sampling = patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", _SCHEDULE_STEPS)
    guider = comfy.samplers.CFGGuider(patcher)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    step = step_for(model.model.get_dtype_inference()) if gradient and not backward else None
    zeros = torch.zeros((*shape[:2], 1, *shape[2:]) if has_frame(model) else shape)

    def run() -> T:
        runner = _Runner(work, place, backward, beside, mode != "full", step)
        try:
            guider.sample(zeros, zeros, runner, sigmas, disable_pbar=True, seed=seed)
        except Exception:
            if runner.started:
                raise
            with failures():
                raise
        if not runner.results:
            raise RuntimeError("VIPaint: a wrapper of another extension replaced the sampling loop; disable it")
        return runner.results[0]

    with contextlib.suppress(Overwritten):
        return run()
    return run()


class _Runner(comfy.samplers.Sampler, Generic[T]):
    """A host sampler that hands its model to `work` instead of following the schedule."""

    def __init__(
        self,
        work: Work[T],
        place: Coordinate,
        backward: bool,
        beside: Sequence[Any],
        in_blocks: bool,
        step: float | None,
    ) -> None:
        self.work, self.place, self.backward, self.beside = work, place, backward, beside
        self.in_blocks, self.step = in_blocks, step
        self.started, self.results = False, list[T]()

    def sample(
        self,
        model_wrap: Any,
        sigmas: torch.Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: torch.Tensor,
        latent_image: torch.Tensor | None = None,
        denoise_mask: torch.Tensor | None = None,
        disable_pbar: bool = False,
    ) -> torch.Tensor:
        self.started = True
        options = {"model_options": extra_args.get("model_options", {}), "seed": extra_args.get("seed")}
        ambient, framed = torch.is_inference_mode_enabled(), noise.ndim == 5
        denoiser: Denoiser = HostDenoiser(model_wrap, options, self.place, self.backward, ambient, framed)
        if self.step is not None:
            denoiser = JacobianFree(denoiser, self.step)
        patchers = [model_wrap.model_patcher, *_loaded(model_wrap)] if self.backward else self.beside
        with torch.inference_mode(False), torch.no_grad(), contextlib.ExitStack() as stack:
            if patchers:
                check_weights(patchers)
                networks = [patcher.model for patcher in patchers]
                stack.enter_context(_differentiable(networks))
                if self.backward:
                    stack.enter_context(_ordinary_conditioning(model_wrap))
                if self.in_blocks:
                    stack.enter_context(checkpointed(networks, _PlainKernels))
            self.results.append(self.work(denoiser, self.place, noise.device))
        return noise


class HostDenoiser:
    """The core's denoiser: the host's CFG-combined prediction of x0, in the core's coordinate."""

    def __init__(
        self,
        model_wrap: Any,
        options: dict[str, Any],
        place: Coordinate,
        differentiable: bool,
        ambient: bool,
        framed: bool,
    ) -> None:
        self._model_wrap, self._options, self._place, self._framed = model_wrap, options, place, framed
        self._differentiable, self._inside = differentiable, False
        # As the host's own samplers run it, but for what autograd will meet again.
        self._inference = ambient and not differentiable
        self._last = math.inf

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if float(s.max()) > self._last:
            _rewind_hooks(self._model_wrap)
        self._last = float(s.max())
        z, sigma = self._place.to_host(u.float(), s.float())
        # The host counts a flow's time from 0 to 1, without the scale of its noise.
        sigma = (sigma / self._place.noise_scale if self._place.flow else sigma).clone()
        if self._inside:
            with failures():
                return inside_only(self._predict(z, sigma))
        if torch.is_grad_enabled():
            raise RuntimeError("VIPaint: a differentiated call belongs inside `denoiser.gradients()`")
        with failures(), torch.inference_mode(self._inference), torch.no_grad():
            x0 = self._predict(z, sigma)
        # Outside inference mode a clone is an ordinary tensor again.
        return x0.clone()

    def _predict(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        x0 = self._model_wrap(z.unsqueeze(2) if self._framed else z, sigma, **self._options)
        return x0.squeeze(2) if self._framed else x0

    @contextlib.contextmanager
    def gradients(self) -> Iterator[None]:
        """The context for differentiated calls and their backward passes."""
        if not self._differentiable:
            raise RuntimeError("VIPaint: the denoiser was opened without gradients")
        with gradients(self._model_wrap.inner_model):
            self._inside = True
            try:
                yield
            finally:
                self._inside = False


@contextlib.contextmanager
def gradients(network: torch.nn.Module) -> Iterator[None]:
    """The context for differentiated calls of a network of the host's and their backward passes; one at a time.

    Flux blocks and ControlNet write into tensors that backward still needs. Autograd notices that, and the guard against
    it watches every operation: it is there where it is needed. Raises Overwritten where it was, and will be from now on.
    """
    guarded = network in _WRITERS
    with (
        _training(),
        _PlainKernels(),
        torch.enable_grad(),
        cloned_before_writes() if guarded else contextlib.nullcontext(),
    ):
        try:
            yield
        except RuntimeError as error:
            if guarded or "modified by an inplace operation" not in str(error):
                raise
            _WRITERS.add(network)
            raise Overwritten(f"{type(network).__name__} writes into what its backward pass needs") from error


def inside_only(x: torch.Tensor) -> torch.Tensor:
    """What a network has returned; its backward pass outside of `gradients` raises RuntimeError."""
    if x.requires_grad:
        x.register_hook(_check_inside)
    return x


def _check_inside(_gradient: torch.Tensor) -> None:
    if not comfy.model_management.in_training:
        raise RuntimeError("VIPaint: a backward pass belongs inside `denoiser.gradients()`")


class _PlainKernels(TorchFunctionMode):
    """Calls the reference in place of the host's own kernels, which autograd cannot follow: some networks use them in
    any case. Also where it has nothing to follow: a block that is computed again must give what it gave before.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if str(getattr(function, "__module__", "")).endswith(".comfy_kitchen"):
            function = getattr(importlib.import_module("comfy_kitchen.backends.eager"), function.__name__)
        return function(*args, **(kwargs or {}))


def _for_gradients(model: Any, room: float) -> Any:
    """A clone of the model that backward can pass through; the caller's model stays as it is."""
    clone = resident(model).clone()
    if clone.get_additional_models_with_key("multigpu"):
        log.info("VIPaint: gradients use one GPU; the others of a multi-GPU model stay idle")
        clone.remove_additional_models("multigpu")
    transformer = clone.model_options.setdefault("transformer_options", {})
    # Sage and flash attention have no backward; the CPU's default raises in it.
    transformer["optimized_attention_override"] = _plain_attention
    clone.add_wrapper(comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, partial(_load_fully, room))
    return clone


def resident(patcher: Any) -> Any:
    """The same network with weights that stay: streamed ones share buffers, overwritten before backward reads them."""
    if not patcher.is_dynamic():
        return patcher
    if not hasattr(patcher, "get_non_dynamic_delegate"):
        return patcher.clone(disable_dynamic=True)
    # The host keeps its network, so only the first use loads it anew.
    found = patcher.get_non_dynamic_delegate()
    _settle(found.model)
    # When a loaded patcher ends the host goes on with its parent. That would be the streaming one, which has not these
    # weights and so never frees them.
    if getattr(_RESIDENT.get(patcher), "model", None) is not found.model:
        # Of a clone's options some may refer to the patcher, which then would never end.
        bare = comfy.model_patcher.ModelPatcher(found.model, found.load_device, found.offload_device)
        _RESIDENT[patcher] = bare.clone(model_override=found.get_clone_model_override())
    found.parent = _RESIDENT[patcher]
    return found


def _settle(network: torch.nn.Module) -> None:
    """Gives weights the precision that the host means for them: where it streams, it leaves a file's until their use."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            meant = getattr(module, f"{name}_comfy_model_dtype", None)
            # Quantised ones are no plain parameters.
            if type(weight) is torch.nn.Parameter and meant not in (None, weight.dtype):
                module._parameters[name] = torch.nn.Parameter(weight.to(meant), requires_grad=False)


def _plain_attention(_function: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
    return attention_pytorch(*args, **kwargs)


def _load_fully(room: float, executor: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    """Partly loaded models stream weights, with the hazard of dynamic ones."""
    if not comfy.model_management.is_device_cpu(model.load_device):
        own = [one for one in comfy.model_management.current_loaded_models if one.model and one.model.is_clone(model)]
        missing = model.model_size() - sum(one.model_loaded_memory() for one in own)
        comfy.model_management.free_memory(missing + room, model.load_device, keep_loaded=own)
    return executor(model, *args, **{**kwargs, "force_full_load": True})


def check_weights(patchers: Iterable[Any]) -> None:
    """Raises StreamedWeights: some settings of the host stream in any case, and ControlNets are loaded as it sees fit."""
    for patcher in patchers:
        if patcher.is_dynamic() or is_elsewhere(patcher.model, patcher):
            raise StreamedWeights(f"the weights of {type(patcher.model).__name__} are streamed")


def is_elsewhere(network: torch.nn.Module, patcher: Any) -> bool:
    """Whether weights are not where the host runs them."""
    return any(weight.device.type != patcher.load_device.type for weight in network.parameters())


def _loaded(model_wrap: Any) -> list[Any]:
    """Patchers of ControlNets and other networks that the host has loaded for the conditioning."""
    loaded = getattr(model_wrap, "loaded_models", ())
    return [patcher for patcher in loaded if isinstance(getattr(patcher, "model", None), torch.nn.Module)]


def _rewind_hooks(model_wrap: Any) -> None:
    """Scheduled hooks only move towards less noise; a fit goes up again at every step."""
    groups = [cond["hooks"] for conds in model_wrap.conds.values() for cond in conds if cond.get("hooks") is not None]
    if all(hook.hook_keyframe.is_empty() for group in groups for hook in group.hooks):
        return
    for group in groups:
        group.reset()
    # Weights that were merged for another part of the schedule.
    model_wrap.model_patcher.cached_hook_patches.clear()
    model_wrap.model_patcher.patch_hooks(None)


@contextlib.contextmanager
def _training() -> Iterator[None]:
    """The host's flag that keeps operations without a backward out; never left behind."""
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    try:
        yield
    finally:
        comfy.model_management.in_training = before


@contextlib.contextmanager
def _differentiable(roots: list[torch.nn.Module]) -> Iterator[None]:
    """Makes modules fit for backward to their inputs: no inference tensors, no gradients of parameters.

    Tensors are replaced one at a time by equal clones, so that no second copy of the model exists.
    """
    wanted: list[torch.nn.Parameter] = []
    modules = {part for root in roots for part in root.modules()}
    stores = [store for module in modules for store in (module._parameters, module._buffers, vars(module))]
    # Means and deviations of latents, which are no module's.
    stores += [vars(root.latent_format) for root in roots if hasattr(root, "latent_format")]
    for store in stores:
        for name, value in list(store.items()):
            if not isinstance(value, torch.Tensor):
                continue
            is_parameter = isinstance(value, torch.nn.Parameter)
            if value.is_inference():
                plain = value.detach().clone()
                value = store[name] = torch.nn.Parameter(plain, value.requires_grad) if is_parameter else plain
            if is_parameter and value.requires_grad:
                wanted.append(value.requires_grad_(False))
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def _ordinary_conditioning(model_wrap: Any) -> Iterator[None]:
    """Replaces inference tensors of the guider's processed conditioning by clones for the time being."""
    before = model_wrap.conds
    model_wrap.conds = _ordinary(before, {})
    try:
        yield
    finally:
        # The host cleans up what it has prepared, not our copies.
        model_wrap.conds = before


def _ordinary(value: Any, known: dict[int, Any]) -> Any:
    """A copy without inference tensors. The host compares by identity, hence one copy per object."""
    if id(value) in known:
        return known[id(value)]
    result = value
    if isinstance(value, torch.Tensor):
        result = value.clone() if value.is_inference() else value
    elif isinstance(value, dict):
        result = {key: _ordinary(item, known) for key, item in value.items()}
    elif isinstance(value, list):
        result = [_ordinary(item, known) for item in value]
    elif isinstance(value, tuple):
        items = [_ordinary(item, known) for item in value]
        result = type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    elif isinstance(value, comfy.conds.CONDRegular):
        result = copy.copy(value)
        result.cond = _ordinary(value.cond, known)
    elif isinstance(value, comfy.controlnet.ControlBase):
        result = copy.copy(value)
        for name in ("previous_controlnet", "cond_hint_original", "extra_concat_orig"):
            setattr(result, name, _ordinary(getattr(value, name), known))
    known[id(value)] = result
    return result


def reporter(model: Any, calls: int, fit_calls: int) -> Callable[[Progress], None]:
    """A callback for the core that drives the host's progress bar and its latent preview.

    calls: network calls of the whole node; fit_calls: those before the first sampling call.
    """
    bar = comfy.utils.ProgressBar(max(calls, 1))
    previewer = latent_preview.get_previewer(model.load_device, model.get_model_object("latent_format"))
    framed, shown = has_frame(model), -math.inf

    @torch.no_grad()
    def report(progress: Progress) -> None:
        nonlocal shown
        drawing = progress.stage == "sample"
        value = progress.call + (fit_calls if drawing else 0)
        # Smaller batches than planned take more calls.
        planned = max(calls, fit_calls + progress.calls if drawing else 1, 1)
        preview = None
        if previewer is not None and progress.x0 is not None and time.monotonic() - shown > _PREVIEW_SECONDS:
            x0 = progress.x0[:1].unsqueeze(2) if framed else progress.x0[:1]
            preview = previewer.decode_latent_to_preview_image("JPEG", x0)
            shown = time.monotonic()
        bar.update_absolute(value, planned, preview)

    return report
