"""Everything that touches ComfyUI's internals, one concern a file."""

from __future__ import annotations

from .symbols import check

# Before anything takes what may be missing: one message in place of the first traceback.
check()
