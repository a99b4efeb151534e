"""Fits the posterior by stochastic gradient steps on the bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from ..diffusion.denoiser import CountingDenoiser, Denoiser, Evaluations, Progress
from ..diffusion.levels import clip_levels, levels_from
from ..presets import Preset
from ..problem.observation import LatentObservation
from .chain import HierarchicalPosterior, KeptContent
from .gains import Gains
from .objective import BoundParts, negative_bound


@dataclass(frozen=True)
class FittedPosterior:
    """A fitted posterior with what is needed to draw from it.

    history: -ELBO per image after every step, nats.
    family: free text that names the model family.
    seed: the fit's.
    gains: what draws further fills, where the preset has chains; see `sampling.posterior_sampling.fit_gains`.
    bound: that of the gains, -ELBO in nats, means over images; see `sampling.gain_bound`.
    """

    posterior: HierarchicalPosterior
    observation: LatentObservation
    preset: Preset
    evaluations: Evaluations = field(default_factory=Evaluations)
    history: tuple[float, ...] = ()
    family: str = ""
    seed: int = 0
    gains: Gains | None = None
    bound: BoundParts | None = None

    @property
    def sized_preset(self) -> Preset:
        """The preset at the size of these latents."""
        return self.preset.at_size(self.observation.shape)

    def rows(self, index: torch.Tensor) -> FittedPosterior:
        """The posterior of the given images, repeated as often as the index names them, without gains."""
        rows = replace(self, posterior=self.posterior.rows(index), observation=self.observation.rows(index))
        return rows.without_gains()

    def without_gains(self) -> FittedPosterior:
        """The posterior of which every fill is drawn by the refiner alone."""
        return replace(self, preset=self.preset.with_changes(fit={"chains": 0}), gains=None, bound=None)

    def to(self, device: torch.device | str) -> FittedPosterior:
        gains = None if self.gains is None else self.gains.to(device)
        posterior, observation = self.posterior.to(device), self.observation.to(device)
        return replace(self, posterior=posterior, observation=observation, gains=gains)


@dataclass
class FitState:
    """An unfinished fit. `fit` updates it after every step; a copy continues to the same result."""

    step: int = 0
    parameters: list[torch.Tensor] = field(default_factory=list)
    moments: list[torch.Tensor] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    evaluations: Evaluations = field(default_factory=Evaluations)


def initial_posterior(
    observation: LatentObservation, preset: Preset, s_max: float = math.inf, content: KeptContent | None = None
) -> HierarchicalPosterior:
    """The analytic start of a fit; s_max: the largest level that the denoiser knows.

    content: what the hole keeps in part. Its level is the top keypoint then, in place of all above it.
    """
    config = preset.at_size(observation.shape).fit
    levels = clip_levels(config.keypoints, s_max)
    if content is None:
        return HierarchicalPosterior.initial(observation, levels, config.eta)
    levels = levels_from(levels, min(content.level, s_max))
    return HierarchicalPosterior.initial(observation, levels, config.eta, content.latents)


def fit(
    denoiser: Denoiser,
    observation: LatentObservation,
    preset: Preset,
    seed: int,
    *,
    s_max: float = math.inf,
    family: str = "",
    content: KeptContent | None = None,
    state: FitState | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> FittedPosterior:
    """Maximises the bound for every image of the batch at once.

    denoiser: differentiable in u where `preset.needs_gradient`.
    seed: fixes every draw, on the CPU, so that a device changes rounding only.
    s_max: the largest level that the denoiser knows.
    content: what the hole keeps in part. The top keypoint is given by it, and not fitted, and the preset becomes
        that of `keeping_content`.
    state: an earlier, unfinished fit of the same arguments, continued in place; an exception raised by the callback
        leaves it at the last finished step.
    """
    if content is not None:
        preset = preset.keeping_content()
    start = initial_posterior(observation, preset, s_max, content)
    levels = start.levels
    config = replace(preset.fit, keypoints=levels)
    scale = torch.tensor(levels, dtype=start.mu.dtype, device=start.mu.device).reshape(-1, 1, 1, 1, 1)
    state = state if state is not None else FitState()
    shift = torch.zeros_like(start.mu)
    # A unit of a mean's parameter moves the chain by its level's noise, so that one step size serves all.
    mu_weight = torch.sigmoid(-start.gamma)
    mu_weight[-1] = 1
    scale = scale / mu_weight
    leaves = [p.detach().clone() for p in (state.parameters or (shift, start.log_tau, start.gamma))]
    optimiser = torch.optim.Adam([p.requires_grad_() for p in leaves], lr=config.learning_rate, betas=(0.8, 0.95))
    if state.moments:
        for index, leaf in enumerate(leaves):
            first, second = state.moments[2 * index : 2 * index + 2]
            count = torch.tensor(float(state.step))
            optimiser.state[leaf] = {"step": count, "exp_avg": first.clone(), "exp_avg_sq": second.clone()}

    def current() -> HierarchicalPosterior:
        return replace(start, mu=start.mu + scale * leaves[0], log_tau=leaves[1], gamma=leaves[2])

    counting = CountingDenoiser(denoiser, "fit", config.calls, callback, state.step * config.calls_per_step)
    images = len(observation.y)
    copies = torch.arange(images, device=start.mu.device).repeat_interleave(config.draws)
    observed = observation.rows(copies)
    for step in range(state.step, config.steps):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
        noise = _antithetic_noise(generator, start.mu, config.draws, len(levels))
        added = None
        if config.v_range is not None:
            added = _added_noise(generator, noise[0], levels[-1], config.v_range)
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (1 - step / config.steps)
        with counting.gradients():
            parts = negative_bound(
                counting,
                current().rows(copies),
                observed,
                noise,
                calibrated=config.calibrated,
                upper_evidence=config.upper_evidence,
                added=added,
            )
            loss = config.beta_prior * parts.prior + config.beta_hierarchy * parts.hierarchy + parts.reconstruction
            optimiser.zero_grad(set_to_none=True)
            (loss.sum() / config.draws).backward()
        if content is not None:
            for leaf in leaves:
                if leaf.grad is not None:
                    leaf.grad[-1] = 0
        optimiser.step()
        counting.bound = float(parts.total.detach().mean())
        state.step = step + 1
        state.parameters = [p.detach().clone() for p in leaves]
        # With one keypoint gamma has no gradient, hence no moments.
        kept = [optimiser.state[p].get(key, torch.zeros_like(p)) for p in leaves for key in ("exp_avg", "exp_avg_sq")]
        state.moments = [moment.detach().clone() for moment in kept]
        state.history.append(counting.bound)
        state.evaluations += counting.take_evaluations()
    with torch.no_grad():
        posterior = current()
    detached = replace(
        posterior, mu=posterior.mu.detach(), log_tau=posterior.log_tau.detach(), gamma=posterior.gamma.detach()
    )
    return FittedPosterior(detached, observation, preset, state.evaluations, tuple(state.history), family, seed)


def _antithetic_noise(generator: torch.Generator, like: torch.Tensor, draws: int, count: int) -> list[torch.Tensor]:
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
