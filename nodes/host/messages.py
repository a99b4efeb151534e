"""What nodes tell the user beside their results: on the node in the editor, in the prompt's history, in the log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar

from comfy_execution.utils import get_executing_context

log = logging.getLogger(__name__)

_messages: ContextVar[list[str] | None] = ContextVar("vipaint_messages", default=None)


def say(text: str) -> None:
    """One sentence about the running node's result. Shown at once and kept until the node runs again."""
    log.debug("VIPaint: %s", text)
    kept = _messages.get()
    if kept is not None:
        kept.append(text)
        show("\n".join(kept))


def tell(text: str) -> None:
    """One sentence about what the running node does now, below what it has said; the next one replaces it."""
    kept = _messages.get()
    if kept is not None:
        show("\n".join([*kept, text]))


def warn(text: str) -> None:
    """As `say`, for what the user will hardly have wanted."""
    log.warning("VIPaint: %s", text)
    kept = _messages.get()
    if kept is not None:
        kept.append(f"⚠ {text}")
        show("\n".join(kept))


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """The messages of all that runs inside."""
    found: list[str] = []
    token = _messages.set(found)
    try:
        yield found
    finally:
        _messages.reset(token)


def show(text: str) -> None:
    """Shows a text on the running node, in place of the one before. Nothing happens outside of a server."""
    from server import PromptServer

    server, context = getattr(PromptServer, "instance", None), get_executing_context()
    if server is not None and context is not None:
        server.send_progress_text(text, context.node_id)
