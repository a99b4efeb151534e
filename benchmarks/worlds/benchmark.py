"""Methods in all worlds: what is painted, how it is scored, and the tables."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from einops import rearrange

from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary
from benchmarks.harness.cost import Drawn, measured
from benchmarks.harness.host import PACK, add_packs_option, load_packs
from benchmarks.harness.keys import digest, files_digest
from benchmarks.harness.parts import kept, part_file, read
from benchmarks.harness.results import commit
from benchmarks.harness.sheets import sheet
from benchmarks.harness.tables import Column, legend, markdown, sections
from benchmarks.portraits.methods import EXTERNAL, KSAMPLER, Task, methods
from benchmarks.portraits.scores import BACKWARD, FORWARD, above_exact, mean_of
from benchmarks.worlds.registry import WORLDS
from benchmarks.worlds.world import EXACT, NO_PROMPT, WORDINGS, Wording, World, energy_score
from toy_prior import model as toy
from toy_prior.accept import valid_samples

SEED = 7 * 10**8
METHODS = (EXACT, *methods())
HOLES = tuple(dict.fromkeys(hole for world in WORLDS.values() for hole in world.every_hole))
BY_WORDS = {str(wording): wording for wording in WORDINGS}
# Of the methods with hundreds or thousands of passes a fill, which paint fewer pictures.
SLOW = ("copaint", "daps", "dps", "paper-2", "paper-4", "psld", "repaint", "resample")
QUICK_METHODS = (EXACT, "fast", KSAMPLER)
# In the sheets of pictures, with so many fills.
SHOWN, SHOWN_HOLES, SHOWN_FILLS = ("balanced", "fast", KSAMPLER, "LanPaint"), ("blocks", "right", "bottom"), 6
# A world whose prior's own samples are valid less often than that says little of methods.
SUFFICIENT = 0.5


@dataclass(frozen=True)
class Row:
    """One method on one hole of a world; shares are in [0, 1], counts and seconds per fill. See `COLUMNS`.

    together: pictures that were painted at once.
    """

    world: str
    prompt: str
    method: str
    hole: str
    pictures: int
    fills: int
    together: int
    valid: float
    consistent: float
    both: float
    tv: float | None
    floor: float | None
    crps: float | None
    wasserstein: float | None
    followed: float | None
    energy: float
    forward: float
    backward: float
    seconds: float
    commit: str
    key: str


@dataclass(frozen=True)
class Place:
    """Where a method paints."""

    world: World[Any]
    wording: Wording
    hole: str
    count: int
    fills: int

    @property
    def picture_bound(self) -> bool:
        """Whether every picture has a prompt of its own."""
        return self.world.picture_bound or self.wording != NO_PROMPT


@cache
def checkpoint(world: str) -> str:
    return files_digest(WORLDS[world].files)


def key(place: Place, method: str, first: int, last: int) -> str:
    """A digest of what decides the fills of the held-out pictures first..last-1, but the code."""
    return digest(
        world=place.world.name,
        checkpoint=checkpoint(place.world.name),
        wording=place.wording,
        method=method,
        settings=None if method == EXACT else methods()[method].settings,
        hole=place.hole,
        first=first,
        last=last,
        fills=place.fills,
        seed=SEED,
    )


def file_of(place: Place, method: str, first: int, last: int) -> Path:
    words = (place.world.name, str(place.wording), method, place.hole, str(first))
    return part_file("worlds", *words, key=key(place, method, first, last))


def paint(place: Place, method: str, first: int, last: int, fresh: bool) -> Drawn:
    """Fills of the held-out pictures first..last-1, kept in a file."""
    world, hole = place.world, place.world.hole(place.hole)
    truths = world.truths(last)[first:]
    originals = world.render(truths)
    prior = world.load()

    def task(model: Any, rows: slice) -> Task:
        prompts = world.prompts(place.wording, truths[rows], originals[rows], hole)
        inputs = (model, prior.vae, originals[rows], hole, place.fills, SEED + first + rows.start)
        return Task(*inputs, positive=prompts.positive, negative=prompts.negative, cfg=place.wording.cfg)

    def draw(model: Any) -> torch.Tensor:
        together = 1 if place.picture_bound else len(truths)
        chosen = methods()[method].draw
        starts = range(0, len(truths), together)
        return torch.cat([chosen(task(model, slice(start, start + together))).cpu() for start in starts])

    file = file_of(place, method, first, last)
    return kept(file, Drawn, lambda: measured(draw, prior.model, world.latent_shape, with_bare=False), fresh)


def score(place: Place, method: str, together: int, fresh: bool = False) -> Row:
    world, hole, count = place.world, place.world.hole(place.hole), place.count
    truths, parts = world.truths(count), list[Drawn]()
    if method == EXACT:
        painted = world.exact(truths, hole, place.fills, torch.Generator().manual_seed(SEED))
    else:
        for first in range(0, count, together):
            last = min(first + together, count)
            parts.append(paint(place, method, first, last, fresh))
            print(f"{world.name} {place.wording}: {method} {place.hole} {last} of {count}", file=sys.stderr, flush=True)
        with torch.inference_mode():
            painted = torch.cat([toy.decode(world.load().vae, part.latents) for part in parts])
    by_picture = rearrange(painted, "(n fills) ... -> n fills ...", fills=place.fills)
    each = count * place.fills
    return Row(
        world.name,
        str(place.wording),
        method,
        place.hole,
        count,
        place.fills,
        together,
        **asdict(world.judge(painted, truths, hole, place.fills, place.wording)),
        energy=float(energy_score(by_picture, world.render(truths), hole).mean()),
        forward=sum(part.forward for part in parts) / each,
        backward=sum(part.backward for part in parts) / each,
        seconds=sum(part.seconds for part in parts) / each,
        commit=commit(),
        key=key(place, method, 0, count),
    )


def place_of(world: str, prompt: str, method: str, hole: str, options: Options) -> Place:
    count = min(options.pictures, options.slow) if method in SLOW else options.pictures
    return Place(WORLDS[world], BY_WORDS[prompt], hole, count, options.fills)


def chosen(options: Options) -> Iterator[tuple[str, str, str, str]]:
    """World, prompt, method and hole of every row, in the order in which they are computed."""
    for name in options.worlds:
        world = WORLDS[name]
        missing = [file.name for file in world.files if not file.is_file()]
        if missing:
            print(f"{name} is left out: no {', '.join(missing)}; `{world.maker}` makes it", file=sys.stderr)
            continue
        prompts = [str(wording) for wording in world.wordings]
        for prompt in (one for one in options.prompts if one in prompts):
            for method in options.methods or world.methods:
                if (method == EXACT and prompt != str(NO_PROMPT)) or (method in EXTERNAL and not options.packs):
                    continue
                for hole in options.holes or world.holes:
                    if hole in world.every_hole:
                        yield name, prompt, method, hole


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Row]:
    load_packs(options.packs)
    PACK.sampling.ROWS.set(options.rows)
    for world, prompt, method, hole in chosen(options):
        if is_needed(world, prompt, method, hole):
            place = place_of(world, prompt, method, hole, options)
            yield score(place, method, options.together, options.fresh)


def is_done(row: Row, options: Options) -> bool:
    place = place_of(row.world, row.prompt, row.method, row.hole, options)
    same = all(file.is_file() for file in place.world.files) and row.together == options.together
    return same and row.key == key(place, row.method, 0, place.count)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_packs_option(parser)


COLUMNS: tuple[Column[Row], ...] = (
    Column("method", lambda r: r.method),
    Column("hole", lambda r: r.hole),
    Column("pictures", lambda r: r.pictures),
    Column("fills", lambda r: r.fills, meaning="of each picture"),
    Column("valid", lambda r: 100 * r.valid, "{:.0f} %", "fills that are pictures of the world"),
    Column("consistent", lambda r: 100 * r.consistent, "{:.0f} %", "what is visible determines them rightly"),
    Column("both", lambda r: 100 * r.both, "{:.0f} %", "valid and consistent"),
    Column(
        "TV above exact",
        above_exact,
        "{:+.2f}",
        "total variation of hidden attributes from their exact posterior, beyond what an exact sampler has at this "
        "number of fills",
    ),
    Column(
        "CRPS", lambda r: r.crps, "{:.1f}", "continuous ranked probability score of a hidden light's azimuth, degrees"
    ),
    Column("W1", lambda r: r.wasserstein, "{:.1f}", "its Wasserstein distance from the exact posterior, degrees"),
    Column(
        "followed", lambda r: None if r.followed is None else 100 * r.followed, "{:.0f} %", "hidden attributes as named"
    ),
    Column(
        "energy",
        lambda r: 255 * r.energy,
        "{:.1f}",
        "energy score of the fills against the truth (Gneiting and Raftery 2007), root mean squares over hidden pixels in "
        "levels of 255; lower is better, and on average lowest for the exact posterior",
    ),
    Column("forward", lambda r: r.forward, "{:.0f}", FORWARD + "; guidance takes two"),
    Column("backward", lambda r: r.backward, "{:.0f}", BACKWARD),
    Column("s", lambda r: r.seconds, "{:.2f}", "seconds per fill"),
)


def heading(row: Row) -> str:
    return f"{row.world}, prompt: {row.prompt}"


def own_samples(world: str) -> float | None:
    """Share of the prior's own samples that are valid, None where that was not measured."""
    return valid_samples(WORLDS[world].accepted) if WORLDS[world].accepted else None


