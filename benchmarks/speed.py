"""Seconds and memory of whole runs: VIPaint Inpaint in its gradient modes against the host's own sampler.

    python3 run.py benchmark speed [--families NAME ...] [--packs FOLDER ...] [--quick]

Networks of the published sizes from the host's own classes, bfloat16, weights drawn at random (time does not depend on
them). One picture of the size that the family is made for, its right half hidden, one fill from one call of the node,
weights loaded before; guidance 4, so two rows in the network, for Flux 1. GB are what is allocated beside the weights.

Where a GPU has less memory than a mode takes, the node goes on in the next: its warning says so.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import memory
from benchmarks.meter import Peak
from benchmarks.report import QUICK, RESULTS, markdown, provenance, write_csv
from benchmarks.samplers import EXTERNAL, PACK, load_packs, stock

SIZES = {"SD1.5": 512, "SDXL": 1024, "SD3.5 medium": 1024, "Flux": 1024}
STEPS = 20
KSAMPLER = f"KSampler, {STEPS} steps"

Run = Callable[[], Any]


@dataclass(frozen=True)
class Speed:
    """One run; peak in bytes."""

    family: str
    size: int
    sampler: str
    seconds: float
    peak: int


def runs(model: Any, conditioning: Any, cfg: float, size: int, packs: bool) -> Mapping[str, Run]:
    """Calls of the nodes, by name."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 2 :] = 1
    image = {"samples": torch.zeros(memory.shape_of(model, size)), "noise_mask": mask}
    given = {"seed": 0, "cfg": cfg, "latent_image": image}

    def plain() -> Any:
        return stock.common_ksampler(model, 0, STEPS, cfg, "euler", "simple", conditioning, conditioning, image)

    def ours(preset: str, mode: str) -> Any:
        node = PACK.inpaint.VIPaintInpaint
        return node.execute(model, conditioning, conditioning, fills=1, preset=preset, gradients=mode, **given)

    found = {KSAMPLER: plain, "fast": partial(ours, "fast", "auto")}
    found |= {f"balanced, {mode}": partial(ours, "balanced", mode) for mode in PACK.bridge.MODES}
    if packs:
        found |= {name: partial(node, model, conditioning, **given) for name, node in EXTERNAL.items()}
    return found


def measure(family: str, size: int, packs: bool) -> Iterator[Speed]:
    import comfy.model_management

    model = memory.load(family, computed=True)
    conditioning, cfg = memory.prompt(model, family), 1.0 if family == "Flux" else memory.GUIDANCE
    # Loads the weights.
    memory.plain(model, conditioning, memory.shape_of(model, size))
    for name, run in runs(model, conditioning, cfg, size, packs).items():
        gc.collect()
        with torch.inference_mode(), Peak() as peak:
            begin = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.perf_counter() - begin
        yield Speed(family, size, name, seconds, peak.bytes)
    comfy.model_management.unload_all_models()


def table(speeds: list[Speed]) -> str:
    """Seconds, times KSampler's, and GB; a row per run."""
    plain = {speed.family: speed.seconds for speed in speeds if speed.sampler == KSAMPLER}
    rows = [
        (
            speed.family,
            str(speed.size),
            speed.sampler,
            f"{speed.seconds:.2f}",
            f"{speed.seconds / plain[speed.family]:.1f}",
            f"{speed.peak / 2**30:.2f}",
        )
        for speed in speeds
    ]
    return markdown(("family", "pixels", "sampler", "seconds", "times KSampler", "GB"), rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--packs", nargs="+", type=Path, default=[], help="folders of other packs that take part")
    parser.add_argument("--quick", action="store_true", help="SD1.5 at 64 pixels, into output/")
    options = parser.parse_args()
    sizes, out = {family: SIZES[family] for family in options.families}, RESULTS
    if options.quick:
        sizes, out = {"SD1.5": 64}, QUICK
    load_packs(options.packs)
    out.mkdir(parents=True, exist_ok=True)
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    speeds: list[Speed] = []
    for family, size in sizes.items():
        for speed in measure(family, size, bool(options.packs)):
            print(f"{family} {size} {speed.sampler:24}{speed.seconds:8.2f} s", file=sys.stderr, flush=True)
            speeds.append(speed)
        write_csv(out / "speed.csv", [asdict(speed) for speed in speeds])
        text = f"# Seconds a fill\n\n`python3 run.py benchmark speed`, {provenance()}.\n\n{about}\n\n{table(speeds)}"
        (out / "speed.md").write_text(text, "utf-8")
    print(table(speeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
