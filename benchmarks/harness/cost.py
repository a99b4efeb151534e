"""What a method costs: its network calls, counted and timed without anything around them, and its memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from benchmarks.harness.host import PACK, sampling_inputs

# Times that a bare network call is repeated; the median counts.
REPEATS = 5


@dataclass(frozen=True)
class Drawn:
    """Fills and what they cost together.

    latents: (pictures * fills, C, H, W) in the host's scale, all fills of the first picture first.
    forward, backward: passes through the network, counted by rows.
    seconds: wall time.
    bare: seconds that the same network calls take without anything around them, NaN where that was not asked.
    peak: bytes beside the weights.
    """

    latents: torch.Tensor
    forward: int
    backward: int
    seconds: float
    bare: float
    peak: int


def measured(
    draw: Callable[[Any], torch.Tensor], model: Any, shape: tuple[int, ...], *, with_bare: bool = True
) -> Drawn:
    """The latents that `draw(model)` returns, and their cost.

    shape: (C, H, W) of one.
    with_bare: also measure the bare network calls, all of them five times.
    """
    meter = Meter(model, shape)
    with torch.inference_mode():
        meter.warm_up()
        start = time.perf_counter()
        with PeakMemory() as peak:
            latents = draw(meter.model)
        seconds = time.perf_counter() - start
        bare = meter.bare_seconds() if with_bare else math.nan
    return Drawn(latents, meter.rows("plain", "graph"), meter.rows("backward"), seconds, bare, peak.bytes)


class Meter:
    """Counts and times the network calls of a model through the host's own hook for it.

    model: a clone of the given one, to be drawn with.
    calls: numbers of calls by (kind, rows): a forward pass without a graph ("plain") or with one ("graph"), and a
        backward pass to the latent ("backward").
    """

    def __init__(self, model: Any, shape: tuple[int, ...]) -> None:
        """shape: (C, H, W) of a latent."""
        self.model = model.clone()
        self.model.set_model_unet_function_wrapper(self._call)
        self.calls: Counter[tuple[str, int]] = Counter()
        self._shape = shape
        self._timed: dict[str, list[float]] | None = None

    def _call(self, network: Callable[..., torch.Tensor], given: dict[str, Any]) -> torch.Tensor:
        x, t, c = given["input"], given["timestep"], given["c"]
        graph = torch.is_grad_enabled() and x.requires_grad
        if self._timed is None:
            self.calls["graph" if graph else "plain", len(x)] += 1
            if graph:
                x.register_hook(self._count_backward)
            return network(x, t, **c)
        for _ in range(REPEATS):
            start = time.perf_counter()
            out = network(x, t, **c)
            middle = time.perf_counter()
            self._timed["graph" if graph else "plain"].append(middle - start)
            if graph:
                torch.autograd.grad(out.sum(), x)
                self._timed["backward"].append(time.perf_counter() - middle)
        return network(x, t, **c)

    # The pack does not take it for a step cache of another extension.
    _call.runs_whole_network = True  # type: ignore[attr-defined]

    def _count_backward(self, gradient: torch.Tensor) -> None:
        self.calls["backward", len(gradient)] += 1

    def _time_calls(self, rows: int, graph: bool) -> dict[str, list[float]]:
        """Seconds of bare calls with this many rows, by kind."""
        timed: dict[str, list[float]] = {"plain": [], "graph": [], "backward": []}
        self._timed = timed

        def call_once(denoiser: Any, device: torch.device) -> None:
            with denoiser.gradients() if graph else contextlib.nullcontext():
                latents = torch.randn(rows, *self._shape, device=device, requires_grad=graph)
                denoiser(latents, torch.ones(rows, device=device))

        inputs = sampling_inputs(self.model, PACK.host.text_inputs.zero_conditioning(self.model))
        PACK.host.denoiser.open_denoiser(inputs, call_once, shape=(rows, *self._shape), gradient=graph)
        self._timed = None
        return timed

    def warm_up(self) -> None:
        """A first call, which loads the weights."""
        self._time_calls(1, graph=False)

    def bare_seconds(self) -> float:
        """Time that the counted calls take without anything around them."""
        total = 0.0
        for rows, graph in {(rows, kind != "plain") for kind, rows in self.calls}:
            for kind, times in self._time_calls(rows, graph).items():
                if times:
                    total += self.calls[kind, rows] * statistics.median(times)
        return total

    def rows(self, *kinds: str) -> int:
        """Latents that went through, over all calls of these kinds."""
        return sum(rows * count for (kind, rows), count in self.calls.items() if kind in kinds)


class PeakMemory:
    """The most memory that a `with` block takes beyond what was in use before, `bytes`.

    What is allocated on a GPU; without one the resident memory of the process, looked at every few milliseconds.
    """

    bytes: int = 0

    def __enter__(self) -> PeakMemory:
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
