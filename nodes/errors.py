"""Errors of inputs: which input, what was expected, what was found, and how to fix it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from .host.messages import collected

R = TypeVar("R")


class InputError(ValueError):
    """An input of a node is not what the node can work with; `names_node` adds the node's name.

    name: id of the input in the node's schema.
    """

    def __init__(self, name: str, expected: str, found: str, fix: str) -> None:
        super().__init__(f"input `{name}`: expected {expected}, found {found}. {fix}")


def names_node(execute: Callable[..., R]) -> Callable[..., R]:
    """Lets the errors of a node's `execute` begin with the node's name as the menu shows it.

    What it says with `host.messages.say` becomes a part of its result, under `text`.
    """

    @functools.wraps(execute)
    def named(cls: Any, *args: Any, **kwargs: Any) -> R:
        with collected() as messages:
            try:
                out: Any = execute(cls, *args, **kwargs)
            except InputError as error:
                raise ValueError(f"{cls.define_schema().display_name}, {error}") from error
        if messages and hasattr(out, "ui"):
            out.ui = {**(out.ui or {}), "text": messages}
        return out

    return named
