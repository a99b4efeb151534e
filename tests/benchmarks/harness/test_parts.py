"""Parts of results outlive the process that made them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from benchmarks.harness import parts
from benchmarks.harness.parts import MissingPartError, kept, part_file, read


@dataclass(frozen=True)
class Part:
    latents: torch.Tensor
    seconds: float
    count: int


@dataclass(frozen=True)
class Numbers:
    distance: float


def test_a_part_is_made_once_unless_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CACHE", tmp_path)
    file, made = part_file("toy", "balanced, jacobian_free", "x/y", key="1234"), []
    assert file == tmp_path / "toy" / "balanced__jacobian_free-x_y-1234.safetensors"

    def make() -> Part:
        made.append(1)
        return Part(torch.arange(6.0).reshape(2, 3).T, 0.1, len(made))

    assert kept(file, Part, make).count == 1
    again = kept(file, Part, make)
    assert (again.seconds, again.count, len(made)) == (0.1, 1, 1)
    assert torch.equal(again.latents, torch.arange(6.0).reshape(2, 3).T)
    assert kept(file, Part, make, fresh=True).count == 2
    assert read(file, Part).count == 2


def test_parts_without_tensors(tmp_path: Path) -> None:
    file = tmp_path / "part.safetensors"
    assert kept(file, Numbers, lambda: Numbers(math.inf)) == read(file, Numbers) == Numbers(math.inf)


def test_a_part_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match=r"no part\.safetensors"):
        read(tmp_path / "part.safetensors", Numbers)
