"""What can go wrong, by who has to act."""

from __future__ import annotations


class BatchError(Exception):
    """The command cannot start or go on. The message says what was expected, what was found and how to fix it."""


class PictureError(Exception):
    """A picture or mask that cannot be painted, whichever server tries."""


class ServerTrouble(Exception):
    """A server that does not answer, answers with an error of its own, or has lost a prompt.

    running: whether the prompt was being executed, so that the picture itself may be the cause.
    """

    def __init__(self, message: str, running: bool = True) -> None:
        super().__init__(message)
        self.running = running


class Unsuitable(Exception):
    """A server that answers and cannot do this work: it lacks the pack, its version, a node or a model."""
