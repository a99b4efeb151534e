"""What a linear observation tells about a Gaussian state, from products with its covariance alone.

The solvers build an orthonormal basis row by row (Saad and Schultz 1986, GMRES). `gmres_update` works in the space of
observations and minimises the residual, `recycled_update` does so in what other solutions have found, `map_update` works
in the space of states and minimises the negative log posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F

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


class Tried(NamedTuple):
    """Directions that the solver of every row has tried, and their products, each (N, c, h, w) and (N, C, H, W)."""

    directions: Sequence[torch.Tensor] = ()
    products: Sequence[torch.Tensor] = ()


class Update(NamedTuple):
    """The Gaussian update of a mean by y, with S = A C A^T + R and the residual r = y - A mean.

    shift: C A^T S^-1 r, (N, C, H, W).
    log_likelihood: log N(r; 0, S), (N,), up to a constant and without the determinant of what the solver has not
        reached.
    score: S^-1 r, (N, c, h, w), the gradient of log N(r; 0, S) to A mean.
    tried: what it took products of.
    """

    shift: torch.Tensor
    log_likelihood: torch.Tensor
    score: torch.Tensor
    tried: Tried


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
    products: list[torch.Tensor] = []
    direction, lengths = _arnoldi(target, basis)
    columns = []
    for _ in range(steps):
        basis.append(direction)
        products.append(covariance(operator.A_adjoint(scale * direction)))
        output = scale * (operator.A(products[-1]) + variance * scale * direction)
        direction, shares = _arnoldi(output, basis)
        columns.append(F.pad(shares, (0, steps + 1 - shares.shape[1])))
    # scale S scale on the basis, whose first vector is the target's direction.
    hessenberg = torch.stack(columns, -1).double()
    idle = torch.diag_embed((hessenberg.square().sum(1) == 0).double())
    wanted = lengths.double() * hessenberg[:, 0]
    weights, _ = torch.linalg.solve_ex(hessenberg.mT @ hessenberg + idle, wanted[:, :, None])
    factor, _, _ = torch.linalg.lu_factor_ex(hessenberg[:, :steps] + idle)
    log_determinant = factor.diagonal(dim1=1, dim2=2).abs().clamp_min(1e-12).log().sum(1)
    likelihood = -0.5 * (log_determinant + lengths[:, 0].double() * weights[:, 0, 0])

    def combined(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.einsum("nk,knchw->nchw", weights[:, :, 0].to(target), torch.stack(parts))

    return Update(combined(products), likelihood.to(target), scale * combined(basis), Tried(basis, products))


def _arnoldi(vector: torch.Tensor, basis: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """`orthonormalised`, and the shares (N, K + 1) of the basis and of the new direction in the vector."""
    direction = orthonormalised(vector, basis, row_norm(vector))
    shares = [(vector * known).flatten(1).sum(1) for known in (*basis, direction)]
    return direction, torch.stack(shares, 1)


# How little is believed of directions whose products are those of other states: what of their outputs' squares is added to
# the residual's.
RIDGE = 1e-3


def recycled_update(
    covariance: Product,
    variance: torch.Tensor,
    residual: torch.Tensor,
    scale: torch.Tensor,
    operator: LinearMap,
    steps: int,
    known: Pairs | None,
    own: Tried,
) -> Update:
    """`gmres_update` that begins with directions whose products are known, if only from states nearby.

    Minimises |scale r - sum_k w_k o_k|^2 + RIDGE sum_known |w_k o_k|^2 with o = scale (A C A^T + R) scale d. The known
    directions answer without any product. Each of `steps` products is taken of the direction that they hold for what
    is left to explain (flexible GMRES, Saad 1993: they are its preconditioner), so that a wrong length or mixture of them
    is put right.

    Arguments as in `gmres_update`. The log-likelihood is without any determinant.

    known: what others have found.
    own: what each row itself has found before.

    Raises ValueError where there is nothing to answer from: neither steps nor anything known.
    """
    if steps == 0 and known is None and not own.directions:
        raise ValueError("recycled_update: expected steps, or known directions")
    target = scale * residual
    wanted = target.flatten(1)[:, :, None]
    found = _Columns((), target.new_zeros(len(target), 0, 0, dtype=torch.float64))
    if known is not None:
        found = _Columns.shared(known, variance, scale, operator)
    if own.directions:
        found = found.beside(_Columns.own(own, variance, scale, operator))
    squares = found.gram.diagonal(dim1=1, dim2=2)
    # Pictures without gains, and where nothing was left to explain, have directions of zero.
    ridge = torch.diag_embed(RIDGE * squares + (squares == 0))
    factor, _ = torch.linalg.cholesky_ex(found.gram + ridge)
    directions: list[torch.Tensor] = []
    products: list[torch.Tensor] = []
    tried, left = None, wanted
    for _ in range(steps):
        guess = left
        if found.blocks:
            weights = torch.cholesky_solve(found.shown(left), factor).to(target)
            guess = left + found.directions(weights) - found.outputs(weights)
        guess = guess.reshape(target.shape)
        direction = orthonormalised(guess, directions, row_norm(guess))
        directions.append(direction)
        products.append(covariance(operator.A_adjoint(scale * direction)))
        tried = _Columns.own(Tried(directions, products), variance, scale, operator)
        # Where nothing was left to explain a direction is zero.
        idle = torch.diag_embed((tried.gram.diagonal(dim1=1, dim2=2) == 0).double())
        weights = torch.linalg.solve_ex(tried.gram + idle, tried.shown(wanted))[0].to(target)
        left = wanted - tried.outputs(weights)
    if tried is None:
        weights, columns = torch.cholesky_solve(found.shown(wanted), factor).to(target), found
    else:
        columns = tried.beside(found)
        count = ridge.shape[1]
        doubts = F.pad(idle, (0, count, 0, count)) + F.pad(ridge, (steps, 0, steps, 0))
        weights = torch.linalg.solve_ex(columns.gram + doubts, columns.shown(wanted))[0].to(target)
    shape = known.products.shape[2:] if known is not None else [*products, *own.products][0].shape[1:]
    shift = columns.products(weights).reshape(len(target), *shape)
    solution = columns.directions(weights).reshape(target.shape)
    likelihood = -0.5 * (target * solution).flatten(1).sum(1)
    return Update(shift, likelihood, scale * solution, Tried(directions, products))


class _Columns(NamedTuple):
    """Directions, products and outputs as columns of matrices, in blocks (N, K, D), which may be expanded from (1, K, D).

    blocks: of all three, none where nothing is known. gram: products of the outputs of all blocks with each other,
        (N, K, K), float64.
    """

    blocks: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], ...]
    gram: torch.Tensor

    @classmethod
    def shared(cls, known: Pairs, variance: torch.Tensor, scale: torch.Tensor, operator: LinearMap) -> _Columns:
        """Those that all rows of an image have in common."""
        images, count = known.directions.shape[:2]
        # A row of every image.
        first = torch.zeros(images, dtype=torch.long, device=known.image.device)
        first = first.scatter(0, known.image, torch.arange(len(known.image), device=known.image.device))
        flat = known.directions.flatten(0, 1).to(scale), known.products.flatten(0, 1).to(scale)
        every = _Columns._of(*flat, first.repeat_interleave(count), count, variance, scale, operator)

        def of_rows(part: torch.Tensor) -> torch.Tensor:
            return part[known.image] if images > 1 else part.expand(len(known.image), -1, -1)

        directions, products, outputs = map(of_rows, every.blocks[0])
        return cls(((directions, products, outputs),), of_rows(every.gram))

    @classmethod
    def own(
        cls,
        tried: Tried,
        variance: torch.Tensor,
        scale: torch.Tensor,
        operator: LinearMap,
    ) -> _Columns:
        """Those of every row for itself."""
        count = len(tried.directions)
        rows = torch.arange(len(tried.directions[0]), device=scale.device).repeat_interleave(count)
        flat = [torch.stack(list(parts), 1).flatten(0, 1) for parts in tried]
        return cls._of(flat[0], flat[1], rows, count, variance, scale, operator)

    @classmethod
    def _of(
        cls,
        directions: torch.Tensor,
        products: torch.Tensor,
        rows: torch.Tensor,
        count: int,
        variance: torch.Tensor,
        scale: torch.Tensor,
        operator: LinearMap,
    ) -> _Columns:
        """directions, products: (M * count, ...), of as many rows of the observation."""
        outputs = scale[rows] * (operator.rows(rows).A(products) + variance[rows] * scale[rows] * directions)
        flat = tuple(part.reshape(len(rows) // count, count, -1) for part in (directions, products, outputs))
        return cls(((flat[0], flat[1], flat[2]),), (flat[2] @ flat[2].mT).double())

    def beside(self, other: _Columns) -> _Columns:
        if not self.blocks or not other.blocks:
            return self if self.blocks else other
        across = torch.cat(
            [torch.cat([one[2] @ two[2].mT for two in other.blocks], 2) for one in self.blocks], 1
        ).double()
        gram = torch.cat([torch.cat([self.gram, across], 2), torch.cat([across.mT, other.gram], 2)], 1)
        return _Columns((*self.blocks, *other.blocks), gram)

    def shown(self, wanted: torch.Tensor) -> torch.Tensor:
        """Products of all outputs with wanted (N, D, 1), (N, K, 1), float64."""
        return torch.cat([block[2] @ wanted for block in self.blocks], 1).double()

    def directions(self, weights: torch.Tensor) -> torch.Tensor:
        """Their sum by weights (N, K, 1), (N, D, 1)."""
        return self._combined(0, weights)

    def products(self, weights: torch.Tensor) -> torch.Tensor:
        return self._combined(1, weights)

    def outputs(self, weights: torch.Tensor) -> torch.Tensor:
        return self._combined(2, weights)

    def _combined(self, part: int, weights: torch.Tensor) -> torch.Tensor:
        each = weights.split([block[0].shape[1] for block in self.blocks], 1)
        sums = [block[part].mT @ own for block, own in zip(self.blocks, each, strict=True)]
        return torch.stack(sums).sum(0)


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
