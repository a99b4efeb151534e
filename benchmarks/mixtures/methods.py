"""Presets and baselines on the mixtures, measured against as many exact samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from benchmarks.harness.keys import digest, files_digest, preset_settings
from benchmarks.harness.parts import kept, part_file
from benchmarks.mixtures.problems import Cell, Problem, problem
from tools.in_process import ROOT
from vipaint_core import PRESETS, Evaluations, FitConfig, Preset, SamplerConfig, ScheduleConfig, fit, sample
from vipaint_core.baselines import BASELINES, run_baseline

EXACT = "exact"
# Fills at a time: as many as a processor's cache holds.
BATCH = 250
# Above every distance of modes in the scaled space, as an image model's own largest level is.
S_MAX = 80.0
# As many passes as TDS, from where every mode is drowned down to well below the width of one.
PARTICLES = Preset(
    "particles",
    "Fills that are weighed against each other: exact for very many.",
    FitConfig(keypoints=(S_MAX,)),
    ScheduleConfig(steps=106, s_min=0.01, rho=1000.0, guided_above=0.03),
    SamplerConfig(refiner="moment_matching", solver_steps=1, second_order_below=S_MAX, smc=True),
)
OURS = {preset.name: preset for preset in (*PRESETS.values(), PARTICLES)}


@dataclass(frozen=True)
class Method:
    """A sampler of posteriors.

    draw(problem, count, seed): samples (count, D), and the passes that they took.
    settings: what decides them beside the arguments.
    """

    draw: Callable[[Problem, int, int], tuple[torch.Tensor, Evaluations]]
    settings: Any = None


def preset_method(preset: Preset) -> Method:
    def draw(given: Problem, count: int, seed: int) -> tuple[torch.Tensor, Evaluations]:
        fitted = fit(given.prior, given.observation, preset, seed, s_max=S_MAX)
        drawn = sample(given.prior, fitted, seed, count, batch=BATCH)
        return drawn.latents.flatten(1), fitted.evaluations + drawn.evaluations

    return Method(draw, preset_settings(preset))


def baseline_method(name: str) -> Method:
    def draw(given: Problem, count: int, seed: int) -> tuple[torch.Tensor, Evaluations]:
        drawn = run_baseline(name, given.prior, given.observation, seed, count, s_max=S_MAX, batch=BATCH)
        return drawn.latents.flatten(1), drawn.evaluations

    return Method(draw, BASELINES[name].settings())


def draw_exact(given: Problem, count: int, seed: int) -> tuple[torch.Tensor, Evaluations]:
    generator = torch.Generator().manual_seed(seed)
    return given.prior.given(given.observation).draw(count, generator), Evaluations()


METHODS = {
    EXACT: Method(draw_exact),
    **{name: preset_method(preset) for name, preset in OURS.items()},
    **{name: baseline_method(name) for name in BASELINES},
}


@dataclass(frozen=True)
class Result:
    """One method on one problem.

    distance: sliced Wasserstein-1 distance to exact samples, in the original scale; infinite where not all are finite.
    forward, backward: passes through the denoiser per sample.
    seconds: of all samples.
    """

    distance: float
    forward: float
    backward: float
    seconds: float


def evaluate(method: Method, cell: Cell, index: int, samples: int) -> Result:
    """A method on problem number `index` of a cell."""
    given = problem(cell, index)
    reference, _ = draw_exact(given, samples, 10**6 + index)
    start = time.perf_counter()
    drawn, evaluations = method.draw(given, samples, index)
    seconds = time.perf_counter() - start
    finite = bool(torch.isfinite(drawn).all())
    distance = given.scale * sliced_wasserstein(drawn, reference) if finite else math.inf
    return Result(distance, evaluations.forward / samples, evaluations.backward / samples, seconds)


def evaluate_once(name: str, method: Method, cell: Cell, index: int, samples: int) -> Result:
    """`evaluate`, kept in a file as long as neither the code of the core nor the settings change."""
    key = digest(code=code(), settings=method.settings, cell=cell, index=index, samples=samples)
    file = part_file("gmm", cell.name, name, str(index), key=key)
    return kept(file, Result, lambda: evaluate(method, cell, index, samples))


@cache
def code() -> str:
    """A digest of the core and of the problems."""
    return files_digest(
        sorted([*(ROOT / "vipaint_core").rglob("*.py"), *(ROOT / "benchmarks" / "mixtures").rglob("*.py")])
    )


def sliced_wasserstein(a: torch.Tensor, b: torch.Tensor, directions: int = 1000, seed: int = 0) -> float:
    """Mean Wasserstein-1 distance of two sample sets over fixed random directions (Bonneel et al. 2015).

    a, b: (N, D), as many samples of each.

    Raises ValueError for other shapes.
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"sliced_wasserstein: expected two sets (N, D), found {tuple(a.shape)} and {tuple(b.shape)}")
    generator = torch.Generator().manual_seed(seed)
    lines = torch.randn(a.shape[1], directions, generator=generator, dtype=a.dtype)
    lines = (lines / lines.norm(dim=0)).to(a.device)
    return float(((a @ lines).sort(0).values - (b @ lines).sort(0).values).abs().mean())
