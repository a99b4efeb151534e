"""What a computation allocates, found out without the computation."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


class DryRun(TorchDispatchMode):
    """Allocates what operations on large tensors return and computes none of it; counts the bytes that are alive.

    alive: bytes of storage that was allocated within the mode and still has a reference.
    peak: most of them at once.
    """

    # Numbers; tensors up to this are computed, latents among them, so that checks of their values hold.
    LARGE = 2**18

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        before = {x.untyped_storage()._cdata for x in given}
        result = self._result(func, args, kwargs, given)
        for out in tree_leaves(result):
            if isinstance(out, torch.Tensor) and out.device.type != "meta":
                self._count(out.untyped_storage(), before)
        return result

    def _result(self, func: Any, args: Any, kwargs: Any, given: list[torch.Tensor]) -> Any:
        written = [r.alias_info.is_write for r in func._schema.returns if r.alias_info is not None]
        is_view = "_unsafe_view" in func._schema.name or (written and not any(written))
        if is_view or all(x.numel() <= self.LARGE for x in given):
            return func(*args, **kwargs)
        if any(written):
            return kwargs["out"] if "out" in kwargs else args[0]

        def on_meta(x: torch.Tensor) -> torch.Tensor:
            return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")

        def allocated(x: torch.Tensor) -> torch.Tensor:
            return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)

        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": "meta"}
        args, kwargs = tree_map_only(torch.Tensor, on_meta, (args, kwargs))
        return tree_map_only(torch.Tensor, allocated, func(*args, **kwargs))

    def _count(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in before or key in self._known:
            return
        self._known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size
