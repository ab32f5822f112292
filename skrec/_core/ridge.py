"""Ridge regressions of many rows on shared factors.

Row i has ratings r of some items, whose factors are the rows of Z, and solves

    (1)  min_w  sum_j c_j (r_j - Z_j w)^2 + penalty_i ||w - prior_i||^2

with the weights c of the ratings. `solve_rows` is a direct solver for batches of rows.
It can add an intercept that is not penalized, apply a nonlinear function to the sum,
and predict each rating from the other ratings of its row.
`conjugate_gradients.improve_rows` is an iterative solver for all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .chunks import chunk_length

# Gauss-Newton: steps, halvings of a step, and the relative decrease that stops it.
_MAX_STEPS = 50
_MAX_HALVINGS = 10
_TOLERANCE = 1e-10


# The smallest penalty, relative to the largest squared length of a factor.
_SMALLEST_PENALTY = 1e-8


def positive_penalty(penalty: float, factors: Tensor) -> float:
    """The penalty, or the smallest one that makes the solution of any row unique."""
    smallest = _SMALLEST_PENALTY * float(factors.square().sum(1).max())
    return max(penalty, smallest, torch.finfo(factors.dtype).tiny)


class RowSolutions(NamedTuple):
    """Solutions of `solve_rows`.

    Attributes
    ----------
    coef : Tensor of shape (n_rows, k)
        Coefficients w of each row; the prior mean (or 0) in a row without ratings.

    intercept : Tensor of shape (n_rows,)
        Intercept b of each row; 0 in a row without ratings.

    left_out : Tensor of shape (nnz,) or None
        Prediction of each rating from the other ratings of its row; NaN in a row with
        one rating.
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
    """Solve the ridge problem (1) of every row directly.

    All tensors are on one device, and all floating-point tensors have one dtype.

    Parameters
    ----------
    indptr, indices : Tensor of shape (n_rows + 1,) and (nnz,)
        Items rated by each row, in the CSR format.

    ratings : Tensor of shape (nnz,)
        Ratings r.

    factors : Tensor of shape (n_items, k)
        Factors of the items.

    penalty : float or Tensor of shape (n_rows,)
        Penalty, not negative. With 0, a row needs at least as many ratings as unknowns.

    weights : Tensor of shape (nnz,) or None
        Weights c, positive. None means 1 each.

    prior : Tensor of shape (n_rows, k) or None
        Prior mean, which w is shrunk toward. None means 0.

    intercept : bool, default=True
        Whether to add an intercept that is not penalized.

    link : callable or None
        Elementwise function of the sum. It cannot be combined with weights or a prior.
        The problem is solved by Gauss-Newton. Left-out predictions are exact for the
        problem linearized at the solution (approximate leave-one-out).

    start : float, default=0.0
        Intercept at which Gauss-Newton starts.

    leave_one_out : bool, default=False
        Whether to predict each rating from the other ratings of its row.

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
    is_positive = bool((penalties > 0).all())
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
            # (1) becomes (2): scale by the roots of the weights, solve for w - prior.
            at_prior = torch.einsum("bnk,bk->bn", Z, coef[rows])
            w, b, residual, kept = _solve(
                Z * c.unsqueeze(-1),
                c * intercept,
                (r - at_prior) * c,
                penalties[rows],
                is_positive,
                leave_one_out,
            )
            # (3), on the scale of the ratings again
            loo = None if kept is None else r - residual / (kept * c)
        else:
            w, b, loo = _gauss_newton(
                Z, r, c, penalties[rows], is_positive, link, start, leave_one_out
            )
        coef[rows] += w
        found.intercept[rows] = b
        if found.left_out is not None and loo is not None:
            single = mask.sum(1, keepdim=True) == 1
            found.left_out[entries[mask]] = torch.where(single, torch.nan, loo)[mask]
    return found


def refuse_singular(counts, penalties, n_unknowns):
    """Raise an error if a row has penalty 0 and fewer ratings than unknowns."""
    bad = (penalties == 0) & (counts > 0) & (counts < n_unknowns)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"penalty=0, but row {row} has fewer ratings ({int(counts[row])}) than "
            f"unknowns ({n_unknowns}), so that its ridge problem is singular. Use a "
            "positive penalty."
        )


def row_buckets(
    indptr: Tensor, per_rating: int, per_row: Callable[[int], int] = lambda width: 0
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Group rows of similar size into buckets.

    Rows without ratings are in no bucket.

    Parameters
    ----------
    indptr : Tensor of shape (n_rows + 1,)
        Beginning of each row, in the CSR format.

    per_rating : int
        Numbers that are held in memory for each rating.

    per_row : callable
        Numbers that are held for each row, as a function of its number of ratings.

    Yields
    ------
    rows : Tensor of shape (n,)
        Indices of the rows.

    entries : Tensor of shape (n, width)
        Indices of their entries, followed by padding.

    mask : Tensor of shape (n, width), dtype bool
        False at the padding.
    """
    counts, order = torch.sort(indptr.diff(), stable=True)
    sizes = counts.cpu()  # a GPU is waited for once, not for each bucket
    start = int(torch.searchsorted(sizes, 1))
    while start < len(order):
        width = int(sizes[start] * 1.25) + 4
        size = chunk_length(width * per_rating + per_row(width))
        end = min(int(torch.searchsorted(sizes, width, right=True)), start + size)
        rows = order[start:end]
        position = torch.arange(int(sizes[end - 1]), device=indptr.device)
        mask = position < counts[start:end].unsqueeze(1)
        yield rows, torch.where(mask, indptr[rows].unsqueeze(1) + position, 0), mask
        start = end


