"""Restoration with the toy prior: blurred and small pictures made whole, and holes filled in pixels or in latents.

    python3 run.py benchmark restoration [--pictures 5] [--fills 1] [--methods NAME ...] [--problems NAME ...] [--quick]

Everything runs through the host: stock loader, this pack's nodes, stock decoder. Results go to benchmarks/results/.
What is finished, there or as a part in .cache/benchmarks, is not computed again unless the checkpoint, the settings
or the numbers above change, or with `--fresh`.

Blurred and small pictures have noise of 0.02 (colours from 0 to 1). `given` is the degraded picture itself, small ones
enlarged with bicubic. `dps` has 1000 steps through network and decoder, on one picture; other baselines need latents, or
an encoder in every step, and do not take part. `latent` is VIPaint Inpaint, balanced, which hides every latent cell that
the hole touches; the disc's edge cuts through cells, that of `right` does not. `autoencoder` is the original, encoded and
decoded: the best that latents can show. Means over all fills, decoded, nothing pasted back:

PSNR         of the whole picture against the truth
explained    PSNR of the fill, degraded in the same way, against what is given; the noise alone is 34 dB
attributes   of what the given part determines, read right
valid        every part of the fill matches a template of the generator, both eyes are the same
seam         mean step between neighbours across the hole's edge, fill pasted in, beyond the original's, in levels
             of 255
forward, backward   passes through the network per fill, backward ones only to the latent
s            seconds per fill by the clock: other work on the machine counts
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import parts
from benchmarks.inpainting import SEED, held_out, into_readme, seam, to_image
from benchmarks.report import QUICK, RESULTS, commit, markdown, provenance, read_csv, write_csv
from benchmarks.samplers import PACK, Task, preset
from toy_prior import model as toy
from toy_prior import pictures

NOISE = 0.02
GIVEN = "given"
# The published scale 0.5 is for colours from -1 to 1.
DPS = PACK.baseline.BASELINES["dps"].settings(scale=1.0)


@dataclass(frozen=True)
class Problem:
    """degradation: the node's input. hole: (H, W) bool, True is hidden."""

    degradation: dict[str, Any]
    noise: float = NOISE
    hole: torch.Tensor | None = None

    @property
    def operator(self) -> Any:
        return PACK.restore.operator_of(self.degradation, (pictures.SIZE, pictures.SIZE))[0]

    def given(self, originals: torch.Tensor) -> torch.Tensor:
        """The degraded pictures, (N, 3, h, w), grey in the hole."""
        y = self.operator.A(originals)
        y = y + self.noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(SEED))
        return y if self.hole is None else torch.where(self.hole, 0.5, y)


def disc(radius: float) -> torch.Tensor:
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
    """One problem on the pictures originals (N, 3, H, W)."""

    model: Any
    vae: Any
    problem: Problem
    originals: torch.Tensor
    fills: int

    @property
    def conditioning(self) -> Any:
        return PACK.unconditional.unconditional(self.model)

    @property
    def masks(self) -> torch.Tensor | None:
        hole = self.problem.hole
        return None if hole is None else hole[None].float().expand(len(self.originals), -1, -1)


def restore(work: Work) -> torch.Tensor:
    output = PACK.restore.VIPaintRestore.execute(
        work.model,
        work.conditioning,
        work.conditioning,
        seed=SEED,
        cfg=1.0,
        fills=work.fills,
        **knobs(),
        degradation=work.problem.degradation,
        noise=work.problem.noise,
        image=work.problem.given(work.originals).movedim(1, -1),
        vae=work.vae,
        mask=work.masks,
    )
    return output.result[0]["samples"]


def knobs() -> dict[str, Any]:
    """What a new VIPaint Restore has in its widgets, as far as the problem leaves it open."""
    return {
        socket.id: socket.default
        for socket in PACK.restore.VIPaintRestore.define_schema().inputs
        if socket.id in ("steps", "attempts")
    }


def dps(work: Work) -> torch.Tensor:
    problem = work.problem
    decoder = PACK.decoder.HostDecoder(work.model, work.vae, work.originals.shape[-2:])
    hole = None if work.masks is None else work.masks[:, None]
    given = problem.given(work.originals).movedim(1, -1)
    observation = PACK.restore.observed(given, hole, problem.operator, decoder, problem.noise)

    def draw(denoiser: Any, _place: Any, _device: Any) -> torch.Tensor:
        largest = PACK.bridge.largest_level(work.model)
        return PACK.baseline.run_baseline(
            "dps", denoiser, observation, SEED, work.fills, settings=DPS, s_max=largest
        ).latents

    latents = PACK.bridge.open_denoiser(
        work.model,
        work.conditioning,
        work.conditioning,
        cfg=1.0,
        shape=(len(given) * work.fills, *decoder.shape),
        seed=SEED,
        gradient=True,
        work=draw,
        beside=[decoder.patcher],
    )
    return PACK.bridge.to_host_latent(work.model, latents)


