"""What nodes tell the user beside their results: on the node in the editor, in the prompt's history, in the log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.utils import get_executing_context

log = logging.getLogger(__name__)


@dataclass
class Told:
    """texts: sentences. cost: passes through the network and the seconds that they took, empty where there were none."""

    texts: list[str] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)

    @property
    def as_ui(self) -> dict[str, list[Any]]:
        """A part of the result's `ui`, which the host keeps and sends to the editor."""
        return {name: value for name, value in (("text", self.texts), ("vipaint_cost", self.cost)) if value}


_told: ContextVar[Told | None] = ContextVar("vipaint_told", default=None)


def say(text: str) -> None:
    """One sentence about the running node's result. Shown at once and kept until the node runs again."""
    log.debug("VIPaint: %s", text)
    _keep(text)


def tell(text: str) -> None:
    """One sentence about what the running node does now, below what it has said; the next one replaces it."""
    told = _told.get()
    if told is not None:
        show("\n".join([*told.texts, text]))


def warn(text: str) -> None:
    """As `say`, for what the user will hardly have wanted."""
    log.warning("VIPaint: %s", text)
    _keep(f"⚠ {text}")


def tell_cost(passes: int, seconds: float) -> None:
    """What the running node's network calls took, from which the editor tells what the next run will."""
    told = _told.get()
    if told is not None and passes:
        told.cost[:] = passes, seconds


def _keep(text: str) -> None:
    told = _told.get()
    if told is not None:
        told.texts.append(text)
        show("\n".join(told.texts))


@contextlib.contextmanager
def collected() -> Iterator[Told]:
    """What all that runs inside tells."""
    told = Told()
    token = _told.set(told)
    try:
        yield told
    finally:
        _told.reset(token)


def show(text: str) -> None:
    """Shows a text on the running node, in place of the one before. Nothing happens outside of a server."""
    from server import PromptServer

    server, context = getattr(PromptServer, "instance", None), get_executing_context()
    if server is not None and context is not None:
        server.send_progress_text(text, context.node_id)
