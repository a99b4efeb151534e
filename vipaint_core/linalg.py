"""What a linear observation tells about a Gaussian state, from products with its covariance alone.

The solvers build an orthonormal basis row by row (Saad and Schultz 1986, GMRES). `gmres_update` works in the space of
observations and minimises the residual, `recycled_update` does so in what other solutions have found, `map_update` works
in the space of states and minimises the negative log posterior.
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

    def rows(self, index: torch.Tensor) -> LinearMap: ...


class Pairs(NamedTuple):
    """Directions d of observations that a solver has tried, and their products C A^T scale d.

    directions: (I, K, c, h, w). products: (I, K, C, H, W). One set for each of I images.
    image: (N,), which of them a row has.
    """

    directions: torch.Tensor
    products: torch.Tensor
    image: torch.Tensor

    def to(self, dtype: torch.dtype) -> Pairs:
        return self._replace(directions=self.directions.to(dtype), products=self.products.to(dtype))


class Update(NamedTuple):
    """The Gaussian update of a mean by y, with S = A C A^T + R and the residual r = y - A mean.

    shift: C A^T S^-1 r, (N, C, H, W).
    log_likelihood: log N(r; 0, S), (N,), up to a constant and without the determinant of what the solver has not
        reached.
    score: S^-1 r, (N, c, h, w), the gradient of log N(r; 0, S) to A mean.
    directions, products: of the products that it took, each (N, c, h, w) and (N, C, H, W), see `Pairs`.
    """

    shift: torch.Tensor
    log_likelihood: torch.Tensor
    score: torch.Tensor
    directions: Sequence[torch.Tensor] = ()
    products: Sequence[torch.Tensor] = ()


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
    return Update(combined(products), likelihood.to(target), scale * combined(basis), basis, products)


# How little is believed of directions whose products are those of other states: the weight of |w|^2 beside the residual.
RIDGE = 1e-4


def recycled_update(
    covariance: Product,
    variance: torch.Tensor,
    residual: torch.Tensor,
    scale: torch.Tensor,
    operator: LinearMap,
    steps: int,
    known: Pairs,
) -> Update:
    """`gmres_update` that begins with directions whose products are known, if only from states nearby.

    Minimises |scale r - sum_k w_k o_k|^2 + RIDGE sum_known w_k^2 with o = scale (A C A^T + R) scale d. The known
    directions answer without any product. Each of `steps` products is taken of the direction that they hold for what
    is left to explain (flexible GMRES, Saad 1993: they are its preconditioner), so that a wrong length or mixture of them
    is put right.

    Arguments as in `gmres_update`. The log-likelihood is without any determinant.
    """
    found = _Recycled.of(known, variance, scale, operator)
    target = scale * residual
    wanted = target.flatten(1)
    exact: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    products: list[torch.Tensor] = []
    left = wanted
    for _ in range(steps):
        guess = found.solution(left).reshape(target.shape)
        direction = orthonormalised(guess, exact, row_norm(guess))
        product = covariance(operator.A_adjoint(scale * direction))
        exact.append(direction)
        products.append(product)
        outputs.append((scale * (operator.A(product) + variance * scale * direction)).flatten(1))
        weights = _least_squares(torch.stack(outputs, 1), wanted)
        left = wanted - (weights[:, None] @ torch.stack(outputs, 1))[:, 0]
    if not steps:
        weights = found.weights(wanted)
        shift, solution = found.combined(weights)
    else:
        own, shared = found.joint_weights(torch.stack(outputs, 1), wanted)
        shift, solution = found.combined(shared)
        shift = shift + (own[:, None] @ torch.stack(products, 1).flatten(2))[:, 0].reshape(shift.shape)
        solution = solution + (own[:, None] @ torch.stack(exact, 1).flatten(2))[:, 0].reshape(solution.shape)
    likelihood = -0.5 * (target * solution).flatten(1).sum(1)
    return Update(shift, likelihood, scale * solution, exact, products)


class _Recycled(NamedTuple):
    """Known directions, their products and outputs as rows of matrices, (N, K, D), or expanded from (1, K, D)."""

    directions: torch.Tensor
    products: torch.Tensor
    outputs: torch.Tensor
    gram: torch.Tensor
    factor: torch.Tensor
    shapes: tuple[torch.Size, torch.Size]

    @classmethod
    def of(cls, known: Pairs, variance: torch.Tensor, scale: torch.Tensor, operator: LinearMap) -> _Recycled:
        images, count = known.directions.shape[:2]
        # A row of every image: outputs are the same for all rows of one.
        first = torch.zeros(images, dtype=torch.long, device=known.image.device)
        first = first.scatter(0, known.image, torch.arange(len(known.image), device=known.image.device))
        rows = first.repeat_interleave(count)
        scale, variance = scale[rows], variance[rows]
        directions, products = known.directions.flatten(0, 1).to(scale), known.products.flatten(0, 1).to(scale)
        outputs = scale * (operator.rows(rows).A(products) + variance * scale * directions)
        directions, products, outputs = (part.reshape(images, count, -1) for part in (directions, products, outputs))
        gram = (outputs @ outputs.mT).double()
        factor, _ = torch.linalg.cholesky_ex(gram + RIDGE * torch.eye(count, device=gram.device, dtype=gram.dtype))

        def rows_of(part: torch.Tensor) -> torch.Tensor:
            return part[known.image] if images > 1 else part.expand(len(known.image), -1, -1)

        shapes = known.directions.shape[2:], known.products.shape[2:]
        of_rows = [rows_of(part) for part in (directions, products, outputs, gram, factor)]
        return cls(of_rows[0], of_rows[1], of_rows[2], of_rows[3], of_rows[4], shapes)

    def weights(self, wanted: torch.Tensor) -> torch.Tensor:
        """Of the known directions alone, (N, K); wanted: (N, D)."""
        shown = (self.outputs @ wanted[:, :, None]).double()
        return torch.cholesky_solve(shown, self.factor)[:, :, 0].to(wanted)

    def solution(self, wanted: torch.Tensor) -> torch.Tensor:
        """What the known directions hold for S^-1 wanted, (N, D): what they do not show stays as it is."""
        weights = self.weights(wanted)[:, None]
        return wanted + (weights @ (self.directions - self.outputs))[:, 0]

    def joint_weights(self, own: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (N, E) of a row's own outputs (N, E, D), and (N, K) of the known ones."""
        count = own.shape[1]
        beside = (own @ self.outputs.mT).double()
        ridge = RIDGE * torch.eye(self.gram.shape[1], device=own.device, dtype=torch.float64)
        gram = torch.cat(
            [torch.cat([_gram(own), beside], 2), torch.cat([beside.mT, self.gram + ridge], 2)],
            1,
        )
        shown = torch.cat([own @ wanted[:, :, None], self.outputs @ wanted[:, :, None]], 1).double()
        weights = torch.linalg.solve_ex(gram, shown)[0][:, :, 0].to(wanted)
        return weights[:, :count], weights[:, count:]

    def combined(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Products and directions by weights (N, K), in their own shapes."""
        directions, products = ((weights[:, None] @ part)[:, 0] for part in (self.directions, self.products))
        return products.unflatten(1, self.shapes[1]), directions.unflatten(1, self.shapes[0])


def _gram(outputs: torch.Tensor) -> torch.Tensor:
    """Products of outputs (N, K, D) with each other; where nothing was left to explain one is zero, and stays alone."""
    gram = (outputs @ outputs.mT).double()
    return gram + torch.diag_embed((gram.diagonal(dim1=1, dim2=2) == 0).double())


def _least_squares(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Weights (N, K) of outputs (N, K, D) that come nearest to wanted (N, D)."""
    shown = (outputs @ wanted[:, :, None]).double()
    return torch.linalg.solve_ex(_gram(outputs), shown)[0][:, :, 0].to(wanted)


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
