"""Memory beside the weights: gradient modes against the host's plain KSampler, at the sizes of real families.

python3 run.py benchmark memory [--families NAME ...] [--sizes 512 1024] [--quick]
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness.benchmark import Axis, Benchmark, IsNeeded, Options
from benchmarks.harness.host import PACK, sampling_inputs
from benchmarks.harness.results import commit, device
from benchmarks.harness.tables import Column, legend, table
from benchmarks.networks.dry_run import DryRun
from benchmarks.networks.families import FAMILIES, latent_shape, load, prompt, unload

CFG = 4.0
KSAMPLER = "KSampler"
SAMPLING, FIT = "sampling", "fit"
# A gradient mode, or the host's sampler, and the work in it.
KINDS = (
    (KSAMPLER, SAMPLING),
    *((mode, work) for mode in PACK.host.denoiser.GRADIENT_MODES for work in (SAMPLING, FIT)),
)


@dataclass(frozen=True)
class Row:
    """Bytes of one kind of work on a square picture of `size` pixels.

    peak: most that is allocated at once beyond what was before.
    in_all: what a plain pass allocates, one after the other.
    host: what the host reckons for a plain pass.
    """

    family: str
    size: int
    mode: str
    work: str
    peak: int
    in_all: int
    host: int
    commit: str
    device: str


@contextmanager
def peak_bytes() -> Iterator[Callable[[], int]]:
    """A function that returns the most bytes allocated at once within the context, beyond those before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: torch.cuda.max_memory_allocated() - before
    else:
        with DryRun() as dry_run:
            yield lambda: dry_run.peak


@dataclass(frozen=True)
class Setting:
    """A MODEL, its CONDITIONING, and the shape of a latent, (1, C, h, w)."""

    model: Any
    conditioning: Any
    shape: tuple[int, ...]


def ksampler_peak(setting: Setting) -> int:
    """One Euler step of the host."""
    import comfy.sample

    with torch.inference_mode():
        latent = torch.zeros(setting.shape)
        noise = comfy.sample.prepare_noise(latent, 0)
        arguments = (1, CFG, "euler", "simple", setting.conditioning, setting.conditioning, latent)
        with peak_bytes() as peak:
            comfy.sample.sample(setting.model, noise, *arguments, disable_pbar=True, seed=0)
            return peak()


# work(denoiser, shape, device)
Work = Callable[[Any, tuple[int, ...], torch.device], int]


def in_denoiser(setting: Setting, work: Work, mode: str = "full") -> int:
    """What `work` returns with gradients of one mode."""

    def run(denoiser: Any, device: torch.device) -> int:
        return work(denoiser, setting.shape, device)

    with torch.inference_mode():
        inputs = sampling_inputs(setting.model, setting.conditioning, CFG)
        opened = PACK.host.denoiser.open_denoiser(inputs, run, shape=setting.shape, gradient=True, mode=mode)
    return int(opened)


def sampling_peak(denoiser: Any, shape: tuple[int, ...], device: torch.device) -> int:
    """A guided step of `balanced`: a pass and two products with its Jacobian."""
    counting = PACK.core.diffusion.denoiser.CountingDenoiser(denoiser, "sample", 1, None)
    with peak_bytes() as peak, counting.gradients():
        point = torch.randn(shape, device=device).requires_grad_()
        x0 = counting(point, 2.0)
        for _ in range(2):
            torch.autograd.grad(x0, point, torch.ones_like(x0), retain_graph=True)
        return peak()


