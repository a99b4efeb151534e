"""Inpainting against exact answers: the toy prior, held-out pictures, six holes, many fills.

    python3 run.py benchmark toy [--pictures 20] [--fills 16] [--methods NAME ...] [--packs FOLDER ...] [--quick]

Everything runs through the host: stock loader, this pack's nodes, the stock KSampler or a sampler
node of another pack (`--packs`), stock decoder. Slow methods paint fewer pictures. Results go to
benchmarks/results/. What is finished, there or as a part in .cache/benchmarks, is not computed again
unless the checkpoint, the method's settings or the numbers above change, or with `--fresh`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat

from benchmarks.harness import plots
from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary
from benchmarks.harness.cost import Drawn, measured
from benchmarks.harness.host import PACK, add_packs_option, load_packs
from benchmarks.harness.keys import digest
from benchmarks.harness.parts import kept, part_file, read
from benchmarks.harness.results import commit
from benchmarks.harness.sheets import sheet
from benchmarks.harness.tables import Column, legend, markdown, sections
from benchmarks.portraits.methods import EXTERNAL, JACOBIAN_FREE, KSAMPLER, Task, methods
from benchmarks.portraits.perceptual import Distance, load_lpips
from benchmarks.portraits.prior import HELD_OUT, SEED, checkpoint, held_out, prior
from benchmarks.portraits.scores import (
    BACKWARD,
    FORWARD,
    HUE_TOLERANCE,
    SEAM,
    VALID,
    effective_modes,
    exact_modes,
    seam,
    tv_floor,
)
from toy_prior import model as toy
from toy_prior import pictures

# Pictures painted, and kept, together.
TOGETHER = 5
# Pictures of those that do not paint all: most have hundreds or thousands of passes per fill.
FEW = {"copaint": 1, "daps": 1, "dps": 1, "psld": 1, "repaint": 1, "resample": 1}
FEW |= dict.fromkeys(("blended", "pigdm", "red_diff", "ding", "tds", "langevin", "flair"), 5)
# Not on every hole, for the same reason.
HOLES = {"paper-2": ("right", "top", "bottom", "centre")}
METHODS = [name for name in methods() if name not in ("paper-4", *EXTERNAL)]
QUICK_METHODS = (KSAMPLER, "fast", "balanced", "ding")
# In the sheet of pictures, with so many fills.
SHOWN, SHOWN_FILLS = (KSAMPLER, "LanPaint", "pigdm", "fast", "balanced", "thorough"), 8


@dataclass(frozen=True)
class Score:
    """One method on one hole; shares are in [0, 1], counts and seconds per fill, memory in megabytes. See `COLUMNS`."""

    method: str
    hole: str
    pictures: int
    fills: int
    valid: float
    consistent: float
    both: float
    tv: float | None
    floor: float | None
    modes: float | None
    psnr: float
    seam: float
    forward: float
    backward: float
    seconds: float
    overhead: float
    memory: float
    lpips: float | None
    commit: str
    key: str


def judge(
    painted: torch.Tensor, truth: pictures.Attributes, originals: torch.Tensor, hole: torch.Tensor, fills: int
) -> dict[str, Any]:
    """The scores of fills (pictures * fills, 3, H, W), all of the first picture first, that are about pictures."""
    reading = pictures.read(painted)
    true, found = truth.discrete(), reading.attributes.discrete()
    hidden = pictures.hidden_attributes(hole)
    right = torch.ones(len(painted), dtype=torch.bool)
    for name in pictures.ATTRIBUTES:
        if name not in hidden:
            right &= found[name] == repeat(true[name], "n -> (n fills)", fills=fills)
    hue = pictures.read(painted, hole).attributes.hue - repeat(truth.hue, "n -> (n fills)", fills=fills)
    right &= (torch.remainder(hue + 0.5, 1) - 0.5).abs() <= HUE_TOLERANCE
    distances, combination, size = [], torch.zeros(len(painted), dtype=torch.long), 1
    for name in hidden:
        values = pictures.ATTRIBUTES[name]
        by_picture = rearrange(found[name], "(n fills) -> n fills", fills=fills)
        distances.append(pictures.total_variation(by_picture, values).mean())
        combination, size = combination * values + found[name], size * values
    by_picture = rearrange(combination, "(n fills) -> n fills", fills=fills)
    modes = float(effective_modes(by_picture, size).mean()) / exact_modes(size, fills)
    truths = repeat(originals, "n ... -> (n fills) ...", fills=fills)
    error = (painted - truths)[:, :, ~hole].square().mean()
    return {
        "valid": float(reading.valid.float().mean()),
        "consistent": float(right.float().mean()),
        "both": float((reading.valid & right).float().mean()),
        "tv": float(torch.stack(distances).mean()) if distances else None,
        "floor": sum(tv_floor(pictures.ATTRIBUTES[n], fills) for n in hidden) / len(hidden) if hidden else None,
        "modes": modes if hidden else None,
        "psnr": -10 * math.log10(float(error)) if error > 0 else math.inf,
        "seam": seam(painted, truths, hole),
    }


def key(method: str, hole: str, first: int, last: int, fills: int) -> str:
    """A digest of what decides the fills of the held-out pictures first..last-1, but the code."""
    return digest(
        checkpoint=checkpoint(),
        method=method,
        settings=methods()[method].settings,
        hole=hole,
        first=first,
        last=last,
        fills=fills,
        seed=SEED,
    )


def file_of(method: str, hole: str, first: int, last: int, fills: int) -> Path:
    return part_file("toy", method, hole, str(first), key=key(method, hole, first, last, fills))


def paint(method: str, hole: str, first: int, last: int, fills: int, fresh: bool) -> Drawn:
    """Fills of the held-out pictures first..last-1, kept in a file."""

    def draw(model: Any) -> torch.Tensor:
        originals = pictures.render(held_out(last)[first:])
        task = Task(model, prior().vae, originals, pictures.hole(hole), fills, SEED + first)
        return methods()[method].draw(task)

    file = file_of(method, hole, first, last, fills)
    return kept(file, Drawn, lambda: measured(draw, prior().model, toy.LATENT_SHAPE), fresh)


def score(method: str, hole: str, count: int, fills: int, fresh: bool = False, lpips: Distance | None = None) -> Score:
    """A method on one hole in the first `count` held-out pictures."""
    parts = []
    for first in range(0, count, TOGETHER):
        last = min(first + TOGETHER, count)
        parts.append(paint(method, hole, first, last, fills, fresh))
        print(f"{hole:8}{method:18} {last} of {count}", end="\r", file=sys.stderr, flush=True)
    truth, each = held_out(count), count * fills
    with torch.inference_mode():
        painted = torch.cat([toy.decode(prior().vae, part.latents) for part in parts])
    originals = pictures.render(truth)
    truths = repeat(originals, "n ... -> (n fills) ...", fills=fills)
    seconds = sum(part.seconds for part in parts)
    return Score(
        method,
        hole,
        count,
        fills,
        **judge(painted, truth, originals, pictures.hole(hole), fills),
        forward=sum(part.forward for part in parts) / each,
        backward=sum(part.backward for part in parts) / each,
        seconds=seconds / each,
        overhead=seconds / sum(part.bare for part in parts),
        memory=paint(method, "right", 0, 1, fills, fresh=False).peak / 1e6,
        lpips=float(lpips(painted, truths).mean()) if lpips else None,
        commit=commit(),
        key=key(method, hole, 0, count, fills),
    )


def count_of(method: str, count: int) -> int:
    """Pictures that a method paints of so many."""
    return min(count, FEW.get(method, count))


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Score]:
    load_packs(options.packs)
    lpips = load_lpips(options.lpips) if options.lpips else None
    for hole, method in product(options.holes, options.methods):
        if hole in HOLES.get(method, pictures.MASKS) and is_needed(hole, method):
            yield score(method, hole, count_of(method, options.pictures), options.fills, options.fresh, lpips)


def is_done(row: Score, options: Options) -> bool:
    expected = key(row.method, row.hole, 0, count_of(row.method, options.pictures), options.fills)
    return row.key == expected and (row.lpips is not None or not options.lpips)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_packs_option(parser)
    parser.add_argument("--lpips", type=Path, help="AlexNet's weights, for one more column")


COLUMNS: tuple[Column[Score], ...] = (
    Column("method", lambda s: s.method),
    Column("pictures", lambda s: s.pictures),
    Column("valid", lambda s: 100 * s.valid, "{:.1f} %", VALID),
    Column(
        "consistent",
        lambda s: 100 * s.consistent,
        "{:.1f} %",
        "every attribute that the visible part determines is right, the wall's colour included",
    ),
    Column("both", lambda s: 100 * s.both, "{:.1f} %", "valid and consistent"),
    Column(
        "TV",
        lambda s: s.tv,
        "{:.3f}",
        "total variation, per picture, between the hidden attributes' frequencies over its fills and uniform ones; that of "
        "an exact sampler at this number of fills stands above the table",
    ),
    Column(
        "modes",
        lambda s: None if s.modes is None else 100 * s.modes,
        "{:.0f} %",
        "effective number of different hidden combinations per picture, exp(entropy) over its fills, as a share of what an "
        "exact sampler has on average at this number of fills",
    ),
    Column("visible", lambda s: s.psnr, "{:.1f} dB", "PSNR of the visible part against the original"),
    Column("seam", lambda s: s.seam, "{:+.1f}", SEAM),
    Column("forward", lambda s: s.forward, "{:.1f}", FORWARD),
    Column("backward", lambda s: s.backward, "{:.1f}", BACKWARD),
    Column("s", lambda s: s.seconds, "{:.2f}", "seconds per fill, the fit included"),
    Column(
        "overhead",
        lambda s: s.overhead,
        "{:.2f}",
        "wall time / time of the bare network calls, measured in the same run",
    ),
    Column(
        "MB",
        lambda s: s.memory,
        "{:.0f}",
        "the most memory that all fills of one picture take beside the weights, on the right half",
    ),
    Column(
        "LPIPS",
        lambda s: s.lpips,
        "{:.3f}",
        "learned distance of the fills to the original, with `--lpips alexnet-owt-7be5be79.pth`, weights that torchvision "
        "publishes, and the package `lpips`",
    ),
)
EXPLANATION = f"""\
What is visible determines the attributes that it shows; hidden attributes are uniform. Measured on the decoded fills
before anything is pasted back:

