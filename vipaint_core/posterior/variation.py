"""Posteriors given a fill: more like it, or with a part of it kept. Neither is fitted again."""

from __future__ import annotations

from dataclasses import replace

import torch

from .chain import HierarchicalPosterior, KeptContent
from .fitting import FittedPosterior


def given_cells(fitted: FittedPosterior, latents: torch.Tensor, weight: torch.Tensor) -> FittedPosterior:
    """The posterior given more evidence: some hidden cells of x0, e.g. a part of a fill.

    In these cells the chain gets the analytic start, which is exact where a cell is observed; elsewhere it stays as it
    was fitted, and what the cells tell of the rest is the sampler's to find out: gains, which know nothing of them, are
    left out.

    latents, weight: see `LatentObservation.with_cells`, whose errors it raises.
    """
    posterior, observation = fitted.posterior, fitted.observation.with_cells(latents, weight)
    start = HierarchicalPosterior.initial(observation, posterior.levels, posterior.eta)
    added = observation.cell_weight > fitted.observation.cell_weight
    mu, log_tau, gamma = (
        torch.where(added, new, old)
        for new, old in (
            (start.mu, posterior.mu),
            (start.log_tau, posterior.log_tau),
            (start.gamma, posterior.gamma),
        )
    )
    given = replace(posterior, mu=mu, log_tau=log_tau, gamma=gamma)
    return replace(fitted.without_gains(), posterior=given, observation=observation)


def around(fitted: FittedPosterior, content: KeptContent) -> FittedPosterior:
    """The posterior's chain, begun in the middle: from the noise of one level around a fill, u = x0 + level * eps.

    If the fill is a draw of the posterior, so are the draws around it: going up by the prior's own noise and down by the
    posterior leaves it invariant. The preset becomes that of `keeping_content`, without gains. A level from the top keypoint on forgets
    all of the fill, and the posterior stays as it is.
    """
    posterior = fitted.posterior
    if content.level >= posterior.levels[-1]:
        return fitted
    below = sum(level < content.level for level in posterior.levels)
    levels = (*posterior.levels[:below], content.level)
    start = HierarchicalPosterior.initial(fitted.observation, levels, posterior.eta, content.latents)
    mu, log_tau, gamma = (
        torch.cat([old[:below], new[below:]])
        for new, old in (
            (start.mu, posterior.mu),
            (start.log_tau, posterior.log_tau),
            (start.gamma, posterior.gamma),
        )
    )
    begun = replace(posterior, levels=levels, mu=mu, log_tau=log_tau, gamma=gamma)
    fitted = fitted.without_gains()
    return replace(fitted, posterior=begun, preset=fitted.preset.keeping_content())
