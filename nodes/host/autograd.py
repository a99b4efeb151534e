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
from torch.utils.weak import WeakTensorKeyDictionary

from .saved_tensors import cloned_before_writes

# Networks whose backward needs `cloned_before_writes`.
_WRITERS = WeakSet[torch.nn.Module]()


class OverwrittenTensorError(RuntimeError):
    """A network has written into what its backward pass needs."""


@contextlib.contextmanager
def gradients(network: torch.nn.Module, ordinary: OrdinaryTensors | None = None) -> Iterator[None]:
    """The context for differentiated calls of a network of the host's and their backward passes; one at a time.

    Flux blocks and ControlNet write into tensors that backward still needs. Autograd notices that, and the guard
    against it watches every operation: it is there where it is needed. Raises OverwrittenTensorError where it was,
    and will be from now on.

    ordinary: of the run, whose clones serve all its calls.
    """
    guarded = network in _WRITERS
    with (
        _training(),
        followable(ordinary or OrdinaryTensors()),
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


@contextlib.contextmanager
def followable(ordinary: OrdinaryTensors) -> Iterator[None]:
    """Within it operations are such as autograd can follow."""
    with PlainKernels(), ordinary:
        yield


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


class OrdinaryTensors(TorchFunctionMode):
    """Gives operations that autograd records equal clones in place of inference tensors, whoever holds those.

    `differentiable` replaces the tensors of the networks that the host has loaded. This is for whatever else a pass
    meets: what other nodes have encoded in advance, and networks that the host does not know of. A clone ends with
    its original. Writes into inference tensors stay the error that they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clones = WeakTensorKeyDictionary()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.is_grad_enabled() and _meets_both(args, kwargs) and not _is_access(function):
            args, kwargs = self._ordinary(args), self._ordinary(kwargs)
        return function(*args, **kwargs)

    def _ordinary(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if not value.is_inference():
                return value
            if value not in self._clones:
                self._clones[value] = value.detach().clone()
            return self._clones[value]
        if isinstance(value, (list, tuple)):
            items = map(self._ordinary, value)
            return list(items) if isinstance(value, list) else tuple(items)
        return {key: self._ordinary(item) for key, item in value.items()} if isinstance(value, dict) else value


def _meets_both(*values: Any) -> bool:
    """Whether autograd records an operation on these, and one of them is an inference tensor."""
    tensors = list(_tensors(values))
    return any(tensor.is_inference() for tensor in tensors) and any(tensor.requires_grad for tensor in tensors)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


def _is_access(function: Any) -> bool:
    """Whether a function reads or sets an attribute, or writes into its first argument."""
    name = str(getattr(function, "__name__", ""))
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in ("__get__", "__set__", "__setitem__") or name.startswith("__i")


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
