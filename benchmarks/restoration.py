"""Restoration with the toy prior: blurred and small pictures made whole, and holes filled in pixels or in latents.

    python3 run.py benchmark restoration [--pictures 5] [--fills 1] [--methods NAME ...] [--problems NAME ...] [--quick]

Everything runs through the host: stock loader, this pack's nodes, stock decoder. Results go to benchmarks/results/.
What is finished, there or as a part in .cache/benchmarks, is not computed again unless the checkpoint, the settings
or the numbers above change, or with `--fresh`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat

from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary
from benchmarks.harness.cost import Drawn, measured
from benchmarks.harness.host import PACK, sampling_inputs
from benchmarks.harness.keys import digest, preset_settings
from benchmarks.harness.parts import kept, part_file, read
from benchmarks.harness.results import commit
from benchmarks.harness.sheets import sheet
from benchmarks.harness.tables import Column, legend, sections, table
from benchmarks.portraits.methods import Task, preset_method
from benchmarks.portraits.prior import HELD_OUT, SEED, checkpoint, held_out, prior
from benchmarks.portraits.scores import BACKWARD, FORWARD, SEAM, VALID, psnr, seam
from toy_prior import model as toy
from toy_prior import pictures

NOISE = 0.02
GIVEN = "given"
# The published scale 0.5 is for colours from -1 to 1.
DPS = PACK.baseline.BASELINES["dps"].settings(scale=1.0)


@dataclass(frozen=True)
class Problem:
    """How pictures are degraded.

    degradation: the input of VIPaint Restore.
    noise: standard deviation of colours in [0, 1].
    hole: (H, W) bool, True is hidden; None: nothing is.
    """

    degradation: dict[str, Any]
    noise: float = NOISE
    hole: torch.Tensor | None = None

    @property
    def operator(self) -> Any:
        return PACK.restore.operator_of(self.degradation, (pictures.SIZE, pictures.SIZE))[0]

    def degrade(self, originals: torch.Tensor) -> torch.Tensor:
        """What is given of pictures (N, 3, H, W), (N, 3, h, w), grey in the hole."""
        y = self.operator.A(originals)
        y = y + self.noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(SEED))
        return y if self.hole is None else torch.where(self.hole, 0.5, y)

    def enlarge(self, given: torch.Tensor) -> torch.Tensor:
        """What is given in the size of the originals, (N, 3, H, W) in [0, 1]."""
        return F.interpolate(given, (pictures.SIZE, pictures.SIZE), mode="bicubic").clamp(0, 1)


def disc(radius: float) -> torch.Tensor:
    """A hole in the middle, (H, W) bool."""
    across = torch.arange(pictures.SIZE) - (pictures.SIZE - 1) / 2
    return across.square() + across.square()[:, None] < radius**2


WHOLE = {"degradation": "none"}
PROBLEMS = {
    "gaussian blur, 3 px": Problem({"degradation": "gaussian blur", "sigma": 3.0}),
    "motion blur, 21 px": Problem({"degradation": "motion blur", "length": 21.0, "angle": 30.0}),
    "super-resolution, x4": Problem({"degradation": "super-resolution", "factor": "4", "kind": "bicubic"}),
    "super-resolution, x8": Problem({"degradation": "super-resolution", "factor": "8", "kind": "bicubic"}),
    "hole, right": Problem(WHOLE, 0.0, pictures.hole("right")),
    "hole, disc": Problem(WHOLE, 0.0, disc(30)),
}


@dataclass(frozen=True)
class Work:
    """One problem on pictures (N, 3, H, W)."""

    model: Any
    vae: Any
    problem: Problem
    originals: torch.Tensor
    fills: int

    @property
    def conditioning(self) -> Any:
        return PACK.host.text_inputs.zero_conditioning(self.model)

    @property
    def image(self) -> torch.Tensor:
        """What is given as the host's IMAGE, (N, h, w, 3)."""
        return rearrange(self.problem.degrade(self.originals), "n c h w -> n h w c")

    @property
    def mask(self) -> torch.Tensor | None:
        """The host's MASK, (N, H, W)."""
        hole = self.problem.hole
        return None if hole is None else repeat(hole.float(), "h w -> n h w", n=len(self.originals))


def restore(work: Work) -> torch.Tensor:
    output = PACK.restore.VIPaintRestore.execute(
        model=work.model,
        positive=work.conditioning,
        negative=work.conditioning,
        seed=SEED,
        cfg=1.0,
        fills=work.fills,
        **widget_defaults(),
        degradation=work.problem.degradation,
        noise=work.problem.noise,
        image=work.image,
        vae=work.vae,
        mask=work.mask,
    )
    return output.result[0]["samples"]


def widget_defaults() -> dict[str, Any]:
    """What a new VIPaint Restore has in those of its widgets that the problem does not set."""
    inputs = PACK.restore.VIPaintRestore.define_schema().inputs
    return {widget.id: widget.default for widget in inputs if widget.id in ("steps", "attempts")}


