"""The host's MODEL and CONDITIONING as a differentiable denoiser.

Everything runs inside the host's own guider, so that CFG, LoRA, ControlNet, area conditioning and
hooks work as they do in KSampler; `model_wrap` below is the host's CFG-combined x0 prediction.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import comfy.model_management
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher

from ...vipaint_core import CoarseGridDenoiser, Denoiser, JacobianFree
from ...vipaint_core.diffusion.denoiser import DIFFERENCE_STEP
from ...vipaint_core.diffusion.jacobian_free import step_for
from .autograd import (
    OrdinaryTensors,
    OverwrittenTensorError,
    differentiable,
    followable,
    gradients,
    refuse_backward_outside,
)
from .checkpointing import checkpointed
from .conditioning import Conds, conditioning_at, replaced_conditioning, without_inference_tensors
from .failures import named_failures
from .loading import check_weights, for_gradients, loaded_beside, uncompiled
from .model_info import ModelInfo
from .step_caches import WholePasses

T = TypeVar("T")
# work(denoiser, device)
Work = Callable[[Denoiser, torch.device], T]
# The host's CONDITIONING: encoded prompts with their settings.
Conditioning = list[list[Any]]

# Ways to get gradients, each in less memory than the one before.
GRADIENT_MODES = ("full", "checkpointed", "jacobian_free")
# Hooks and patches read the schedule of a run to know where they are in it.
_SCHEDULE_STEPS = 30


class GuidedModel(Protocol):
    """A model and how it is guided: what a denoiser is opened with.

    gradients: one of `GRADIENT_MODES`, or `memory.AUTO`.
    """

    @property
    def model(self) -> ModelPatcher: ...

    @property
    def info(self) -> ModelInfo: ...

    @property
    def seed(self) -> int: ...

    @property
    def gradients(self) -> str: ...

    def guider(self, patcher: ModelPatcher) -> comfy.samplers.CFGGuider:
        """The host's guider of the model, through this patcher of it."""


@dataclass(frozen=True)
class SamplingInputs:
    """What every node that paints is given.

    cfg: guidance by the prompt; 1 leaves the negative one out.
    gradients: one of `GRADIENT_MODES`, or `memory.AUTO`.
    """

    model: ModelPatcher
    info: ModelInfo
    positive: Conditioning
    negative: Conditioning
    cfg: float
    seed: int
    gradients: str

    def guider(self, patcher: ModelPatcher) -> comfy.samplers.CFGGuider:
        guider = comfy.samplers.CFGGuider(patcher)
        guider.set_conds(self.positive, self.negative)
        guider.set_cfg(self.cfg)
        return guider


def open_denoiser(
    inputs: GuidedModel,
    work: Work[T],
    *,
    shape: tuple[int, ...],
    gradient: bool,
    extra_networks: Sequence[ModelPatcher] = (),
    mode: str = "full",
    activation_bytes: float = 0.0,
) -> T:
    """Runs `work(denoiser, device)` inside the host's guider and returns its result.

    `work` runs without inference mode and without gradients; again, once, where a network turns out to write into what
    backward needs. The caller's model, its parameters' flags and the host's state are as before when this returns.

    shape: (rows, C, H, W) of the largest batch that `work` will ask for, in model scale; the host plans its memory
        with it.
    gradient: the denoiser is differentiable in u inside its `gradients()`.
    extra_networks: patchers of other networks that `work` calls, loaded and made differentiable together with the
        model.
    mode: one of `GRADIENT_MODES`. `full` keeps every activation for backward, `checkpointed` the inputs of the
        network's blocks, to the same result, `jacobian_free` nothing: see `JacobianFree`. Extra networks are
        differentiated in any case, in blocks where it is not `full`.
    activation_bytes: what activations will take, for which the host unloads other models.

    Raises ModelError where the host cannot run the model on these inputs, StreamedWeightsError where it cannot load it
    as a whole for backward.
    """
    backward = gradient and mode != "jacobian_free"
    patcher = for_gradients(inputs.model, activation_bytes) if backward else inputs.model
    if extra_networks:
        patcher = patcher.clone()
        # Loaded later they could push the model out of memory while it is in use.
        patcher.set_additional_models("vipaint", list(extra_networks))
    sampling = patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", _SCHEDULE_STEPS)
    guider = inputs.guider(patcher)
    step = step_for(inputs.model.model.get_dtype_inference())
    zeros = inputs.info.add_frame_axis(torch.zeros(shape))

    def run() -> T:
        runner = _Runner(
            work, guider, inputs.info, backward, extra_networks, mode != "full", step, gradient and not backward
        )
        try:
            guider.sample(zeros, zeros, runner, sigmas, disable_pbar=True, seed=inputs.seed)
        except Exception:
            if runner.started:
                raise
            with named_failures():
                raise
        if not runner.results:
            raise RuntimeError("VIPaint: a wrapper of another extension replaced the sampling loop; disable it")
        return runner.results[0]

    with contextlib.suppress(OverwrittenTensorError):
        return run()
    return run()


