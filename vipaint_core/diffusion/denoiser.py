"""The denoiser contract `x0_hat = denoiser(u, s)`, u (N, C, H, W), s (N,), and the count of its evaluations.

A denoiser with a method `gradients` is differentiated only inside the context that it returns, backward
included; others wherever gradients are enabled. One with `difference_step` says how large a step differences of its
answers are taken over, see `jacobian_free.step_for`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Where rounding is no matter, in units as in `jacobian_free.step_for`.
DIFFERENCE_STEP = 0.01


@dataclass(frozen=True)
class Evaluations:
    """Passes through the network, one per latent: forward, and backward to the latent."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: Evaluations) -> Evaluations:
        return Evaluations(self.forward + other.forward, self.backward + other.backward)

    def __sub__(self, other: Evaluations) -> Evaluations:
        return Evaluations(self.forward - other.forward, self.backward - other.backward)


@dataclass(frozen=True)
class Progress:
    """What a callback is given after every network call.

    stage: "fit", "chains" (the fills that fit gains, see `posterior.gains`), "bound" (of gains) or "sample".
    call, calls: network calls made and planned.
    x0: the call's estimate, (N, C, H, W), detached.
    bound: -ELBO of the last finished fit step, mean over images, nats.
    """

    stage: str
    call: int
    calls: int
    x0: torch.Tensor
    bound: float | None = None


class CountingDenoiser:
    """Wraps a denoiser: casts levels to rows, counts evaluations, reports progress."""

    def __init__(
        self, denoiser: Denoiser, stage: str, calls: int, callback: Callable[[Progress], None] | None, call: int = 0
    ) -> None:
        self._denoiser, self._callback = denoiser, callback
        self._stage, self._calls, self._call = stage, calls, call
        self.evaluations = Evaluations()
        self.bound: float | None = None

    def __call__(self, u: torch.Tensor, s: float | torch.Tensor) -> torch.Tensor:
        rows = torch.as_tensor(s, dtype=torch.float64 if u.dtype == torch.float64 else torch.float32, device=u.device)
        if torch.is_grad_enabled() and u.requires_grad:
            # Not a closure over u: a tensor that its own hook keeps alive holds the graph's memory.
            u.register_hook(partial(self._count_backward, len(u)))
        x0 = self._denoiser(u, rows.expand(len(u)).clone() if rows.ndim == 0 else rows).to(u.dtype)
        self.evaluations += Evaluations(forward=len(u))
        self._call += 1
        if self._callback is not None:
            self._callback(Progress(self._stage, self._call, self._calls, x0.detach(), self.bound))
        return x0

    def gradients(self) -> AbstractContextManager[object]:
        """The context for a differentiated call and its backward pass."""
        opened: AbstractContextManager[object] = getattr(self._denoiser, "gradients", torch.enable_grad)()
        return opened

    @property
    def difference_step(self) -> float:
        """See above."""
        return float(getattr(self._denoiser, "difference_step", DIFFERENCE_STEP))

    def take_evaluations(self) -> Evaluations:
        """What was counted since the last time."""
        taken, self.evaluations = self.evaluations, Evaluations()
        return taken

    def _count_backward(self, rows: int, _gradient: torch.Tensor | None) -> None:
        self.evaluations += Evaluations(backward=rows)
