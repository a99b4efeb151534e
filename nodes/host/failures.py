"""Errors of the host, told apart: the end of memory, interrupts, and models that fail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import comfy.model_management


class ModelError(RuntimeError):
    """The host's model failed."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory has ended; the host's own check clears the device's error, too."""
    check = getattr(comfy.model_management, "is_oom", lambda _: False)
    words = ("out of memory", "can't allocate memory")
    known = isinstance(error, (MemoryError, comfy.model_management.OOM_EXCEPTION)) or check(error)
    return known or any(word in str(error).lower() for word in words)


@contextlib.contextmanager
def named_failures() -> Iterator[None]:
    """The host treats its memory's end and interrupts itself; everything else becomes a ModelError."""
    try:
        yield
    except Exception as error:
        # Interrupts are an Exception in older hosts (0.18).
        if is_out_of_memory(error) or isinstance(error, comfy.model_management.InterruptProcessingException):
            raise
        raise ModelError(f"{type(error).__name__}: {error}") from error
