"""How fills of portraits are scored, and what an exact sampler would score."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

import torch
from torch.nn.functional import one_hot

from benchmarks.harness.tables import Column
from toy_prior import pictures

# What the tables say of the scores that several benchmarks have.
VALID = "every part of the fill matches a template of the generator, both eyes are the same"
SEAM = "mean step between neighbours across the hole's edge, fill pasted in, beyond the original's, in levels of 255"
FORWARD, BACKWARD = "passes through the network per fill", "backward passes per fill, only to the latent"
# A hue that is off by this much moves the wall's colours by the reader's own tolerance.
HUE_TOLERANCE = pictures.BACKGROUND_TOLERANCE / (0.3 * 2 * math.pi / math.sqrt(2))

R = TypeVar("R")


class WithTv(Protocol):
    """A row with the total variation of hidden attributes, and that of an exact sampler."""

    @property
    def tv(self) -> float | None: ...

    @property
    def floor(self) -> float | None: ...


def above_exact(row: WithTv) -> float | None:
    """Total variation beyond that of an exact sampler, None where nothing is hidden."""
    return None if row.tv is None else row.tv - (row.floor or 0)


def mean_of(rows: Iterable[R], value: Callable[[R], float | None]) -> float | None:
    """Mean over the rows that have a value, None where none has."""
    found = [one for one in map(value, rows) if one is not None]
    return statistics.mean(found) if found else None


def judged_cells(own: Mapping[str, Any], places: Sequence[str]) -> list[str]:
    """Cells of a summary's row: the share of valid and consistent fills by place, and their mean TV above exact.

    own: by place, rows with the fields of `JUDGED_COLUMNS`.
    """
    both = [f"{100 * own[place].both:.0f} %" if place in own else "-" for place in places]
    excess = mean_of(own.values(), above_exact)
    return [*both, "-" if excess is None else f"{excess:+.3f}"]


# Of rows with these fields; shares are in [0, 1].
JUDGED_COLUMNS: tuple[Column[Any], ...] = (
    Column("valid", lambda row: 100 * row.valid, "{:.1f} %", VALID),
    Column("both", lambda row: 100 * row.both, "{:.1f} %", "valid, and every attribute that is visible is right"),
    Column(
        "TV above exact",
        above_exact,
        "{:+.3f}",
        "total variation between the hidden attributes' frequencies over the fills of a picture and uniform ones, beyond "
        "that of an exact sampler",
    ),
)


@cache
def tv_floor(size: int, fills: int, trials: int = 20_000) -> float:
    """Mean total variation of `fills` exact draws of a uniform attribute with `size` values."""
    draws = torch.randint(size, (trials, fills), generator=torch.Generator().manual_seed(1))
    return float(pictures.total_variation(draws, size).mean())


def effective_modes(values: torch.Tensor, size: int) -> torch.Tensor:
    """exp(entropy) of the values' frequencies over the last dimension, (..., draws) -> (...)."""
    share = one_hot(values, size).double().mean(-2)
    return torch.special.entr(share).sum(-1).exp()


@cache
def exact_modes(size: int, fills: int, trials: int = 5_000) -> float:
    """Mean effective number of modes of `fills` exact draws of `size` equally likely ones."""
    draws = torch.randint(size, (trials, fills), generator=torch.Generator().manual_seed(2))
    return float(effective_modes(draws, size).mean())


def seam(painted: torch.Tensor, originals: torch.Tensor, hole: torch.Tensor) -> float:
    """Mean step between neighbours across the hole's edge, fills pasted in, beyond the originals', in levels of 255.

    painted, originals: (N, 3, H, W) in [0, 1].
    hole: (H, W) bool.
    """
    steps = []
    for shown in (torch.where(hole, painted, originals), originals):
        across = [shown.diff(dim=dim).abs()[..., hole.diff(dim=dim)].flatten() for dim in (-1, -2)]
        steps.append(float(torch.cat(across).mean()))
    return 255 * (steps[0] - steps[1])


def psnr(differences: torch.Tensor) -> float:
    """Mean PSNR of differences of colours in [0, 1], (N, ...), dB."""
    return float(-10 * differences.square().flatten(1).mean(1).log10().mean())
