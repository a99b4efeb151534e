"""Inpainting at the latent sizes of larger pictures, against exact answers.

    python3 run.py benchmark sizes [--pictures 4] [--fills 16] [--cells 16 32 64 128] [--methods NAME ...] [--quick]

The toy prior is enlarged exactly (`portraits/enlarged.py`), so that holes, evidence and posteriors are those of the toy
benchmark at every size. A model without a largest level (flows) stands beside one that ends at 14.6, as SD1.5 and SDXL.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any, NamedTuple

import torch
from einops import repeat

from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary
from benchmarks.harness.host import PACK, sampling_inputs
from benchmarks.harness.keys import digest, preset_settings
from benchmarks.harness.results import commit
from benchmarks.harness.tables import Column, legend, markdown, sections
from benchmarks.portraits.enlarged import EnlargedPrior, block_means, enlarged_observation
from benchmarks.portraits.prior import HELD_OUT, SEED, checkpoint, held_out, prior
from benchmarks.portraits.scores import JUDGED_COLUMNS, above_exact, mean_of
from benchmarks.toy import judge
from toy_prior import model as toy
from toy_prior import pictures

core: Any = PACK.core
SIDE = toy.LATENT_SHAPE[-1]
CELLS = (16, 32, 64, 128)
# By the largest noise level of the model.
FAMILIES = {"no largest level": math.inf, "s <= 14.6": 14.6}
# Beside the toy benchmark's holes: nothing is visible.
EVERYTHING = "everything"
# Those along the cells of 16 x 16 latents, which the enlargement needs.
HOLES = ("right", "top", "bottom", "centre", "blocks", "border", EVERYTHING)
FIXED, ANCESTRAL = "balanced, levels of 16 x 16 cells", "ancestral, 60 steps"
PRESETS = {name: core.PRESETS[name] for name in ("balanced", "thorough", "fast")}
PRESETS[FIXED] = replace(core.PRESETS["balanced"], relative_levels=False)
BASELINES = ("blended", "ding", "langevin")
METHODS = (*PRESETS, ANCESTRAL, *BASELINES)
QUICK = ("balanced", FIXED)


@dataclass(frozen=True)
class Score:
    """A method on one hole at one size; shares are in [0, 1], passes per fill. See `COLUMNS`."""

    family: str
    cells: int
    hole: str
    method: str
    pictures: int
    fills: int
    valid: float
    consistent: float
    both: float
    tv: float | None
    floor: float | None
    modes: float | None
    forward: float
    backward: float
    commit: str
    key: str


Draw = Callable[[Any, Any, float, int], Any]


def preset_draw(preset: Any) -> Draw:
    """As VIPaint Inpaint draws with a preset; beyond its largest level the model is asked on coarser grids."""

    def draw(denoiser: Any, observation: Any, s_max: float, fills: int) -> Any:
        if math.isfinite(s_max):
            denoiser = core.CoarseGridDenoiser(denoiser, s_max)
            s_max = core.reachable_level(s_max, observation.shape)
        fitted = core.fit(denoiser, observation, preset, SEED, s_max=s_max)
        return core.sample(denoiser, fitted, SEED, fills)

    return draw


def ancestral_draw(denoiser: Any, observation: Any, s_max: float, fills: int) -> Any:
    """The prior as stock sampling draws it: from noise of the model's largest level, without an observation."""
    levels = core.diffusion.levels.karras_levels(min(s_max, 80.0), 60, s_min=0.03, rho=7)

    def draw(denoiser: Any, _observation: Any, _image: torch.Tensor, noise: Any) -> torch.Tensor:
        u = levels[0] * noise()
        with torch.no_grad():
            for s, s_next in pairwise(levels):
                mean, variance = core.diffusion.transition.transition(u, denoiser(u, s), s, s_next)
                u = mean + variance.sqrt() * noise() if s_next else mean
        return u

    method = core.DrawMethod(draw, len(levels) - 1, needs_gradient=False)
    return core.draw_fills(denoiser, observation, method, SEED, fills)


