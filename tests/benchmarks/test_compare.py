"""What the comparison of two checkouts calls a difference."""

from __future__ import annotations

import torch

from benchmarks.compare import differences


def test_equal_to_the_last_bit_or_different() -> None:
    one = {"a": torch.ones(2), "b": torch.zeros(2, 3), "c": torch.zeros(1)}
    assert differences(one, {name: tensor.clone() for name, tensor in one.items()}) == []
    other = {"a": torch.ones(2), "b": torch.zeros(3, 2), "d": torch.zeros(1)}
    other["a"][0] += torch.finfo(torch.float32).eps
    assert differences(one, other) == [
        "a: differs by 1.19e-07 at most, 5.96e-08 on average",
        "b: shape (2, 3) became (3, 2)",
        "c: only in the other checkout",
        "d: only in the present checkout",
    ]