def fit_peak(denoiser: Any, shape: tuple[int, ...], device: torch.device) -> int:
    """An Adam step of `paper-2` with one draw, of a picture whose right half is hidden."""
    weight = torch.ones(1, 1, *shape[2:])
    weight[..., shape[-1] // 2 :] = 0
    observation = PACK.core.LatentObservation.masked(torch.zeros(shape), weight).to(device)
    preset = PACK.core.PRESETS["paper-2"].with_changes(fit={"steps": 1, "draws": 1})
    with peak_bytes() as peak:
        PACK.core.fit(denoiser, observation, preset, 0)
        return peak()


def plain_pass(denoiser: Any, shape: tuple[int, ...], device: torch.device) -> int:
    """What a plain pass allocates in all, as `nodes/host/memory.py` measures it."""
    with peak_bytes():
        return int(PACK.host.memory.allocated_bytes(denoiser, shape[1:], device))


PEAKS = {SAMPLING: sampling_peak, FIT: fit_peak}


def measure(options: Options, _is_needed: IsNeeded) -> Iterator[Row]:
    for family in options.families:
        # The weights do not change what is allocated, but with NaN our nodes stop.
        model = load(FAMILIES[family], random_weights=torch.cuda.is_available())
        for size in options.sizes:
            setting = Setting(model, prompt(model, FAMILIES[family]), latent_shape(model, size))
            in_all = in_denoiser(setting, plain_pass)
            host = int(PACK.host.memory.reckoned_bytes(model, setting.shape[1:], 2))
            for mode, work in KINDS:
                peak = ksampler_peak(setting) if mode == KSAMPLER else in_denoiser(setting, PEAKS[work], mode)
                yield Row(family, size, mode, work, peak, in_all, host, commit(), device())
        del model, setting
        unload()


ABOUT: tuple[Column[Row], ...] = (
    Column(
        "in all",
        lambda row: row.in_all / 2**30,
        "{:.2f}",
        "what a plain pass allocates, one after the other: by it `nodes/host/memory.py` tells what a mode will need",
    ),
    Column(
        "host", lambda row: row.host / 2**30, "{:.2f}", "what the host reckons for a plain pass of these rows on a GPU"
    ),
)
EXPLANATION = f"""\
Networks of the published sizes from the host's own classes, bfloat16, one picture, guidance 4 and so two rows in the
network. Most that is allocated at once beyond what was before:

- KSampler: one Euler step of the host
- sampling: one guided step of `balanced`: a pass and two products with its Jacobian
- fit: one Adam step of `paper-2` with one draw: three passes in one graph, then backward
{legend(ABOUT)}

On a GPU this is `torch.cuda.max_memory_allocated`. On the CPU nothing is computed, so that any size fits any machine, in
minutes: operations on large tensors return storage of the right size that nobody writes to, and its bytes are counted
from the first to the last reference. For SD1.5 and SDXL that is within 11 % of what a GPU allocates, for whole graphs of
SD3.5 and Flux up to 25 % more. A plain pass of Flux at 1024 pixels takes twice what is counted.
"""


def tables(rows: list[Row]) -> str:
    """GB, a line per family and size."""
    by = {(row.family, row.size, row.mode, row.work): row for row in rows}
    kinds = list(dict.fromkeys((row.mode, row.work) for row in rows))

    def column(mode: str, work: str) -> Column[Row]:
        def peak(row: Row) -> float | None:
            own = by.get((row.family, row.size, mode, work))
            return None if own is None else own.peak / 2**30

        return Column(mode if mode == KSAMPLER else f"{mode}, {work}", peak, "{:.2f}")

    firsts = {(row.family, row.size): row for row in reversed(rows)}
    lines = [firsts[place] for place in dict.fromkeys((row.family, row.size) for row in rows)]
    names: tuple[Column[Row], ...] = (Column("family", lambda row: row.family), Column("pixels", lambda row: row.size))
    return table(lines, [*names, *(column(*kind) for kind in kinds), *ABOUT])


BENCHMARK = Benchmark(
    name="memory",
    title="Memory beside the weights, GB",
    row=Row,
    measure=measure,
    tables=tables,
    axes=(
        Axis("family", list(FAMILIES), "families", quick=("SD1.5",)),
        Axis("size", (256, 512, 768, 1024, 1536, 2048), "sizes", usual=(512, 1024), quick=(512,)),
        Axis("mode", (KSAMPLER, *PACK.host.denoiser.GRADIENT_MODES)),
        Axis("work", (SAMPLING, FIT)),
    ),
    explanation=EXPLANATION,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
