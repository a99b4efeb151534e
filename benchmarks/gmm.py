"""Samplers against exact posteriors: linear measurements of a 25-component Gaussian mixture.

    python3 run.py benchmark gmm [--problems 20] [--samples 1000] [--methods NAME ...] [--quick]

The problems are those of Cardoso et al. 2023 (MCGDiff, arXiv 2308.07983, app. B.3): identity
covariance, means (-8i, -8j, -8i, -8j, ...) for i, j in -2..2, squared normal weights; y = A x + noise
with A = U diag(s) V^T of random rotations, s sorted uniforms, noise level uniform in (0, max s).

Two variants stand beside them: `mask`, where A selects coordinates as inpainting does, and `apart`,
a mask over three far and unequal modes. All is computed in the basis of V and divided by the prior's
standard deviation: there A is a mask whose cells are seen with different precision, and the prior
has about the unit variance that samplers expect; distances are given in the original scale.

Every number is the sliced Wasserstein-1 distance of a method's samples to as many exact ones (mean
over problems, 95 % interval); `exact` is the distance of two exact sets. What is finished, as a row of
gmm.csv over at least as many problems or as a part in .cache/benchmarks/gmm, is not computed again; parts are
where the code of the core has changed, rows with `--fresh`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks import plots
from tools.in_process import ROOT
from benchmarks.mixture import DIMENSIONS, MEASUREMENTS, VARIANTS, Cell, Problem, problem
from benchmarks.mixture_tables import EXACT, Results, Summary, panel, standings, table
from benchmarks.report import QUICK, RESULTS, commit, provenance, read_csv, write_csv
from vipaint_core import PRESETS, Evaluations, FitConfig, Preset, SamplerConfig, ScheduleConfig, fit, sample
from vipaint_core.baselines import BASELINES, run_baseline
from vipaint_core.metrics import sliced_wasserstein

CACHE = ROOT / ".cache" / "benchmarks" / "gmm"

# Fills at a time: as many as a processor's cache holds.
BATCH = 250
# Above every distance of modes in the scaled space, as an image model's own largest level is.
S_MAX = 80.0

Method = Callable[[Problem, int, int], tuple[torch.Tensor, Evaluations]]


# As many passes as TDS, from where every mode is drowned down to well below the width of one.
PARTICLES = Preset(
    "particles",
    "Fills that are weighed against each other: exact for very many.",
    FitConfig(keypoints=(S_MAX,)),
    ScheduleConfig(steps=106, s_min=0.01, rho=1000.0, guided_above=0.03),
    SamplerConfig(refiner="moment_matching", solver_steps=1, second_order_below=S_MAX, smc=True),
)
OURS = {preset.name: preset for preset in (*PRESETS.values(), PARTICLES)}


def preset_method(preset: Preset) -> Method:
    def draw(given: Problem, count: int, seed: int) -> tuple[torch.Tensor, Evaluations]:
        fitted = fit(given.prior, given.observation, preset, seed, s_max=S_MAX)
        drawn = sample(given.prior, fitted, seed, count, batch=BATCH)
        return drawn.latents.flatten(1), fitted.evaluations + drawn.evaluations

    return draw


def exact(given: Problem, count: int, seed: int) -> tuple[torch.Tensor, Evaluations]:
    generator = torch.Generator().manual_seed(seed)
    return given.prior.given(given.observation).draw(count, generator), Evaluations()


def baseline_method(name: str) -> Method:
    def draw(given: Problem, count: int, seed: int) -> tuple[torch.Tensor, Evaluations]:
        drawn = run_baseline(name, given.prior, given.observation, seed, count, s_max=S_MAX, batch=BATCH)
        return drawn.latents.flatten(1), drawn.evaluations

    return draw


METHODS: dict[str, Method] = {
    EXACT: exact,
    **{name: preset_method(preset) for name, preset in OURS.items()},
    **{name: baseline_method(name) for name in BASELINES},
}


@dataclass(frozen=True)
class Result:
    """One method on one problem; passes through the denoiser per sample."""

    distance: float
    forward: float
    backward: float
    seconds: float


def evaluate(draw: Method, cell: Cell, index: int, samples: int) -> Result:
    given = problem(cell, index)
    reference, _ = exact(given, samples, 10**6 + index)
    begin = time.perf_counter()
    drawn, evaluations = draw(given, samples, index)
    seconds = time.perf_counter() - begin
    if not bool(torch.isfinite(drawn).all()):
        return Result(math.inf, evaluations.forward / samples, evaluations.backward / samples, seconds)
    distance = given.scale * sliced_wasserstein(drawn, reference)
    return Result(distance, evaluations.forward / samples, evaluations.backward / samples, seconds)


@cache
def code() -> str:
    """A digest of what decides the numbers."""
    own = [ROOT / "benchmarks" / name for name in ("gmm.py", "mixture.py", "ablation.py")]
    files = [*sorted((ROOT / "vipaint_core").rglob("*.py")), *own]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def evaluate_cached(name: str, draw: Method, cell: Cell, index: int, samples: int) -> Result:
    file = CACHE / code() / f"{cell.name}-{name}-{samples}-{index}.json"
    if not file.is_file():
        result = evaluate(draw, cell, index, samples)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result.__dict__), "utf-8")
    return Result(**json.loads(file.read_text("utf-8")))


def summarise(method: str, cell: Cell, rows: Sequence[Result], samples: int) -> Summary:
    means = {name: statistics.mean(getattr(row, name) for row in rows) for name in Result.__annotations__}
    known = len(rows) > 1 and math.isfinite(means["distance"])
    deviation = statistics.stdev(row.distance for row in rows) if known else None
    return Summary(
        method,
        **asdict(cell),
        problems=len(rows),
        samples=samples,
        deviation=deviation,
        **means,
        commit=commit(),
        distances=" ".join(f"{row.distance:.5g}" for row in rows),
    )


def run(methods: Mapping[str, Method], cells: Sequence[Cell], problems: int, samples: int, known: Results) -> Results:
    """All methods on all cells but where a result over as many problems is known."""
    results = dict(known)
    for cell in cells:
        for name, draw in methods.items():
            if (name, cell) not in known or known[name, cell].problems < problems:
                rows = [evaluate_cached(name, draw, cell, index, samples) for index in range(problems)]
                results[name, cell] = summarise(name, cell, rows, samples)
            print(f"{cell.name:14}{name:24}{results[name, cell].interval}", file=sys.stderr, flush=True)
    return results


def finished(file: Path, samples: int) -> Results:
    """What earlier runs have found with as many samples."""
    summaries = (Summary(**row) for row in read_csv(file, words=("method", "variant", "commit", "distances")))
    return {(s.method, Cell(s.variant, s.dimension, s.measurements)): s for s in summaries if s.samples == samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--dimensions", nargs="+", type=int, default=list(DIMENSIONS))
    parser.add_argument("--fresh", action="store_true", help="compute the chosen methods again")
    parser.add_argument("--quick", action="store_true", help="one problem, 200 samples, d = 8, into output/")
    parser.add_argument("--out", type=Path, help="folder of the table; default: benchmarks/results")
    options = parser.parse_args()
    out = options.out or (QUICK if options.quick else RESULTS)
    if options.quick:
        options.problems, options.samples, options.dimensions = 1, 200, [8]
    wanted = {name: METHODS[name] for name in options.methods}
    known = finished(out / "gmm.csv", options.samples)
    every = [Cell(v, d, m) for v in VARIANTS for d in DIMENSIONS for m in MEASUREMENTS]
    cells = [cell for cell in every if cell.variant in options.variants and cell.dimension in options.dimensions]
    if options.fresh:
        known = {(name, cell): s for (name, cell), s in known.items() if name not in wanted or cell not in cells}
    out.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        known |= run(wanted, [cell], options.problems, options.samples, known)
        write_csv(out / "gmm.csv", [asdict(summary) for summary in known.values()])
    places = [(name, cell) for cell in every for name in METHODS]
    results = {place: known[place] for place in places if place in known}
    write_csv(out / "gmm.csv", [asdict(summary) for summary in results.values()])
    variants = list(dict.fromkeys(cell.variant for _, cell in results))
    baselines = {name for name, baseline in BASELINES.items() if not baseline.coupled}
    text = standings(results, ("balanced", "thorough"), baselines, PARTICLES.name, "tds")
    text += "\n".join(f"## {variant}\n\n{table(results, variant)}" for variant in variants)
    about = f"`python3 run.py benchmark gmm`, {options.samples} samples, mean over problems and 95 % interval."
    (out / "gmm.md").write_text(f"# Mixtures with exact posteriors\n\n{about} {provenance()}.\n\n{text}", "utf-8")
    plots.save([panel(results, variant) for variant in variants], out / "gmm.svg", list(OURS))


if __name__ == "__main__":
    main()
