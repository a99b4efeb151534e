"""What a method painted and what that cost, kept in files so that a benchmark can be interrupted."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tools import in_process
from benchmarks.meter import Meter, Peak
from benchmarks.samplers import PACK
from toy_prior import CHECKPOINT

CACHE = in_process.ROOT / ".cache" / "benchmarks"


@dataclass(frozen=True)
class Part:
    """Fills of a few pictures, all of the first picture first, and what they cost together; peak in bytes."""

    latents: torch.Tensor
    forward: int
    backward: int
    seconds: float
    bare: float
    peak: int


def measured(draw: Callable[[Any], torch.Tensor], model: Any) -> Part:
    """The latents that `draw(model)` returns, and the network calls that it makes."""
    meter, conditioning = Meter(model), PACK.unconditional.unconditional(model)
    with torch.inference_mode():
        meter.warm_up(conditioning)
        begin = time.perf_counter()
        with Peak() as peak:
            latents = draw(meter.model)
        seconds = time.perf_counter() - begin
        bare = meter.bare_seconds(conditioning)
    return Part(latents, meter.rows("plain", "graph"), meter.rows("backward"), seconds, bare, peak.bytes)


def kept(file: Path, fresh: bool, make: Callable[[], Part]) -> Part:
    """What `make` returns, or has returned before, unless `fresh`."""
    if not fresh and file.is_file():
        return read(file)
    part = make()
    cost = {name: value for name, value in vars(part).items() if name != "latents"}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"latents": part.latents.contiguous()}, file, {"cost": json.dumps(cost)})
    return part


def read(file: Path) -> Part:
    with safe_open(file, "pt") as stored:
        return Part(stored.get_tensor("latents"), **json.loads(stored.metadata()["cost"]))


def digest(*what: Any) -> str:
    """Of what decides a result, but the code: these and the toy prior."""
    return hashlib.sha256(repr((checkpoint(), *what)).encode()).hexdigest()[:16]


@lru_cache(maxsize=None)
def checkpoint() -> str:
    """A digest of the toy prior, a file of many megabytes."""
    return hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest()
