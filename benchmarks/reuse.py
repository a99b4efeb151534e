"""Gains of other pictures: what fills are worth that are drawn by what the chains of other pictures have found.

    python3 run.py benchmark reuse [--pictures 4] [--fills 16] [--scenes NAME ...] [--methods NAME ...] [--quick]

Different portraits with the same hole, and a film: one portrait whose hole moves by a latent cell from picture to picture,
while the hue of its wall turns a little. Every fill that is judged is a further one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary
from benchmarks.harness.host import PACK, sampling_inputs
from benchmarks.harness.keys import digest, preset_settings
from benchmarks.harness.results import commit
from benchmarks.harness.tables import Column, legend, markdown, sections
from benchmarks.portraits.prior import SEED, checkpoint, held_out, prior
from benchmarks.portraits.scores import JUDGED_COLUMNS, judged_cells, mean_of
from benchmarks.toy import judge
from toy_prior import model as toy
from toy_prior import pictures

core: Any = PACK.core
BALANCED = core.PRESETS["balanced"]
FILM = "film"
# Pixels of a latent cell, and cycles of hue from one picture of the film to the next.
CELL, TURN = pictures.SIZE // toy.LATENT_SHAPE[-1], 0.02
# Further on the film's hole would show the mouth.
MOST = 5
SCENES = ("right", "bottom", "centre", "border", "strip", "cut", FILM)


class Source(NamedTuple):
    """Whose chains draw fills; nobody's: with products of their own alone. own: chains of the picture itself. others: other pictures, the nearest ones, three chains each."""

    own: int
    others: int


OWN = "own 3 chains"
METHODS = {
    OWN: Source(3, 0),
    "none": Source(0, 0),
    "one other's": Source(0, 1),
    "three others'": Source(0, 3),
    "own chain, three others'": Source(1, 3),
}


@dataclass(frozen=True)
class Score:
    """Further fills of the pictures of a scene; shares are in [0, 1], passes per fill. See `COLUMNS`.

    first: passes for the first fill of a picture, backward ones counted twice.
    """

    method: str
    scene: str
    pictures: int
    fills: int
    valid: float
    both: float
    tv: float | None
    floor: float | None
    first: float
    further: float
    commit: str
    key: str


class Scene(NamedTuple):
    """Pictures of a scene: attributes, holes (N, H, W) bool."""

    truth: pictures.Attributes
    holes: torch.Tensor


def scene(name: str, count: int) -> Scene:
    if name != FILM:
        return Scene(held_out(count), pictures.hole(name).expand(count, -1, -1))
    first = held_out(1)
    hue = torch.remainder(first.hue + TURN * torch.arange(count), 1)
    groups = {group: value.expand(count) for group, value in first.groups.items()}
    # A mouth's worth: wherever it is the mouth is hidden, and everything else is told by what is visible.
    holes = torch.zeros(count, pictures.SIZE, pictures.SIZE, dtype=torch.bool)
    for index, hole in enumerate(holes):
        hole[72:112, 16 + CELL * index : 80 + CELL * index] = True
    return Scene(pictures.Attributes(hue, groups), holes)


def of_pictures(fitted: Any, indices: list[int]) -> Any:
    """A posterior of some of its pictures, with their gains."""
    index = torch.tensor(indices)
    return replace(fitted.rows(index), gains=fitted.gains.rows(index))


def without_gains(gains: Any) -> Any:
    """Those that say nothing."""
    directions, products = (tuple(map(torch.zeros_like, parts)) for parts in (gains.directions, gains.products))
    return replace(gains, directions=directions, products=products)


def nearest(index: int, count: int, others: int) -> list[int]:
    """Other pictures of a scene, the nearest in time first."""
    return sorted(set(range(count)) - {index}, key=lambda other: (abs(other - index), other))[:others]


