"""Errors of the host, told apart: the end of memory, interrupts, and what fails in a pass."""

from __future__ import annotations

import contextlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import comfy.model_base
import comfy.model_management
import folder_paths
import torch

from ..errors import InputError

_HOST = Path(folder_paths.base_path).resolve()
_EXTENSIONS = [Path(folder).resolve() for folder in folder_paths.get_folder_paths("custom_nodes")]
# Libraries, and this pack: they fail at what they are given.
_CALLED = (
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
    *(Path(__file__).resolve().parents[2] / name for name in ("nodes", "vipaint_core")),
)


class ModelError(RuntimeError):
    """A pass has failed.

    network: the one in which it did, None where that is the model's own or none.
    extension: the function of another extension in which it did, and where it stands; None where there is none.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        frames = list(_frames(error.__traceback__))
        self.network, self.extension = _network(frames), _extension(frames)


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
        known = InputError, comfy.model_management.InterruptProcessingException
        if is_out_of_memory(error) or isinstance(error, known):
            raise
        raise ModelError(error) from error


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    """From the outermost to where it happened."""
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _network(frames: list[FrameType]) -> str | None:
    """The innermost network that is no part of the one that has called it."""
    network: torch.nn.Module | None = None
    for frame in frames:
        owner = frame.f_locals.get("self")
        if isinstance(owner, torch.nn.Module) and (network is None or owner not in set(network.modules())):
            network = owner
    return None if network is None or isinstance(network, comfy.model_base.BaseModel) else type(network).__name__


def _extension(frames: list[FrameType]) -> str | None:
    """The function that failed, or called what failed, where it is not the host's."""
    for frame in reversed(frames):
        file = Path(frame.f_code.co_filename).resolve()
        if file.is_file() and not any(file.is_relative_to(folder) for folder in _CALLED):
            is_host = file.is_relative_to(_HOST) and not any(map(file.is_relative_to, _EXTENSIONS))
            return None if is_host else f"`{frame.f_code.co_name}` of {file.parent.name}/{file.name}"
    return None
