"""Errors of inputs: which input, what was expected, what was found, and how to fix it."""

from __future__ import annotations


class InputError(ValueError):
    """An input of a node is not what the node can work with; `execution.names_node` adds the node's name.

    name: id of the input in the node's schema.
    """

    def __init__(self, name: str, expected: str, found: str, fix: str) -> None:
        super().__init__(f"input `{name}`: expected {expected}, found {found}. {fix}")
