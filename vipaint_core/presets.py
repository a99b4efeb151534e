"""Every number of every preset, in one table."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Preset:
    """How to fit and how to turn the posterior into pictures.

    levels: keypoints s_1 < ... < s_K. eta: noise of the prior's transitions, 1 ancestral.
    steps, draws, rate: Adam steps, chain draws per step, step size in units of each level's noise.
    calibrated: likelihood with the estimator's own variance. upper_evidence: weight of the evidence
    at keypoints above the first. beta_prior, beta_hierarchy: weights of the bound's other parts.
    v_range: added variance of the diffusion loss at the top, in units of s_K^2, or None for the
    closed form. refiner, refine_steps, rounds: from s_1 to 0; rounds above 1 go back up and repeat.
    guidance: strength of `pigdm` and `dps`. solver_steps, spread: see `moment_matching`.
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
    refine_steps: int = 20
    rounds: int = 1
    guidance: float = 1.0
    solver_steps: int = 3
    spread: bool = True

    @property
    def needs_gradient(self) -> bool:
        return self.steps > 0 or self.refiner != "closed_form"

    def calls(self, fills: int = 0, batch: int = 8, images: int = 1) -> int:
        """Network calls of a fit (fills 0), or of sampling `fills` per image in batches."""
        if fills == 0:
            return self.steps * (len(self.levels) + (self.v_range is not None))
        return -(-images * fills // batch) * (len(self.levels) - 1 + self.refine_steps * self.rounds)


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
        Preset(
            "balanced",
            "Two deep keypoints, a short and careful fit, then three rounds of closed-form refinement.",
            # Larger steps move hidden means along noise as well: every fill then gives one answer.
            (10.0, 30.0),
            steps=12,
            draws=2,
            upper_evidence=0.25,
            rate=0.01,
            refine_steps=20,
            rounds=3,
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
    """Network calls of one fit and of `fills` fills per image."""
    return preset.calls() + (preset.calls(fills, batch, images) if fills else 0)
