"""The likelihood, and x0 conditioned on an observation, against Gaussians in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior, conditioned, half_observed, matrices, normal

from vipaint_core import LatentObservation
from vipaint_core.problem.likelihood import condition, distance, negative_log_likelihood
from vipaint_core.problem.operators import Blur, Compose, Downsample, LinearOperator, Mask, gaussian_kernel

SHAPE = (2, 4, 6)
MIXING: dict[str, LinearOperator] = {
    "reduced": Downsample(2, "area"),
    "bicubic": Downsample(2, "bicubic"),
    "blurred": Blur(gaussian_kernel(0.7), "circular"),
    "both": Compose((Blur(gaussian_kernel(0.5), "replicate"), Downsample(2, "area"))),
}
mixing = pytest.mark.parametrize("name", MIXING)


CROSSTALK = Mask(normal(2, 1, *SHAPE[1:]) > 0, 0.3 * normal(2, 2, 2, 3, 3))

CUT = Mask(
    CROSSTALK.observed,
    None,
    torch.where(CROSSTALK.observed, 0, torch.arange(6) % 3).to(torch.uint8),
    torch.linalg.qr(normal(2, 2, 2, 2)).Q * torch.tensor([[3.0], [0.4]], dtype=torch.float64),
)


def observe(name: str, images: int = 2) -> LatentObservation:
    """y of operators that mix cells, with numbers of any weight and some that are hidden."""
    operator = {**MIXING, "crosstalk": CROSSTALK, "cut": CUT}[name]
    y = operator.A(normal(images, *SHAPE, seed=1))
    weight = torch.rand(images, 1, *y.shape[-2:], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    if isinstance(operator, Mask):
        shown = operator.observed if operator.cut_kind is None else operator.observed | (operator.cut_kind > 0)
        weight = torch.where(shown, weight, 0.0)
    weight[:, :, 0, 0] = 0
    y = torch.where(weight > 0, y + 0.3 * normal(*y.shape, seed=3), 0.0)
    return LatentObservation(y, weight, operator, SHAPE, sigma_y=0.3)


def test_crosstalk_variance_adds_to_the_noise_of_soft_cells() -> None:
    """A cell of this weight has variance sigma_y^2 / weight + its crosstalk's, in every likelihood."""
    x0, y = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([1.0, 0.5, 0.25, 0.0], dtype=torch.float64).expand(1, 1, 4, 4)
    observation = LatentObservation.masked(y, weight, 0.3, crosstalk_variance=torch.full_like(weight, 0.7))
    observation = observation.with_crosstalk_as_noise()
    noise, level = (0.09 / weight + 0.7).expand(1, 2, 4, 4), 1.5
    assert torch.equal(observation.weight > 0, weight > 0) and observation.crosstalk_variance is None
    own = level**2 / (1 + level**2)
    given = x0 + torch.where(weight > 0, own / (own + noise), 0.0) * (y - x0)
    assert torch.allclose(condition(observation, x0, level), given)
    for calibrated in (False, True):
        spread = (noise + own if calibrated else noise)[..., :3].sqrt()
        exact = -torch.distributions.Normal(x0[..., :3], spread).log_prob(y[..., :3]).sum()
        assert torch.allclose(negative_log_likelihood(observation, x0, level, calibrated), exact)


def test_soft_cells_weigh_the_evidence() -> None:
    prior = GaussianPrior.unit((2, 3, 4))
    hard = half_observed(prior, sigma_y=0.5)
    soft = replace(hard, weight=hard.weight * 0.25)
    x0 = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    wide = replace(hard, sigma_y=1.0)
    assert torch.allclose(negative_log_likelihood(soft, x0, 0.0, False), negative_log_likelihood(wide, x0, 0.0, False))


@pytest.mark.parametrize("name", [*MIXING, "cut"])
@pytest.mark.parametrize("s", [0.1, 2.0, 30.0])
def test_condition_is_the_exact_mean(name: str, s: float) -> None:
    """Of x0 ~ N(its estimate, r^2) given y, for operators that mix cells or channels."""
    observation, x0 = observe(name), normal(2, *SHAPE, seed=4)
    found = condition(observation, x0, s).flatten(1)
    own = s**2 / (1 + s**2) * torch.eye(48, dtype=torch.float64)
    exact = torch.stack([conditioned(x0[image].flatten(), own, observation, image)[0] for image in range(2)])
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-9)


