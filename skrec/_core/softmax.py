"""Penalised softmax regressions of many rows on shared features.

Row i has ratings, each at one of L levels, of some items, whose features are the rows
of Z, and solves

    min_W  sum_j -log softmax(W z_j)[level_j] + 1/2 sum penalty * (W - prior)^2

where penalty and prior are matrices of W's shape.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .ridge import row_buckets

# Newton's method: steps, halvings of a step, and the relative decrease that ends it.
_MAX_STEPS = 50
_MAX_HALVINGS = 10
_TOLERANCE = 1e-10


class SoftmaxSolutions(NamedTuple):
    """What `solve_softmax_rows` found.

    Attributes
    ----------
    coef : Tensor of shape (n_rows, n_levels, k)
        W of each row; the prior in a row without ratings.

    left_out : Tensor of shape (nnz, n_levels) or None
        The logits of each rating as predicted by its row's other ratings.
    """

    coef: Tensor
    left_out: Tensor | None


def solve_softmax_rows(
    indptr: Tensor,
    indices: Tensor,
    levels: Tensor,
    features: Tensor,
    penalty: Tensor,
    prior: Tensor,
    *,
    leave_one_out: bool = False,
) -> SoftmaxSolutions:
    """Solve the softmax regression of every row by Newton's method.

    Parameters
    ----------
    indptr, indices : Tensor of shape (n_rows + 1,) and (nnz,)
        Which items each row rates, as in the CSR format.

    levels : Tensor of shape (nnz,), dtype int64
        The level of each rating.

    features : Tensor of shape (n_items, k)
        The features of the items.

    penalty : Tensor of shape (n_levels, k)
        The penalty of each coefficient, positive.

    prior : Tensor of shape (n_levels, k)
        What W is drawn to.

    leave_one_out : bool, default=False
        Whether to predict each rating from its row's other ratings: by one Newton step
        without it from the solution with it (approximate leave-one-out).

    Returns
    -------
    solutions : SoftmaxSolutions
    """
    n_levels, k = prior.shape
    coef = prior.expand(len(indptr) - 1, n_levels, k).clone()
    left_out = features.new_zeros(len(indices), n_levels) if leave_one_out else None
    eye = torch.eye(n_levels, dtype=torch.bool, device=features.device)
    for rows, entries, mask in row_buckets(indptr, n_levels * k, (n_levels * k) ** 2):
        Z = features[indices[entries]] * mask.unsqueeze(-1)
        target = eye[levels[entries]] * mask.unsqueeze(-1)
        problem = _Problem(Z, target.to(Z.dtype), mask, penalty, prior)
        W = problem.solve(coef[rows])
        coef[rows] = W
        if left_out is not None:
            left_out[entries[mask]] = problem.leave_one_out(W)[mask]
    return SoftmaxSolutions(coef, left_out)


class _Problem(NamedTuple):
    """The regressions of some rows, padded to n ratings each.

    Attributes
    ----------
    Z : Tensor of shape (n_rows, n, k)
        Features, zero where a row has fewer ratings.

    target : Tensor of shape (n_rows, n, n_levels)
        1 at each rating's level.

    mask : Tensor of shape (n_rows, n), dtype bool
        Where there are ratings.

    penalty, prior : Tensor
        As for `solve_softmax_rows`.
    """

    Z: Tensor
    target: Tensor
    mask: Tensor
    penalty: Tensor
    prior: Tensor

    def solve(self, W: Tensor) -> Tensor:
        """The solutions of shape (n_rows, n_levels, k), found from W on."""
        loss = self.loss(W)
        for _ in range(_MAX_STEPS):
            p = self.probabilities(W)
            grad = (p - self.target).mT @ self.Z + self.penalty * (W - self.prior)
            step = torch.cholesky_solve(
                grad.flatten(1).unsqueeze(-1), self.factor(p)
            ).view_as(W)
            size = torch.ones_like(loss)
            for _ in range(_MAX_HALVINGS):
                tried = W - size.view(-1, 1, 1) * step
                new_loss = self.loss(tried)
                rose = new_loss > loss
                if not rose.any():
                    break
                size = torch.where(rose, size / 2, size)
            W = torch.where((new_loss <= loss).view(-1, 1, 1), tried, W)
            settled = loss - new_loss <= _TOLERANCE * loss
            loss = torch.minimum(loss, new_loss)
            if settled.all():
                break
        return W

    def loss(self, W: Tensor) -> Tensor:
        log_p = torch.log_softmax(self.Z @ W.mT, -1)
        distance = (self.penalty * (W - self.prior).square()).sum((1, 2))
        return distance / 2 - (log_p * self.target).sum((1, 2))

    def probabilities(self, W: Tensor) -> Tensor:
        return torch.softmax(self.Z @ W.mT, -1) * self.mask.unsqueeze(-1)

    def factor(self, p: Tensor) -> Tensor:
        """The Cholesky factor of the Hessian, of a square of n_levels * k."""
        n_rows, _, n_levels = p.shape
        k = self.Z.shape[2]
        A = self.Z.new_empty(n_rows, n_levels, k, n_levels, k)
        for a in range(n_levels):
            for b in range(a + 1):
                curvature = p[..., a] * (float(a == b) - p[..., b])
                block = self.Z.mT @ (curvature.unsqueeze(-1) * self.Z)
                A[:, a, :, b] = A[:, b, :, a] = block
        A = A.view(n_rows, n_levels * k, n_levels * k)
        A.diagonal(dim1=1, dim2=2).add_(self.penalty.flatten())
        return torch.linalg.cholesky(A)

    def leave_one_out(self, W: Tensor) -> Tensor:
        """The logits of each rating after a Newton step without it.

        With the Hessian A, the curvature D = diag(p) - p p' and the gradient g of the
        rating's own loss at its logits, and M = (I x z)' A^-1 (I x z), the step moves
        these by M (I - D M)^-1 g.
        """
        p = self.probabilities(W)
        n_rows, n, n_levels = p.shape
        inverse = torch.cholesky_inverse(self.factor(p))
        inverse = inverse.view(n_rows, n_levels, -1, n_levels, self.Z.shape[2])
        M = p.new_empty(n_rows, n, n_levels, n_levels)
        for a in range(n_levels):
            for b in range(a + 1):
                product = (self.Z @ inverse[:, a, :, b] * self.Z).sum(-1)
                M[..., a, b] = M[..., b, a] = product
        D = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
        eye = torch.eye(n_levels, dtype=p.dtype, device=p.device)
        gradient = (p - self.target).unsqueeze(-1)
        moved = M @ torch.linalg.solve(eye - D @ M, gradient)
        return self.Z @ W.mT + moved.squeeze(-1)
