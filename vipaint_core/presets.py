"""Every number of every preset: how to fit, at which levels to descend, and how to step down.

Levels are those for latents of 16 x 16 cells; see `Preset.at_size` for larger ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from .diffusion.coarse_grids import size_factor
from .diffusion.levels import check_levels, karras_levels
from .refiners import REFINERS
from .refiners.common import LevelStep, Refiner


def check_count(name: str, value: object, low: int, high: int) -> None:
    """Raises ValueError for what is no whole number from low to high."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"expected {name} to be a whole number from {low} to {high}, found {value!r}")


def check_finite(**numbers: float) -> None:
    """Raises ValueError for numbers that are not finite."""
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"expected {name} to be finite, found {number!r}")


@dataclass(frozen=True)
class FitConfig:
    """The posterior's keypoints, and how its bound is maximised.

    keypoints: noise levels s_1 < ... < s_K.
    steps: Adam steps; 0 keeps the analytic start.
    draws: draws of the chain per step.
    learning_rate: step size, in units of each level's noise.
    eta: fresh noise of the prior's transitions between keypoints, 1 ancestral.
    calibrated: the likelihood counts the estimate's own variance, see `likelihood.precision`.
    upper_evidence: weight of the evidence at keypoints above the first.
    beta_prior: weight of the bound's prior term.
    beta_hierarchy: weight of the bound's hierarchy term.
    chains: fills of each picture whose findings draw all further ones, see `posterior.gains`: the first is drawn by the
        refiner's solver alone, each later one by what those before it have found. 0 where every fill is drawn alone.
        Refiners without a solver and particles know no gains.
    rank: directions that a chain leaves at each level, at most; with three chains 6 make files of less than 200 MB.
    v_range: added variance of the diffusion loss at the top, in units of s_K^2, or None for the closed form.

    Raises ValueError for counts outside their limits and numbers that are not finite.
    """

    keypoints: tuple[float, ...]
    steps: int = 0
    draws: int = 1
    learning_rate: float = 0.05
    eta: float = 1.0
    calibrated: bool = True
    upper_evidence: float = 0.0
    beta_prior: float = 1.0
    beta_hierarchy: float = 1.0
    chains: int = 0
    rank: int = 6
    v_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_levels(self.keypoints)
        check_count("steps", self.steps, 0, 100_000)
        check_count("draws", self.draws, 1, 1_000)
        check_count("chains", self.chains, 0, 64)
        check_count("rank", self.rank, 1, 1_000)
        check_finite(learning_rate=self.learning_rate, eta=self.eta, upper_evidence=self.upper_evidence)
        check_finite(beta_prior=self.beta_prior, beta_hierarchy=self.beta_hierarchy)
        if self.v_range is not None:
            low, high = self.v_range
            check_finite(v_range=low)
            check_finite(v_range=high)

    @property
    def calls_per_step(self) -> int:
        """Network calls of one Adam step, which are in one graph."""
        return len(self.keypoints) + (self.v_range is not None)

    @property
    def calls(self) -> int:
        """Network calls of the whole fit."""
        return self.steps * self.calls_per_step


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise levels of the descent from the lowest keypoint to 0.

    steps: levels above 0.
    s_min: the last level above 0.
    rho: how levels crowd towards 0, see `karras_levels`.
    guided_above: levels above it use the sampler's refiner, those below `closed_form`.
    resample_below: from this level on, a guided step is taken `resamplings` times.
    resamplings: how often; in between the state goes back up by new noise (Lugmayr et al. 2022, RePaint).

    Raises ValueError for counts outside their limits and numbers that are not finite.
    """

    steps: int = 20
    s_min: float = 0.03
    rho: float = 3.0
    guided_above: float = 0.0
    resample_below: float = 0.0
    resamplings: int = 1

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 1, 10_000)
        check_count("resamplings", self.resamplings, 1, 1_000)
        check_finite(guided_above=self.guided_above, resample_below=self.resample_below, s_min=self.s_min)
        if not self.s_min > 0:
            raise ValueError(f"expected s_min above 0, found {self.s_min!r}")
        if not 1 <= self.rho <= 1000:
            raise ValueError(f"expected rho from 1 to 1000, found {self.rho!r}")


@dataclass(frozen=True)
class SamplerConfig:
    """How a state steps down from one level to the next.

    refiner: a key of `REFINERS`, for levels above the schedule's `guided_above`.
    eta: fresh noise of guided steps, 1 ancestral.
    final_eta: that of the steps below.
    guidance_scale: strength of `pigdm` and `dps`.
    solver_steps: products with the Jacobian per level of `moment_matching`, shared among its resamplings.
    corrections: in so many steps at every guided level, the last ones, further fills take a product with their own
        Jacobian, see `FitConfig.chains`, each by one more forward pass; chains after the first do in every step.
    recycles: its solver goes on with what it has tried at earlier steps, see `LevelStep.recycles`; particles do not.
    differences: its products are differences of forward passes, see `LevelStep.differences`.
    warm_start: its solver starts from what the step before has found.
    second_order_below: from this level on, steps are of second order, see `refiners.common.extrapolated`.
    smc: the fills of a picture are particles, weighed and resampled where guided, see `smc.twisted_smc`.

    Raises ValueError for unknown refiners, counts outside their limits and numbers that are not finite.
    """

    refiner: str = "closed_form"
    eta: float = 1.0
    final_eta: float = 1.0
    guidance_scale: float = 1.0
    solver_steps: int = 3
    corrections: int = 1
    recycles: bool = False
    differences: bool = False
    warm_start: bool = True
    second_order_below: float = 0.0
    smc: bool = False

    def __post_init__(self) -> None:
        if self.refiner not in REFINERS:
            raise ValueError(f"expected a refiner of {', '.join(REFINERS)}, found {self.refiner!r}")
        check_count("solver_steps", self.solver_steps, 0, 1_000)
        check_count("corrections", self.corrections, 0, 1_000)
        check_finite(eta=self.eta, final_eta=self.final_eta, guidance_scale=self.guidance_scale)
        check_finite(second_order_below=self.second_order_below)
        if self.smc and (REFINERS[self.refiner].estimator is None or not self.eta > 0):
            raise ValueError("expected smc with a refiner that has an estimator, and eta above 0")


@dataclass(frozen=True)
class Preset:
    """How to fit a posterior and how to turn it into pictures, under one name.

    relative_levels: upper levels grow with the latents, see `at_size`; published presets keep theirs.
    """

    name: str
    description: str
    fit: FitConfig
    schedule: ScheduleConfig = ScheduleConfig()
    sampler: SamplerConfig = SamplerConfig()
    relative_levels: bool = True

    def with_changes(
        self,
        name: str | None = None,
        description: str | None = None,
        *,
        fit: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> Preset:
        """The preset with other fields in its configurations."""
        return Preset(
            self.name if name is None else name,
            self.description if description is None else description,
            replace(self.fit, **fit or {}),
            replace(self.schedule, **schedule or {}),
            replace(self.sampler, **sampler or {}),
            self.relative_levels,
        )

    def at_size(self, shape: tuple[int, int, int]) -> Preset:
        """The preset for latents (C, H, W).

        Where noise drowns every alternative, and where alternatives of the whole picture are decided, the level grows
        with the number of cells (see `size_factor`): the keypoints, and the levels from which on steps are resampled
        and of second order. What is decided on few cells is decided at the same level in every picture: the levels
        where guidance and the descent end stay.
        """
        factor = size_factor(shape) if self.relative_levels else 1.0
        return self.with_changes(
            fit={"keypoints": tuple(factor * s for s in self.fit.keypoints)},
            schedule={"resample_below": factor * self.schedule.resample_below},
            sampler={"second_order_below": factor * self.sampler.second_order_below},
        )

    def keeping_content(self) -> Preset:
        """The preset for holes of which content is kept: without resampling, whose new noise would forget it, and
        without particles, whose weights ask how likely it is under the prior.
        """
        return self.with_changes(schedule={"resamplings": 1}, sampler={"smc": False})

    @property
    def refiner(self) -> Refiner:
        return REFINERS[self.sampler.refiner]

    @property
    def chains(self) -> int:
        """Fills of each picture that fit its gains."""
        return self.fit.chains if self.refiner.solves and not self.sampler.smc else 0

    @property
    def needs_gradient(self) -> bool:
        """Whether it differentiates the network."""
        differences = self.sampler.differences and self.refiner.solves
        return self.fit.steps > 0 or (self.refiner.needs_gradient and not differences)

    def descent(self, s: float) -> list[LevelStep]:
        """The steps from the lowest keypoint s to 0, one network call each."""
        schedule = self.schedule
        return self.steps_through(karras_levels(s, schedule.steps, schedule.s_min, schedule.rho))

    def chain_descent(self, s: float, number: int) -> list[LevelStep]:
        """The steps of chain `number`: of the first, 0, those of `descent`; later ones take a product in each for others."""
        return self._by_gains(s, math.inf) if number else self.descent(s)

    def further_descent(self, s: float) -> list[LevelStep]:
        """The steps of fills that are drawn by gains: those of `descent`, with few products of their own.

        Chains in other modes have other Jacobians: a fill's own product belongs in the step that leaves a level for good.
        """
        return self._by_gains(s, self.sampler.corrections)

    def _by_gains(self, s: float, corrections: float) -> list[LevelStep]:
        steps, visits = list[LevelStep](), 0
        for step in reversed(self.descent(s)):
            if REFINERS[step.refiner].solves:
                corrected = visits < corrections
                visits = visits + 1 if step.renew else 0
                step = replace(step, solver_steps=int(corrected), differences=True, recycles=True)
            steps.append(step)
        return steps[::-1]

    def levels(self, keypoints: Sequence[float]) -> list[float]:
        """All noise levels of a fill, from the highest of its keypoints s_1 < ... < s_K to 0."""
        schedule = self.schedule
        below = karras_levels(keypoints[0], schedule.steps, schedule.s_min, schedule.rho)
        return [*reversed(keypoints[1:]), *below]

    def steps_through(self, levels: Sequence[float]) -> list[LevelStep]:
        """The steps through any falling levels, one network call each."""
        schedule, sampler = self.schedule, self.sampler
        steps: list[LevelStep] = []
        for high, low in pairwise(levels):
            # Particles are weighed once at least.
            guided = high > schedule.guided_above or (sampler.smc and not steps)
            resampled = guided and high <= schedule.resample_below and not sampler.smc
            times = schedule.resamplings if resampled else 1
            steps += [
                LevelStep(
                    high,
                    low,
                    refiner=sampler.refiner if guided else "closed_form",
                    renew=time > 0,
                    eta=sampler.eta if guided else sampler.final_eta,
                    solver_steps=math.ceil(sampler.solver_steps / times),
                    differences=sampler.differences,
                    recycles=sampler.recycles and not sampler.smc,
                    warm_start=sampler.warm_start,
                    second_order=high <= sampler.second_order_below,
                    guidance_scale=sampler.guidance_scale,
                )
                for time in range(times)
            ]
        return steps


BALANCED = Preset(
    "balanced",
    "Moment matching carries what is visible into the hole; five levels in the middle are sampled twice, which undoes "
    "what came out wrong above.",
    # Where noise drowns every alternative the analytic posterior is exact: a fit found nothing to add.
    FitConfig(keypoints=(30.0,), chains=3),
    # Levels at equal ratios. Few with many solver steps beat the reverse above; below, resamplings beat solver steps.
    ScheduleConfig(steps=11, s_min=0.015, rho=1000.0, guided_above=0.3, resample_below=10.0, resamplings=2),
    SamplerConfig(refiner="moment_matching", final_eta=0.0, solver_steps=3, recycles=True, second_order_below=10.0),
)
PAPER = Preset(
    "paper-2",
    "VIPaint-2 as published (slow).",
    FitConfig(keypoints=(1.0, 3.0), steps=50, draws=5, learning_rate=0.02, calibrated=False, v_range=(0.01, 100.0)),
    ScheduleConfig(steps=400),
    SamplerConfig(refiner="dps"),
    relative_levels=False,
)

PRESETS = {
    preset.name: preset
    for preset in (
        BALANCED,
        BALANCED.with_changes(
            "thorough",
            "As balanced, with the levels in the middle sampled six times: errs less where alternatives are far apart and "
            "on the hardest holes, three and a half times slower.",
            schedule={"steps": 12, "guided_above": 0.2, "resamplings": 6},
            # Resamplings that ask others alone undo nothing.
            sampler={"solver_steps": 12, "recycles": False, "corrections": 6},
        ),
        BALANCED.with_changes(
            "fast",
            "As balanced, with one product in each step, by one more forward pass, and those of earlier steps: no gradients.",
            sampler={"solver_steps": 1, "differences": True},
        ),
        PAPER,
        PAPER.with_changes("paper-4", "VIPaint-4 as published (slow).", fit={"keypoints": (1.0, 1.5, 2.2, 3.0)}),
    )
}
