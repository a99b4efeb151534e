"""Inpainting against exact answers: the toy prior, held-out pictures, six holes, many fills.

    python3 run.py benchmark toy [--pictures 20] [--fills 16] [--methods NAME ...] [--packs FOLDER ...] [--quick]

Everything runs through the host: stock loader, this pack's nodes, the stock KSampler or a sampler
node of another pack (`--packs`), stock decoder. Slow methods paint fewer pictures. Results go to
benchmarks/results/. What is finished, there or as a part in .cache/benchmarks, is not computed again
unless the checkpoint, the method's settings or the numbers above change, or with `--fresh`.

What is visible determines the attributes that it shows; hidden attributes are uniform. Measured
on the decoded fills before anything is pasted back:

valid        every part of the fill matches a template of the generator, both eyes are the same
consistent   every attribute that the visible part determines is right, the wall's colour included
TV           per picture: distance of the hidden attributes' frequencies over its fills from uniform,
             floor: what an exact sampler has on average at this number of fills
modes        effective number of different hidden combinations per picture, exp(entropy) over its fills,
             as a share of what an exact sampler has on average at this number of fills
visible      PSNR of the visible part against the original
seam         mean step between neighbours across the hole's edge, fill pasted in, beyond the original's, in
             levels of 255
forward, backward   passes through the network per fill, backward ones only to the latent
s            seconds per fill, the fit included
overhead     wall time / time of the bare network calls, measured in the same run
MB           the most memory that all fills of one picture take beside the weights, on the right half
LPIPS        learned distance of the fills to the original, with `--lpips alexnet-owt-7be5be79.pth`, weights that
             torchvision publishes, and the package `lpips`
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks import parts, plots
from tools import in_process
from benchmarks.perceptual import load_lpips
from benchmarks.report import QUICK, RESULTS, commit, markdown, provenance, read_csv, write_csv
from benchmarks.samplers import EXTERNAL, JACOBIAN_FREE, KSAMPLER, PACK, Task, load_packs, samplers
from toy_prior import model as toy
from toy_prior import pictures

SEED = 5 * 10**8 + 1
HELD_OUT = 1000
# Pictures painted, and kept, together.
TOGETHER = 5
# Pictures of those that do not paint all: most have hundreds or thousands of passes per fill.
FEW = {"copaint": 1, "daps": 1, "dps": 1, "psld": 1, "repaint": 1, "resample": 1}
FEW |= dict.fromkeys(("blended", "pigdm", "red_diff", "ding", "tds", "langevin"), 5)
# In the sheet of pictures.
SHOWN = (KSAMPLER, "LanPaint", "pigdm", "fast", "balanced", "thorough")
# Not on every hole, for the same reason.
HOLES = {"paper-2": ("right", "top", "bottom", "centre")}
QUICK_METHODS = (KSAMPLER, "fast", "balanced", "ding")
METHODS = [name for name in samplers() if name not in ("paper-4", *EXTERNAL)]
# A hue that is off by this much moves the wall's colours by the reader's own tolerance.
HUE_TOLERANCE = pictures.BACKGROUND_TOLERANCE / (0.3 * 2 * math.pi / math.sqrt(2))


@dataclass(frozen=True)
class Score:
    """One method on one hole. Shares are in [0, 1], counts per fill."""

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


def held_out(count: int) -> pictures.Attributes:
    """The first `count` held-out pictures, the same ones for every count."""
    return pictures.sample_attributes(HELD_OUT, torch.Generator().manual_seed(SEED))[:count]


@lru_cache(maxsize=None)
def tv_floor(size: int, fills: int, trials: int = 20_000) -> float:
    """Mean total variation of `fills` exact draws of a uniform attribute."""
    draws = torch.randint(size, (trials, fills), generator=torch.Generator().manual_seed(1))
    return float(pictures.total_variation(draws, size).mean())


def effective_modes(values: torch.Tensor, size: int) -> torch.Tensor:
    """exp(entropy) of the values' frequencies over the last dimension, (..., draws) -> (...)."""
    share = torch.nn.functional.one_hot(values, size).double().mean(-2)
    return torch.special.entr(share).sum(-1).exp()


@lru_cache(maxsize=None)
def exact_modes(size: int, fills: int, trials: int = 5_000) -> float:
    """Mean effective number of modes of `fills` exact draws."""
    draws = torch.randint(size, (trials, fills), generator=torch.Generator().manual_seed(2))
    return float(effective_modes(draws, size).mean())


