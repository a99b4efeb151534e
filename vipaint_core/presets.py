"""Every number of every preset, in one table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .levels import refine_levels

# More asks for nothing but time and memory.
LIMITS = {
    "steps": (0, 100_000),
    "draws": (1, 1_000),
    "refine_steps": (1, 10_000),
    "rounds": (1, 1_000),
    "solver_steps": (0, 1_000),
}


@dataclass(frozen=True)
class Preset:
    """How to fit and how to turn the posterior into pictures.

    levels: keypoints s_1 < ... < s_K. eta: noise of the prior's transitions, 1 ancestral.
    steps, draws, rate: Adam steps, chain draws per step, step size in units of each level's noise.
    calibrated: likelihood with the estimator's own variance. upper_evidence: weight of the evidence
    at keypoints above the first. beta_prior, beta_hierarchy: weights of the bound's other parts.
    v_range: added variance of the diffusion loss at the top, in units of s_K^2, or None for the
    closed form. refine_steps, s_min, rho: steps of the refinement from s_1 to 0, the last level before 0, and how
    they crowd towards it; see `refine_levels`.
    refiner steps down from levels above guided_above, `closed_form` from those below, with final_eta in place of eta.
    late: from this level on a guided step goes down `rounds` times, with renewed noise in between, each time with its
    share of the solver steps. second_order: from there on a step also follows the estimate's change since the step
    before, at no cost (Lu et al. 2022, DPM-Solver++, arXiv 2211.01095, alg. 2).
    guidance: strength of `pigdm` and `dps`. solver_steps: see `moment_matching`. warm_start: its solver starts from
    what the step before has found. particles: the fills of a picture are weighed and resampled where guided; see
    `particles.walk`.

    Raises ValueError for counts outside `LIMITS` and numbers that are none.
    """

    name: str
    description: str
    levels: tuple[float, ...]
    steps: int
    draws: int = 1
    rate: float = 0.05
    eta: float = 1.0
    calibrated: bool = True
    upper_evidence: float = 0.0
    beta_prior: float = 1.0
    beta_hierarchy: float = 1.0
    v_range: tuple[float, float] | None = None
    refiner: str = "closed_form"
    guided_above: float = 0.0
    refine_steps: int = 20
    s_min: float = 0.03
    rho: float = 3.0
    late: float = 1.0
    rounds: int = 1
    second_order: bool = False
    final_eta: float = 1.0
    guidance: float = 1.0
    solver_steps: int = 3
    warm_start: bool = True
    particles: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            count = getattr(self, name)
            if not isinstance(count, int) or not low <= count <= high:
                raise ValueError(f"Preset {self.name}: expected {name} from {low} to {high}, found {count!r}")
        numbers = [self.rate, self.eta, self.final_eta, self.upper_evidence, self.beta_prior, self.beta_hierarchy]
        numbers += [self.guided_above, self.late, self.s_min, self.guidance, *self.levels, *(self.v_range or ())]
        if not self.s_min > 0:
            raise ValueError(f"Preset {self.name}: expected s_min above 0, found {self.s_min}")
        if not 1 <= self.rho <= 1000:
            raise ValueError(f"Preset {self.name}: expected rho from 1 to 1000, found {self.rho}")
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"Preset {self.name}: expected finite numbers, found {numbers}")
        if self.particles and (self.refiner == "dps" or not self.eta > 0):
            raise ValueError(f"Preset {self.name}: particles need a refiner with weights and eta above 0")

    @property
    def needs_gradient(self) -> bool:
        return self.steps > 0 or self.refiner != "closed_form"

    @property
    def minds_leak(self) -> bool:
        """Whether it asks what seen cells owe to hidden content; see `Observation.leak`."""
        return self.refiner == "moment_matching"

    @property
    def fit_calls(self) -> int:
        """Network calls of a fit."""
        return self.steps * (len(self.levels) + (self.v_range is not None))

    def descent(self, s: float) -> list[float]:
        """Levels of the refinement from the lowest keypoint s to 0."""
        return refine_levels(s, self.refine_steps, self.s_min, self.rho)

    def draw_calls(self, levels: Sequence[float]) -> int:
        """Network calls from the top of these keypoints to pictures."""
        return len(levels) - 1 + sum(self.turns(s) for s in self.descent(levels[0])[:-1])

    def step(self, s: float) -> str:
        """What steps down from level s: a key of `refine.REFINERS`."""
        return self.refiner if s > self.guided_above else "closed_form"

    def turns(self, s: float) -> int:
        """Steps down from level s: one or, late, `rounds`."""
        return self.rounds if self.guided_above < s <= self.late and not self.particles else 1

    def eta_at(self, s: float) -> float:
        """eta of steps down from level s."""
        return self.eta if s > self.guided_above else self.final_eta

    def solver(self, s: float) -> int:
        """Solver steps at level s."""
        return math.ceil(self.solver_steps / self.turns(s))

    def rows(self, fills: int, batch: int) -> int:
        """Fills that are drawn together: all particles of a picture, which compete, else `batch`."""
        return fills if self.particles else batch


BALANCED = Preset(
    "balanced",
    "Moment matching carries what is visible into the hole; at five levels in the middle it takes two rounds, of which "
    "the second undoes what came out wrong above.",
    # Where noise drowns every alternative the analytic posterior is exact: a fit found nothing to add.
    (30.0,),
    steps=0,
    refiner="moment_matching",
    # Levels at equal ratios. Few with many solver steps beat the reverse above; below, rounds beat solver steps.
    guided_above=0.3,
    refine_steps=11,
    s_min=0.015,
    rho=1000.0,
    late=10.0,
    rounds=2,
    second_order=True,
    final_eta=0.0,
    solver_steps=6,
)
PAPER = Preset(
    "paper-2",
    "VIPaint-2 as published (slow).",
    (1.0, 3.0),
    steps=50,
    draws=5,
    rate=0.02,
    calibrated=False,
    v_range=(0.01, 100.0),
    refiner="dps",
    refine_steps=400,
)
DEEP = (0.7, 1.6, 4.0, 10.0, 30.0)

PRESETS = {
    preset.name: preset
    for preset in (
        BALANCED,
        replace(
            BALANCED,
            name="thorough",
            description="As balanced with six rounds in the middle: errs less where alternatives are far apart and on the "
            "hardest holes, two and a half times slower.",
            refine_steps=12,
            guided_above=0.2,
            rounds=6,
            solver_steps=12,
        ),
        Preset(
            "fast",
            "The analytic posterior without a fit, then closed-form refinement: no gradients at all.",
            DEEP,
            steps=0,
            refine_steps=12,
        ),
        PAPER,
        replace(PAPER, name="paper-4", description="VIPaint-4 as published (slow).", levels=(1.0, 1.5, 2.2, 3.0)),
    )
}


def planned_evaluations(preset: Preset, images: int, fills: int, batch: int = 8) -> int:
    """Network calls of one fit and of `fills` fills per image (0: of the fit alone)."""
    chunks = -(-images * fills // preset.rows(fills, batch)) if fills else 0
    return preset.fit_calls + chunks * preset.draw_calls(preset.levels)
