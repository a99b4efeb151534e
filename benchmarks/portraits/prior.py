"""The toy prior, loaded once, and the held-out portraits that are painted in."""

from __future__ import annotations

from functools import cache

import torch

from benchmarks.harness.keys import files_digest
from toy_prior import CHECKPOINT, model, pictures

SEED = 5 * 10**8 + 1
HELD_OUT = 1000


@cache
def prior() -> model.ToyPrior:
    """MODEL and VAE of the toy prior."""
    return model.load()


@cache
def checkpoint() -> str:
    """A digest of the toy prior, a file of many megabytes."""
    return files_digest([CHECKPOINT])


def held_out(count: int) -> pictures.Attributes:
    """The first `count` held-out portraits, the same ones for every count up to `HELD_OUT`."""
    return pictures.sample_attributes(HELD_OUT, torch.Generator().manual_seed(SEED))[:count]