def _solve(Z, c, t, penalty, is_positive, hats):
    """Solve the standard form of the ridge problem for a batch of rows.

    The problem, and the residual of target j in a fit without it, are

        (2)  min_{w, b}  ||t - Z w - c b||^2 + penalty ||w||^2
        (3)  residual_j / (1 - h_j)

    with the hat values h, the derivative of each fitted value by its own target.

    Parameters
    ----------
    Z : Tensor of shape (n_rows, n, k)
        Features, zero at the padding of rows with fewer than n ratings.

    c, t : Tensor of shape (n_rows, n)
        Feature of the intercept and targets, zero at the padding.

    penalty : Tensor of shape (n_rows,)
        Penalty.

    is_positive : bool
        Whether the penalty of every row is positive.

    hats : bool
        Whether to compute `kept`.

    Returns
    -------
    w, b : Tensor of shape (n_rows, k) and (n_rows,)
        Solutions.

    residual : Tensor of shape (n_rows, n)
        ``t - Z w - c b``.

    kept : Tensor of shape (n_rows, n) or None
        ``1 - h``, at least the machine epsilon.
    """
    # The smaller of the two systems; the dual one divides by the penalty.
    is_dual = Z.shape[1] <= Z.shape[2] and is_positive
    solve = _solve_dual if is_dual else _solve_primal
    w, b, residual, kept = solve(Z, c, t, penalty, hats)
    if kept is not None:
        kept = kept.clamp(min=torch.finfo(kept.dtype).eps)
    return w, b, residual, kept


def _solve_dual(Z, c, t, penalty, hats):
    """Solve (2) by systems of size n, for rows with fewer ratings than factors.

        (4)  K = I + Z Z' / penalty
        (5)  b = c' K^-1 t / c' K^-1 c,  residual = K^-1 (t - c b)
        (6)  w = Z' residual / penalty
        (7)  1 - h = diag(K^-1 - K^-1 c c' K^-1 / c' K^-1 c)

    In (7) the second term projects the intercept out.
    """
    eye = torch.eye(Z.shape[1], dtype=Z.dtype, device=Z.device)
    L = _cholesky(torch.baddbmm(eye, Z / penalty.view(-1, 1, 1), Z.mT))  # (4)
    Kc, Kt = torch.cholesky_solve(torch.stack([c, t], -1), L).unbind(-1)
    cKc = (c * Kc).sum(1, keepdim=True)
    # If c is 0, there is no intercept to determine and b becomes 0.
    cKc = torch.where(cKc == 0, 1.0, cKc)
    b = (c * Kt).sum(1, keepdim=True) / cKc  # (5)
    residual = Kt - b * Kc
    w = torch.einsum("bnk,bn->bk", Z, residual) / penalty.unsqueeze(1)  # (6)
    kept = None
    if hats:
        # (7): hat values of the dual system
        kept = torch.cholesky_inverse(L).diagonal(dim1=1, dim2=2) - Kc.square() / cKc
    return w, b.squeeze(1), residual, kept


