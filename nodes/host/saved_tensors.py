"""Backward through networks that write into what it still needs."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch.utils._python_dispatch import TorchDispatchMode


@contextlib.contextmanager
def cloned_before_writes() -> Iterator[None]:
    """Within it what is saved for backward is cloned before anything writes into its storage: backward is exact.

    `torch.autograd.graph.allow_mutation_on_saved_tensors` promises the same, but misses writes through a view of
    another offset, and may take for a new tensor the clone of one that was freed at its address. Raises RuntimeError
    in a backward pass that comes after the context has been left.
    """
    # Of storages by their address. What is in here keeps its storage alive, so that no address comes twice.
    kept: defaultdict[int, WeakValueDictionary[tuple[Any, ...], _Saved]] = defaultdict(WeakValueDictionary)
    inside = True

    def pack(tensor: torch.Tensor) -> _Saved:
        same = kept[tensor.untyped_storage().data_ptr()]
        view = tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg()
        saved = same.get(view)
        if saved is None:
            # A result knows the node that keeps it: neither would ever be freed.
            saved = same[view] = _Saved(tensor.detach())
        return saved

    def unpack(saved: _Saved) -> torch.Tensor:
        if not inside:
            raise RuntimeError("VIPaint: a backward pass belongs inside `denoiser.gradients()`")
        return saved.tensor

    def write(tensor: torch.Tensor) -> None:
        for saved in kept.pop(tensor.untyped_storage().data_ptr(), {}).values():
            saved.tensor = saved.tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack), _BeforeWrites(write):
        try:
            yield
        finally:
            inside = False


class _Saved:
    """What autograd keeps."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class _BeforeWrites(TorchDispatchMode):
    """Calls `write(tensor)` for every tensor that an operation is about to change."""

    def __init__(self, write: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self._write = write

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for place, name in _written(function):
            value = args[place] if place < len(args) else kwargs.get(name)
            for tensor in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(tensor, torch.Tensor):
                    self._write(tensor)
        return function(*args, **kwargs)


@cache
def _written(function: Any) -> tuple[tuple[int, str], ...]:
    """Place and name of the arguments that an operation writes into."""
    arguments = enumerate(function._schema.arguments)
    return tuple(
        (place, one.name) for place, one in arguments if one.alias_info is not None and one.alias_info.is_write
    )
