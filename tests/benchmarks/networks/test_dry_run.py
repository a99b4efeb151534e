"""What operations allocate is found without computing them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks.networks.dry_run import DryRun


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.SiLU(inplace=True), nn.Conv2d(64, 4, 3, padding=1)
    ).requires_grad_(False)


def backward(part: nn.Module, u: torch.Tensor) -> None:
    point = u.clone().requires_grad_()
    torch.autograd.grad(part(point).square().sum(), point)


@pytest.mark.parametrize("run", [backward, torch.no_grad()(lambda part, u: part(u))])
def test_a_dry_run_allocates_what_the_operations_do(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[nn.Module, torch.Tensor], object]
) -> None:
    """Its peak is that of the same operations computed, and knows what lives on."""
    part, u = network(), torch.randn(2, 4, 64, 64)
    peaks = []
    for large in (2**60, 2**10):
        monkeypatch.setattr(DryRun, "LARGE", large)
        with DryRun() as dry_run:
            run(part, u)
        peaks.append(dry_run.peak)
        assert dry_run.alive < 1000
    activation = 4 * 2 * 64 * 64 * 64
    assert peaks[0] == peaks[1] >= 2 * activation


def test_a_dry_run_computes_small_things() -> None:
    with DryRun():
        assert torch.equal(torch.arange(4).flip(0) + 1, torch.tensor([4, 3, 2, 1]))