def seam(painted: torch.Tensor, originals: torch.Tensor, mask: torch.Tensor) -> float:
    """Mean step across the edge of the mask (H, W), fills (N, 3, H, W) pasted in, beyond the originals', of 255."""
    steps = []
    for shown in (torch.where(mask, painted, originals), originals):
        across = []
        for dim in (-1, -2):
            edge = mask.diff(dim=dim)
            across.append(shown.diff(dim=dim).abs()[..., edge].flatten())
        steps.append(float(torch.cat(across).mean()))
    return 255 * (steps[0] - steps[1])


def judge(
    painted: torch.Tensor, truth: pictures.Attributes, originals: torch.Tensor, mask: torch.Tensor, fills: int
) -> dict[str, Any]:
    """Scores fills (pictures * fills, 3, H, W), all of the first picture first."""
    reading = pictures.read(painted)
    seen, found = truth.discrete(), reading.attributes.discrete()
    hidden = pictures.hidden_attributes(mask)
    right = torch.ones(len(painted), dtype=torch.bool)
    for name in pictures.ATTRIBUTES:
        if name not in hidden:
            right &= found[name] == seen[name].repeat_interleave(fills)
    hue = pictures.read(painted, mask).attributes.hue - truth.hue.repeat_interleave(fills)
    right &= (torch.remainder(hue + 0.5, 1) - 0.5).abs() <= HUE_TOLERANCE
    distances, joint, size = [], torch.zeros(len(painted), dtype=torch.long), 1
    for name in hidden:
        distances.append(pictures.total_variation(found[name].reshape(-1, fills), pictures.ATTRIBUTES[name]).mean())
        joint, size = joint * pictures.ATTRIBUTES[name] + found[name], size * pictures.ATTRIBUTES[name]
    modes = float(effective_modes(joint.reshape(-1, fills), size).mean()) / exact_modes(size, fills)
    whole = originals.repeat_interleave(fills, 0)
    error = (painted - whole)[:, :, ~mask].square().mean()
    return {
        "valid": float(reading.valid.float().mean()),
        "consistent": float(right.float().mean()),
        "both": float((reading.valid & right).float().mean()),
        "tv": float(torch.stack(distances).mean()) if distances else None,
        "floor": sum(tv_floor(pictures.ATTRIBUTES[n], fills) for n in hidden) / len(hidden) if hidden else None,
        "modes": modes if hidden else None,
        "psnr": -10 * math.log10(float(error)),
        "seam": seam(painted, whole, mask),
    }


def paint_part(method: str, hole: str, first: int, last: int, fills: int, model: Any, vae: Any) -> parts.Part:
    """Paints the held-out pictures first..last-1, measured."""
    conditioning = PACK.unconditional.unconditional(model)
    originals = pictures.render(held_out(last)[first:])

    def draw(metered: Any) -> torch.Tensor:
        task = Task(metered, vae, conditioning, originals, pictures.hole(hole), fills, SEED + first)
        return samplers()[method].draw(task)

    return parts.measured(draw, model)


def key(method: str, hole: str, first: int, last: int, fills: int) -> str:
    """A digest of what decides a result, but the code."""
    return parts.digest(repr(samplers()[method].settings), hole, first, last, fills, SEED)


def cached_part(
    method: str, hole: str, first: int, last: int, fills: int, load: Callable[[], tuple[Any, Any]], fresh: bool
) -> parts.Part:
    """`paint_part`, kept in a file named after what decides it, but the code."""
    file = part_file(method, hole, first, last, fills)
    return parts.kept(file, fresh, lambda: paint_part(method, hole, first, last, fills, *load()))


def part_file(method: str, hole: str, first: int, last: int, fills: int) -> Path:
    digest = key(method, hole, first, last, fills)
    return parts.CACHE / f"{method.replace(' ', '_')}-{hole}-{first}-{digest}.safetensors"


def count_of(method: str, pictures: int) -> int:
    """Pictures that a method paints."""
    return min(pictures, FEW.get(method, pictures))


def finished(file: Path, count: int, fills: int) -> dict[tuple[str, str], Score]:
    """Scores by hole and method of an earlier run with the same settings."""
    scores = (Score(**row) for row in read_csv(file, words=("method", "hole", "commit", "key")))
    same = (s for s in scores if s.key == key(s.method, s.hole, 0, count_of(s.method, count), fills))
    return {(s.hole, s.method): s for s in same}


