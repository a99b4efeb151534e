"""What a sampler costs: memory, and its network calls, counted and timed without anything around them."""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import torch

from benchmarks.samplers import PACK
from toy_prior import model as toy


class Meter:
    """Counts and times the network calls of a model through the host's own hook for it.

    `calls` counts by (kind, rows): a forward pass without a graph ("plain") or with one ("graph"),
    and a backward pass to the latent ("backward").
    """

    def __init__(self, model: Any) -> None:
        self.model = model.clone()
        self.model.set_model_unet_function_wrapper(self._call)
        self.calls: Counter[tuple[str, int]] = Counter()
        self._timed: dict[str, list[float]] | None = None

    def _call(self, network: Callable[..., torch.Tensor], given: dict[str, Any]) -> torch.Tensor:
        x, t, c = given["input"], given["timestep"], given["c"]
        graph = torch.is_grad_enabled() and x.requires_grad
        if self._timed is None:
            self.calls["graph" if graph else "plain", len(x)] += 1
            if graph:
                x.register_hook(self._count_backward)
            return network(x, t, **c)
        for _ in range(5):
            start = time.perf_counter()
            out = network(x, t, **c)
            middle = time.perf_counter()
            self._timed["graph" if graph else "plain"].append(middle - start)
            if graph:
                torch.autograd.grad(out.sum(), x)
                self._timed["backward"].append(time.perf_counter() - middle)
        return network(x, t, **c)

    def _count_backward(self, gradient: torch.Tensor) -> None:
        self.calls["backward", len(gradient)] += 1

    def _bare(self, rows: int, graph: bool, conditioning: Any) -> dict[str, list[float]]:
        """Times of bare calls with this many rows."""
        self._timed = {"plain": [], "graph": [], "backward": []}

        def once(denoiser: Any, _place: Any, device: torch.device) -> None:
            with denoiser.gradients() if graph else contextlib.nullcontext():
                latents = torch.randn(rows, *toy.LATENT_SHAPE, device=device, requires_grad=graph)
                denoiser(latents, torch.ones(rows, device=device))

        shape = (rows, *toy.LATENT_SHAPE)
        PACK.bridge.open_denoiser(
            self.model, conditioning, conditioning, cfg=1.0, shape=shape, seed=0, gradient=graph, work=once
        )
        timed, self._timed = self._timed, None
        return timed

    def warm_up(self, conditioning: Any) -> None:
        """A first call, which loads the weights."""
        self._bare(1, False, conditioning)

    def bare_seconds(self, conditioning: Any) -> float:
        """Time that the counted calls take without anything around them."""
        total = 0.0
        for rows, graph in {(rows, kind != "plain") for kind, rows in self.calls}:
            for kind, times in self._bare(rows, graph, conditioning).items():
                if times:
                    total += self.calls[kind, rows] * statistics.median(times)
        return total

    def rows(self, *kinds: str) -> int:
        """Latents that went through, over all calls of these kinds."""
        return sum(rows * count for (kind, rows), count in self.calls.items() if kind in kinds)


class Peak:
    """The most memory that a `with` block takes beyond what was in use before, `bytes`.

    What is allocated on a GPU; without one the resident memory of the process, looked at every few milliseconds.
    """

    bytes: int = 0

    def __enter__(self) -> Peak:
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        elif hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            # Freed memory that the process still holds would hide what is taken next.
            libc.malloc_trim(0)
        self._before = self._now()
        self._watch.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._watch.join()

    def _look(self) -> None:
        ended = False
        while not ended:
            # Once more at the end: a GPU's maximum is known then.
            ended = self._ended.wait(0.005)
            self.bytes = max(self.bytes, self._now() - self._before)

    @staticmethod
    def _now() -> int:
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
        return int(psutil.Process().memory_info().rss)
