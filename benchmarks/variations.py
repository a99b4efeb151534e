"""Draws around a chosen fill, and with a part of it kept, against exact answers.

    python3 run.py benchmark variations [--pictures 4] [--fills 8] [--quick]

Every held-out portrait gets fills; VIPaint Sample Posterior then draws as many again around them. What is kept of a fill is a
box of pixels that shows some of what the hole hides. Everything runs through the host, as in `benchmark toy`; every part is
kept in .cache/benchmarks.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat

from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary
from benchmarks.harness.cost import Drawn, measured
from benchmarks.harness.host import PACK
from benchmarks.harness.keys import digest, preset_settings
from benchmarks.harness.parts import kept, part_file, read
from benchmarks.harness.results import commit
from benchmarks.harness.sheets import sheet
from benchmarks.harness.tables import Column, legend, markdown, sections
from benchmarks.portraits.methods import Task
from benchmarks.portraits.prior import HELD_OUT, SEED, checkpoint, held_out, prior
from benchmarks.portraits.scores import BACKWARD, FORWARD, HUE_TOLERANCE, VALID, tv_floor
from toy_prior import model as toy
from toy_prior import pictures

# What is kept of a fill in each hole: lines and columns of pixels from and to.
KEPT = {
    "bottom": ("accessory", (88, 128, 80, 128)),
    "centre": ("eyes", (56, 80, 32, 96)),
    "border": ("accessory", (80, 128, 72, 128)),
}
VARIATIONS = (0.3, 0.6, 1.0)
PRESETS = ("balanced", "fast")
WAYS = ("around each", "keep a part of one")
# Noises over which the exact law is averaged.
NOISES = 200


@dataclass(frozen=True)
class Row:
    """One preset at one variation on one hole; shares are in [0, 1], counts and seconds per fill. See `COLUMNS`."""

    hole: str
    way: str
    method: str
    variation: float
    pictures: int
    fills: int
    part: float | None
    same: float
    exact: float
    valid: float
    consistent: float
    tv: float
    floor: float
    forward: float
    backward: float
    seconds: float
    commit: str
    key: str


def box_of(hole: str) -> torch.Tensor:
    """Pixels that are kept of a fill, (128, 128) bool."""
    top, bottom, left, right = KEPT[hole][1]
    mask = torch.zeros(pictures.SIZE, pictures.SIZE, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask & pictures.hole(hole)


def task_of(hole: str, count: int, fills: int, model: Any) -> Task:
    return Task(model, prior().vae, pictures.render(held_out(count)), pictures.hole(hole), fills, SEED)


def inputs_of(task: Task) -> dict[str, Any]:
    """What VIPaint Fit Posterior and VIPaint Sample Posterior share."""
    prompts = {"positive": task.conditioning, "negative": task.conditioning}
    return {"model": task.model, **prompts, "seed": task.seed, "cfg": 1.0}


@cache
def posterior_of(hole: str, method: str, count: int) -> Any:
    """What is drawn from; its fit is not counted."""
    task = task_of(hole, count, 1, prior().model)
    with torch.inference_mode():
        return PACK.fit.VIPaintFit.execute(**inputs_of(task), preset=method, **task.image_inputs).result[0]


def start(hole: str, method: str, count: int, fills: int, fresh: bool) -> Drawn:
    """The fills around which more are drawn."""

    def draw(model: Any) -> torch.Tensor:
        task = task_of(hole, count, fills, model)
        run = PACK.sample.VIPaintSample.execute
        samples: torch.Tensor = run(**inputs_of(task), posterior=posterior_of(hole, method, count), fills=fills).result[
            0
        ]["samples"]
        return samples

    file = part_file("variations", method, hole, "start", key=key(hole, "start", method, 1.0, count, fills))
    return kept(file, Drawn, lambda: measured(draw, prior().model, toy.LATENT_SHAPE), fresh)


def key(hole: str, way: str, method: str, variation: float, count: int, fills: int) -> str:
    """A digest of what decides the fills, but the code."""
    settings = {**preset_settings(PACK.core.PRESETS[method]), "variation": variation, "way": way}
    inputs = {"checkpoint": checkpoint(), "method": method, "settings": settings, "seed": SEED}
    return digest(**inputs, hole=hole, kept=KEPT[hole], count=count, fills=fills)


def file_of(hole: str, way: str, method: str, variation: float, count: int, fills: int) -> Path:
    return part_file(
        "variations", method, hole, way, str(variation), key=key(hole, way, method, variation, count, fills)
    )


def paint(hole: str, way: str, method: str, variation: float, count: int, fills: int, fresh: bool) -> Drawn:
    """One fill around each of the start's, or `fills` that keep a part of the first one of each picture."""
    first = start(hole, method, count, fills, fresh).latents

    def draw(model: Any) -> torch.Tensor:
        task = task_of(hole, count, fills, model)
        chosen: dict[str, Any] = {"around": {"samples": first}, "fills": 1}
        if way == WAYS[1]:
            chosen = {"around": {"samples": first[::fills]}, "fills": fills, "keep": box_of(hole).float()[None]}
        run = PACK.sample.VIPaintSample.execute
        samples: torch.Tensor = run(
            **inputs_of(task), posterior=posterior_of(hole, method, count), variation=variation, **chosen
        ).result[0]["samples"]
        return samples

    file = file_of(hole, way, method, variation, count, fills)
    return kept(file, Drawn, lambda: measured(draw, prior().model, toy.LATENT_SHAPE), fresh)