class _Runner(comfy.samplers.Sampler, Generic[T]):
    """A host sampler that hands its model to `work` instead of following the schedule."""

    def __init__(
        self,
        work: Work[T],
        guider: comfy.samplers.CFGGuider,
        info: ModelInfo,
        backward: bool,
        extra_networks: Sequence[ModelPatcher],
        in_blocks: bool,
        difference_step: float,
        jacobian_free: bool,
    ) -> None:
        self.work, self.guider, self.info = work, guider, info
        self.backward, self.extra_networks = backward, extra_networks
        self.in_blocks, self.difference_step, self.jacobian_free = in_blocks, difference_step, jacobian_free
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
        options = {"model_options": extra_args["model_options"], "seed": extra_args.get("seed")}
        ambient = torch.is_inference_mode_enabled()
        # Wrappers around samplers may hand on something else.
        ask, model_wrap = model_wrap, self.guider
        passes = WholePasses(model_wrap, ask, options["model_options"])
        beside = [patcher for patcher in loaded_beside(model_wrap) if patcher not in self.extra_networks]
        size = tuple(noise.shape[-2:])
        host = HostDenoiser(model_wrap, passes, beside, options, self.info, size, self.backward, ambient)
        host.difference_step = self.difference_step
        denoiser: Denoiser = host
        if self.jacobian_free:
            denoiser = JacobianFree(denoiser, self.difference_step)
        if math.isfinite(self.info.largest_level):
            denoiser = CoarseGridDenoiser(denoiser, self.info.largest_level)
        patchers = [model_wrap.model_patcher, *loaded_beside(model_wrap)] if self.backward else self.extra_networks
        with torch.inference_mode(False), torch.no_grad(), contextlib.ExitStack() as stack:
            if self.backward or passes.is_needed:
                stack.enter_context(uncompiled(model_wrap))
            stack.enter_context(passes.guarded())
            if patchers:
                check_weights(patchers)
                networks = [patcher.model for patcher in patchers]
                stack.enter_context(differentiable(networks))
                if self.backward:
                    conds = without_inference_tensors(model_wrap.conds)
                    stack.enter_context(replaced_conditioning(model_wrap, conds))
                if self.in_blocks:
                    stack.enter_context(checkpointed(networks, partial(followable, host.ordinary)))
            self.results.append(self.work(denoiser, noise.device))
        return noise