def latent(work: Work) -> torch.Tensor:
    hole = work.problem.hole
    assert hole is not None
    return preset("balanced").draw(
        Task(work.model, work.vae, work.conditioning, work.originals, hole, work.fills, SEED)
    )


def autoencoder(work: Work) -> torch.Tensor:
    return toy.encode(work.vae, work.originals)


@dataclass(frozen=True)
class Method:
    """draw(work): latents in the host's scale, None for what is given. settings: what decides them beside the work. most: pictures at most."""

    draw: Callable[[Work], torch.Tensor] | None
    settings: Any
    most: int | None = None
    degraded: bool = True
    holes: bool = True

    def takes(self, problem: Problem) -> bool:
        return self.degraded if problem.hole is None else self.holes


METHODS = {
    GIVEN: Method(None, None, holes=False),
    "dps": Method(dps, DPS, most=1, holes=False),
    "latent": Method(latent, PACK.core.PRESETS["balanced"], degraded=False),
    "restore": Method(restore, (PACK.core.Restoration(), PACK.restore.DECODER_ERROR)),
    "autoencoder": Method(autoencoder, None, degraded=False),
}
# In the sheet of pictures, from left to right.
SHOWN = ("restore", "latent", "dps")
QUICK_PROBLEMS = ("super-resolution, x8", "hole, disc")
QUICK_METHODS = (GIVEN, "latent", "restore")


@dataclass(frozen=True)
class Score:
    """One method on one problem; see the table's words."""

    problem: str
    method: str
    pictures: int
    fills: int
    psnr: float | None
    explained: float
    attributes: float
    valid: float
    seam: float | None
    forward: float
    backward: float
    seconds: float
    commit: str
    key: str


def decibels(error: torch.Tensor) -> float:
    """Mean PSNR of differences of colours (N, ...)."""
    return float(-10 * error.square().flatten(1).mean(1).log10().mean())


def judge(problem: Problem, shown: torch.Tensor, truth: pictures.Attributes, fills: int) -> dict[str, float | None]:
    """Scores fills (pictures * fills, 3, H, W), all of the first picture first."""
    originals = pictures.render(truth)
    whole, given = (tensor.repeat_interleave(fills, 0) for tensor in (originals, problem.given(originals)))
    seen = torch.ones_like(given[0, 0], dtype=torch.bool) if problem.hole is None else ~problem.hole
    reading, right = pictures.read(shown), truth.discrete()
    hidden = [] if problem.hole is None else pictures.hidden_attributes(problem.hole)
    found = reading.attributes.discrete()
    hits = [found[name] == right[name].repeat_interleave(fills) for name in found if name not in hidden]
    return {
        "psnr": None if hidden else decibels(shown - whole),
        "explained": decibels((problem.operator.A(shown) - given)[:, :, seen]),
        "attributes": float(torch.stack(hits).float().mean()),
        "valid": float(reading.valid.float().mean()),
        "seam": None if problem.hole is None else seam(shown, whole, problem.hole),
    }


def key(problem: str, method: str, count: int, fills: int) -> str:
    known = PROBLEMS[problem]
    return parts.digest(known.degradation, known.noise, problem, METHODS[method].settings, count, fills, SEED)


def part_file(problem: str, method: str, count: int, fills: int) -> Path:
    name = "".join(letter if letter.isalnum() else "_" for letter in f"restoration-{method}-{problem}")
    return parts.CACHE / f"{name}-{key(problem, method, count, fills)}.safetensors"


def run(problem: str, method: str, count: int, fills: int, load: Callable[[], tuple[Any, Any]], fresh: bool) -> Score:
    """Score of the first `count` held-out pictures."""
    known, chosen, truth = PROBLEMS[problem], METHODS[method], held_out(count)
    originals, price = pictures.render(truth), (0.0, 0.0, 0.0)
    if chosen.draw is None:
        fills, shown = 1, enlarged(known, originals)
    else:
        draw, (model, vae) = chosen.draw, load()
        part = parts.kept(
            part_file(problem, method, count, fills),
            fresh,
            lambda: parts.measured(lambda metered: draw(Work(metered, vae, known, originals, fills)), model),
        )
        price = (part.forward, part.backward, part.seconds)
        with torch.inference_mode():
            shown = toy.decode(vae, part.latents)
    return Score(
        problem,
        method,
        count,
        fills,
        **judge(known, shown, truth, fills),
        **dict(zip(("forward", "backward", "seconds"), (cost / count / fills for cost in price), strict=True)),
        commit=commit(),
        key=key(problem, method, count, fills),
    )