def test_another_estimator_s_shift_stands_where_cells_are_not_observed() -> None:
    observation, x0, shift = observe("cut"), normal(2, *SHAPE, seed=4), normal(2, *SHAPE, seed=5)
    found, alone = condition(observation, x0, 2.0, shift), condition(observation, x0, 2.0)
    torch.testing.assert_close(found, torch.where(CUT.observed, alone, x0 + shift))


@pytest.mark.parametrize("s", [0.1, 2.0])
def test_calibrated_likelihood_of_cut_cells(s: float) -> None:
    """log N(y; A x0, r^2 A A^T + R), but for numbers that are not observed."""
    observation, x0 = observe("cut"), normal(2, *SHAPE, seed=4)
    found = negative_log_likelihood(observation, x0, s, calibrated=True)
    for image in range(2):
        A, y, variance = matrices(observation, image)  # noqa: N806
        inner = s**2 / (1 + s**2) * A @ A.T + variance.diag()
        law = torch.distributions.MultivariateNormal(A @ x0[image].flatten(), inner)
        torch.testing.assert_close(found[image], -law.log_prob(y))


def test_levels_of_rows_are_their_own() -> None:
    observation, x0 = observe("both"), normal(2, *SHAPE, seed=4)
    levels = torch.tensor([0.5, 3.0], dtype=torch.float64)
    for row, s in enumerate(levels.tolist()):
        one = observation.rows(torch.tensor([row]))
        alone = condition(one, x0[row : row + 1], s)
        torch.testing.assert_close(condition(observation, x0, levels)[row : row + 1], alone, rtol=0, atol=1e-12)
        alone = negative_log_likelihood(one, x0[row : row + 1], s, True)
        torch.testing.assert_close(negative_log_likelihood(observation, x0, levels, True)[row : row + 1], alone)


@mixing
@pytest.mark.parametrize("s", [0.1, 2.0])
def test_gradient_of_the_calibrated_likelihood(name: str, s: float) -> None:
    """-A^T S^-1 (y - A x0) with S = r^2 A A^T + R, and so the likelihood changes, by finite differences."""
    observation, x0 = observe(name), normal(2, *SHAPE, seed=4)
    point = x0.clone().requires_grad_()
    value = negative_log_likelihood(observation, point, s, calibrated=True)
    (gradient,) = torch.autograd.grad(value.sum(), point)
    for image in range(2):
        A, y, variance = matrices(observation, image)  # noqa: N806
        residual, inner = y - A @ x0[image].flatten(), s**2 / (1 + s**2) * A @ A.T + variance.diag()
        score = torch.linalg.solve(inner, residual)
        torch.testing.assert_close(gradient[image].flatten(), -A.T @ score, rtol=0, atol=1e-8)
        torch.testing.assert_close(value[image].detach(), 0.5 * residual @ score)
    step = 1e-5 * normal(2, *SHAPE, seed=5)
    above, below = (negative_log_likelihood(observation, x0 + sign * step, s, calibrated=True) for sign in (1.0, -1.0))
    torch.testing.assert_close((above - below) / 2, (gradient * step).flatten(1).sum(1), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", [*MIXING, "crosstalk", "cut"])
def test_likelihood_of_the_noise_alone(name: str) -> None:
    """Not calibrated, it is log N(y; A x0, R), determinant included; the distance counts numbers by their weight."""
    observation, x0 = observe(name), normal(2, *SHAPE, seed=4)
    found, length = negative_log_likelihood(observation, x0, 1.0, calibrated=False), distance(observation, x0)
    for image in range(2):
        A, y, variance = matrices(observation, image)  # noqa: N806
        law = torch.distributions.Normal(A @ x0[image].flatten(), variance.sqrt())
        torch.testing.assert_close(found[image], -law.log_prob(y).sum())
        residual = (y - A @ x0[image].flatten()) * 0.3 / variance.sqrt()
        torch.testing.assert_close(length[image], residual.norm())