class HostDenoiser:
    """The core's denoiser: the host's CFG-combined prediction of x0, in the core's coordinate.

    difference_step: see `vipaint_core.diffusion.denoiser`.
    """

    difference_step = DIFFERENCE_STEP

    def __init__(
        self,
        model_wrap: Any,
        passes: WholePasses,
        beside: Sequence[ModelPatcher],
        options: dict[str, Any],
        info: ModelInfo,
        size: tuple[int, ...],
        differentiable: bool,
        ambient: bool,
    ) -> None:
        """passes: what asks the guider. beside: networks that it reaches beside the model.
        size: (height, width) of the latents that the conditioning was processed for.
        ambient: whether the host runs nodes in inference mode.
        """
        self._model_wrap, self._passes, self._options, self._info = model_wrap, passes, options, info
        self._beside, self._size = beside, size
        # Of other sizes, by size.
        self._conds: dict[tuple[int, ...], Conds] = {}
        self._differentiable, self._inside = differentiable, False
        # As the host's own samplers run it, but for what autograd will meet again.
        self._inference = ambient and not differentiable
        self._last = math.inf
        self._schedule: torch.Tensor = options["model_options"]["transformer_options"]["sample_sigmas"]
        self.ordinary = OrdinaryTensors()
        # Sizes of latents that the networks have met, see `_meet`.
        self._met = set[torch.Size]()

    def __call__(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if float(s.max()) > self._last:
            _rewind_hooks(self._model_wrap)
        self._last = float(s.max())
        coordinate = self._info.coordinate
        z, sigma = coordinate.to_host(u.float(), s.float())
        # The host counts a flow's time from 0 to 1, without the scale of its noise.
        sigma = torch.as_tensor(sigma / coordinate.noise_scale if coordinate.flow else sigma).clone()
        self._place_in_schedule(sigma)
        if self._inside:
            self._meet(z, sigma)
            with named_failures():
                return refuse_backward_outside(self._predict(z, sigma))
        if torch.is_grad_enabled():
            raise RuntimeError("VIPaint: a differentiated call belongs inside `denoiser.gradients()`")
        with named_failures(), torch.inference_mode(self._inference), torch.no_grad():
            x0 = self._predict(z, sigma)
        self._met.add(z.shape[-2:])
        # Outside inference mode a clone is an ordinary tensor again.
        return x0.clone()

    def _predict(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        z = self._info.add_frame_axis(z)
        with self._conditioning_for(z):
            x0 = self._passes(z, sigma, **self._options)
        return self._info.drop_frame_axis(x0)

    def _conditioning_for(self, z: torch.Tensor) -> contextlib.AbstractContextManager[None]:
        """The conditioning for latents of this size: that of the guider, or one processed anew and kept."""
        size = tuple(z.shape[-2:])
        if size == self._size:
            return contextlib.nullcontext()
        if size not in self._conds:
            conds = conditioning_at(self._model_wrap, z.detach(), self._size[-1] // size[-1])
            self._conds[size] = without_inference_tensors(conds) if self._differentiable else conds
        return replaced_conditioning(self._model_wrap, self._conds[size])

    def _place_in_schedule(self, sigma: torch.Tensor) -> None:
        """The run's schedule with the levels that are asked for now: patches look up in it which step they are in."""
        transformer = self._options["model_options"]["transformer_options"]
        transformer["sample_sigmas"] = torch.cat([self._schedule, sigma.to(self._schedule)]).unique().flip(0)

    def _meet(self, z: torch.Tensor, sigma: torch.Tensor) -> None:
        """A plain pass before the first differentiated one of a size, where there are networks beside the model.

        They encode their pictures at their first call. That needs no gradient, and may push weights out of memory.
        """
        size = z.shape[-2:]
        if size in self._met or not self._beside:
            return
        with named_failures(), torch.no_grad():
            self._predict(z.detach(), sigma)
        check_weights([self._model_wrap.model_patcher, *self._beside])
        self._met.add(size)

    @contextlib.contextmanager
    def gradients(self) -> Iterator[None]:
        """The context for differentiated calls and their backward passes."""
        if not self._differentiable:
            raise RuntimeError("VIPaint: the denoiser was opened without gradients")
        with gradients(self._model_wrap.inner_model, self.ordinary):
            self._inside = True
            try:
                yield
            finally:
                self._inside = False


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
