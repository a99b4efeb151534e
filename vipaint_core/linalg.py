"""What a linear observation tells about a Gaussian state, from products with its covariance alone.

Both solvers build an orthonormal Krylov basis row by row (Saad and Schultz 1986, GMRES). `gmres_update` works in the
space of observations and minimises the residual; `map_update` works in the space of states and minimises the negative
log posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch

Product = Callable[[torch.Tensor], torch.Tensor]


class LinearMap(Protocol):
    """See `problem.operators.LinearOperator`."""

    def A(self, x: torch.Tensor) -> torch.Tensor: ...  # noqa: N802

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor: ...  # noqa: N802


class Update(NamedTuple):
    """The Gaussian update of a mean by y, with S = A C A^T + R and the residual r = y - A mean.

    shift: C A^T S^-1 r, (N, C, H, W).
    log_likelihood: log N(r; 0, S), (N,), up to a constant and without the determinant of what the solver has not
        reached.
    score: S^-1 r, (N, c, h, w), the gradient of log N(r; 0, S) to A mean.
    """

    shift: torch.Tensor
    log_likelihood: torch.Tensor
    score: torch.Tensor


def row_norm(x: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of every row, (N, 1, 1, 1)."""
    return x.flatten(1).norm(dim=1)[:, None, None, None]


def orthonormalised(direction: torch.Tensor, basis: Sequence[torch.Tensor], size: torch.Tensor) -> torch.Tensor:
    """What of a direction (N, ...) is orthogonal to the basis, of norm 1 row by row, or 0 where nothing is left.

    size: (N, 1, 1, 1), norm of the direction, in units of which rounding is told from a new direction.
    """
    # Gram-Schmidt twice: once leaves rounding.
    for known in [*basis, *basis]:
        direction = direction - (direction * known).flatten(1).sum(1)[:, None, None, None] * known
    length = row_norm(direction)
    is_new = length > 100 * torch.finfo(length.dtype).eps * size
    return torch.where(is_new, direction / length.clamp_min(1e-30), 0.0)


def gmres_update(
    covariance: Product,
    variance: torch.Tensor,
    residual: torch.Tensor,
    scale: torch.Tensor,
    operator: LinearMap,
    steps: int,
) -> Update:
    """C A^T S^-1 residual with S = A C A^T + R, from one product with C per step.

    Of all answers that `steps` products with S allow, the one that leaves the smallest residual: a network's Jacobian
    is symmetric only nearly, and conjugate gradients, which rely on it, move hidden cells too far.

    covariance: products with C, row by row, of (N, C, H, W).
    variance: R's diagonal, broadcasts to the residual's shape.
    scale: numbers are solved for in units of 1 / scale, which changes how soon the answer is near, not where it ends.
    """
    target = scale * residual
    basis: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    products: list[torch.Tensor] = []
    direction, size = target, row_norm(target)
    for _ in range(steps):
        direction = orthonormalised(direction, basis, size)
        product = covariance(operator.A_adjoint(scale * direction))
        output = scale * (operator.A(product) + variance * scale * direction)
        basis.append(direction)
        outputs.append(output)
        products.append(product)
        direction, size = output, row_norm(output)
    spanned, shown = (torch.stack(parts, -1).flatten(1, 3).double() for parts in (basis, outputs))
    idle = torch.diag_embed((spanned.square().sum(1) == 0).double())
    wanted = target.flatten(1)[:, :, None].double()
    weights = torch.linalg.solve(shown.mT @ shown + idle, shown.mT @ wanted)

    def combined(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.einsum("nk,nchwk->nchw", weights[:, :, 0].to(target), torch.stack(parts, -1))

    projected = spanned.mT @ shown
    pivots = torch.linalg.eigvalsh((projected + projected.mT) / 2 + idle)
    likelihood = -0.5 * (pivots.clamp_min(1e-12).log().sum(1) + (wanted.mT @ spanned @ weights)[:, 0, 0])
    return Update(combined(products), likelihood.to(target), scale * combined(basis))


def map_update(
    covariance: Product,
    variance: torch.Tensor,
    residual: torch.Tensor,
    operator: LinearMap,
    steps: int,
) -> torch.Tensor:
    """C A^T (A C A^T + R)^-1 residual, (N, C, H, W), from one product with C, A and A^T per step.

    The answer C w minimises |residual - A C w|^2 / R + w^T C w, the negative log posterior of C w, among the
    combinations of `steps` vectors w: the gradient of that at 0, and then at the best combination so far. What is
    large comes first, and no step is worse than none. Few steps of a solver in the space of observations fit the
    noise of many of them instead, and move the state too far.

    Arguments as in `gmres_update`.
    """
    columns: list[tuple[torch.Tensor, ...]] = []
    shape = residual.shape[1:]
    noise = variance.expand_as(residual).flatten(1)[:, :, None]
    wanted = residual.flatten(1)[:, :, None]
    shift = gradient = operator.A_adjoint(residual / variance)
    size = row_norm(gradient)
    for step in range(steps):
        direction = orthonormalised(gradient, [column[0] for column in columns], size)
        product = covariance(direction)
        columns.append((direction, product, operator.A(product)))
        basis, products, outputs = (torch.stack(parts, -1).flatten(1, 3) for parts in zip(*columns, strict=True))
        weights = _map_weights(basis, products, outputs / noise.sqrt(), wanted / noise.sqrt())
        shift = (products @ weights)[:, :, 0].unflatten(1, gradient.shape[1:])
        if step + 1 < steps:
            unexplained = (wanted - outputs @ weights)[:, :, 0].unflatten(1, shape)
            prior = (basis @ weights)[:, :, 0].unflatten(1, gradient.shape[1:])
            gradient = operator.A_adjoint(unexplained / variance) - prior
    return shift


def _map_weights(
    basis: torch.Tensor, products: torch.Tensor, outputs: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Weights (N, K, 1) that minimise |wanted - outputs w|^2 + |w|^2 in the norm of C."""
    prior = (basis.mT @ products).double()
    # A network's Jacobian is symmetric and positive only nearly.
    values, vectors = torch.linalg.eigh((prior + prior.mT) / 2)
    prior = vectors @ (values.abs().clamp_min(1e-12)[:, :, None] * vectors.mT)
    # Where nothing was left to explain a direction is zero.
    idle = torch.diag_embed((basis.square().sum(1) == 0).double())
    return torch.linalg.solve((outputs.mT @ outputs).double() + prior + idle, (outputs.mT @ wanted).double()).to(wanted)