def dps(work: Work) -> torch.Tensor:
    inputs = sampling_inputs(work.model, work.conditioning, seed=SEED)
    decoder = PACK.host.decoder.HostDecoder(inputs.info, work.vae, work.originals.shape[-2:])
    hole = None if work.mask is None else rearrange(work.mask, "n h w -> n 1 h w")
    observation = PACK.restore.observed(work.image, hole, work.problem.operator, decoder, work.problem.noise)
    method = PACK.baseline.baseline_method("dps", DPS, inputs.info.largest_level)
    draws = PACK.sampling.Draws(observation, method, work.fills, decoder=decoder)
    return PACK.sampling.to_latent(inputs.info, PACK.sampling.run_method(inputs, draws))["samples"]


def latent(work: Work) -> torch.Tensor:
    hole = work.problem.hole
    assert hole is not None
    return preset_method("balanced").draw(Task(work.model, work.vae, work.originals, hole, work.fills, SEED))


def autoencoder(work: Work) -> torch.Tensor:
    return toy.encode(work.vae, work.originals)


@dataclass(frozen=True)
class Method:
    """What restores pictures.

    draw(work): latents (N * fills, C, H, W) in the host's scale; None: what is given is scored itself.
    settings: what decides them beside the work.
    most: pictures at most.
    degraded, holes: whether it takes problems of either kind.
    """

    draw: Callable[[Work], torch.Tensor] | None
    settings: Any = None
    most: int = HELD_OUT
    degraded: bool = True
    holes: bool = True

    def takes(self, problem: Problem) -> bool:
        return self.degraded if problem.hole is None else self.holes

    def pictures_and_fills(self, options: Options) -> tuple[int, int]:
        return min(options.pictures, self.most), 1 if self.draw is None else options.fills


RESTORE_SETTINGS = {"config": PACK.core.RestorationConfig(), "decoder_error": PACK.restore.DECODER_ERROR}
METHODS = {
    GIVEN: Method(None, holes=False),
    "dps": Method(dps, DPS, most=1, holes=False),
    "latent": Method(latent, preset_settings(PACK.core.PRESETS["balanced"]), degraded=False),
    "restore": Method(restore, RESTORE_SETTINGS),
    "autoencoder": Method(autoencoder, degraded=False),
}
# In the sheet of pictures, from left to right.
SHOWN = ("restore", "latent", "dps")


@dataclass(frozen=True)
class Score:
    """One method on one problem; shares are in [0, 1], counts and seconds per fill. See `QUALITY` and `PRICE`."""

    problem: str
    method: str
    pictures: int
    fills: int
    psnr: float | None
    data_fidelity: float
    attributes: float
    valid: float
    seam: float | None
    forward: float
    backward: float
    seconds: float
    commit: str
    key: str


def judge(problem: Problem, shown: torch.Tensor, truth: pictures.Attributes, fills: int) -> dict[str, Any]:
    """The scores of fills (pictures * fills, 3, H, W), all of the first picture first, that are about pictures."""
    originals = pictures.render(truth)
    truths, given = (
        repeat(tensor, "n ... -> (n fills) ...", fills=fills) for tensor in (originals, problem.degrade(originals))
    )
    visible = torch.ones_like(given[0, 0], dtype=torch.bool) if problem.hole is None else ~problem.hole
    reading, right = pictures.read(shown), truth.discrete()
    hidden = [] if problem.hole is None else pictures.hidden_attributes(problem.hole)
    found = reading.attributes.discrete()
    hits = [found[name] == repeat(right[name], "n -> (n fills)", fills=fills) for name in found if name not in hidden]
    return {
        "psnr": None if hidden else psnr(shown - truths),
        "data_fidelity": psnr((problem.operator.A(shown) - given)[:, :, visible]),
        "attributes": float(torch.stack(hits).float().mean()),
        "valid": float(reading.valid.float().mean()),
        "seam": None if problem.hole is None else seam(shown, truths, problem.hole),
    }


def key(problem: str, method: str, count: int, fills: int) -> str:
    """A digest of what decides the fills of the first `count` held-out pictures, but the code."""
    return digest(
        checkpoint=checkpoint(),
        problem=problem,
        degradation=PROBLEMS[problem].degradation,
        noise=PROBLEMS[problem].noise,
        method=method,
        settings=METHODS[method].settings,
        pictures=count,
        fills=fills,
        seed=SEED,
    )


def file_of(problem: str, method: str, count: int, fills: int) -> Path:
    return part_file("restoration", problem, method, key=key(problem, method, count, fills))


def paint(problem: str, method: str, count: int, fills: int, fresh: bool) -> Drawn:
    """Fills of the first `count` held-out pictures by a method that draws, kept in a file."""
    draw = METHODS[method].draw
    assert draw is not None

    def restored(model: Any) -> torch.Tensor:
        return draw(Work(model, prior().vae, PROBLEMS[problem], pictures.render(held_out(count)), fills))

    file = file_of(problem, method, count, fills)
    return kept(file, Drawn, lambda: measured(restored, prior().model, toy.LATENT_SHAPE), fresh)