def enlarged(problem: Problem, originals: torch.Tensor) -> torch.Tensor:
    """What is given, in the originals' size."""
    return F.interpolate(problem.given(originals), originals.shape[-2:], mode="bicubic").clamp(0, 1)


QUALITY = ("pictures", "PSNR", "explained", "attributes", "valid", "seam")


def quality(score: Score) -> tuple[str, ...]:
    return (
        str(score.pictures),
        "-" if score.psnr is None else f"{score.psnr:.1f} dB",
        f"{score.explained:.1f} dB",
        f"{100 * score.attributes:.0f} %",
        f"{100 * score.valid:.0f} %",
        "-" if score.seam is None else f"{score.seam:+.1f}",
    )


def table(scores: list[Score]) -> str:
    """One Markdown table per problem."""
    tables = []
    for problem in dict.fromkeys(score.problem for score in scores):
        rows = [
            (score.method, *quality(score), f"{score.forward:.0f}", f"{score.backward:.0f}", f"{score.seconds:.1f}")
            for score in scores
            if score.problem == problem
        ]
        tables.append(f"## {problem}\n\n{markdown(('method', *QUALITY, 'forward', 'backward', 's'), rows)}")
    return "\n".join(tables)


def summary(scores: list[Score]) -> str:
    """One table for the README."""
    return markdown(
        ("problem", "method", *QUALITY), [(score.problem, score.method, *quality(score)) for score in scores]
    )


def sheet(scores: list[Score], vae: Any, tile: int = 128) -> Image.Image | None:
    """Rows of problems: the first picture, what is given, and the first fill of `restore` and of its peer.

    None where a fill is no longer at hand.
    """
    original = pictures.render(held_out(1))
    rows = []
    for problem in dict.fromkeys(score.problem for score in scores):
        cells = [original[0], enlarged(PROBLEMS[problem], original)[0]]
        own = {score.method: score for score in scores if score.problem == problem}
        for score in (own[method] for method in SHOWN if method in own):
            file = part_file(problem, score.method, score.pictures, score.fills)
            if not file.is_file():
                return None
            with torch.inference_mode():
                cells.append(toy.decode(vae, parts.read(file).latents[:1])[0])
        rows.append(cells)
    out = Image.new("RGB", (tile * max(map(len, rows)), tile * len(rows)), "white")
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            out.paste(to_image(cell).resize((tile, tile)), (column * tile, row * tile))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--fills", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS)
    parser.add_argument("--out", type=Path, help="folder of the table; default: benchmarks/results")
    parser.add_argument("--fresh", action="store_true", help="compute everything again")
    parser.add_argument("--quick", action="store_true", help="one picture, one fill, two problems, into output/")
    options = parser.parse_args()
    out = options.out or (QUICK if options.quick else RESULTS)
    if options.quick:
        options.pictures, options.fills = 1, 1
    methods = options.methods or (QUICK_METHODS if options.quick else METHODS)
    problems = options.problems or (QUICK_PROBLEMS if options.quick else PROBLEMS)
    load, file = lru_cache(maxsize=None)(toy.load), out / "restoration.csv"
    known = [Score(**row) for row in read_csv(file, words=("problem", "method", "commit", "key"))]
    found = {
        (score.problem, score.method): score
        for score in known
        if score.method in METHODS and score.key == key(score.problem, score.method, score.pictures, score.fills)
    }
    for problem in problems:
        for method in methods:
            count = min(options.pictures, METHODS[method].most or options.pictures)
            fills = 1 if METHODS[method].draw is None else options.fills
            old = found.get((problem, method))
            if not METHODS[method].takes(PROBLEMS[problem]):
                continue
            if old is not None and not options.fresh and (old.pictures, old.fills) == (count, fills):
                continue
            found[problem, method] = score = run(problem, method, count, fills, load, options.fresh)
            print(score, flush=True)
            out.mkdir(parents=True, exist_ok=True)
            write_csv(file, [asdict(score) for score in found.values()])
    scores = [found[place] for place in ((p, m) for p in PROBLEMS for m in METHODS) if place in found]
    write_csv(file, [asdict(score) for score in scores])
    about = (__doc__ or "").split("\n\n", 3)
    (out / "restoration.md").write_text(
        f"# {about[0]}\n\n`python3 run.py benchmark restoration`, {options.fills} fill per picture, seed {SEED}, {provenance()}.\n\n"
        f"```\n{about[3].strip()}\n```\n\n{table(scores)}",
        "utf-8",
    )
    picture = sheet(scores, load()[1])
    if picture is None:
        print("restoration.png is left as it is: the fills of its rows are not in .cache/benchmarks")
    else:
        picture.save(out / "restoration.png", optimize=True)
    if out == RESULTS:
        into_readme("restoration", summary(scores))


if __name__ == "__main__":
    main()
