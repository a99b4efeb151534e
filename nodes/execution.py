"""What surrounds the `execute` of every node: its values, its errors, and what it tells the user."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from comfy_api.v0_0_2 import io

from .errors import InputError
from .host.messages import collected
from .links import as_sent, choices_not_made, plain_values

R = TypeVar("R")


def names_node(execute: Callable[..., R]) -> Callable[..., R]:
    """Lets the errors of a node's `execute` begin with the node's name as the menu shows it.

    Gives it the values as it expects them, see `links`. What it tells by `host.messages` becomes a part of its result.
    """
    signature = inspect.signature(execute)

    @functools.wraps(execute)
    def named(cls: Any, *args: Any, **kwargs: Any) -> R:
        schema = cls.define_schema()
        # Without the class, which is the first.
        values = dict(list(signature.bind_partial(cls, *args, **kwargs).arguments.items())[1:])
        with collected() as told:
            try:
                for choice in choices_not_made(schema.inputs, values):
                    raise _not_made(cls, choice)
                out: Any = execute(cls, **plain_values(schema.inputs, values))
            except InputError as error:
                raise ValueError(f"{schema.display_name}, {error}") from error
        if told.as_ui and hasattr(out, "ui"):
            out.ui = {**(out.ui or {}), **told.as_ui}
        return out

    return named


def _not_made(node: Any, choice: io.DynamicCombo.Input) -> InputError:
    option = next((option for option in choice.options if option.inputs), choice.options[0])
    fix = f'In a prompt for scripts write "{choice.id}": "{option.key}"'
    if option.inputs:
        fix += f', and each of its settings beside it, as "{choice.id}.{option.inputs[0].id}"'
    keys = ", ".join(option.key for option in choice.options)
    return InputError(choice.id, f"one of {keys}", as_sent(node, choice.id), f"{fix}.")