def baseline_draw(name: str) -> Draw:
    def draw(denoiser: Any, observation: Any, s_max: float, fills: int) -> Any:
        return core.baselines.run_baseline(name, denoiser, observation, SEED, fills, s_max=s_max)

    return draw


DRAWS: dict[str, Draw] = {name: preset_draw(preset) for name, preset in PRESETS.items()}
DRAWS |= {ANCESTRAL: ancestral_draw, **{name: baseline_draw(name) for name in BASELINES}}


def hole_of(name: str) -> torch.Tensor:
    """(H, W) bool."""
    return torch.ones(pictures.SIZE, pictures.SIZE, dtype=torch.bool) if name == EVERYTHING else pictures.hole(name)


class Judged(NamedTuple):
    """What was drawn of a hole: scores as in the toy benchmark, and passes per fill."""

    scores: dict[str, Any]
    forward: float
    backward: float


def painted(
    work: Callable[[Any, Any], Any], cells: int, name: str, count: int, fills: int, with_crosstalk: bool
) -> Judged:
    """The first `count` held-out pictures with a hole, at a size.

    work: (denoiser, observation) to a `SampleResult` of `fills` fills a picture.
    """
    model, vae = prior()
    inputs = sampling_inputs(model, PACK.host.text_inputs.zero_conditioning(model), seed=SEED)
    hole, truth = hole_of(name), held_out(count)
    originals = pictures.render(truth)
    image = originals.movedim(1, -1)
    mask = repeat(hole.float(), "h w -> n h w", n=count)
    factor = cells // SIDE
    with torch.inference_mode():
        picture = PACK.observation.PictureInputs(None, image, mask, vae)
        small = PACK.observation.observe(inputs.info, picture, with_crosstalk=with_crosstalk)
    observation = enlarged_observation(small, factor, SEED)

    def opened(denoiser: Any, device: torch.device) -> Any:
        return work(EnlargedPrior(denoiser, SIDE), observation.to(device))

    with torch.inference_mode():
        drawn = PACK.host.denoiser.open_denoiser(inputs, opened, shape=(8, *toy.LATENT_SHAPE), gradient=True)
        shown = toy.decode(vae, inputs.info.to_host_latent(block_means(drawn.latents.cpu(), factor)))
    scores, passes = judge(shown, truth, originals, hole, fills), drawn.evaluations
    return Judged(scores, passes.forward / len(shown), passes.backward / len(shown))


def score(family: str, cells: int, name: str, method: str, count: int, fills: int) -> Score:
    """A method on one hole in the first `count` held-out pictures."""

    def work(denoiser: Any, observation: Any) -> Any:
        return DRAWS[method](denoiser, observation, FAMILIES[family], fills)

    judged = painted(work, cells, name, count, fills, with_crosstalk=method in PRESETS)
    names = ("valid", "consistent", "both", "tv", "floor", "modes")
    return Score(
        family,
        cells,
        name,
        method,
        count,
        fills,
        **{name: judged.scores[name] for name in names},
        forward=judged.forward,
        backward=judged.backward,
        commit=commit(),
        key=key(family, cells, name, method, count, fills),
    )


def key(family: str, cells: int, name: str, method: str, count: int, fills: int) -> str:
    """A digest of what decides a row, but the code."""
    settings: Any = PRESETS.get(method)
    if settings is not None:
        settings = {**preset_settings(settings), "relative_levels": settings.relative_levels}
    elif method in BASELINES:
        settings = core.baselines.BASELINES[method].settings()
    return digest(
        checkpoint=checkpoint(),
        family=FAMILIES[family] if math.isfinite(FAMILIES[family]) else None,
        cells=cells,
        hole=name,
        method=method,
        settings=settings,
        pictures=count,
        fills=fills,
        seed=SEED,
    )