def note(rows: Sequence[Row]) -> str:
    world, share = WORLDS[rows[0].world], own_samples(rows[0].world)
    tuned = f"{world.tuned[:1].upper()}{world.tuned[1:]}."
    if share is None:
        return f"{tuned} How many of its prior's own samples are valid was not measured."
    poor = " Rows compare methods on a prior that is far from trained." if share < SUFFICIENT else ""
    return f"{tuned} Of its prior's own samples {100 * share:.0f} % are valid.{poor}"


def above(rows: Sequence[Row], value: Callable[[Row], float | None], exact: dict[str, Row]) -> float | None:
    """Mean excess over what the exact sampler has on the same holes; None where no row has one."""

    def excess(row: Row) -> float | None:
        one, best = value(row), value(exact[row.hole]) if row.hole in exact else None
        return None if one is None or best is None else one - best

    return mean_of(rows, excess)


def summary(rows: list[Row]) -> str:
    """A row per method without a prompt, means over the holes that it has, of the worlds whose prior is worth it.

    What `balanced` has on the same holes stands beside it: holes are not equally hard.
    """
    beyond = ("TV above exact", "CRPS above exact", "energy above exact")
    header = ("world", "method", "pictures", "holes", "both", "balanced there", "worst hole", *beyond, "passes")
    lines: list[Sequence[str]] = []
    unprompted = [row for row in rows if row.prompt == str(NO_PROMPT)]
    shares = {name: own_samples(name) for name in dict.fromkeys(row.world for row in rows)}
    worth = [name for name, share in shares.items() if share is not None and share >= SUFFICIENT]
    for name in worth:
        group = [row for row in unprompted if row.world == name]
        exact, ours = ({row.hole: row for row in group if row.method == method} for method in (EXACT, "balanced"))
        count = len({row.hole for row in group})
        lines.append((name, "*the prior's own samples*", *"--", f"{100 * (shares[name] or 0):.0f} %", *"------"))
        for method in dict.fromkeys(row.method for row in group if row.method != EXACT):
            own = [row for row in group if row.method == method]
            there = [ours[row.hole].both for row in own if row.hole in ours]
            numbers = (
                mean_of(own, above_exact),
                above(own, lambda r: r.crps, exact),
                above(own, lambda r: 255 * r.energy, exact),
            )
            tv, crps, energy = (
                "-" if number is None else form.format(number)
                for number, form in zip(numbers, ("{:+.2f}", "{:+.1f}", "{:+.1f}"), strict=True)
            )
            lines.append(
                (
                    name,
                    method,
                    str(own[0].pictures),
                    f"{len(own)} of {count}",
                    f"{100 * statistics.mean(row.both for row in own):.0f} %",
                    f"{100 * statistics.mean(there):.0f} %" if there else "-",
                    f"{100 * min(row.both for row in own):.0f} %",
                    tv,
                    crps,
                    energy,
                    f"{statistics.mean(row.forward + row.backward for row in own):.0f}",
                )
            )
    told = [f"- {name}: {WORLDS[name].tuned}" for name in worth]
    told += [
        f"- {name}: in worlds.md alone, for its prior "
        f"{'was not judged by its own samples' if share is None else 'is far from trained'}"
        for name, share in shares.items()
        if name not in worth
    ]
    return f"{markdown(header, lines)}\n" + "\n".join(told) + "\n"


