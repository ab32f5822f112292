"""Many linear systems, solved together by conjugate gradients.

`improve_rows` solves the ridge regressions of `ridge`; `solve_columns` solves large
systems, one for each column. With the preconditioner M, the diagonal of A, and
rho = residual' M^-1 residual, a step of the solution x of A x = b is

    (1)  x += size * direction,  size = rho / direction' A direction
    (2)  residual -= size * A direction
    (3)  direction = M^-1 residual + rho_new / rho_old * direction
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .collectives import ALONE, WHOLE, Group, Layout
from .sparse import Pattern, sddmm, spmm

TOLERANCE, COLUMN_TOLERANCE = 2e-4, 1e-3
_MAX_STEPS, _MAX_COLUMN_STEPS = 100, 1000
# A system takes no further steps if its residual is below this fraction of the goal.
_DONE = 0.01
# Steps between two looks at the errors on a GPU, which has to be waited for
_STEPS_UNSEEN = 4
# Iterations of a subspace, and how many more vectors it has than are wanted
_N_POWERS, _MORE_VECTORS = 3, 8


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
    layout: Layout = WHOLE,
) -> Tensor:
    """Solve the ridge problems of all rows at once by conjugate gradients.

    The system of a row is its normal equations, with the factors Z of its items and
    the diagonal matrix C of its weights,

        (4)  (Z' C Z + penalty I) w = Z' C r + penalty * prior

    A step is one SDDMM and one SpMM, so that neither Gram matrices nor padding are
    needed. No row's objective ends higher than at `start`. The system of a row must
    have a unique solution; see `ridge.refuse_singular`.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_items)
        Items rated by each row.

    ratings : Tensor of shape (nnz,)
        Ratings r.

    factors : Tensor of shape (n_items, k)
        Factors of the items.

    penalty : Tensor of shape (n_rows,)
        Penalty.

    start : Tensor of shape (n_rows, k)
        Initial coefficients.

    weights, prior : Tensor or None
        As for `solve_rows`.

    tolerance : float
        Largest norm of a row's residual, relative to the right-hand side of (4).

    layout : Layout
        How rows and ratings are dealt out to ranks.

    Returns
    -------
    coef : Tensor of shape (n_rows, k)
    """
    total, group = layout.entries.sum, layout.group
    penalty = penalty.unsqueeze(1)
    # In the eigenvectors of the sum of z z' over all ratings, the system of each row is
    # nearly diagonal, so that its diagonal is a good preconditioner. Sums that overflow
    # have no eigenvectors, and the result will not be finite in any basis.
    counts = pattern.column_counts.to(factors.dtype)
    products = group.sum(factors.T @ (counts.unsqueeze(1) * factors))
    # All ranks need the same basis: eigenvectors differ in sign between processors.
    basis = torch.linalg.eigh(products.nan_to_num(0.0, 0.0, 0.0))[1]
    basis = group.copy_first(basis)
    factors, start = factors @ basis, start @ basis

    def times(x):
        # The matrix of (4), applied as Z' (C (Z x)) + penalty x
        sums = sddmm(pattern, x, factors)
        sums = sums if weights is None else sums * weights
        return torch.addcmul(total(spmm(pattern, sums, factors)), penalty, x)

    ones = torch.ones_like(ratings) if weights is None else weights
    target = total(spmm(pattern, ratings * ones, factors))  # right-hand side of (4)
    if prior is not None:
        target += penalty * (prior @ basis)
    # M^-1; a row with neither ratings nor penalty takes no steps.
    diagonal = total(spmm(pattern, ones, factors.square())) + penalty
    scale = torch.where(diagonal > 0, 1 / diagonal, 0)
    # If the right-hand side is zero, so is the solution.
    x = start * target.any(1, keepdim=True)
    residual = target - times(x)
    goal = tolerance * torch.linalg.vector_norm(target, dim=1)
    direction = scale * residual
    rho = (residual * direction).sum(1)
    for step in range(_MAX_STEPS):
        errors = torch.linalg.vector_norm(residual, dim=1)
        if group.all(_are_small(errors, goal, step)):
            break
        # A row far below its goal takes no further steps: they would consist of
        # rounding errors and could grow without bound.
        is_open = errors > _DONE * goal
        image = times(direction)
        size = _ratio(rho * is_open, (direction * image).sum(1))
        x.addcmul_(size, direction)  # (1)
        residual.addcmul_(size, image, value=-1)  # (2)
        scaled = scale * residual
        new_rho = (residual * scaled).sum(1)
        direction = torch.addcmul(scaled, _ratio(new_rho, rho), direction)  # (3)
        rho = new_rho
    return x @ basis.T


class Deflation:
    """Preconditioner for few large eigenvalues.

    With the leading eigenvectors V of the matrices, their eigenvalues and the diagonal
    D, the preconditioner solves exactly in the span of V, and is D elsewhere:

        (5)  M^-1 = (I - V V') D^-1 (I - V V') + V diag(1 / eigenvalues) V'

    Parameters
    ----------
    vectors : Tensor of shape (n, m)
        Orthonormal eigenvectors V, which all systems share.

    eigenvalues : Tensor of shape (m, k)
        Eigenvalues in the system of each column.
    """

    def __init__(self, vectors: Tensor, eigenvalues: Tensor):
        self.vectors, self.eigenvalues = vectors, eigenvalues

    def scale(self, residual: Tensor, diagonal: Tensor) -> Tensor:
        """Multiply by M^-1."""
        V = self.vectors
        inside = V.T @ residual
        scaled = torch.addmm(residual, V, inside, alpha=-1) / diagonal
        return scaled + V @ (inside / self.eigenvalues - V.T @ scaled)


def leading_eigenvectors(
    times: Callable[[Tensor], Tensor], diagonal: Tensor, m: int
) -> tuple[Tensor, Tensor]:
    """Approximate the leading eigenvectors of a positive semidefinite matrix.

    A subspace that begins with the columns of the largest entries of the diagonal is
    iterated.

    Parameters
    ----------
    times : callable
        Function that multiplies each column of a tensor by the matrix.

    diagonal : Tensor of shape (n,)
        Diagonal of the matrix.

    m : int
        Number of eigenvectors, at most n.

    Returns
    -------
    vectors : Tensor of shape (n, m)
        Orthonormal vectors.

    eigenvalues : Tensor of shape (m,)
        Their Rayleigh quotients, ascending.
    """
    size = min(m + _MORE_VECTORS, len(diagonal))
    subspace = diagonal.new_zeros(len(diagonal), size)
    chosen = diagonal.topk(size).indices
    subspace[chosen, torch.arange(size, device=chosen.device)] = 1
    for _ in range(_N_POWERS):
        subspace = torch.linalg.qr(times(subspace)).Q
    eigenvalues, rotation = torch.linalg.eigh(subspace.T @ times(subspace))
    return subspace @ rotation[:, -m:], eigenvalues[-m:]


def solve_columns(
    times: Callable[[Tensor], Tensor],
    right: Tensor,
    diagonal: Tensor,
    start: Tensor,
    *,
    tolerance: float = COLUMN_TOLERANCE,
    group: Group = ALONE,
    n_shared: int | None = None,
    deflation: Deflation | None = None,
) -> Tensor:
    """Solve a positive definite system for each column.

    Parameters
    ----------
    times : callable
        Function that multiplies each column of a tensor by the matrix of its system.

    right : Tensor of shape (n, k)
        Right-hand sides.

    diagonal : Tensor of shape (n, k)
        Diagonals of the matrices, which precondition the systems.

    start : Tensor of shape (n, k)
        Initial solutions.

    tolerance : float
        Largest norm of a column's residual, relative to its right-hand side.

    group : Group
        Ranks that solve the systems together.

    n_shared : int or None
        Number of the first rows that all ranks have; the others belong to this rank.
        None means that all ranks have the same rows.

    deflation : Deflation or None
        Leading eigenvectors of the matrices, in which the preconditioner is exact.

    Returns
    -------
    solution : Tensor of shape (n, k)
    """

    def dot(a, b):
        products = a * b
        if n_shared is None:
            return products.sum(0)
        return products[:n_shared].sum(0) + group.sum(products[n_shared:].sum(0))

    def norm(a):
        if n_shared is None:
            return torch.linalg.vector_norm(a, dim=0)
        return dot(a, a).sqrt()

    def scale(residual):
        if deflation is None:
            return residual / diagonal
        return deflation.scale(residual, diagonal)

    # x is `start` itself, which belongs to the caller: all updates are out of place.
    x = start
    residual = right - times(x)
    goal = tolerance * norm(right)
    direction = scale(residual)
    rho = dot(residual, direction)
    for step in range(_MAX_COLUMN_STEPS):
        errors = norm(residual)
        if group.all(_are_small(errors, goal, step)):
            break
        is_open = errors > _DONE * goal
        image = times(direction)
        size = _ratio(rho * is_open, dot(direction, image)).T
        x = x + size * direction  # (1)
        residual = residual - size * image  # (2)
        scaled = scale(residual)
        new_rho = dot(residual, scaled)
        direction = scaled + _ratio(new_rho, rho).T * direction  # (3)
        rho = new_rho
    return x


def _are_small(errors: Tensor, goal: Tensor, step: int) -> bool:
    """Whether all systems have reached their goal, as far as this step looks."""
    if errors.device.type != "cpu" and step % _STEPS_UNSEEN:
        return False
    return bool((errors <= goal).all())


def _ratio(a, b):
    """Quotients a / b as a column; 0 where b is 0."""
    return torch.where(b > 0, a / b, 0).unsqueeze(1)
