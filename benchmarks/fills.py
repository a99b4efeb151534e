"""One fit, many fills: fills that are drawn alone, as the first of every picture is, beside those that gains draw.

    python3 run.py benchmark fills [--worlds NAME ...] [--holes NAME ...] [--methods NAME ...] [--pictures 16]
                                   [--further 5] [--quick]

Both are fills of the same pictures, so that they are compared picture by picture. What a run of 1 to 16 fills takes follows
from what the first one and further ones take, which is counted.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat

from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary
from benchmarks.harness.host import PACK, sampling_inputs
from benchmarks.harness.keys import digest, preset_settings
from benchmarks.harness.results import commit
from benchmarks.harness.tables import Column, legend, markdown, sections
from benchmarks.portraits.scores import above_exact, mean_of
from benchmarks.worlds.benchmark import HOLES, checkpoint
from benchmarks.worlds.registry import WORLDS
from benchmarks.worlds.world import Judgement, energy_score
from toy_prior import model as toy

SEED = 8 * 10**8
core: Any = PACK.core
METHODS: dict[str, Any] = {name: core.PRESETS[name] for name in ("balanced", "thorough", "fast")}
CHAINS: int = METHODS["balanced"].chains
# Of each picture, drawn alone.
ALONE = 3
COUNTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Score:
    """Fills alone and further fills of one hole; shares are in [0, 1], passes per fill. See `COLUMNS`.

    further: further fills of a picture.
    *_lead: what further fills have above those alone. *_error: its standard error over pictures, None of one.
    each, chain, last: passes of a fill alone, of a chain after the first, and of a fill after the chains; backward ones
        counted twice.
    """

    world: str
    method: str
    hole: str
    pictures: int
    further: int
    alone_both: float
    both: float
    both_lead: float
    both_error: float | None
    alone_tv: float | None
    tv: float | None
    alone_energy: float
    energy: float
    energy_lead: float
    energy_error: float | None
    each: float
    chain: float
    last: float
    commit: str
    key: str

    def of_run(self, fills: int) -> float:
        """What each of so many fills takes, the fit included."""
        chains = min(fills, CHAINS) - 1
        return (self.each + chains * self.chain + (fills - 1 - chains) * self.last) / fills


class Drawn(NamedTuple):
    """alone, further: (N * fills, C, H, W) in the host's scale, all fills of the first picture first.

    each, chain, last: see `Score`.
    """

    alone: torch.Tensor
    further: torch.Tensor
    each: float
    chain: float
    last: float


def drawn(world: Any, hole: torch.Tensor, preset: Any, count: int, further: int) -> Drawn:
    """Of the first held-out pictures fills alone, and those from the second on."""
    model, vae = world.load()
    inputs = sampling_inputs(model, PACK.host.text_inputs.zero_conditioning(model), seed=SEED)
    image = rearrange(world.render(world.truths(count)), "n c h w -> n h w c")
    picture = PACK.observation.PictureInputs(None, image, repeat(hole.float(), "h w -> n h w", n=count), vae)

    def passes(spent: Any, fills: int) -> float:
        """Of each of so many fills of a picture."""
        return float((spent.forward + 2 * spent.backward) / (count * fills))

    def work(denoiser: Any, device: torch.device) -> Drawn:
        observation = PACK.observation.observe(inputs.info, picture, with_crosstalk=True).to(device)
        bare = core.fit(denoiser, observation, preset, SEED)
        alone = core.sample(denoiser, bare.without_gains(), SEED, ALONE)
        single = core.fit_gains(denoiser, bare, 1)
        whole = core.fit_gains(denoiser, single)
        rest = core.sample(denoiser, whole, SEED, further, first=1)
        return Drawn(
            inputs.info.to_host_latent(alone.latents.cpu()),
            inputs.info.to_host_latent(rest.latents.cpu()),
            passes(alone.evaluations, ALONE),
            passes(whole.evaluations - single.evaluations, CHAINS - 1),
            passes(rest.evaluations, further + 1 - CHAINS),
        )

    with torch.inference_mode():
        result: Drawn = PACK.host.denoiser.open_denoiser(inputs, work, shape=(8, *world.latent_shape), gradient=True)
    return result


class Judged(NamedTuple):
    """Fills of several pictures; by picture the share that is valid and consistent, and the energy score, (N,)."""

    whole: Judgement
    both: torch.Tensor
    energy: torch.Tensor


def judged(world: Any, hole: torch.Tensor, latents: torch.Tensor, count: int) -> Judged:
    truths = world.truths(count)
    with torch.inference_mode():
        painted = toy.decode(world.load().vae, latents)
    by_picture = rearrange(painted, "(n fills) ... -> n fills ...", n=count)
    each = by_picture.shape[1]
    alone = [world.judge(rows, truths[row : row + 1], hole, each).both for row, rows in enumerate(by_picture)]
    energy = energy_score(by_picture, world.render(truths), hole)
    return Judged(world.judge(painted, truths, hole, each), torch.tensor(alone), energy)


def lead(further: torch.Tensor, alone: torch.Tensor) -> tuple[float, float | None]:
    """Mean difference over pictures, (N,) each, and its standard error, which one picture does not have."""
    difference = (further - alone).double()
    several = len(difference) > 1
    return float(difference.mean()), float(difference.std()) / math.sqrt(len(difference)) if several else None


def score(name: str, method: str, hole: str, count: int, further: int) -> Score:
    world, mask = WORLDS[name], WORLDS[name].hole(hole)
    fills = drawn(world, mask, METHODS[method], count, further)
    one, other = (judged(world, mask, part, count) for part in (fills.alone, fills.further))
    both, energy = lead(other.both, one.both), lead(other.energy, one.energy)
    return Score(
        name,
        method,
        hole,
        count,
        further,
        alone_both=one.whole.both,
        both=other.whole.both,
        both_lead=both[0],
        both_error=both[1],
        alone_tv=above_exact(one.whole),
        tv=above_exact(other.whole),
        alone_energy=float(one.energy.mean()),
        energy=float(other.energy.mean()),
        energy_lead=energy[0],
        energy_error=energy[1],
        each=fills.each,
        chain=fills.chain,
        last=fills.last,
        commit=commit(),
        key=key(name, method, hole, count, further),
    )


def key(name: str, method: str, hole: str, count: int, further: int) -> str:
    """A digest of what decides a row, but the code."""
    settings = preset_settings(METHODS[method])
    decided = {"world": name, "checkpoint": checkpoint(name), "settings": settings, "hole": hole, "seed": SEED}
    return digest(**decided, pictures=count, further=further)


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Score]:
    for name in options.worlds:
        for method in options.methods:
            for hole in options.holes or WORLDS[name].holes:
                if hole in WORLDS[name].every_hole and is_needed(name, method, hole):
                    print(f"{name}: {method} {hole}", file=sys.stderr, flush=True)
                    yield score(name, method, hole, options.pictures, options.further)


def is_done(row: Score, options: Options) -> bool:
    return row.key == key(row.world, row.method, row.hole, options.pictures, options.further)


def scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


COLUMNS: tuple[Column[Score], ...] = (
    Column("method", lambda s: s.method),
    Column("hole", lambda s: s.hole),
    Column("pictures", lambda s: s.pictures),
    Column("alone", lambda s: 100 * s.alone_both, "{:.1f} %", "fills that are valid and agree with what is visible"),
    Column("further fills", lambda s: 100 * s.both, "{:.1f} %"),
    Column(
        "lead", lambda s: 100 * s.both_lead, "{:+.1f}", "further fills less fills alone, points, mean over pictures"
    ),
    Column("+-", lambda s: scaled(s.both_error, 100), "{:.1f}", "standard error of the lead over pictures"),
    Column("TV, alone", lambda s: s.alone_tv, "{:+.2f}", "total variation above that of an exact sampler"),
    Column("TV, further", lambda s: s.tv, "{:+.2f}"),
    Column("energy, alone", lambda s: 255 * s.alone_energy, "{:.2f}", "energy score, lower is better: see worlds.md"),
    Column("energy, further", lambda s: 255 * s.energy, "{:.2f}"),
    Column("lead", lambda s: 255 * s.energy_lead, "{:+.2f}"),
    Column("+-", lambda s: scaled(s.energy_error, 255), "{:.2f}"),
    Column("passes, alone", lambda s: s.each, "{:.0f}", "of a fill, backward ones counted twice"),
    Column("second, third", lambda s: s.chain, "{:.0f}", "passes of each of these further fills"),
    Column("others", lambda s: s.last, "{:.0f}", "passes of each of these"),
)
EXPLANATION = f"""\
The first fill of every picture is drawn by its solver alone; here {ALONE} are. Further ones, from the second on, are drawn by
what those before them have found, {CHAINS} of a picture at most.