def run(
    method: str,
    hole: str,
    count: int,
    fills: int,
    load: Callable[[], tuple[Any, Any]],
    fresh: bool,
    lpips: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> Score:
    """Score of the first `count` held-out pictures."""
    painted = []
    for first in range(0, count, TOGETHER):
        painted.append(cached_part(method, hole, first, min(first + TOGETHER, count), fills, load, fresh))
        print(f"{hole:8}{method:18} {min(first + TOGETHER, count)} of {count}", end="\r", flush=True)
    truth, each = held_out(count), count * fills
    with torch.inference_mode():
        decoded = torch.cat([toy.decode(load()[1], part.latents) for part in painted])
    originals = pictures.render(truth)
    seconds = sum(part.seconds for part in painted)
    return Score(
        method,
        hole,
        count,
        fills,
        **judge(decoded, truth, originals, pictures.hole(hole), fills),
        forward=sum(part.forward for part in painted) / each,
        backward=sum(part.backward for part in painted) / each,
        seconds=seconds / each,
        overhead=seconds / sum(part.bare for part in painted),
        memory=cached_part(method, "right", 0, 1, fills, load, fresh=False).peak / 1e6,
        lpips=float(lpips(decoded, originals.repeat_interleave(fills, 0)).mean()) if lpips else None,
        commit=commit(),
        key=key(method, hole, 0, count, fills),
    )


def strip(score: Score, vae: Any) -> Image.Image | None:
    """The fills of the first picture side by side, if they are still at hand."""
    file = part_file(score.method, score.hole, 0, min(TOGETHER, score.pictures), score.fills)
    if not file.is_file():
        return None
    with torch.inference_mode():
        return to_image(torch.cat(list(toy.decode(vae, parts.read(file).latents[: score.fills])), 2))


def to_image(picture: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] as a Pillow image."""
    return Image.fromarray(picture.movedim(0, -1).mul(255).round().byte().numpy())


def table(scores: list[Score]) -> str:
    """One Markdown table per hole."""
    header = (
        "method",
        "pictures",
        "valid",
        "consistent",
        "both",
        "TV",
        "modes",
        "visible",
        "seam",
        "forward",
        "backward",
        "s",
        "overhead",
        "MB",
        "LPIPS",
    )
    tables = []
    for hole in dict.fromkeys(s.hole for s in scores):
        rows = []
        for score in (s for s in scores if s.hole == hole):
            rows.append(
                (
                    score.method,
                    str(score.pictures),
                    *(f"{100 * share:.1f} %" for share in (score.valid, score.consistent, score.both)),
                    "-" if score.tv is None else f"{score.tv:.3f}",
                    "-" if score.modes is None else f"{100 * score.modes:.0f} %",
                    f"{score.psnr:.1f} dB",
                    f"{score.seam:+.1f}",
                    f"{score.forward:.1f}",
                    f"{score.backward:.1f}",
                    f"{score.seconds:.2f}",
                    f"{score.overhead:.2f}",
                    f"{score.memory:.0f}",
                    "-" if score.lpips is None else f"{score.lpips:.3f}",
                )
            )
        hidden = pictures.hidden_attributes(pictures.hole(hole))
        floor = next((s.floor for s in scores if s.hole == hole and s.floor is not None), None)
        note = (
            f"hidden: {', '.join(hidden)}; TV of an exact sampler {floor:.3f}" if floor is not None else "none hidden"
        )
        tables.append(f"## {hole}\n\n{note}\n\n{markdown(header, rows)}")
    return "\n".join(tables)


def summary(scores: list[Score]) -> str:
    """One row per method for the README."""
    excess = "TV above exact"
    header = ("method", "pictures", *pictures.MASKS, excess, "forward", "backward")
    rows = []
    for method in dict.fromkeys(s.method for s in scores):
        own = [s for s in scores if s.method == method]
        both = {s.hole: f"{100 * s.both:.0f} %" for s in own}
        beyond = statistics.mean(s.tv - s.floor for s in own if s.tv is not None and s.floor is not None)
        passes = (f"{statistics.mean(getattr(s, name) for s in own):.0f}" for name in ("forward", "backward"))
        rows.append(
            (method, str(own[0].pictures), *(both.get(hole, "-") for hole in pictures.MASKS), f"{beyond:+.3f}", *passes)
        )
    return markdown(header, rows)


def into_readme(name: str, text: str) -> None:
    """Replaces what stands between the README's markers of this name."""
    file = in_process.ROOT / "README.md"
    before, rest = file.read_text("utf-8").split(f"<!-- {name} -->\n")
    _, after = rest.split(f"<!-- /{name} -->")
    file.write_text(f"{before}<!-- {name} -->\n{text}<!-- /{name} -->{after}", "utf-8")


def chart(scores: list[Score], file: Path) -> None:
    """Valid and consistent fills, and variety, against passes; means over the holes that every method has."""
    methods = list(dict.fromkeys(s.method for s in scores))
    by = {(s.method, s.hole): s for s in scores}
    holes = [hole for hole in pictures.MASKS if all((method, hole) in by for method in methods)]

    def points(quality: Callable[[Score], float]) -> list[plots.Point]:
        found = []
        for method in methods:
            own = [by[method, hole] for hole in holes]
            passes, value = (statistics.mean(map(f, own)) for f in (lambda s: s.forward + s.backward, quality))
            found.append(plots.Point(method, passes, value))
        return found

    if holes:
        both = plots.Panel("valid and consistent", points(lambda s: s.both), share=True)
        beyond = plots.Panel("total variation above an exact sampler's", points(lambda s: s.tv - s.floor), best=0)
        plots.save([both, beyond], file, ours=[*PACK.core.PRESETS, JACOBIAN_FREE])


def sheet(strips: dict[tuple[str, str], Image.Image], shown: int = 8, tile: int = 96) -> Image.Image:
    """Rows of the first picture: what is visible, then fills; one row per hole and method."""
    original = pictures.render(held_out(1))[0]
    out = Image.new("RGB", ((shown + 1) * tile, len(strips) * tile), "white")
    for row, ((hole, _), strip) in enumerate(strips.items()):
        mask = pictures.hole(hole)
        cells = [to_image(torch.where(mask, torch.tensor(0.5), original))]
        size = pictures.SIZE
        cells += [strip.crop((i * size, 0, (i + 1) * size, size)) for i in range(shown)]
        for column, cell in enumerate(cells):
            out.paste(cell.resize((tile, tile), Image.Resampling.LANCZOS), (column * tile, row * tile))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20, help=f"at most {HELD_OUT}")
    parser.add_argument("--fills", type=int, default=16)
    parser.add_argument("--methods", nargs="+", choices=list(samplers()), help=f"default: {', '.join(METHODS)}")
    parser.add_argument("--holes", nargs="+", default=list(pictures.MASKS), choices=pictures.MASKS)
    parser.add_argument("--packs", nargs="+", type=Path, default=[], help="folders of packs with a sampler listed here")
    parser.add_argument("--lpips", type=Path, help="AlexNet's weights, for one more column")
    parser.add_argument("--out", type=Path, help="folder of the table; default: benchmarks/results")
    parser.add_argument("--fresh", action="store_true", help="compute everything again")
    parser.add_argument("--quick", action="store_true", help="one picture, two fills, into output/")
    options = parser.parse_args()
    out = options.out or (QUICK if options.quick else RESULTS)
    if options.quick:
        options.pictures, options.fills = 1, 2
    methods = options.methods or (QUICK_METHODS if options.quick else METHODS)
    load_packs(options.packs)
    lpips = load_lpips(options.lpips) if options.lpips else None
    load = lru_cache(maxsize=None)(toy.load)
    file = out / "inpainting.csv"
    found = finished(file, options.pictures, options.fills)
    if options.fresh:
        again = {(hole, method) for hole in options.holes for method in methods}
        found = {place: score for place, score in found.items() if place not in again}
    if lpips:
        found = {place: score for place, score in found.items() if score.lpips is not None}
    for hole in options.holes:
        for method in methods:
            if hole not in HOLES.get(method, pictures.MASKS) or (hole, method) in found:
                continue
            score = run(method, hole, count_of(method, options.pictures), options.fills, load, options.fresh, lpips)
            found[hole, method] = score
            print(
                f"{hole:8}{method:18} both {score.both:.3f} valid {score.valid:.3f} consistent {score.consistent:.3f} "
                f"TV {score.tv or 0:.3f} (floor {score.floor or 0:.3f}) {score.seconds:.2f} s",
                flush=True,
            )
            out.mkdir(parents=True, exist_ok=True)
            write_csv(file, [asdict(score) for score in found.values()])
    order = [(hole, method) for hole in pictures.MASKS for method in samplers()]
    scores = [found[place] for place in order if place in found]
    write_csv(file, [asdict(score) for score in scores])
    about = (__doc__ or "").split("\n\n", 3)[3].strip()
    text = (
        "# Inpainting against exact answers\n\n"
        f"`python3 run.py benchmark toy`, {options.fills} fills per picture, seed {SEED}, {provenance()}.\n\n"
        f"```\n{about}\n```\n\n{table(scores)}"
    )
    (out / "inpainting.md").write_text(text, "utf-8")
    strips = {(s.hole, s.method): strip(s, load()[1]) for s in scores if s.method in SHOWN}
    if None in strips.values():
        print("inpainting.png is left as it is: the parts of its rows are not in .cache/benchmarks")
    else:
        sheet(strips).save(out / "inpainting.png", optimize=True)
    chart(scores, out / "inpainting.svg")
    if out == RESULTS:
        into_readme("benchmark", summary(scores))


if __name__ == "__main__":
    main()
