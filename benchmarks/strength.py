"""Strength below 1: how much of what is in the hole is kept, and what that costs.

    python3 run.py benchmark strength [--pictures 4] [--fills 8] [--quick]

The hole of every held-out portrait contains the same part of another one, which agrees with the visible part by chance
only. Everything runs through the host, as in `benchmark toy`; every part is kept in .cache/benchmarks.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat

from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary
from benchmarks.harness.cost import Drawn, measured
from benchmarks.harness.keys import digest
from benchmarks.harness.parts import kept, part_file, read
from benchmarks.harness.results import commit
from benchmarks.harness.sheets import sheet
from benchmarks.harness.tables import Column, legend, markdown, sections
from benchmarks.portraits.methods import KSAMPLER, Method, Task, preset_method
from benchmarks.portraits.prior import HELD_OUT, SEED, checkpoint, held_out, prior
from benchmarks.portraits.scores import BACKWARD, FORWARD, VALID
from benchmarks.toy import judge
from toy_prior import model as toy
from toy_prior import pictures

HOLES = ("right", "top", "bottom", "centre")
STRENGTHS = (0.3, 0.6, 1.0)
PRESETS = ("balanced", "fast")
# In the sheet of pictures.
SHOWN = ("right", "centre")


@dataclass(frozen=True)
class Row:
    """One method at one strength on one hole; shares are in [0, 1], counts and seconds per fill. See `COLUMNS`."""

    hole: str
    method: str
    strength: float
    pictures: int
    fills: int
    valid: float
    consistent: float
    tv: float
    floor: float
    content: float
    chance: float
    forward: float
    backward: float
    seconds: float
    commit: str
    key: str


def masked_ksampler(strength: float) -> Method:
    """KSampler with a noise mask, from the picture as it is, content of the hole included."""

    def draw(task: Task) -> torch.Tensor:
        mask = rearrange(task.image_inputs["mask"], "n h w -> n 1 h w")
        rows = (repeat(x, "n ... -> (n f) ...", f=task.fills) for x in (toy.encode(task.vae, task.pictures), mask))
        return toy.ksampler(task.model, task.conditioning, next(rows), task.seed, next(rows), strength)

    return Method(draw, {"steps": toy.EULER_STEPS, "denoise": strength})


def method_of(name: str, strength: float) -> Method:
    return masked_ksampler(strength) if name == KSAMPLER else preset_method(name, strength=strength)


def portraits(hole: str, count: int) -> tuple[pictures.Attributes, pictures.Attributes, torch.Tensor]:
    """What is visible of `count` portraits, what is in their holes, and the pictures (N, 3, H, W) of both."""
    both = held_out(2 * count)
    visible, content = both[:count], both[count:]
    return visible, content, torch.where(pictures.hole(hole), pictures.render(content), pictures.render(visible))


def share_of_content(painted: torch.Tensor, content: pictures.Attributes, hole: torch.Tensor, fills: int) -> float:
    """How often hidden attributes of fills are those of the hole's content, mean over attributes."""
    found, there = pictures.read(painted).attributes.discrete(), content.discrete()
    hidden = pictures.hidden_attributes(hole)
    same = [found[name] == repeat(there[name], "n -> (n fills)", fills=fills) for name in hidden]
    return float(torch.stack(same).float().mean())


def key(hole: str, method: str, strength: float, count: int, fills: int) -> str:
    """A digest of what decides the fills, but the code."""
    settings = method_of(method, strength).settings
    inputs = {"checkpoint": checkpoint(), "method": method, "settings": settings, "seed": SEED}
    return digest(**inputs, hole=hole, count=count, fills=fills)


def file_of(hole: str, method: str, strength: float, count: int, fills: int) -> Path:
    return part_file("strength", method, hole, str(strength), key=key(hole, method, strength, count, fills))


def paint(hole: str, method: str, strength: float, count: int, fills: int, fresh: bool) -> Drawn:
    def draw(model: Any) -> torch.Tensor:
        shown = portraits(hole, count)[2]
        return method_of(method, strength).draw(Task(model, prior().vae, shown, pictures.hole(hole), fills, SEED))

    file = file_of(hole, method, strength, count, fills)
    return kept(file, Drawn, lambda: measured(draw, prior().model, toy.LATENT_SHAPE), fresh)