def groups_of(attributes: Sequence[str]) -> dict[str, list[str]]:
    """The layers that show some attributes, and which attributes each of them shows."""
    shown: dict[str, list[str]] = {}
    for name in attributes:
        group = "eye" if name.startswith("eye") else "hair" if name.startswith("hair") else name
        shown.setdefault(group, []).append(name)
    return shown


@cache
def values_of(group: str) -> int:
    return pictures.GROUPS["eye_left" if group == "eye" else group]


def with_value(attributes: pictures.Attributes, group: str, value: int) -> pictures.Attributes:
    names = ("eye_left", "eye_right") if group == "eye" else (group,)
    changed = {name: torch.full_like(attributes.groups[name], value) for name in names}
    return pictures.Attributes(attributes.hue, {**attributes.groups, **changed})


class Alternatives(NamedTuple):
    """What a layer of fills may be. moved: (N, values, D), latents of each value less those of the fills, all else alike.
    attributes: (N,) of each value. group: the layer.
    """

    group: str
    attributes: list[pictures.Attributes]
    moved: torch.Tensor
    agrees: torch.Tensor


def alternatives(fills: pictures.Attributes, visible: torch.Tensor, hidden: Sequence[str]) -> list[Alternatives]:
    """Of every layer that shows hidden attributes, its values; those that agree with what is visible.

    visible: (128, 128) bool, pixels that show what is known.
    """
    own, found = pictures.render(fills), []
    latents = model_latents(own)
    for group in groups_of(hidden):
        attributes = [with_value(fills, group, value) for value in range(values_of(group))]
        drawn = [pictures.render(one) for one in attributes]
        agrees = torch.stack([(one - own).abs()[..., visible].amax((1, 2)) <= 0.02 for one in drawn], 1)
        moved = torch.stack([model_latents(one) - latents for one in drawn], 1).flatten(2)
        found.append(Alternatives(group, attributes, moved, agrees))
    return found


def exact_share(
    fills: pictures.Attributes, given: Sequence[Alternatives], variation: float, hidden: Sequence[str]
) -> float:
    """How often hidden attributes of exact draws around fills are the fills' own, mean over fills and attributes.

    x0' is drawn given u = x0 + s n, each layer among its values with the others as they are: layers touch disjoint parts
    of the picture.
    """
    level = 0.0
    if variation < 1:
        info = PACK.host.model_info
        level = info.level_of_strength(prior().model, info.model_info(prior().model).coordinate, variation)
    shares = []
    for group, attributes, moved, agrees in given:
        chance = agrees.float() / agrees.sum(1, keepdim=True)
        if level:
            noise = torch.randn(moved.shape[-1], NOISES, generator=torch.Generator().manual_seed(SEED))
            # -|u - x|^2 / 2 s^2 of every value, but for what they share.
            weight = moved @ noise / level - moved.square().sum(-1, keepdim=True) / (2 * level**2)
            chance = weight.masked_fill(~agrees[..., None], -torch.inf).softmax(1).mean(-1)
        for name in groups_of(hidden)[group]:
            there = fills.discrete()[name]
            same = torch.stack([one.discrete()[name] == there for one in attributes], 1)
            shares.append((chance * same).sum(1))
    return float(torch.stack(shares).mean())


def model_latents(shown: torch.Tensor) -> torch.Tensor:
    """Encoded pictures (N, 3, H, W) in model scale."""
    info = PACK.host.model_info.model_info(prior().model)
    with torch.inference_mode():
        found: torch.Tensor = info.to_model_scale(toy.encode(prior().vae, shown).float())
    return found