def illustrate(rows: list[Row], stem: Path) -> None:
    """A sheet per world of its first picture without a prompt: what is visible, then fills; a row per hole and method."""
    unprompted = [row for row in rows if row.prompt == str(NO_PROMPT) and row.method in SHOWN]
    for name in dict.fromkeys(row.world for row in unprompted):
        world, lines = WORLDS[name], []
        for hole in SHOWN_HOLES:
            for row in (row for row in unprompted if (row.world, row.hole) == (name, hole)):
                place = Place(world, NO_PROMPT, row.hole, row.pictures, row.fills)
                file = file_of(place, row.method, 0, min(row.together, row.pictures))
                fills = read(file, Drawn).latents[: min(SHOWN_FILLS, row.fills)]
                with torch.inference_mode():
                    shown = toy.decode(world.load().vae, fills)
                (original,) = world.render(world.truths(1))
                lines.append([torch.where(world.hole(row.hole), 0.5, original), *shown])
        if lines:
            sheet(lines, tile=128).save(stem.with_name(f"{stem.name}-{name}.jpg"), quality=85, optimize=True)


def explanation() -> str:
    return f"""\
What is visible determines the attributes that it shows; what is hidden has a known distribution. Judged on the decoded
fills before anything is pasted back. Every world says what was tuned on it.

{legend(COLUMNS)}
"""


BENCHMARK = Benchmark(
    name="worlds",
    title="More than one world",
    row=Row,
    measure=measure,
    tables=lambda rows: sections(rows, heading, COLUMNS, note),
    axes=(
        Axis("world", list(WORLDS), "worlds", quick=("portraits",)),
        Axis("prompt", list(BY_WORDS), "prompts"),
        Axis("method", METHODS, "methods", usual=(), quick=QUICK_METHODS),
        Axis("hole", HOLES, "holes", usual=(), quick=("right",)),
    ),
    counts=(
        Count("pictures", usual=16, quick=1, most=min(world.held_out for world in WORLDS.values())),
        Count("fills", usual=16, quick=2, least=2),
        Count("slow", usual=4, quick=1),
        Count("together", usual=4, quick=4),
        Count("rows", usual=8, quick=8),
    ),
    explanation=explanation(),
    facts=lambda options: f"{options.rows} fills drawn together, seed {SEED}",
    is_done=is_done,
    add_options=add_options,
    illustrate=illustrate,
    summary=Summary("worlds", summary),
)