def score_scene(name: str, methods: list[str], count: int, fills: int) -> Iterator[Score]:
    """Scores of the chosen methods, whose chains are the same ones."""
    model, vae = prior()
    inputs = sampling_inputs(model, PACK.host.text_inputs.zero_conditioning(model), seed=SEED)
    truth, holes = scene(name, count)
    originals = pictures.render(truth)
    with torch.inference_mode():
        picture = PACK.observation.PictureInputs(None, originals.movedim(1, -1), holes.float(), vae)
        observation = PACK.observation.observe(inputs.info, picture, with_crosstalk=True)

    def opened(work: Callable[[Any, torch.device], Any]) -> Any:
        with torch.inference_mode():
            return PACK.host.denoiser.open_denoiser(inputs, work, shape=(8, *toy.LATENT_SHAPE), gradient=True)

    def chains(denoiser: Any, device: torch.device) -> tuple[Any, Any]:
        single = core.fit_gains(denoiser, core.fit(denoiser, observation.to(device), BALANCED, SEED), 1)
        return single.to("cpu"), core.fit_gains(denoiser, single).to("cpu")

    single, whole = opened(chains)
    first = (single.evaluations.forward + 2 * single.evaluations.backward) / count
    for method in methods:
        source = METHODS[method]

        def draw(denoiser: Any, device: torch.device, source: Source = source) -> list[Any]:
            drawn = []
            for index in range(count):
                start = of_pictures(single if source.own == 1 else whole, [index])
                if not source.own:
                    start = replace(start, gains=without_gains(start.gains))
                if others := nearest(index, count, source.others):
                    lent = core.start_from(start, of_pictures(whole, others)).gains
                    start = replace(start, gains=start.gains.joined(lent) if source.own else lent)
                start = start.to(device)
                drawn.append(core.sample(denoiser, start, SEED + 1 + index, fills))
            return drawn

        drawn = opened(draw)
        scores = []
        for index, found in enumerate(drawn):
            with torch.inference_mode():
                shown = toy.decode(vae, inputs.info.to_host_latent(found.latents.cpu()))
            own = slice(index, index + 1)
            scores.append(judge(shown, truth[own], originals[own], holes[index], fills))
        passes = sum(found.evaluations.forward + 2 * found.evaluations.backward for found in drawn)
        further = passes / (count * fills)
        means: dict[str, Any] = {part: mean_of(scores, itemgetter(part)) for part in ("valid", "both", "tv", "floor")}
        yield Score(
            method,
            name,
            count,
            fills,
            **means,
            first=first if source.own else further,
            further=further,
            commit=commit(),
            key=key(method, name, count, fills),
        )


def key(method: str, name: str, count: int, fills: int) -> str:
    """A digest of what decides a row, but the code."""
    settings = preset_settings(BALANCED)
    source = tuple(METHODS[method])
    film = (CELL, TURN, "mouth") if name == FILM else None
    return digest(
        checkpoint=checkpoint(),
        settings=settings,
        source=source,
        scene=name,
        film=film,
        pictures=count,
        fills=fills,
        seed=SEED,
    )


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Score]:
    for name in options.scenes:
        if methods := [method for method in options.methods if is_needed(name, method)]:
            yield from score_scene(name, methods, options.pictures, options.fills)


def is_done(row: Score, options: Options) -> bool:
    return row.key == key(row.method, row.scene, options.pictures, options.fills)


COLUMNS: tuple[Column[Score], ...] = (
    Column("gains", lambda s: s.method),
    *JUDGED_COLUMNS,
    Column("first", lambda s: s.first, "{:.0f}", "passes of a picture's first fill, backward ones counted twice"),
    Column("further", lambda s: s.further, "{:.0f}", "passes of a further one"),
)
EXPLANATION = f"""\
Fills by gains of the picture's own chains, of those of the nearest other pictures, three chains each, or of both. `{FILM}`: one
portrait, whose hole moves by a latent cell a picture and whose hue turns by {TURN} cycles.

{legend(COLUMNS)}
"""


def tables(scores: list[Score]) -> str:
    return sections(scores, lambda row: row.scene, COLUMNS)


def summary(scores: list[Score]) -> str:
    """A row per source of gains: valid and consistent fills by scene."""
    scenes = [name for name in SCENES if any(row.scene == name for row in scores)]
    header = ("gains of", *scenes, "TV above exact", "first fill", "further fill")
    rows = []
    for method in dict.fromkeys(row.method for row in scores):
        own = {row.scene: row for row in scores if row.method == method}
        one = next(iter(own.values()))
        rows.append((method, *judged_cells(own, scenes), f"{one.first:.0f}", f"{one.further:.0f}"))
    return markdown(header, rows)


BENCHMARK = Benchmark(
    name="reuse",
    title="Gains of other pictures",
    row=Score,
    measure=measure,
    tables=tables,
    axes=(
        Axis("scene", SCENES, "scenes", quick=("border",)),
        Axis("method", list(METHODS), "methods", quick=(OWN, "one other's")),
    ),
    counts=(Count("pictures", usual=4, quick=2, most=MOST), Count("fills", usual=16, quick=2)),
    explanation=EXPLANATION,
    facts=lambda options: f"{options.pictures} pictures, {options.fills} fills, seed {SEED}",
    is_done=is_done,
    summary=Summary("reuse", summary),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
