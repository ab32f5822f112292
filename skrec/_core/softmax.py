"""Penalised softmax regressions of many rows on shared features.

Row i has ratings, each at one of L levels, of some items, whose features are the rows
of Z, and solves

    min_W  sum_j -log softmax(W z_j)[level_j] + 1/2 sum_f penalty_f ||W_f - prior_f||^2

over the columns f of W.
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

    penalty : Tensor of shape (k,)
        The penalty of each feature's coefficients, positive.

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
    scale = penalty.sqrt()
    features, base = features / scale, prior * scale  # with these the penalty is 1
    coef = prior.expand(len(indptr) - 1, n_levels, k).clone()
    left_out = features.new_zeros(len(indices), n_levels) if leave_one_out else None
    eye = torch.eye(n_levels, dtype=features.dtype, device=features.device)

    def per_row(width):
        return (n_levels * min(width, k)) ** 2

    for rows, entries, mask in row_buckets(indptr, n_levels * k, per_row):
        Z = features[indices[entries]] * mask.unsqueeze(-1)
        target = eye[levels[entries]] * mask.unsqueeze(-1)
        offset = Z @ base.T
        basis = None
        if Z.shape[1] < k:
            # The solution lies in the span of the ratings' features.
            basis, triangle = torch.linalg.qr(Z.mT)
            Z = triangle.mT
        problem = _Problem(Z, target, mask, offset)
        D = problem.solve()
        if left_out is not None:
            left_out[entries[mask]] = problem.leave_one_out(D)[mask]
        coef[rows] += (D if basis is None else D @ basis.mT) / scale
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

    offset : Tensor of shape (n_rows, n, n_levels)
        The logits at the prior, which D is the distance from.
    """

    Z: Tensor
    target: Tensor
    mask: Tensor
    offset: Tensor

    def solve(self) -> Tensor:
        """The solutions D of shape (n_rows, n_levels, k)."""
        D = self.Z.new_zeros(len(self.Z), self.offset.shape[2], self.Z.shape[2])
        loss = self.loss(D)
        for _ in range(_MAX_STEPS):
            p = self.probabilities(D)
            grad = (p - self.target).mT @ self.Z + D
            step = torch.cholesky_solve(
                grad.flatten(1).unsqueeze(-1), self.factor(p)
            ).view_as(D)
            size = torch.ones_like(loss)
            for _ in range(_MAX_HALVINGS):
                tried = D - size.view(-1, 1, 1) * step
                new_loss = self.loss(tried)
                rose = new_loss > loss
                if not rose.any():
                    break
                size = torch.where(rose, size / 2, size)
            D = torch.where((new_loss <= loss).view(-1, 1, 1), tried, D)
            settled = loss - new_loss <= _TOLERANCE * loss
            loss = torch.minimum(loss, new_loss)
            if settled.all():
                break
        return D

    def loss(self, D: Tensor) -> Tensor:
        log_p = torch.log_softmax(self.logits(D), -1)
        return D.square().sum((1, 2)) / 2 - (log_p * self.target).sum((1, 2))

    def logits(self, D: Tensor) -> Tensor:
        return self.Z @ D.mT + self.offset

    def probabilities(self, D: Tensor) -> Tensor:
        return torch.softmax(self.logits(D), -1) * self.mask.unsqueeze(-1)

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
        A.diagonal(dim1=1, dim2=2).add_(1)
        return torch.linalg.cholesky(A)

    def leave_one_out(self, D: Tensor) -> Tensor:
        """The logits of each rating after a Newton step without it.

        With the Hessian A, the curvature C = diag(p) - p p' and the gradient g of the
        rating's own loss at its logits, and M = (I x z)' A^-1 (I x z), the step moves
        these by M (I - C M)^-1 g.
        """
        p = self.probabilities(D)
        n_rows, n, n_levels = p.shape
        inverse = torch.cholesky_inverse(self.factor(p))
        inverse = inverse.view(n_rows, n_levels, -1, n_levels, self.Z.shape[2])
        M = p.new_empty(n_rows, n, n_levels, n_levels)
        for a in range(n_levels):
            for b in range(a + 1):
                product = (self.Z @ inverse[:, a, :, b] * self.Z).sum(-1)
                M[..., a, b] = M[..., b, a] = product
        curvature = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
        eye = torch.eye(n_levels, dtype=p.dtype, device=p.device)
        gradient = (p - self.target).unsqueeze(-1)
        moved = M @ torch.linalg.solve(eye - curvature @ M, gradient)
        return self.logits(D) + moved.squeeze(-1)
