"""Gradients through the host's networks: ordinary tensors, plain kernels, and guards against overwritten ones."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import comfy.model_management
import torch
from torch.overrides import TorchFunctionMode

from .saved_tensors import cloned_before_writes

# Networks whose backward needs `cloned_before_writes`.
_WRITERS = WeakSet[torch.nn.Module]()


class OverwrittenTensorError(RuntimeError):
    """A network has written into what its backward pass needs."""


@contextlib.contextmanager
def gradients(network: torch.nn.Module) -> Iterator[None]:
    """The context for differentiated calls of a network of the host's and their backward passes; one at a time.

    Flux blocks and ControlNet write into tensors that backward still needs. Autograd notices that, and the guard
    against it watches every operation: it is there where it is needed. Raises OverwrittenTensorError where it was,
    and will be from now on.
    """
    guarded = network in _WRITERS
    with (
        _training(),
        PlainKernels(),
        torch.enable_grad(),
        cloned_before_writes() if guarded else contextlib.nullcontext(),
    ):
        try:
            yield
        except RuntimeError as error:
            if guarded or "modified by an inplace operation" not in str(error):
                raise
            _WRITERS.add(network)
            raise OverwrittenTensorError(
                f"{type(network).__name__} writes into what its backward pass needs"
            ) from error


def refuse_backward_outside(x: torch.Tensor) -> torch.Tensor:
    """What a network has returned; its backward pass outside of `gradients` raises RuntimeError."""
    if x.requires_grad:
        x.register_hook(_check_inside)
    return x


def _check_inside(_gradient: torch.Tensor) -> None:
    if not comfy.model_management.in_training:
        raise RuntimeError("VIPaint: a backward pass belongs inside `denoiser.gradients()`")


@contextlib.contextmanager
def _training() -> Iterator[None]:
    """The host's flag that keeps operations without a backward out; always put back."""
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    try:
        yield
    finally:
        comfy.model_management.in_training = before


class PlainKernels(TorchFunctionMode):
    """Calls the reference in place of the host's own kernels, which autograd cannot follow: some networks use them in
    any case. Also where it has nothing to follow: a block that is computed again must give what it gave before.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if str(getattr(function, "__module__", "")).endswith(".comfy_kitchen"):
            function = getattr(importlib.import_module("comfy_kitchen.backends.eager"), function.__name__)
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def differentiable(roots: list[torch.nn.Module]) -> Iterator[None]:
    """Makes modules fit for backward to their inputs: no inference tensors, no gradients of parameters.

    Tensors are replaced one at a time by equal clones, so that no second copy of the model exists.
    """
    wanted: list[torch.nn.Parameter] = []
    modules = {part for root in roots for part in root.modules()}
    stores: list[dict[str, Any]] = [
        store for module in modules for store in (module._parameters, module._buffers, vars(module))
    ]
    # Means and deviations of latents, which are no module's.
    stores += [vars(root.latent_format) for root in roots if hasattr(root, "latent_format")]
    for store in stores:
        for name, value in list(store.items()):
            if not isinstance(value, torch.Tensor):
                continue
            if value.is_inference():
                plain = value.detach().clone()
                is_parameter = isinstance(value, torch.nn.Parameter)
                value = store[name] = torch.nn.Parameter(plain, value.requires_grad) if is_parameter else plain
            if isinstance(value, torch.nn.Parameter) and value.requires_grad:
                value.requires_grad_(False)
                wanted.append(value)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
