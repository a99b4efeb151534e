"""What a linear observation tells about a Gaussian state, from products with its covariance alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .operators import Operator


def posterior_shift(
    covariance: Callable[[torch.Tensor], torch.Tensor],
    variance: torch.Tensor,
    residual: torch.Tensor,
    operator: Operator,
    steps: int,
) -> torch.Tensor:
    """C A^T (A C A^T + R)^-1 residual, (N, C, H, W), from one product with C, A and A^T per step.

    covariance: products with C, row by row. variance: R's diagonal, broadcasts to the residual's shape.

    The answer C w minimises |residual - A C w|^2 / R + w^T C w, the negative log posterior of C w, among the
    combinations of `steps` vectors w: the gradient of that at 0, and then at the best combination so far. What is
    large comes first, and no step is worse than none. Few steps of a solver in the space of observations fit the
    noise of many of them instead, and move the state too far.
    """
    columns: list[tuple[torch.Tensor, ...]] = []
    shape = residual.shape[1:]
    noise = variance.expand_as(residual).flatten(1)[:, :, None]
    wanted = residual.flatten(1)[:, :, None]
    shift = gradient = operator.A_adjoint(residual / variance)
    size = _norm(gradient)
    for step in range(steps):
        # Twice: once leaves rounding.
        for earlier, *_ in [*columns, *columns]:
            gradient = gradient - (gradient * earlier).flatten(1).sum(1)[:, None, None, None] * earlier
        length = _norm(gradient)
        # What is left of a direction that earlier ones span is rounding.
        new = length > 100 * torch.finfo(length.dtype).eps * size
        direction = torch.where(new, gradient / length.clamp_min(1e-30), 0.0)
        reach = covariance(direction)
        columns.append((direction, reach, operator.A(reach)))
        basis, reaches, images = (torch.stack(parts, -1).flatten(1, 3) for parts in zip(*columns, strict=True))
        weights = _best(basis, reaches, images / noise.sqrt(), wanted / noise.sqrt())
        shift = (reaches @ weights)[:, :, 0].unflatten(1, gradient.shape[1:])
        if step + 1 < steps:
            left = (wanted - images @ weights)[:, :, 0].unflatten(1, shape)
            prior = (basis @ weights)[:, :, 0].unflatten(1, gradient.shape[1:])
            gradient = operator.A_adjoint(left / variance) - prior
    return shift


def _best(basis: torch.Tensor, reaches: torch.Tensor, images: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Weights (N, K, 1) that minimise |wanted - images w|^2 + |w|^2 in the norm of C."""
    prior = (basis.mT @ reaches).double()
    # A network's Jacobian is symmetric and positive only nearly.
    values, vectors = torch.linalg.eigh((prior + prior.mT) / 2)
    prior = vectors @ (values.abs().clamp_min(1e-12)[:, :, None] * vectors.mT)
    # Where nothing was left to explain a direction is zero.
    idle = torch.diag_embed((basis.square().sum(1) == 0).double())
    return torch.linalg.solve((images.mT @ images).double() + prior + idle, (images.mT @ wanted).double()).to(wanted)


def _norm(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None, None]
