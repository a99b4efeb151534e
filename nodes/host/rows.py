"""Conditioning that differs from row to row, which the host would deal out to fills by their place in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import comfy.conds
import torch

from ..errors import InputError


def refuse_rows(guider: Any) -> None:
    """Raises InputError where rows of a guider's processed conditioning differ, in whatever field that may be.

    Batches are drawn in parts and more than once: a row's place in one of them says nothing of the fill.
    """
    for name, conds in guider.conds.items():
        for field, tensor in (found for cond in conds for found in _fields(cond.get("model_conds", {}))):
            rows = len(tensor)
            if rows > 1 and not torch.equal(tensor, tensor[:1].expand_as(tensor)):
                raise InputError(
                    name,
                    f"one `{field}` for all pictures and fills",
                    f"a batch of {rows} in it",
                    "Paint pictures with different conditioning one after the other; encode one reference picture at a "
                    "time, and chain the nodes that add them.",
                )


def _fields(model_conds: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """What the host repeats or cuts to the rows of a batch."""
    for field, cond in model_conds.items():
        if isinstance(cond, comfy.conds.CONDRegular) and not isinstance(cond, comfy.conds.CONDConstant):
            values = cond.cond if isinstance(cond.cond, (list, tuple)) else [cond.cond]
            yield from ((field, value) for value in values if isinstance(value, torch.Tensor) and value.ndim)
