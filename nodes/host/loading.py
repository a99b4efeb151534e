"""Weights that stay where they are for as long as a backward pass needs them."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher

log = logging.getLogger(__name__)

# Parents of patchers whose weights stay, for those that stream them: see `non_streaming`.
_PARENTS = WeakKeyDictionary[Any, Any]()


class StreamedWeightsError(RuntimeError):
    """The host streams weights through buffers that are overwritten before a backward pass reads them."""


def for_gradients(model: ModelPatcher, activation_bytes: float) -> ModelPatcher:
    """A clone of the model that backward can pass through; the caller's model stays as it is.

    activation_bytes: what activations will take, for which the host unloads other models.
    """
    clone = non_streaming(model).clone()
    if clone.get_additional_models_with_key("multigpu"):
        log.info("VIPaint: gradients use one GPU; the others of a multi-GPU model stay idle")
        clone.remove_additional_models("multigpu")
    # The host goes on with a patcher's parent when it ends. The caller's may end together with this one, the first does
    # as its network does.
    clone.parent = _first(clone)
    transformer = clone.model_options.setdefault("transformer_options", {})
    # Sage and flash attention have no backward; the CPU's default raises in it.
    transformer["optimized_attention_override"] = _plain_attention
    clone.add_wrapper(comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, partial(_load_fully, activation_bytes))
    return clone


def _first(patcher: ModelPatcher) -> ModelPatcher:
    """The one of which a patcher is a clone of a clone."""
    while patcher.parent is not None:
        patcher = patcher.parent
    return patcher


def non_streaming(patcher: ModelPatcher) -> ModelPatcher:
    """The same network with weights that stay: streamed ones share buffers, overwritten before backward reads them."""
    if not patcher.is_dynamic():
        return patcher
    if not hasattr(patcher, "get_non_dynamic_delegate"):
        return patcher.clone(disable_dynamic=True)
    # The host keeps its network, so only the first use loads it anew.
    found = patcher.get_non_dynamic_delegate()
    _cast_to_model_precision(found.model)
    # When a loaded patcher ends the host goes on with its parent. That would be the streaming one, which has not these
    # weights and so never frees them.
    if getattr(_PARENTS.get(patcher), "model", None) is not found.model:
        # Of a clone's options some may refer to the patcher, which then would never end.
        bare = comfy.model_patcher.ModelPatcher(found.model, found.load_device, found.offload_device)
        _PARENTS[patcher] = bare.clone(model_override=found.get_clone_model_override())
    found.parent = _PARENTS[patcher]
    return found


def _cast_to_model_precision(network: torch.nn.Module) -> None:
    """Gives weights the precision that the host means for them: where it streams, it leaves a file's until their use."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            meant = getattr(module, f"{name}_comfy_model_dtype", None)
            # Quantised ones are no plain parameters.
            if type(weight) is torch.nn.Parameter and meant not in (None, weight.dtype):
                module._parameters[name] = torch.nn.Parameter(weight.to(meant), requires_grad=False)


def _plain_attention(_function: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
    found: torch.Tensor = attention_pytorch(*args, **kwargs)
    return found


def _load_fully(activation_bytes: float, executor: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    """Partly loaded models stream weights, with the hazard of dynamic ones."""
    if not comfy.model_management.is_device_cpu(model.load_device):
        own = [one for one in comfy.model_management.current_loaded_models if one.model and one.model.is_clone(model)]
        missing = model.model_size() - sum(one.model_loaded_memory() for one in own)
        comfy.model_management.free_memory(missing + activation_bytes, model.load_device, keep_loaded=own)
    return executor(model, *args, **{**kwargs, "force_full_load": True})


def check_weights(patchers: Iterable[ModelPatcher]) -> None:
    """Raises StreamedWeightsError: some settings of the host stream in any case, and ControlNets are loaded as it
    sees fit.
    """
    for patcher in patchers:
        if patcher.is_dynamic() or is_elsewhere(patcher.model, patcher):
            raise StreamedWeightsError(f"the weights of {type(patcher.model).__name__} are streamed")


def is_elsewhere(network: torch.nn.Module, patcher: ModelPatcher) -> bool:
    """Whether weights are not where the host runs them."""
    return any(weight.device.type != patcher.load_device.type for weight in network.parameters())


def loaded_beside(guider: Any) -> list[ModelPatcher]:
    """Patchers of all networks that the host has loaded for a run beside the model, in its own way of finding them.

    Those of the conditioning and its hooks, additional models of the model, and what the patches of all of these call.
    """
    loaded = list(getattr(guider, "loaded_models", ()))
    for patcher in (guider.model_patcher, *loaded):
        loaded += patcher.model_patches_models() if isinstance(patcher, ModelPatcher) else []
    # In their order, each once.
    unique = dict.fromkeys(one for one in loaded if isinstance(getattr(one, "model", None), torch.nn.Module))
    return list(unique)


@contextlib.contextmanager
def uncompiled(guider: Any) -> Iterator[None]:
    """Within it compiled networks run as they were before: what follows their operations would be compiled with them.

    torch.compile has done nothing yet where its part of torch has not been imported.
    """
    compiler = getattr(torch, "compiler", None)
    if "torch._dynamo" not in sys.modules or not hasattr(compiler, "set_stance"):
        yield
        return
    wrappers = guider.model_options["transformer_options"].get("wrappers", {})
    if any("torch.compile" in keys for keys in wrappers.values()):
        log.info("VIPaint: torch.compile is left out where gradients or single blocks of the network are followed")
    with torch.compiler.set_stance("force_eager"):
        yield