def _solve_primal(Z, c, t, penalty, hats):
    """Solve (2) by systems of size k + 1, for rows with more ratings than factors.

    With Q = [Z c] and theta = (w, b),

        (8)  A theta = Q' t,  A = Q' Q + diag(penalty, ..., penalty, 0)
        (9)  1 - h_j = 1 - Q_j A^-1 Q_j'
    """
    Q = torch.cat([Z, c.unsqueeze(-1)], -1)
    A = Q.mT @ Q  # (8): normal equations
    diagonal = A.diagonal(dim1=1, dim2=2)
    diagonal[:, :-1] += penalty.unsqueeze(1)
    # If c is 0, there is no intercept to determine and b becomes 0.
    diagonal[:, -1] += diagonal[:, -1] == 0
    L = _cholesky(A)
    theta = torch.cholesky_solve(Q.mT @ t.unsqueeze(-1), L)
    residual = t - (Q @ theta).squeeze(-1)
    kept = None
    if hats:
        # (9): hat values as the squared lengths of L^-1 Q_j'
        half = torch.linalg.solve_triangular(L, Q.mT, upper=False)
        kept = 1 - half.square().sum(1)
    return theta[:, :-1, 0], theta[:, -1, 0], residual, kept


def _cholesky(A):
    """Lower Cholesky factors; raises an error if one of the matrices is singular."""
    L, info = torch.linalg.cholesky_ex(A)
    if info.any():
        raise ValueError(
            "penalty is too small: the ridge problem of a row is singular to working "
            f"precision ({A.dtype}). Use a larger penalty."
        )
    return L


def _gauss_newton(Z, r, mask, penalty, is_positive, link, start, hats):
    """Solve the rows of a bucket with a nonlinear link.

    A Gauss-Newton step solves (2) for the problem linearized at the current sums,

        (10)  link(sum_j) + slope_j (Z_j w + b - sum_j) = r_j

    A fit without rating j moves the sum of that rating, by (3), to

        (11)  sum_j - h_j / slope_j * residual_j / (1 - h_j)

    Returns w, b and, if `hats`, the left-out predictions.
    """
    w = Z.new_zeros(len(Z), Z.shape[2])
    b = Z.new_full((len(Z),), start)

    def evaluate(w, b):
        sums = torch.einsum("bnk,bk->bn", Z, w) + b.unsqueeze(1)
        loss = ((r - link(sums)) * mask).square().sum(1)
        return sums, loss + penalty * w.square().sum(1)

    sums, loss = evaluate(w, b)
    for _ in range(_MAX_STEPS):
        slope, target = _linearize(link, sums, r, mask)
        new_w, new_b, _, _ = _solve(
            Z * slope.unsqueeze(-1), slope, target, penalty, is_positive, False
        )
        # Halve the step of each row until its objective does not rise.
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
    slope, target = _linearize(link, sums, r, mask)
    *_, residual, kept = _solve(
        Z * slope.unsqueeze(-1), slope, target, penalty, is_positive, True
    )
    # (11); where the link is flat, the rating has no influence on its sum.
    per_slope = torch.where(slope == 0, 0.0, (1 - kept) / slope)
    return w, b, link(sums - per_slope * residual / kept)


def _linearize(link, sums, r, mask):
    """Slopes of the link and targets of the ridge problem (10)."""
    with torch.enable_grad():
        variable = sums.detach().requires_grad_()
        out = link(variable)
        (slope,) = torch.autograd.grad(out.sum(), variable)
    slope = slope * mask
    # (10), with the constant terms on the right
    return slope, slope * sums + (r - out.detach()) * mask