def score(hole: str, method: str, strength: float, count: int, fills: int, fresh: bool) -> Row:
    part, (visible, content, _) = (
        paint(hole, method, strength, count, fills, fresh),
        portraits(hole, count),
    )
    with torch.inference_mode():
        painted = toy.decode(prior().vae, part.latents)
    region, each = pictures.hole(hole), count * fills
    scores = judge(painted, visible, pictures.render(visible), region, fills)
    hidden = pictures.hidden_attributes(region)
    return Row(
        hole,
        method,
        strength,
        count,
        fills,
        **{name: scores[name] for name in ("valid", "consistent", "tv", "floor")},
        content=share_of_content(painted, content, region, fills),
        chance=sum(1 / pictures.ATTRIBUTES[name] for name in hidden) / len(hidden),
        forward=part.forward / each,
        backward=part.backward / each,
        seconds=part.seconds / each,
        commit=commit(),
        key=key(hole, method, strength, count, fills),
    )


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Row]:
    for place in product(options.holes, options.methods, options.strengths):
        if is_needed(*place):
            yield score(*place, options.pictures, options.fills, options.fresh)


COLUMNS: tuple[Column[Row], ...] = (
    Column("method", lambda r: r.method),
    Column("strength", lambda r: r.strength),
    Column(
        "content",
        lambda r: 100 * r.content,
        "{:.0f} %",
        "hidden attributes that are those of the hole's content; by chance as many as stand above the table",
    ),
    Column("valid", lambda r: 100 * r.valid, "{:.0f} %", VALID),
    Column(
        "consistent",
        lambda r: 100 * r.consistent,
        "{:.0f} %",
        "every attribute that the visible part determines is right: what of the content contradicts it is gone",
    ),
    Column(
        "TV",
        lambda r: r.tv,
        "{:.2f}",
        "total variation of the hidden attributes from uniform ones: it grows as fills keep one content",
    ),
    Column("forward", lambda r: r.forward, "{:.0f}", FORWARD),
    Column("backward", lambda r: r.backward, "{:.0f}", BACKWARD),
    Column("s", lambda r: r.seconds, "{:.2f}", "seconds per fill"),
)


def note(rows: Sequence[Row]) -> str:
    return f"content by chance {100 * rows[0].chance:.0f} %; TV of an exact sampler at strength 1 {rows[0].floor:.2f}"


def summary(rows: list[Row]) -> str:
    """A row per method and strength, means over the holes."""
    header = ("method", "strength", "content", "valid", "consistent", "TV above exact", "forward", "backward")
    found = []
    for place in dict.fromkeys((row.method, row.strength) for row in rows):
        own = [row for row in rows if (row.method, row.strength) == place]
        shares = (statistics.mean(getattr(row, kind) for row in own) for kind in ("content", "valid", "consistent"))
        passes = (statistics.mean(getattr(row, kind) for row in own) for kind in ("forward", "backward"))
        cells = [f"{100 * share:.0f} %" for share in shares]
        cells.append(f"{statistics.mean(row.tv - row.floor for row in own):+.2f}")
        found.append((place[0], str(place[1]), *cells, *(f"{count:.0f}" for count in passes)))
    return markdown(header, found)


def illustrate(rows: list[Row], stem: Path) -> None:
    """The first picture: what is visible, what is there, then fills; a row per hole, method and strength."""
    tiles = []
    for row in (row for row in rows if row.hole in SHOWN and row.method != "fast"):
        part = read(file_of(row.hole, row.method, row.strength, row.pictures, row.fills), Drawn)
        shown, region = portraits(row.hole, row.pictures)[2][0], pictures.hole(row.hole)
        with torch.inference_mode():
            fills = toy.decode(prior().vae, part.latents[: row.fills])
        tiles.append([torch.where(region, 0.5, shown), shown, *fills])
    if tiles:
        sheet(tiles, tile=80).save(stem.with_suffix(".png"), optimize=True)


BENCHMARK = Benchmark(
    name="strength",
    title="How much of a hole's content is kept by `strength`",
    row=Row,
    measure=measure,
    tables=lambda rows: sections(rows, lambda row: row.hole, COLUMNS, note),
    axes=(
        Axis("hole", HOLES, "holes", quick=("right",)),
        Axis("method", (KSAMPLER, *PRESETS), "methods", quick=(KSAMPLER, "fast")),
        Axis("strength", STRENGTHS, "strengths"),
    ),
    counts=(Count("pictures", usual=4, quick=1, most=HELD_OUT // 2), Count("fills", usual=8, quick=2)),
    explanation=f"""\
The hole contains the same part of another portrait. Masked KSampler has `denoise` in place of strength, and the
encoding of the whole picture.

{legend(COLUMNS)}
""",
    facts=lambda options: f"{options.pictures} pictures, {options.fills} fills",
    illustrate=illustrate,
    summary=Summary("strength", summary),
    is_done=lambda row, options: row.key == key(row.hole, row.method, row.strength, options.pictures, options.fills),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
