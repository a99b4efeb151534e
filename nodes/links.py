"""What comes by links and in prompts of scripts, as nodes expect it: the host checks only what is typed into widgets."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from comfy_api.v0_0_2 import io


def plain_values(sockets: Sequence[io.Input], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with numbers of other packs as Python's own, by the kinds of their inputs."""
    kinds = {socket.id: socket for socket in sockets}
    return {name: _plain(kinds[name], value) if name in kinds else value for name, value in values.items()}


def _plain(socket: io.Input, value: Any) -> Any:
    if isinstance(socket, io.DynamicCombo.Input):
        chosen = value.get(socket.id) if isinstance(value, dict) else None
        option = next((option for option in socket.options if option.key == chosen), None)
        return value if option is None else plain_values(option.inputs, value)
    if isinstance(value, np.bool_):
        return bool(value)
    # A truth value is no number, though Python counts with it.
    if isinstance(value, bool):
        return value
    if isinstance(socket, io.Int.Input):
        if isinstance(value, Integral):
            return int(value)
        # Arithmetic in a graph makes 3.0 of 3; what is no whole number is for the checks to refuse.
        return int(float(value)) if isinstance(value, Real) and float(value).is_integer() else value
    return float(value) if isinstance(socket, io.Float.Input) and isinstance(value, Real) else value


def choices_not_made(sockets: Sequence[io.Input], values: Mapping[str, Any]) -> list[io.DynamicCombo.Input]:
    """Choices with settings of their own that the host has dropped: it knows them by exact names only."""
    return [socket for socket in sockets if isinstance(socket, io.DynamicCombo.Input) and socket.id not in values]


def as_sent(node: Any, name: str) -> str:
    """What a prompt holds for an input, for messages. node: running, with the prompt and its id as hidden inputs."""
    hidden = getattr(node, "hidden", None)
    prompt, number = getattr(hidden, "prompt", None) or {}, getattr(hidden, "unique_id", None)
    inputs = prompt.get(number, {}).get("inputs", {})
    return reprlib.repr(inputs[name]) if name in inputs else "none"