{legend(COLUMNS)}
"""


def tables(scores: list[Score]) -> str:
    return sections(scores, lambda row: row.world, COLUMNS)


def with_error(values: list[float], errors: list[float | None], form: str) -> str:
    """The mean of independent values, and its standard error where all have one."""
    mean = form.format(statistics.mean(values))
    known = [error for error in errors if error is not None]
    return f"{mean} +- {form.format(math.hypot(*known) / len(values))[1:]}" if len(known) == len(values) else mean


def summary(scores: list[Score]) -> str:
    """A row per world and method: means over holes, and passes of each fill in runs of 1 to 16."""
    header = ("world", "method", "holes", "alone", "further fills", "lead", "TV", "energy's lead", "a further fill")
    rows = []
    for world, method in dict.fromkeys((row.world, row.method) for row in scores):
        own = [row for row in scores if (row.world, row.method) == (world, method)]
        tv = (mean_of(own, lambda s: s.alone_tv), mean_of(own, lambda s: s.tv))
        energy_errors = [scaled(row.energy_error, 255) for row in own]
        rows.append(
            (
                world,
                method,
                str(len(own)),
                f"{100 * statistics.mean(row.alone_both for row in own):.1f} %",
                f"{100 * statistics.mean(row.both for row in own):.1f} %",
                with_error(
                    [100 * row.both_lead for row in own], [scaled(row.both_error, 100) for row in own], "{:+.1f}"
                ),
                " / ".join("-" if value is None else f"{value:+.3f}" for value in tv),
                with_error([255 * row.energy_lead for row in own], energy_errors, "{:+.2f}"),
                f"{own[0].last:.0f}",
                *(f"{statistics.mean(row.of_run(fills) for row in own):.0f}" for fills in COUNTS),
            )
        )
    return markdown((*header, *(f"of {fills}" for fills in COUNTS)), rows)


BENCHMARK = Benchmark(
    name="fills",
    title="One fit, many fills",
    row=Score,
    measure=measure,
    tables=tables,
    axes=(
        Axis("world", list(WORLDS), "worlds", usual=("portraits", "scenes", "portraits-pixels"), quick=("portraits",)),
        Axis("method", list(METHODS), "methods", usual=("balanced", "thorough"), quick=("balanced",)),
        Axis("hole", HOLES, "holes", usual=(), quick=("centre",)),
    ),
    counts=(
        Count("pictures", usual=16, quick=1, most=min(world.held_out for world in WORLDS.values())),
        Count("further", usual=5, quick=3, least=3),
    ),
    explanation=EXPLANATION,
    facts=lambda options: f"{options.pictures} pictures, {options.further} further fills, seed {SEED}",
    is_done=is_done,
    summary=Summary("fills", summary),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