def score(hole: str, way: str, method: str, variation: float, count: int, fills: int, fresh: bool) -> Row:
    part = paint(hole, way, method, variation, count, fills, fresh)
    with torch.inference_mode():
        painted = toy.decode(prior().vae, part.latents)
    return row_of(hole, way, method, variation, (count, fills), painted, part)


@cache
def chosen_of(
    hole: str, way: str, method: str, count: int, fills: int
) -> tuple[pictures.Attributes, list[Alternatives]]:
    """Attributes of the fills that are drawn around, one for each draw, and what they may be instead."""
    latents = start(hole, method, count, fills, fresh=False).latents
    if way == WAYS[1]:
        latents = latents[::fills]
    with torch.inference_mode():
        found = pictures.read(toy.decode(prior().vae, latents)).attributes
    still = still_hidden(hole, way)
    given = alternatives(found, ~still, pictures.hidden_attributes(still))
    if way == WAYS[1]:
        rows = torch.arange(count).repeat_interleave(fills)
        given = [
            Alternatives(one.group, [each[rows] for each in one.attributes], one.moved[rows], one.agrees[rows])
            for one in given
        ]
        found = found[rows]
    return found, given


def still_hidden(hole: str, way: str) -> torch.Tensor:
    return pictures.hole(hole) & ~box_of(hole) if way == WAYS[1] else pictures.hole(hole)


def row_of(
    hole: str,
    way: str,
    method: str,
    variation: float,
    counts: tuple[int, int],
    painted: torch.Tensor,
    part: Drawn,
) -> Row:
    """painted: (pictures * fills, 3, H, W), the new fills."""
    count, fills = counts
    truth, region = held_out(count), pictures.hole(hole)
    hidden, before = pictures.hidden_attributes(still_hidden(hole, way)), pictures.hidden_attributes(region)
    reading = pictures.read(painted)
    was, given = chosen_of(hole, way, method, count, fills)
    found, own, true = reading.attributes.discrete(), was.discrete(), truth.discrete()
    right = torch.ones(len(painted), dtype=torch.bool)
    for name in pictures.ATTRIBUTES:
        if name not in before:
            right &= found[name] == repeat(true[name], "n -> (n fills)", fills=fills)
    hue = pictures.read(painted, region).attributes.hue - repeat(truth.hue, "n -> (n fills)", fills=fills)
    right &= (torch.remainder(hue + 0.5, 1) - 0.5).abs() <= HUE_TOLERANCE
    shown = [name for name in before if name not in hidden]
    same = {name: (found[name] == own[name]).float() for name in before}
    distances = [
        pictures.total_variation(rearrange(found[name], "(n fills) -> n fills", fills=fills), pictures.ATTRIBUTES[name])
        for name in hidden
    ]
    each = count * fills
    return Row(
        hole,
        way,
        method,
        variation,
        count,
        fills,
        part=float(torch.stack([same[name] for name in shown]).mean()) if shown else None,
        same=float(torch.stack([same[name] for name in hidden]).mean()),
        exact=exact_share(was, given, variation, hidden),
        valid=float(reading.valid.float().mean()),
        consistent=float(right.float().mean()),
        tv=float(torch.stack(distances).mean()),
        floor=sum(tv_floor(pictures.ATTRIBUTES[name], fills) for name in hidden) / len(hidden),
        forward=part.forward / each,
        backward=part.backward / each,
        seconds=part.seconds / each,
        commit=commit(),
        key=key(hole, way, method, variation, count, fills),
    )


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Row]:
    for place in product(options.holes, options.ways, options.methods, options.variations):
        if is_needed(*place):
            yield score(*place, options.pictures, options.fills, options.fresh)


