"""Fits the posterior by stochastic gradient steps on the bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from . import storage
from .denoiser import Counted, Denoiser, Evaluations, Progress
from .levels import clip_levels
from .objective import negative_bound
from .observation import Observation
from .posterior import HierarchicalPosterior
from .presets import Preset


@dataclass(frozen=True)
class Fit:
    """A fitted posterior with what is needed to draw from it.

    history: -ELBO per image after every step, nats. family: free text that names the model family.
    """

    posterior: HierarchicalPosterior
    observation: Observation
    preset: Preset
    evaluations: Evaluations = field(default_factory=Evaluations)
    history: tuple[float, ...] = ()
    family: str = ""

    def to(self, device: torch.device | str) -> Fit:
        return replace(self, posterior=self.posterior.to(device), observation=self.observation.to(device))

    def save(self, path: Path | str, metadata: dict[str, str] | None = None) -> None:
        """Writes one safetensors file; `load` gives the same fit back, bit for bit. Raises OSError."""
        storage.save_fit(self, Path(path), metadata or {})

    @staticmethod
    def load(path: Path | str) -> Fit:
        """Reads a file written by `save`. Raises ValueError for anything else; never executes code."""
        return storage.load_fit(Path(path))


@dataclass
class FitState:
    """An unfinished fit. `fit` updates it after every step; a copy continues to the same result."""

    step: int = 0
    parameters: list[torch.Tensor] = field(default_factory=list)
    moments: list[torch.Tensor] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    evaluations: Evaluations = field(default_factory=Evaluations)

    def save(self, path: Path | str) -> None:
        storage.save_state(self, Path(path))

    @staticmethod
    def load(path: Path | str) -> FitState:
        return storage.load_state(Path(path))


def fit(
    denoiser: Denoiser,
    observation: Observation,
    preset: Preset,
    seed: int,
    *,
    s_max: float = float("inf"),
    family: str = "",
    state: FitState | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Fit:
    """Maximises the bound for every image of the batch at once.

    denoiser: differentiable in u where `preset.needs_gradient`. seed: fixes every draw, on the CPU,
    so that a device changes rounding only. s_max: the largest level that the model knows.
    state: an earlier, unfinished fit of the same arguments, continued in place; an exception raised
    by the callback leaves it at the last finished step.
    """
    levels = clip_levels(preset.levels, s_max)
    start = HierarchicalPosterior.initial(observation, levels, preset.eta)
    scale = torch.tensor(levels, dtype=start.mu.dtype, device=start.mu.device).reshape(-1, 1, 1, 1, 1)
    state = state if state is not None else FitState()
    shift = torch.zeros_like(start.mu)
    # A unit of a mean's parameter moves the chain by its level's noise, so that one step size serves all.
    reach = torch.sigmoid(-start.gamma)
    reach[-1] = 1
    scale = scale / reach
    leaves = [p.detach().clone() for p in (state.parameters or (shift, start.log_tau, start.gamma))]
    optimiser = torch.optim.Adam([p.requires_grad_() for p in leaves], lr=preset.rate, betas=(0.8, 0.95))
    if state.moments:
        for index, leaf in enumerate(leaves):
            first, second = state.moments[2 * index : 2 * index + 2]
            count = torch.tensor(float(state.step))
            optimiser.state[leaf] = {"step": count, "exp_avg": first.clone(), "exp_avg_sq": second.clone()}

    def current() -> HierarchicalPosterior:
        return replace(start, mu=start.mu + scale * leaves[0], log_tau=leaves[1], gamma=leaves[2])

    calls = preset.fit_calls
    counted = Counted(denoiser, "fit", calls, callback, state.step * calls // max(preset.steps, 1))
    images = len(observation.latent)
    copies = torch.arange(images, device=start.mu.device).repeat_interleave(preset.draws)
    watched = observation.rows(copies)
    for step in range(state.step, preset.steps):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
        noise = _draws(generator, start.mu, preset.draws, len(levels))
        added = None
        if preset.v_range is not None:
            added = _added_noise(generator, watched.latent, levels[-1], preset.v_range)
        for group in optimiser.param_groups:
            group["lr"] = preset.rate * (1 - step / preset.steps)
        with counted.gradients():
            parts = negative_bound(
                counted,
                current().rows(copies),
                watched,
                noise,
                calibrated=preset.calibrated,
                upper_evidence=preset.upper_evidence,
                added=added,
            )
            loss = preset.beta_prior * parts.prior + preset.beta_hierarchy * parts.hierarchy + parts.reconstruction
            optimiser.zero_grad(set_to_none=True)
            (loss.sum() / preset.draws).backward()
        optimiser.step()
        counted.value = float(parts.total.detach().mean())
        state.step = step + 1
        state.parameters = [p.detach().clone() for p in leaves]
        # With one keypoint gamma has no gradient, hence no moments.
        kept = [optimiser.state[p].get(key, torch.zeros_like(p)) for p in leaves for key in ("exp_avg", "exp_avg_sq")]
        state.moments = [moment.detach().clone() for moment in kept]
        state.history.append(counted.value)
        state.evaluations += counted.evaluations
        counted.evaluations = Evaluations()
    with torch.no_grad():
        posterior = current()
    detached = replace(
        posterior, mu=posterior.mu.detach(), log_tau=posterior.log_tau.detach(), gamma=posterior.gamma.detach()
    )
    return Fit(detached, observation, preset, state.evaluations, tuple(state.history), family)


def _draws(generator: torch.Generator, like: torch.Tensor, draws: int, count: int) -> list[torch.Tensor]:
    """Standard normal noise, antithetic in pairs of draws, `count` tensors (B * draws, C, H, W)."""
    _, images, *shape = like.shape
    half = torch.randn(count, images, (draws + 1) // 2, *shape, generator=generator, dtype=like.dtype)
    both = torch.cat([half, -half], 2)[:, :, :draws]
    return list(both.flatten(1, 2).to(like.device))


def _added_noise(
    generator: torch.Generator, like: torch.Tensor, s: float, v_range: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor, tuple[float, float]]:
    """Stratified log-uniform variances (rows,), noise like `like`, and the absolute range."""
    low, high = (s**2 * v for v in v_range)
    rows = len(like)
    strata = (torch.randperm(rows, generator=generator) + torch.rand(rows, generator=generator)) / rows
    v = low * (high / low) ** strata.to(like.dtype)
    noise = torch.randn(like.shape, generator=generator, dtype=like.dtype)
    return v.to(like.device), noise.to(like.device), (low, high)