{legend(COLUMNS)}
"""


def note(scores: Sequence[Score]) -> str:
    """What a hole hides."""
    hidden = pictures.hidden_attributes(pictures.hole(scores[0].hole))
    floor = next((score.floor for score in scores if score.floor is not None), None)
    return "none hidden" if floor is None else f"hidden: {', '.join(hidden)}; TV of an exact sampler {floor:.3f}"


def tables(scores: list[Score]) -> str:
    return sections(scores, lambda score: score.hole, COLUMNS, note)


def summary(scores: list[Score]) -> str:
    """A row per method: valid and consistent fills on every hole, and means over the holes."""
    header = ("method", "pictures", *pictures.MASKS, "TV above exact", "forward", "backward")
    rows = []
    for method in dict.fromkeys(score.method for score in scores):
        own = [score for score in scores if score.method == method]
        both = {score.hole: f"{100 * score.both:.0f} %" for score in own}
        excess = statistics.mean(s.tv - s.floor for s in own if s.tv is not None and s.floor is not None)
        passes = (f"{statistics.mean(getattr(score, kind) for score in own):.0f}" for kind in ("forward", "backward"))
        shares = (both.get(hole, "-") for hole in pictures.MASKS)
        rows.append((method, str(own[0].pictures), *shares, f"{excess:+.3f}", *passes))
    return markdown(header, rows)


def chart(scores: list[Score], file: Path) -> None:
    """Valid and consistent fills, and variety, against passes; means over the holes that every method has."""
    by = {(score.method, score.hole): score for score in scores}
    names = list(dict.fromkeys(score.method for score in scores))
    holes = [hole for hole in pictures.MASKS if all((name, hole) in by for name in names)]

    def points(quality: Callable[[Score], float]) -> list[plots.Point]:
        found = []
        for name in names:
            own = [by[name, hole] for hole in holes]
            passes = statistics.mean(score.forward + score.backward for score in own)
            found.append(plots.Point(name, passes, statistics.mean(map(quality, own))))
        return found

    if holes:
        both = plots.Panel("valid and consistent", points(lambda s: s.both), share=True)
        label = "total variation above an exact sampler's"
        excess = plots.Panel(label, points(lambda s: (s.tv or 0) - (s.floor or 0)), best=0)
        plots.save([both, excess], file, ours=[*PACK.core.PRESETS, JACOBIAN_FREE])


def illustrate(scores: list[Score], stem: Path) -> None:
    """The chart, and a sheet of the first picture: what is visible, then fills; a row per hole and method."""
    chart(scores, stem.with_suffix(".svg"))
    (original,) = pictures.render(held_out(1))
    rows = []
    for score in (score for score in scores if score.method in SHOWN):
        part = read(file_of(score.method, score.hole, 0, min(TOGETHER, score.pictures), score.fills), Drawn)
        with torch.inference_mode():
            fills = toy.decode(prior().vae, part.latents[: min(SHOWN_FILLS, score.fills)])
        rows.append([torch.where(pictures.hole(score.hole), 0.5, original), *fills])
    sheet(rows, tile=96).save(stem.with_suffix(".png"), optimize=True)


BENCHMARK = Benchmark(
    name="toy",
    title="Inpainting against exact answers",
    row=Score,
    measure=measure,
    tables=tables,
    axes=(
        Axis("hole", pictures.MASKS, "holes"),
        Axis("method", list(methods()), "methods", usual=METHODS, quick=QUICK_METHODS),
    ),
    counts=(Count("pictures", usual=20, quick=1, most=HELD_OUT), Count("fills", usual=16, quick=2)),
    explanation=EXPLANATION,
    facts=lambda options: f"{options.fills} fills per picture, seed {SEED}",
    is_done=is_done,
    add_options=add_options,
    illustrate=illustrate,
    summary=Summary("benchmark", summary),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
