"""Every term of the bound against its closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior, exact_unit, half_observed
from torch.distributions import Normal, kl_divergence

from vipaint_core import HierarchicalPosterior
from vipaint_core.diffusion.denoiser import CountingDenoiser
from vipaint_core.posterior.objective import diffusion_prior, gaussian_prior, hierarchy, negative_bound

SHAPE = (2, 3, 4)


def counting(prior: GaussianPrior) -> CountingDenoiser:
    return CountingDenoiser(prior, "fit", 0, None)


def noise(count: int, rows: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, rows, *SHAPE, generator=generator, dtype=torch.float64))


def perturbed(posterior: HierarchicalPosterior) -> HierarchicalPosterior:
    generator = torch.Generator().manual_seed(9)
    fields = {}
    for name in ("mu", "log_tau", "gamma"):
        value = getattr(posterior, name)
        fields[name] = value + 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return replace(posterior, **fields)


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_hierarchy_is_the_kl_of_gaussians(eta: float) -> None:
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_observed(prior, images=2)
    posterior = perturbed(HierarchicalPosterior.initial(observation, (0.5, 1.5, 4.0), eta))
    chain = posterior.chain(counting(prior), noise(3, 2))
    expected = torch.zeros(2, dtype=torch.float64)
    for i in range(2):
        high, low = posterior.levels[i + 1], posterior.levels[i]
        x0 = prior(chain.states[i + 1], torch.full((2,), high))
        v = eta**2 * low**2 * (high**2 - low**2) / high**2
        m = x0 + (low**2 - v) ** 0.5 / high * (chain.states[i + 1] - x0)
        w = posterior.gamma[i].sigmoid()
        q = Normal(w * m + (1 - w) * posterior.mu[i], posterior.log_tau[i].exp())
        expected += kl_divergence(q, Normal(m, v**0.5)).flatten(1).sum(1)
    assert torch.allclose(hierarchy(posterior, chain), expected, rtol=1e-9)


def test_closed_prior_is_the_kl_of_gaussians() -> None:
    observation = half_observed(GaussianPrior.unit(SHAPE), images=2)
    posterior = perturbed(HierarchicalPosterior.initial(observation, (2.0,)))
    q = Normal(posterior.mu[-1], posterior.log_tau[-1].exp())
    expected = kl_divergence(q, Normal(torch.zeros(()).double(), torch.tensor(5.0).double().sqrt())).flatten(1).sum(1)
    assert torch.allclose(gaussian_prior(posterior), expected, rtol=1e-9)


def test_diffusion_prior_matches_the_closed_form() -> None:
    """Differences of the diffusion loss between two posteriors are differences of the KL."""
    prior = GaussianPrior.unit(SHAPE)
    observation = half_observed(prior)
    first = HierarchicalPosterior.initial(observation, (2.0,))
    second = replace(first, mu=first.mu + 0.7, log_tau=first.log_tau - 0.4)
    rows = 20_000
    generator = torch.Generator().manual_seed(1)
    draw, extra = torch.randn(2, rows, *SHAPE, generator=generator, dtype=torch.float64)
    v_range = (1e-4, 1e6)
    strata = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
    v = v_range[0] * (v_range[1] / v_range[0]) ** strata.double()[torch.randperm(rows, generator=generator)]
    values = []
    for posterior in (first, second):
        repeated = posterior.rows(torch.zeros(rows, dtype=torch.long))
        top = repeated.mu[-1] + repeated.log_tau[-1].exp() * draw
        values.append(diffusion_prior(counting(prior), repeated, top, v, extra, v_range).mean())
    expected = float(gaussian_prior(second) - gaussian_prior(first))
    assert float(values[1] - values[0]) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("levels", [(1.0,), (0.5, 2.0), (0.3, 0.8, 2.0, 6.0)])
def test_bound_is_tight_at_the_exact_posterior(levels: tuple[float, ...]) -> None:
    """-ELBO equals -log p(y) at the exact posterior and exceeds it elsewhere."""
    prior = GaussianPrior.unit(SHAPE)
    observation = half_observed(prior)
    rows = 4000
    copies = torch.zeros(rows, dtype=torch.long)
    repeated_observation = observation.rows(copies)

    def value(posterior: HierarchicalPosterior) -> float:
        # Antithetic draws cancel the linear part of the sampling error.
        half = noise(len(levels), rows // 2)
        draws = [torch.cat([h, -h]) for h in half]
        return float(negative_bound(counting(prior), posterior.rows(copies), repeated_observation, draws).total.mean())

    exact, log_evidence = exact_unit(observation, levels)
    evidence = -log_evidence
    if len(levels) == 1:
        assert log_evidence == pytest.approx(float(prior.log_evidence(observation)), rel=1e-9)
    assert value(exact) == pytest.approx(evidence, abs=0.15)
    assert value(perturbed(exact)) > evidence + 0.5
    assert value(HierarchicalPosterior.initial(observation, levels)) > evidence


@pytest.mark.parametrize("K", [1, 2, 4])
@pytest.mark.parametrize("diffusion", [False, True])
def test_gradients_match_finite_differences(K: int, diffusion: bool) -> None:  # noqa: N803
    prior = GaussianPrior.correlated(SHAPE)
    observation = half_observed(prior)
    start = perturbed(HierarchicalPosterior.initial(observation, (0.4, 1.0, 2.0, 5.0)[:K]))
    draws, extra = noise(K, 1), noise(1, 1, 5)[0]
    added = (torch.tensor([2.0], dtype=torch.float64), extra, (0.1, 10.0)) if diffusion else None

    def total(mu, log_tau, gamma):
        posterior = replace(start, mu=mu, log_tau=log_tau, gamma=gamma)
        return negative_bound(counting(prior), posterior, observation, draws, upper_evidence=0.3, added=added).total

    leaves = [p.clone().requires_grad_() for p in (start.mu, start.log_tau, start.gamma)]
    assert torch.autograd.gradcheck(total, leaves, eps=1e-6, atol=1e-5, rtol=1e-5)
