"""Ridge regressions of many rows on shared factors.

Row i has ratings r of some items, whose factors are the rows of Z, and solves

    min_w  sum_j c_j (r_j - Z_j w)^2 + penalty_i ||w - prior_i||^2

with the weights c of the ratings. `solve_rows` does so directly, for all rows of a size
at once; it may add an intercept that is not penalised, put a nonlinear function around
the sum, and tell what each rating would have been predicted as without itself.
`conjugate_gradients.improve_rows` comes near the solution for all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Numbers in the padded factors of one bucket: 128 MiB in double precision.
_BUCKET_SIZE = 2**24
# Gauss-Newton: steps, halvings of a step, and the relative decrease that ends it.
_MAX_STEPS = 50
_MAX_HALVINGS = 10
_TOLERANCE = 1e-10


# The smallest penalty, relative to the largest squared length of a factor.
_SMALLEST_PENALTY = 1e-8


def positive_penalty(penalty: float, factors: Tensor) -> float:
    """The penalty, or the smallest with which any row has a unique solution."""
    smallest = _SMALLEST_PENALTY * float(factors.square().sum(1).max())
    return max(penalty, smallest, torch.finfo(factors.dtype).tiny)


class RowSolutions(NamedTuple):
    """What `solve_rows` found.

    Attributes
    ----------
    coef : Tensor of shape (n_rows, k)
        w of each row; zero in a row without ratings.

    intercept : Tensor of shape (n_rows,)
        b of each row; zero in a row without ratings.

    left_out : Tensor of shape (nnz,) or None
        Each rating as predicted by its row's other ratings; NaN where there are none.
    """

    coef: Tensor
    intercept: Tensor
    left_out: Tensor | None


def solve_rows(
    indptr: Tensor,
    indices: Tensor,
    ratings: Tensor,
    factors: Tensor,
    penalty: float | Tensor,
    *,
    weights: Tensor | None = None,
    prior: Tensor | None = None,
    intercept: bool = True,
    link: Callable[[Tensor], Tensor] | None = None,
    start: float = 0.0,
    leave_one_out: bool = False,
) -> RowSolutions:
    """Solve the ridge problem of every row directly.

    All tensors are on one device, and those of floats of one precision.

    Parameters
    ----------
    indptr, indices : Tensor of shape (n_rows + 1,) and (nnz,)
        Which items each row rates, as in the CSR format.

    ratings : Tensor of shape (nnz,)
        The ratings r.

    factors : Tensor of shape (n_items, k)
        The factors of the items.

    penalty : float or Tensor of shape (n_rows,)
        The penalty. With 0 a row needs at least as many ratings as unknowns.

    weights : Tensor of shape (nnz,) or None
        The weights c, positive. None means 1 each.

    prior : Tensor of shape (n_rows, k) or None
        What w is drawn to. None means 0.

    intercept : bool, default=True
        Whether to add an intercept that is not penalised.

    link : callable or None
        A function around the sum, elementwise; goes with neither weights nor prior.
        The problem is solved by Gauss-Newton, and leaving out is exact for the problem
        linearised at the solution (approximate leave-one-out).

    start : float, default=0.0
        The intercept at which Gauss-Newton starts.

    leave_one_out : bool, default=False
        Whether to predict each rating from its row's other ratings.

    Returns
    -------
    solutions : RowSolutions

    Raises
    ------
    ValueError
        If the problem of a row has no unique solution.
    """
    n_rows, k = len(indptr) - 1, factors.shape[1]
    penalties = torch.as_tensor(
        penalty, dtype=factors.dtype, device=factors.device
    ).expand(n_rows)
    refuse_singular(indptr.diff(), penalties, k + intercept)
    coef = factors.new_zeros(n_rows, k) if prior is None else prior.clone()
    found = RowSolutions(
        coef,
        factors.new_zeros(n_rows),
        torch.full_like(ratings, torch.nan) if leave_one_out else None,
    )
    for rows, entries, mask in row_buckets(indptr, k):
        Z = factors[indices[entries]] * mask.unsqueeze(-1)
        r = ratings[entries] * mask
        c = mask.to(Z.dtype)
        if link is None:
            if weights is not None:
                c = torch.where(mask, weights[entries], 0).sqrt()
            known = torch.einsum("bnk,bk->bn", Z, coef[rows])
            w, b, residual, kept = _solve(
                Z * c.unsqueeze(-1),
                c * intercept,
                (r - known) * c,
                penalties[rows],
                leave_one_out,
            )
            loo = None if kept is None else r - residual / (kept * c)
        else:
            w, b, loo = _gauss_newton(
                Z, r, c, penalties[rows], link, start, leave_one_out
            )
        coef[rows] += w
        found.intercept[rows] = b
        if found.left_out is not None and loo is not None:
            alone = mask.sum(1, keepdim=True) == 1
            found.left_out[entries[mask]] = torch.where(alone, torch.nan, loo)[mask]
    return found


def refuse_singular(counts, penalties, n_unknowns):
    """Refuse a penalty of 0 where there are fewer ratings than unknowns."""
    bad = (penalties == 0) & (counts > 0) & (counts < n_unknowns)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"The ridge problem of a row is singular: it has {int(counts[row])} "
            f"ratings for {n_unknowns} unknowns and a penalty of 0. Use a positive "
            "penalty."
        )


def row_buckets(
    indptr: Tensor, per_rating: int, per_row: Callable[[int], int] = lambda width: 0
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows of similar size, the places of their entries and which places are real.

    The numbers that are needed for each rating, and for each row of so many ratings,
    limit the rows.
    """
    counts, order = torch.sort(indptr.diff(), stable=True)
    start = int(torch.searchsorted(counts, 1))
    while start < len(order):
        width = int(counts[start] * 1.25) + 4
        size = max(1, _BUCKET_SIZE // (width * per_rating + per_row(width)))
        end = min(int(torch.searchsorted(counts, width, right=True)), start + size)
        rows = order[start:end]
        place = torch.arange(int(counts[end - 1]), device=indptr.device)
        mask = place < counts[start:end].unsqueeze(1)
        yield rows, torch.where(mask, indptr[rows].unsqueeze(1) + place, 0), mask
        start = end


def _solve(Z, c, t, penalty, hats):
    """Solve ``min ||t - Z w - c b||^2 + penalty ||w||^2`` for a batch of rows.

    Parameters
    ----------
    Z : Tensor of shape (n_rows, n, k)
        Features, zero where a row has fewer than n ratings.

    c, t : Tensor of shape (n_rows, n)
        The feature of the intercept and the targets, zero at the same places.

    penalty : Tensor of shape (n_rows,)
        The penalty.

    hats : bool
        Whether `kept` is wanted.

    Returns
    -------
    w, b : Tensor of shape (n_rows, k) and (n_rows,)
        The solutions.

    residual : Tensor of shape (n_rows, n)
        ``t - Z w - c b``.

    kept : Tensor of shape (n_rows, n) or None
        One minus the hat values: ``residual / kept`` are the residuals of the targets
        left out.
    """
    is_dual = Z.shape[1] <= Z.shape[2] and bool((penalty > 0).all())
    solve = _solve_dual if is_dual else _solve_primal
    w, b, residual, kept = solve(Z, c, t, penalty, hats)
    if kept is not None:
        kept = kept.clamp(min=torch.finfo(kept.dtype).eps)
    return w, b, residual, kept


def _solve_dual(Z, c, t, penalty, hats):
    """Systems of the size of the ratings, for rows with fewer of them than factors.

    With K = I + Z Z' / penalty and P = K^-1 - K^-1 c c' K^-1 / (c' K^-1 c), which
    projects the intercept out, the residuals are P t and the hat matrix is I - P.
    """
    eye = torch.eye(Z.shape[1], dtype=Z.dtype, device=Z.device)
    L = _cholesky(torch.baddbmm(eye, Z / penalty.view(-1, 1, 1), Z.mT))
    Kc, Kt = torch.cholesky_solve(torch.stack([c, t], -1), L).unbind(-1)
    cKc = (c * Kc).sum(1, keepdim=True)
    cKc = torch.where(cKc == 0, 1.0, cKc)  # no slope anywhere: any intercept does
    b = (c * Kt).sum(1, keepdim=True) / cKc
    residual = Kt - b * Kc
    w = torch.einsum("bnk,bn->bk", Z, residual) / penalty.unsqueeze(1)
    kept = None
    if hats:
        kept = torch.cholesky_inverse(L).diagonal(dim1=1, dim2=2) - Kc.square() / cKc
    return w, b.squeeze(1), residual, kept


def _solve_primal(Z, c, t, penalty, hats):
    """Systems of the size of the factors, for rows with more ratings than those."""
    Zc = torch.cat([Z, c.unsqueeze(-1)], -1)
    A = Zc.mT @ Zc
    diagonal = A.diagonal(dim1=1, dim2=2)
    diagonal[:, :-1] += penalty.unsqueeze(1)
    diagonal[:, -1] += diagonal[:, -1] == 0  # no slope anywhere: any intercept does
    L = _cholesky(A)
    theta = torch.cholesky_solve(Zc.mT @ t.unsqueeze(-1), L)
    residual = t - (Zc @ theta).squeeze(-1)
    kept = None
    if hats:
        half = torch.linalg.solve_triangular(L, Zc.mT, upper=False)
        kept = 1 - half.square().sum(1)
    return theta[:, :-1, 0], theta[:, -1, 0], residual, kept


def _cholesky(A):
    L, info = torch.linalg.cholesky_ex(A)
    if info.any():
        raise ValueError(
            "The ridge problem of a row is singular to working precision: use a larger "
            "penalty."
        )
    return L


def _gauss_newton(Z, r, mask, penalty, link, start, hats):
    """Solve the rows of a bucket under a nonlinear link; see `_solve`.

    Returns w, b and, if `hats`, the ratings as predicted without themselves.
    """
    w = Z.new_zeros(len(Z), Z.shape[2])
    b = Z.new_full((len(Z),), start)

    def evaluate(w, b):
        sums = torch.einsum("bnk,bk->bn", Z, w) + b.unsqueeze(1)
        loss = ((r - link(sums)) * mask).square().sum(1)
        return sums, loss + penalty * w.square().sum(1)

    sums, loss = evaluate(w, b)
    for _ in range(_MAX_STEPS):
        slope, target = _linearise(link, sums, r, mask)
        new_w, new_b, _, _ = _solve(
            Z * slope.unsqueeze(-1), slope, target, penalty, False
        )
        step_w, step_b = new_w - w, new_b - b
        size = torch.ones_like(b)
        for _ in range(_MAX_HALVINGS):
            tried = w + size.unsqueeze(1) * step_w, b + size * step_b
            new_sums, new_loss = evaluate(*tried)
            rose = new_loss > loss
            if not rose.any():
                break
            size = torch.where(rose, size / 2, size)
        better = new_loss <= loss
        w = torch.where(better.unsqueeze(1), tried[0], w)
        b = torch.where(better, tried[1], b)
        sums = torch.where(better.unsqueeze(1), new_sums, sums)
        converged = loss - new_loss <= _TOLERANCE * loss
        loss = torch.where(better, new_loss, loss)
        if converged.all():
            break
    if not hats:
        return w, b, None
    slope, target = _linearise(link, sums, r, mask)
    *_, residual, kept = _solve(Z * slope.unsqueeze(-1), slope, target, penalty, True)
    # Leaving rating j out moves its own sum by -h_j / slope_j * residual_j / kept_j.
    per_slope = torch.where(slope == 0, 0.0, (1 - kept) / slope)
    return w, b, link(sums - per_slope * residual / kept)


def _linearise(link, sums, r, mask):
    """The slopes of the link, and targets that make each step a ridge problem."""
    with torch.enable_grad():
        variable = sums.detach().requires_grad_()
        out = link(variable)
        (slope,) = torch.autograd.grad(out.sum(), variable)
    slope = slope * mask
    return slope, slope * sums + (r - out.detach()) * mask
