"""Errors of inputs: which input, what was expected, what was found, and how to fix it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from comfy_api.v0_0_2 import io

from .links import as_sent, choices_not_made, plain_values

R = TypeVar("R")


class InputError(ValueError):
    """An input of a node is not what the node can work with; `names_node` adds the node's name.

    name: id of the input in the node's schema.
    """

    def __init__(self, name: str, expected: str, found: str, fix: str) -> None:
        super().__init__(f"input `{name}`: expected {expected}, found {found}. {fix}")


def names_node(execute: Callable[..., R]) -> Callable[..., R]:
    """Lets the errors of a node's `execute` begin with the node's name as the menu shows it.

    Gives it the values as it expects them, see `links`.
    """
    signature = inspect.signature(execute)

    @functools.wraps(execute)
    def named(cls: Any, *args: Any, **kwargs: Any) -> R:
        schema = cls.define_schema()
        # Without the class, which is the first.
        values = dict(list(signature.bind_partial(cls, *args, **kwargs).arguments.items())[1:])
        try:
            for choice in choices_not_made(schema.inputs, values):
                raise _not_made(cls, choice)
            return execute(cls, **plain_values(schema.inputs, values))
        except InputError as error:
            raise ValueError(f"{schema.display_name}, {error}") from error

    return named


def _not_made(node: Any, choice: io.DynamicCombo.Input) -> InputError:
    option = next((option for option in choice.options if option.inputs), choice.options[0])
    fix = f'In a prompt for scripts write "{choice.id}": "{option.key}"'
    if option.inputs:
        fix += f', and each of its settings beside it, as "{choice.id}.{option.inputs[0].id}"'
    keys = ", ".join(option.key for option in choice.options)
    return InputError(choice.id, f"one of {keys}", as_sent(node, choice.id), f"{fix}.")
