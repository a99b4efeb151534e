"""Prompts without a text encoder: a token per attribute of a portrait, from a table that is learnt with the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from toy_prior import pictures

WIDTH = 768
# The table's name in a checkpoint.
KEY = "attribute_tokens"
# The background's hue is told in sectors of the circle.
HUES = 8
VOCABULARY = {**pictures.ATTRIBUTES, "hue": HUES}
UNNAMED = -1
# Of the table: what is not named is row 0, all zeros, which attention gives no value and no gradient. So the empty
# prompt is what nodes for prompts without text make, zeros of any number of tokens.
ROWS = 1 + sum(VOCABULARY.values())
_FIRST = torch.tensor([1, *list(VOCABULARY.values())[:-1]]).cumsum(0)


def new_table() -> nn.Embedding:
    """Learnable tokens (ROWS, 768)."""
    return nn.Embedding(ROWS, WIDTH, padding_idx=0)


def values_of(attributes: pictures.Attributes) -> torch.Tensor:
    """The number of every attribute's value, (N, 8), in the order of `VOCABULARY`."""
    hue = (attributes.hue * HUES).long() % HUES
    return torch.stack([*attributes.discrete().values(), hue], dim=1)


def without_some(
    values: torch.Tensor, each: float, together: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Values of which some are not named, as training needs for guidance by any prompt.

    each: share of attributes that are left out, one by one. together: share of prompts that are left empty.
    """
    chance = torch.rand(values.shape, device=values.device, generator=generator)
    empty = torch.rand((len(values), 1), device=values.device, generator=generator) < together
    return values.masked_fill((chance < each) | empty, UNNAMED)


def table_rows(values: torch.Tensor) -> torch.Tensor:
    """Rows of the table for values (N, 8)."""
    return torch.where(values == UNNAMED, 0, values + _FIRST.to(values.device))


def conditioning(table: torch.Tensor, named: Mapping[str, int]) -> Any:
    """The host's CONDITIONING of a prompt that names these attributes, `[[tokens (1, 8, 768), {}]]`.

    table: (ROWS, 768), as the checkpoint has it.
    named: values by attribute, as `pictures.Attributes.discrete` counts them, and `hue` in sectors.

    Raises ValueError for attributes and values that there are not.
    """
    for name, value in named.items():
        if not 0 <= value < VOCABULARY.get(name, 0):
            known = ", ".join(f"{attribute} below {size}" for attribute, size in VOCABULARY.items())
            raise ValueError(f"conditioning: expected {known}; found {name} = {value}")
    values = torch.tensor([[named.get(name, UNNAMED) for name in VOCABULARY]])
    return [[table[table_rows(values)].float(), {}]]