def takes_part(cells: int, hole: str, method: str) -> bool:
    """Stock sampling paints everything and nothing else; fixed levels are shown where they matter most."""
    if method == FIXED:
        return cells > SIDE and hole in ("top", "bottom", EVERYTHING)
    return hole == EVERYTHING if method == ANCESTRAL else hole != EVERYTHING or method not in BASELINES


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Score]:
    for place in product(options.families, options.cells, options.holes, options.methods):
        if takes_part(*place[1:]) and is_needed(*place):
            yield score(*place, options.pictures, options.fills)


def is_done(row: Score, options: Options) -> bool:
    place = (row.family, row.cells, row.hole, row.method)
    return row.key == key(*place, options.pictures, options.fills)


COLUMNS: tuple[Column[Score], ...] = (
    Column("method", lambda s: s.method),
    Column("hole", lambda s: s.hole),
    Column("cells", lambda s: f"{s.cells} x {s.cells}"),
    *JUDGED_COLUMNS,
    Column(
        "modes", lambda s: None if s.modes is None else 100 * s.modes, "{:.0f} %", "share of an exact sampler's modes"
    ),
    Column("forward", lambda s: s.forward, "{:.0f}", "passes per fill, on whichever grid"),
    Column("backward", lambda s: s.backward, "{:.0f}"),
)
EXPLANATION = f"""\
Latents of 16 x 16 cells are those of 128 x 128 pixels, 128 x 128 cells those of 1024 x 1024. On the hole `{EVERYTHING}`
nothing is visible: `{ANCESTRAL}` is the prior as a stock sampler draws it from the model's largest level.
`{FIXED}` has the levels that are right at 16 x 16 cells at every size.

{legend(COLUMNS)}
"""


def tables(scores: list[Score]) -> str:
    def place(row: Score) -> tuple[int, ...]:
        return METHODS.index(row.method), HOLES.index(row.hole), row.cells

    by_family = sorted(scores, key=lambda row: (list(FAMILIES).index(row.family), *place(row)))
    return sections(by_family, lambda row: row.family, COLUMNS)


def summary(scores: list[Score]) -> str:
    """Means over the toy benchmark's holes: valid and consistent fills, and TV above exact, by size."""
    sizes = sorted({row.cells for row in scores})
    header = ("model", "method", *(f"{cells} x {cells}" for cells in sizes), "forward", "backward")
    rows = []
    for family, method in dict.fromkeys((row.family, row.method) for row in scores):
        own = [row for row in scores if (row.family, row.method) == (family, method) and row.hole != EVERYTHING]
        shown = []
        for cells in sizes:
            here = [row for row in own if row.cells == cells]
            excess = mean_of(here, above_exact)
            both = statistics.mean(row.both for row in here) if here else 0
            shown.append("-" if excess is None else f"{100 * both:.0f} % / {excess:+.3f}")
        if own:
            passes = (f"{statistics.mean(getattr(row, kind) for row in own):.0f}" for kind in ("forward", "backward"))
            rows.append((family, method, *shown, *passes))
    return markdown(header, rows)


BENCHMARK = Benchmark(
    name="sizes",
    title="Inpainting at the latent sizes of larger pictures",
    row=Score,
    measure=measure,
    tables=tables,
    axes=(
        Axis("family", list(FAMILIES), "families", quick=["s <= 14.6"]),
        Axis("cells", CELLS, "cells", quick=(64,)),
        Axis("hole", HOLES, "holes", quick=("top",)),
        Axis("method", METHODS, "methods", usual=("balanced", "fast", FIXED, ANCESTRAL), quick=QUICK),
    ),
    counts=(Count("pictures", usual=4, quick=1, most=HELD_OUT), Count("fills", usual=16, quick=2)),
    explanation=EXPLANATION,
    facts=lambda options: f"{options.pictures} pictures, {options.fills} fills, seed {SEED}",
    is_done=is_done,
    summary=Summary("sizes", summary),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
