"""Ridge regressions of all rows at once, by the faster of two solvers.

Row i has ratings r of some items, whose factors are the rows of Z, and solves the
normal equations, with the diagonal matrix C of the ratings' weights,

    (1)  A w = Z' C r + penalty * prior,  A = Z' C Z + penalty I

`conjugate_gradients.improve_rows` only multiplies by A. With few factors it is faster
to compute A: the upper triangles of Z' C Z of all rows are one SpMM, of the ratings'
pattern with the products of the entries of each z. Its time grows with the square of
the number of factors, and that of the solutions with its cube, which pays if a row has
many ratings.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .collectives import WHOLE, Layout
from .conjugate_gradients import improve_rows
from .normal_rows import parts
from .sparse import Pattern, spmm
from .symmetric import Triangle

# The solvers took the same time for about _LIMIT + _SLOPE * sqrt(n) factors, with n
# ratings in the mean row, on MovieLens 100K and 1M and random parts of them: users and
# items, n from 4 to 270, at most _MOST factors, one CPU.
_LIMIT, _SLOPE, _MOST = 10, 2, 50


def gram_is_faster(pattern: Pattern, k: int, layout: Layout = WHOLE) -> bool:
    """Whether `solve_by_gram` is faster than conjugate gradients for k factors."""
    n_rows = layout.rows.total(pattern.shape[0])
    mean_ratings = layout.group.total(pattern.nnz) / max(1, n_rows)
    return k <= min(_MOST, _LIMIT + _SLOPE * mean_ratings**0.5)


def solve_half_step(
    pattern: Pattern,
    ratings: Tensor,
    factors: Tensor,
    penalty: Tensor,
    start: Tensor,
    *,
    weights: Tensor | None = None,
    prior: Tensor | None = None,
    layout: Layout = WHOLE,
) -> Tensor:
    """Solve (1) for all rows by the solver that is faster.

    Parameters
    ----------
    pattern, ratings, factors, penalty, start, weights, prior, layout
        As for `improve_rows`.

    Returns
    -------
    coef : Tensor of shape (n_rows, k)
    """
    options: Any = {"weights": weights, "prior": prior, "layout": layout}
    if gram_is_faster(pattern, factors.shape[1], layout):
        coef = solve_by_gram(pattern, ratings, factors, penalty, **options)
        if layout.group.all(bool(coef.isfinite().all())):
            return coef
        # Conjugate gradients take any matrix, also one that is singular up to rounding.
    return improve_rows(pattern, ratings, factors, penalty, start, **options)


def solve_by_gram(
    pattern: Pattern,
    ratings: Tensor,
    factors: Tensor,
    penalty: Tensor,
    *,
    weights: Tensor | None = None,
    prior: Tensor | None = None,
    layout: Layout = WHOLE,
) -> Tensor:
    """Solve (1) for all rows by Cholesky factors of the matrices A.

    Parameters
    ----------
    pattern, ratings, factors, penalty, weights, prior, layout
        As for `improve_rows`.

    Returns
    -------
    coef : Tensor of shape (n_rows, k)
        Solutions, NaN where A is singular to working precision.
    """
    k, total = factors.shape[1], layout.entries.sum
    counts = total(pattern.crow.diff())
    weights = torch.ones_like(ratings) if weights is None else weights
    penalty = penalty.unsqueeze(1)
    target = total(spmm(pattern, weights * ratings, factors))
    if prior is not None:
        target += penalty * prior
    # A row with neither ratings nor penalty has the solution 0.
    is_free = (counts == 0).unsqueeze(1) & (penalty == 0)
    shift = penalty + is_free
    triangle = Triangle(k, factors.device)
    products = triangle.outer(factors)
    coef = torch.empty_like(target)
    for rows, part, entries in parts(pattern, 2 * k**2):
        A = triangle.unpack(total(spmm(part, weights[entries], products)))
        A.diagonal(dim1=1, dim2=2).add_(shift[rows])
        cholesky, info = torch.linalg.cholesky_ex(A)
        solved = torch.cholesky_solve(target[rows].unsqueeze(-1), cholesky)
        coef[rows] = solved.squeeze(-1).masked_fill(info.unsqueeze(1) > 0, torch.nan)
    return coef
