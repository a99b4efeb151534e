"""Digests of what decides a result, stable across runs, machines and renamed classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


def described(value: Any) -> Any:
    """A value as JSON knows it: of a dataclass its fields by name, without the name of the class.

    Raises TypeError for values of which nothing stable is known.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: described(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): described(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(part) for part in value]
    raise TypeError(f"expected settings of numbers, words, dataclasses and lists, found {type(value).__name__}")


def digest(**what: Any) -> str:
    """16 hexadecimal digits of the named values; their order does not count."""
    text = json.dumps(described(what), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_digest(files: Iterable[Path]) -> str:
    """16 hexadecimal digits of the contents of files, in the given order."""
    total = hashlib.sha256()
    for file in files:
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def preset_settings(preset: Any) -> dict[str, Any]:
    """What decides a preset's results: all but its name and its description, and what only gains ask for without them."""
    parts = {name: described(getattr(preset, name)) for name in ("fit", "schedule", "sampler")}
    if not preset.chains:
        del parts["fit"]["chains"], parts["fit"]["rank"], parts["sampler"]["corrections"]
    return parts
