"""Results of long computations, kept in files so that a benchmark can be interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.harness.results import CACHE

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = TypeVar("P", bound="DataclassInstance")


class MissingPartError(LookupError):
    """A part is not, or no longer, in its file."""


def part_file(benchmark: str, *words: str, key: str) -> Path:
    """The file of a part. words: what people find it by. key: a digest of all that decides the part."""
    name = "-".join("".join(letter if letter.isalnum() else "_" for letter in word) for word in words)
    return CACHE / benchmark / f"{name}-{key}.safetensors"


def kept(file: Path, kind: type[P], make: Callable[[], P], fresh: bool = False) -> P:
    """What `make` returns, or has returned before, unless `fresh`.

    file: named after all that decides the result.
    kind: a dataclass of tensors and of values that JSON knows.
    """
    if not fresh and file.is_file():
        return read(file, kind)
    part = make()
    values = {field.name: getattr(part, field.name) for field in fields(kind)}
    tensors = {name: value.contiguous() for name, value in values.items() if isinstance(value, torch.Tensor)}
    others = {name: value for name, value in values.items() if name not in tensors}
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    save_file(tensors, unfinished, {"values": json.dumps(others)})
    unfinished.replace(file)
    return part


def read(file: Path, kind: type[P]) -> P:
    """A part that `kept` has kept. Raises MissingPartError."""
    if not file.is_file():
        raise MissingPartError(f"no {file.name} in .cache/benchmarks")
    with safe_open(file, "pt") as stored:
        values: dict[str, Any] = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        return kind(**values, **json.loads(stored.metadata()["values"]))