COLUMNS: tuple[Column[Row], ...] = (
    Column("draws", lambda r: r.way, "{}", "one fill around each of the first ones, or all that keep a part of one"),
    Column("method", lambda r: r.method),
    Column("variation", lambda r: r.variation),
    Column(
        "kept part",
        lambda r: None if r.part is None else 100 * r.part,
        "{:.0f} %",
        "attributes that the kept part shows are the fill's",
    ),
    Column("same", lambda r: 100 * r.same, "{:.0f} %", "hidden attributes are those of the fill that was drawn around"),
    Column(
        "exact",
        lambda r: 100 * r.exact,
        "{:.0f} %",
        "the same of exact draws: given the noised fill, layer by layer, by encodings of all values of each",
    ),
    Column("valid", lambda r: 100 * r.valid, "{:.0f} %", VALID),
    Column(
        "consistent",
        lambda r: 100 * r.consistent,
        "{:.0f} %",
        "every attribute that the visible part determines is right, the wall's colour included",
    ),
    Column(
        "TV",
        lambda r: r.tv,
        "{:.2f}",
        "total variation of the hidden attributes, per picture, from uniform ones, the exact conditional of all of these draws "
        "but those that keep a part at a variation below 1, which stay near one fill; that of an exact sampler beside it",
    ),
    Column("exact TV", lambda r: r.floor if r.way == WAYS[0] or r.variation >= 1 else None, "{:.2f}"),
    Column("forward", lambda r: r.forward, "{:.0f}", FORWARD),
    Column("backward", lambda r: r.backward, "{:.0f}", BACKWARD),
    Column("s", lambda r: r.seconds, "{:.2f}", "seconds per fill"),
)


def note(rows: Sequence[Row]) -> str:
    hole = rows[0].hole
    still = pictures.hidden_attributes(pictures.hole(hole) & ~box_of(hole))
    shown = [name for name in pictures.hidden_attributes(pictures.hole(hole)) if name not in still]
    return f"hidden: {', '.join((*shown, *still))}; the kept part shows {', '.join(shown)}"


def summary(rows: list[Row]) -> str:
    """A row per way, method and variation, means over the holes."""
    header = ("draws", "method", "variation", "kept part", "same", "exact", "valid", "consistent", "TV above exact")
    found = []
    for place in dict.fromkeys((row.way, row.method, row.variation) for row in rows):
        own = [row for row in rows if (row.way, row.method, row.variation) == place]
        parts = [row.part for row in own if row.part is not None]
        shares = [
            statistics.mean(getattr(row, kind) for row in own) for kind in ("same", "exact", "valid", "consistent")
        ]
        excess = (
            f"{statistics.mean(row.tv - row.floor for row in own):+.2f}"
            if place[0] == WAYS[0] or place[2] >= 1
            else "-"
        )
        cells = [f"{100 * share:.0f} %" for share in shares]
        found.append(
            (
                place[0],
                place[1],
                str(place[2]),
                f"{100 * statistics.mean(parts):.0f} %" if parts else "-",
                *cells,
                excess,
            )
        )
    return markdown(header, found)


def illustrate(rows: list[Row], stem: Path) -> None:
    """The first picture: with its hole, the fill that is chosen, then draws; a row per hole and way at variation .6."""
    tiles = []
    for row in (row for row in rows if row.method == "balanced" and row.variation == 0.6):
        place = (row.hole, row.way, row.method, row.variation, row.pictures, row.fills)
        part = read(file_of(*place), Drawn)
        first = start(row.hole, row.method, row.pictures, row.fills, fresh=False)
        shown, region = pictures.render(held_out(1))[0], pictures.hole(row.hole)
        with torch.inference_mode():
            chosen, fills = (toy.decode(prior().vae, drawn.latents[: row.fills]) for drawn in (first, part))
        given = torch.where(region, 0.5, shown)
        if row.way == WAYS[0]:
            tiles += [[given, *chosen], [given, *fills]]
        else:
            tiles.append([torch.where(region & ~box_of(row.hole), 0.5, chosen[0]), *fills])
    if tiles:
        sheet(tiles, tile=80).save(stem.with_suffix(".png"), optimize=True)


BENCHMARK = Benchmark(
    name="variations",
    title="More like a fill, and a part of it kept",
    row=Row,
    measure=measure,
    tables=lambda rows: sections(rows, lambda row: row.hole, COLUMNS, note),
    axes=(
        Axis("hole", tuple(KEPT), "holes", quick=("centre",)),
        Axis("way", WAYS, "ways"),
        Axis("method", PRESETS, "methods", quick=("fast",)),
        Axis("variation", VARIATIONS, "variations"),
    ),
    counts=(Count("pictures", usual=4, quick=1, most=HELD_OUT), Count("fills", usual=8, quick=2)),
    explanation=f"""\
Fills of a preset are drawn around once more by VIPaint Sample Posterior, with its inputs `around`, `variation` and `keep`.
Draws around exact fills are exact fills again, whatever the variation: together they are as varied as those before.

{legend(COLUMNS)}
""",
    facts=lambda options: f"{options.pictures} pictures, {options.fills} fills",
    illustrate=illustrate,
    summary=Summary("variations", summary),
    is_done=lambda row, options: (
        row.key == key(row.hole, row.way, row.method, row.variation, options.pictures, options.fills)
    ),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
