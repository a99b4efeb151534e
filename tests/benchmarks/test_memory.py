from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.memory import Peak, Sketch, table


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.SiLU(inplace=True), nn.Conv2d(64, 4, 3, padding=1)
    ).requires_grad_(False)


def backward(part: nn.Module, u: torch.Tensor) -> None:
    point = u.clone().requires_grad_()
    torch.autograd.grad(part(point).square().sum(), point)


@pytest.mark.parametrize("run", [backward, torch.no_grad()(lambda part, u: part(u))])
def test_a_sketch_allocates_what_the_operations_do(monkeypatch: pytest.MonkeyPatch, run) -> None:
    """Its peak is that of the same operations computed, and knows what lives on."""
    part, u = network(), torch.randn(2, 4, 64, 64)
    peaks = []
    for large in (2**60, 2**10):
        monkeypatch.setattr(Sketch, "LARGE", large)
        with Sketch() as sketch:
            run(part, u)
        peaks.append(sketch.peak)
        assert sketch.alive < 1000
    activation = 4 * 2 * 64 * 64 * 64
    assert peaks[0] == peaks[1] >= 2 * activation


def test_a_sketch_computes_small_things() -> None:
    with Sketch():
        assert torch.equal(torch.arange(4).flip(0) + 1, torch.tensor([4, 3, 2, 1]))


def test_the_table_has_a_row_per_size() -> None:
    modes = ("KSampler", "full")
    peaks = [Peak("A", size, mode, "sampling", 2**30, 2**31, 2**29) for size in (8, 16) for mode in modes]
    assert table(peaks).splitlines()[2].split() == [
        "|",
        "A",
        "|",
        "8",
        "|",
        "1.00",
        "|",
        "1.00",
        "|",
        "2.00",
        "|",
        "0.50",
        "|",
    ]