def score(problem: str, method: str, count: int, fills: int, fresh: bool = False) -> Score:
    """A method on one problem with the first `count` held-out pictures."""
    known, truth = PROBLEMS[problem], held_out(count)
    if METHODS[method].draw is None:
        shown, price = known.enlarge(known.degrade(pictures.render(truth))), (0.0, 0.0, 0.0)
    else:
        part = paint(problem, method, count, fills, fresh)
        price = (part.forward, part.backward, part.seconds)
        with torch.inference_mode():
            shown = toy.decode(prior().vae, part.latents)
    forward, backward, seconds = (total / count / fills for total in price)
    return Score(
        problem,
        method,
        count,
        fills,
        **judge(known, shown, truth, fills),
        forward=forward,
        backward=backward,
        seconds=seconds,
        commit=commit(),
        key=key(problem, method, count, fills),
    )


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Score]:
    for problem, method in product(options.problems, options.methods):
        if METHODS[method].takes(PROBLEMS[problem]) and is_needed(problem, method):
            yield score(problem, method, *METHODS[method].pictures_and_fills(options), options.fresh)


def is_done(row: Score, options: Options) -> bool:
    return row.key == key(row.problem, row.method, *METHODS[row.method].pictures_and_fills(options))


QUALITY: tuple[Column[Score], ...] = (
    Column("pictures", lambda s: s.pictures),
    Column("PSNR", lambda s: s.psnr, "{:.1f} dB", "of the whole picture against the truth"),
    Column(
        "data fidelity",
        lambda s: s.data_fidelity,
        "{:.1f} dB",
        "PSNR of the fill, degraded in the same way, against what is given; the noise alone is 34 dB",
    ),
    Column("attributes", lambda s: 100 * s.attributes, "{:.0f} %", "of what the given part determines, read right"),
    Column("valid", lambda s: 100 * s.valid, "{:.0f} %", VALID),
    Column("seam", lambda s: s.seam, "{:+.1f}", SEAM),
)
PRICE: tuple[Column[Score], ...] = (
    Column("forward", lambda s: s.forward, "{:.0f}", FORWARD),
    Column("backward", lambda s: s.backward, "{:.0f}", BACKWARD),
    Column("s", lambda s: s.seconds, "{:.1f}", "seconds per fill by the clock: other work on the machine counts"),
)
METHOD: Column[Score] = Column("method", lambda s: s.method)
EXPLANATION = f"""\
Blurred and small pictures have noise of 0.02 (colours from 0 to 1). `given` is the degraded picture itself, small ones
enlarged with bicubic. `dps` has 1000 steps through network and decoder, on one picture; other baselines need latents, or
an encoder in every step, and do not take part. `latent` is VIPaint Inpaint, balanced, which hides every latent cell that
the hole touches; the disc's edge cuts through cells, that of `right` does not. `autoencoder` is the original, encoded and
decoded: the best that latents can show. Means over all fills, decoded, nothing pasted back:

{legend([*QUALITY, *PRICE])}
"""


def tables(scores: list[Score]) -> str:
    return sections(scores, lambda score: score.problem, [METHOD, *QUALITY, *PRICE])


def summary(scores: list[Score]) -> str:
    return table(scores, [Column("problem", lambda s: s.problem), METHOD, *QUALITY])


def illustrate(scores: list[Score], stem: Path) -> None:
    """Rows of problems: the first picture, what is given, and the first fill of `restore` and of its peer."""
    original = pictures.render(held_out(1))
    rows = []
    for problem in dict.fromkeys(score.problem for score in scores):
        tiles = [original[0], PROBLEMS[problem].enlarge(PROBLEMS[problem].degrade(original))[0]]
        own = {score.method: score for score in scores if score.problem == problem}
        for shown in (own[method] for method in SHOWN if method in own):
            part = read(file_of(problem, shown.method, shown.pictures, shown.fills), Drawn)
            with torch.inference_mode():
                tiles.append(toy.decode(prior().vae, part.latents[:1])[0])
        rows.append(tiles)
    sheet(rows, tile=pictures.SIZE).save(stem.with_suffix(".png"), optimize=True)


BENCHMARK = Benchmark(
    name="restoration",
    title="Restoration with the toy prior",
    row=Score,
    measure=measure,
    tables=tables,
    axes=(
        Axis("problem", list(PROBLEMS), "problems", quick=("super-resolution, x8", "hole, disc")),
        Axis("method", list(METHODS), "methods", quick=(GIVEN, "latent", "restore")),
    ),
    counts=(Count("pictures", usual=5, quick=1, most=HELD_OUT), Count("fills", usual=1, quick=1)),
    explanation=EXPLANATION,
    facts=lambda options: f"{options.fills} fill per picture, seed {SEED}",
    is_done=is_done,
    illustrate=illustrate,
    summary=Summary("restoration", summary),
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
