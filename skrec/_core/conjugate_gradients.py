"""Many linear systems, solved together by conjugate gradients.

`improve_rows` solves the ridge regressions of `ridge`; `solve_columns` solves systems
that are large, one for each column.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .ridge import refuse_singular
from .sparse import Pattern, sddmm, spmm

TOLERANCE, COLUMN_TOLERANCE = 2e-4, 1e-3
_MAX_STEPS, _MAX_COLUMN_STEPS = 100, 1000
# The part of the goal below which a system takes no further steps.
_DONE = 0.01


def improve_rows(
    pattern: Pattern,
    ratings: Tensor,
    factors: Tensor,
    penalty: Tensor,
    start: Tensor,
    *,
    weights: Tensor | None = None,
    prior: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """Solve the ridge problems of all rows at once by conjugate gradients.

    A step is one SDDMM and one SpMM, so that neither Gram matrices nor padding are
    needed. The objective of no row ends higher than it was at `start`.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_items)
        Which items each row rates.

    ratings : Tensor of shape (nnz,)
        The ratings r.

    factors : Tensor of shape (n_items, k)
        The factors of the items.

    penalty : Tensor of shape (n_rows,)
        The penalty.

    start : Tensor of shape (n_rows, k)
        Where to start.

    weights, prior : Tensor or None
        As for `solve_rows`.

    tolerance : float
        What the residual of the normal equations must not exceed in any row, as a part
        of their right-hand side.

    Returns
    -------
    coef : Tensor of shape (n_rows, k)

    Raises
    ------
    ValueError
        If the problem of a row has no unique solution.
    """
    refuse_singular(pattern.crow.diff(), penalty, factors.shape[1])
    penalty = penalty.unsqueeze(1)
    # In the directions that are uncorrelated among all ratings, the system of each row
    # is nearly diagonal, which is what Jacobi's preconditioner is good for.
    counts = pattern.transposed.crow.diff().to(factors.dtype)
    basis = torch.linalg.eigh(factors.T @ (counts.unsqueeze(1) * factors))[1]
    factors, start = factors @ basis, start @ basis

    def times(x):
        sums = sddmm(pattern, x, factors)
        sums = sums if weights is None else sums * weights
        return torch.addcmul(spmm(pattern, sums, factors), penalty, x)

    ones = torch.ones_like(ratings) if weights is None else weights
    target = spmm(pattern, ratings * ones, factors)
    if prior is not None:
        target += penalty * (prior @ basis)
    # A row without ratings and penalty is left as it is.
    diagonal = spmm(pattern, ones, factors.square()) + penalty
    scale = torch.where(diagonal > 0, 1 / diagonal, 0)
    # Where the right-hand side is zero, so is the solution, and there is no more to do.
    x = start * target.any(1, keepdim=True)
    residual = target - times(x)
    goal = tolerance * torch.linalg.vector_norm(target, dim=1)
    direction = scale * residual
    rho = (residual * direction).sum(1)
    for _ in range(_MAX_STEPS):
        errors = torch.linalg.vector_norm(residual, dim=1)
        if bool((errors <= goal).all()):
            break
        # A row that is far beyond its goal stays as it is: further steps would be made
        # of rounding errors, and may become as large as you please.
        is_open = errors > _DONE * goal
        image = times(direction)
        size = _ratio(rho * is_open, (direction * image).sum(1))
        x.addcmul_(size, direction)
        residual.addcmul_(size, image, value=-1)
        scaled = scale * residual
        new_rho = (residual * scaled).sum(1)
        direction = torch.addcmul(scaled, _ratio(new_rho, rho), direction)
        rho = new_rho
    return x @ basis.T


def solve_columns(
    times: Callable[[Tensor], Tensor],
    right: Tensor,
    diagonal: Tensor,
    start: Tensor,
    *,
    tolerance: float = COLUMN_TOLERANCE,
) -> Tensor:
    """Solve a positive definite system for each column.

    Parameters
    ----------
    times : callable
        Multiplies each column of a tensor by its matrix.

    right : Tensor of shape (n, k)
        The right-hand sides.

    diagonal : Tensor of shape (n, k)
        The diagonals of the matrices.

    start : Tensor of shape (n, k)
        Where to start.

    tolerance : float
        What the residual must not exceed in any column, as a part of its right-hand
        side.

    Returns
    -------
    solution : Tensor of shape (n, k)
    """
    x = start
    residual = right - times(x)
    goal = tolerance * torch.linalg.vector_norm(right, dim=0)
    direction = residual / diagonal
    rho = (residual * direction).sum(0)
    for _ in range(_MAX_COLUMN_STEPS):
        errors = torch.linalg.vector_norm(residual, dim=0)
        if bool((errors <= goal).all()):
            break
        is_open = errors > _DONE * goal
        image = times(direction)
        size = _ratio(rho * is_open, (direction * image).sum(0)).T
        x = x + size * direction
        residual = residual - size * image
        scaled = residual / diagonal
        new_rho = (residual * scaled).sum(0)
        direction = scaled + _ratio(new_rho, rho).T * direction
        rho = new_rho
    return x


def _ratio(a, b):
    """The quotients as a column; 0 where b is 0."""
    return torch.where(b > 0, a / b, 0).unsqueeze(1)
