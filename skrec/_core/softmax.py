"""Penalized softmax regressions of many rows on shared features.

Row i has ratings, each at one of L levels, of some items, whose features are the rows
z_j of Z. With the columns W_f of W and a given intercept, the row solves

    (1)  min_W  sum_j -log softmax(W z_j + intercept)[level_j]
                + 1/2 sum_f penalty_f ||W_f - prior_f||^2

Features divided by sqrt(penalty_f), and D_f = sqrt(penalty_f) (W_f - prior_f), turn
this into a problem with penalty 1, and offset_j = prior z_j + intercept:

    (2)  min_D  sum_j -log softmax(D z_j + offset_j)[level_j] + 1/2 ||D||^2

With the probabilities p_j and the one-hot level y_j of rating j, its derivatives are

    (3)  gradient  sum_j (p_j - y_j) z_j' + D
    (4)  Hessian   sum_j (diag(p_j) - p_j p_j') x z_j z_j' + I

where x is the Kronecker product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .ridge import row_buckets

# Newton's method: steps, halvings of a step, and the relative decrease that stops it.
_MAX_STEPS = 50
_MAX_HALVINGS = 10
_TOLERANCE = 1e-10


class SoftmaxSolutions(NamedTuple):
    """Solutions of `solve_softmax_rows`.

    Attributes
    ----------
    coef : Tensor of shape (n_rows, n_levels, k)
        Coefficients W of each row; the prior mean in a row without ratings.

    left_out : Tensor of shape (nnz, n_levels) or None
        Logits of each rating, predicted from the other ratings of its row.
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
    intercept: Tensor | None = None,
    leave_one_out: bool = False,
) -> SoftmaxSolutions:
    """Solve the softmax regression (1) of every row by Newton's method.

    Parameters
    ----------
    indptr, indices : Tensor of shape (n_rows + 1,) and (nnz,)
        Items rated by each row, in the CSR format.

    levels : Tensor of shape (nnz,), dtype int64
        Level of each rating.

    features : Tensor of shape (n_items, k)
        Features of the items.

    penalty : Tensor of shape (k,)
        Penalty on each feature's coefficients, positive.

    prior : Tensor of shape (n_levels, k)
        Prior mean, which W is shrunk toward.

    intercept : Tensor of shape (n_levels,) or None
        Given intercept of the logits. None means 0.

    leave_one_out : bool, default=False
        Whether to predict each rating from the other ratings of its row. The prediction
        takes one Newton step without the rating, from the solution with it (approximate
        leave-one-out).

    Returns
    -------
    solutions : SoftmaxSolutions
    """
    n_levels, k = prior.shape
    scale = penalty.sqrt()
    # (2): with these the penalty is 1.
    features, base = features / scale, prior * scale
    coef = prior.expand(len(indptr) - 1, n_levels, k).clone()
    left_out = features.new_zeros(len(indices), n_levels) if leave_one_out else None
    eye = torch.eye(n_levels, dtype=features.dtype, device=features.device)

    def per_row(width):
        return (n_levels * min(width, k)) ** 2

    for rows, entries, mask in row_buckets(indptr, n_levels * k, per_row):
        Z = features[indices[entries]] * mask.unsqueeze(-1)
        target = eye[levels[entries]] * mask.unsqueeze(-1)
        offset = Z @ base.T
        if intercept is not None:
            offset = offset + intercept
        basis = None
        if Z.shape[1] < k:
            # The solution lies in the span of the features of the row's items.
            basis, triangle = torch.linalg.qr(Z.mT)
            Z = triangle.mT
        problem = _Problem(Z, target, mask, offset)
        D = problem.solve()
        if left_out is not None:
            left_out[entries[mask]] = problem.leave_one_out(D)[mask]
        coef[rows] += (D if basis is None else D @ basis.mT) / scale
    return SoftmaxSolutions(coef, left_out)


class _Problem(NamedTuple):
    """Problem (2) of some rows, padded to n ratings each.

    Attributes
    ----------
    Z : Tensor of shape (n_rows, n, k)
        Features, zero at the padding.

    target : Tensor of shape (n_rows, n, n_levels)
        One-hot level of each rating, zero at the padding.

    mask : Tensor of shape (n_rows, n), dtype bool
        False at the padding.

    offset : Tensor of shape (n_rows, n, n_levels)
        Logits at the prior mean.
    """

    Z: Tensor
    target: Tensor
    mask: Tensor
    offset: Tensor

    def solve(self) -> Tensor:
        """Solutions D of shape (n_rows, n_levels, k)."""
        D = self.Z.new_zeros(len(self.Z), self.offset.shape[2], self.Z.shape[2])
        loss = self.loss(D)
        for _ in range(_MAX_STEPS):
            p = self.probabilities(D)
            grad = (p - self.target).mT @ self.Z + D  # (3)
            step = torch.cholesky_solve(
                grad.flatten(1).unsqueeze(-1), self.factor(p)
            ).view_as(D)
            # Halve the step of each row until its loss does not rise.
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
        """The objective (2) of each row."""
        log_p = torch.log_softmax(self.logits(D), -1)
        return D.square().sum((1, 2)) / 2 - (log_p * self.target).sum((1, 2))

    def logits(self, D: Tensor) -> Tensor:
        return self.Z @ D.mT + self.offset

    def probabilities(self, D: Tensor) -> Tensor:
        return torch.softmax(self.logits(D), -1) * self.mask.unsqueeze(-1)

    def factor(self, p: Tensor) -> Tensor:
        """Cholesky factor of the Hessian (4), a matrix of size n_levels * k."""
        n_rows, _, n_levels = p.shape
        k = self.Z.shape[2]
        # Block (a, b) of (4) is sum_j p_ja ([a = b] - p_jb) z_j z_j'.
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
        """Logits of each rating after a Newton step without it.

        With the Hessian A, and the gradient g = p - y and curvature C = diag(p) - p p'
        of the rating's own loss in its logits, the step changes these logits by

            (5)  M (I - C M)^-1 g,  M = (I x z)' A^-1 (I x z)
        """
        p = self.probabilities(D)
        n_rows, n, n_levels = p.shape
        inverse = torch.cholesky_inverse(self.factor(p))
        inverse = inverse.view(n_rows, n_levels, -1, n_levels, self.Z.shape[2])
        # M in (5), one pair of levels at a time: z' times a block of A^-1 times z
        M = p.new_empty(n_rows, n, n_levels, n_levels)
        for a in range(n_levels):
            for b in range(a + 1):
                product = (self.Z @ inverse[:, a, :, b] * self.Z).sum(-1)
                M[..., a, b] = M[..., b, a] = product
        curvature = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
        eye = torch.eye(n_levels, dtype=p.dtype, device=p.device)
        gradient = (p - self.target).unsqueeze(-1)
        moved = M @ torch.linalg.solve(eye - curvature @ M, gradient)  # (5)
        return self.logits(D) + moved.squeeze(-1)
