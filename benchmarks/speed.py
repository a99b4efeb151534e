"""Seconds and memory of whole runs: VIPaint Inpaint in its gradient modes against the host's own sampler.

python3 run.py benchmark speed [--families NAME ...] [--fills 1 4] [--packs FOLDER ...] [--quick]
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import repeat

from benchmarks.harness.benchmark import Axis, Benchmark, IsNeeded, Options
from benchmarks.harness.cost import PeakMemory
from benchmarks.harness.host import PACK, add_packs_option, load_packs, stock
from benchmarks.harness.results import commit, device
from benchmarks.harness.tables import Column, table
from benchmarks.networks.families import FAMILIES, latent_shape, load, prompt, unload
from benchmarks.portraits.methods import EXTERNAL

STEPS = 20
KSAMPLER = f"KSampler, {STEPS} steps"
GRADIENT_MODES = PACK.host.denoiser.GRADIENT_MODES
SAMPLERS = (KSAMPLER, "fast", *(f"balanced, {mode}" for mode in GRADIENT_MODES), *EXTERNAL)
# Pixels of the pictures of quick runs, whatever the family is made for.
QUICK_SIZE = 64


@dataclass(frozen=True)
class Row:
    """One run of `fills` fills of a square picture of `size` pixels; peak in bytes."""

    family: str
    size: int
    fills: int
    sampler: str
    seconds: float
    peak: int
    commit: str
    device: str


def runs(model: Any, conditioning: Any, cfg: float, size: int, fills: int) -> dict[str, Callable[[], Any]]:
    """Calls of the nodes by name, and one of a single step, to load the weights, without a name.

    Samplers that know no fills paint a batch of as many latents.
    """
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 2 :] = 1
    latent = {"samples": torch.zeros(latent_shape(model, size)), "noise_mask": mask}
    batch = {name: repeat(part, "1 ... -> fills ...", fills=fills) for name, part in latent.items()}
    prompts = {"positive": conditioning, "negative": conditioning}
    common = {"model": model, **prompts, "seed": 0, "cfg": cfg}

    def ksampler(steps: int) -> Any:
        return stock.common_ksampler(model, 0, steps, cfg, "euler", "simple", conditioning, conditioning, batch)

    def ours(preset: str, gradients: str) -> Any:
        picture = {"latent_image": latent, "fills": fills}
        return PACK.inpaint.VIPaintInpaint.execute(**common, **picture, preset=preset, gradients=gradients)

    return {
        "": partial(ksampler, 1),
        KSAMPLER: partial(ksampler, STEPS),
        "fast": partial(ours, "fast", "auto"),
        **{f"balanced, {mode}": partial(ours, "balanced", mode) for mode in GRADIENT_MODES},
        **{name: partial(sampler, **common, latent_image=batch) for name, sampler in EXTERNAL.items()},
    }


def timed(run: Callable[[], Any]) -> tuple[float, int]:
    """Seconds and peak bytes of a run."""
    gc.collect()
    with torch.inference_mode(), PeakMemory() as peak:
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds, peak.bytes


def measure(options: Options, _is_needed: IsNeeded) -> Iterator[Row]:
    load_packs(options.packs)
    chosen = [name for name in options.samplers if name not in EXTERNAL or options.packs]
    for family in options.families:
        known = FAMILIES[family]
        size = QUICK_SIZE if options.quick else known.pixels
        model = load(known, random_weights=True)
        conditioning = prompt(model, known)
        for fills in options.fills:
            calls = runs(model, conditioning, known.cfg, size, fills)
            timed(calls[""])
            for name in chosen:
                yield Row(family, size, fills, name, *timed(calls[name]), commit(), device())
        del model, calls
        unload()


def tables(rows: list[Row]) -> str:
    """Seconds, times KSampler's, and GB."""
    plain = {(row.family, row.fills): row.seconds for row in rows if row.sampler == KSAMPLER}

    def times_ksampler(row: Row) -> float | None:
        peer = plain.get((row.family, row.fills))
        return None if peer is None else row.seconds / peer

    columns: tuple[Column[Row], ...] = (
        Column("family", lambda row: row.family),
        Column("pixels", lambda row: row.size),
        Column("fills", lambda row: row.fills),
        Column("sampler", lambda row: row.sampler),
        Column("seconds", lambda row: row.seconds, "{:.2f}"),
        Column("times KSampler", times_ksampler, "{:.1f}"),
        Column("GB", lambda row: row.peak / 2**30, "{:.2f}"),
    )
    return table(rows, columns)


BENCHMARK = Benchmark(
    name="speed",
    title="Seconds of a run",
    row=Row,
    measure=measure,
    tables=tables,
    axes=(
        Axis("family", list(FAMILIES), "families", quick=("SD1.5",)),
        Axis("fills", (1, 4), "fills", quick=(1,)),
        Axis("sampler", SAMPLERS, "samplers"),
    ),
    explanation="""\
Networks of the published sizes from the host's own classes, bfloat16, weights drawn at random (time does not depend on
them). One picture of the size that the family is made for, its right half hidden, its fills from one call of the node,
weights loaded before; guidance 4, so two rows in the network for a fill, for Flux one. Samplers that know no fills paint a
batch of as many latents. GB are what is allocated beside the weights.

Where a GPU has less memory than a mode takes, the node goes on in the next: its warning says so.
""",
    add_options=add_packs_option,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
