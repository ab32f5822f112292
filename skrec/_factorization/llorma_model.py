"""Fitted LLORMA model: local models around anchors, blended by kernels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._core.normal_rows import condition, with_ones
from .._core.ridge import positive_penalty, solve_rows
from .._core.sparse import sddmm
from .alternation import products
from .llorma_trainer import LocalModels, average, kernel
from .models import FactorState, RidgeModel

# Negligible weight of a rating whose item is not near the anchor
_NOT_NEAR = 1e-12


class LocalState(NamedTuple):
    """Vectors and kernels of users.

    Attributes
    ----------
    vectors : Tensor of shape (n_users, k + 1)
        Factors and biases in the preliminary model.

    kernels : Tensor of shape (n_users, n_models)
        Kernels between the users and the anchors.

    local : Tensor of shape (n_users, n_models, k + 1)
        Factors and biases in the local models.
    """

    vectors: Tensor
    kernels: Tensor
    local: Tensor


class LLORMAModel(RidgeModel):
    """Mean of the local models, or the preliminary model where none is near."""

    # Arrays in `scores`: three sums and the predictions of a local model
    width = 4

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        factors, biases = self.users
        self.users = LocalState(
            torch.cat([factors, biases.unsqueeze(1)], 1),
            self.tensor(fitted.user_kernels_).T,
            self.tensor(fitted.local_user_factors_).transpose(0, 1),
        )
        biases = self.item_biases.unsqueeze(1)
        self.item_vectors = torch.cat([self.item_factors, biases], 1)
        self.local_items = self.tensor(fitted.local_item_factors_)
        self.item_kernels = self.tensor(fitted.item_kernels_)

    def transform(self, state):
        return state.vectors[:, :-1].cpu().numpy()

    def scores_at(self, state, row, item):
        pattern = self.pattern_of_pairs(len(state.vectors), row, item)
        fallback = products(pattern, state.vectors, self.item_vectors, True)
        total, weight = torch.zeros_like(fallback), torch.zeros_like(fallback)
        models = self._local_models(state)
        for t in range(len(models.users)):
            models.add(t, pattern, total, weight)
        sums = average(total, weight, fallback).cpu().double()
        return (sums + self.fitted.intercept_).numpy()

    def scores(self, state):
        fallback = _all_products(state.vectors, self.item_vectors)
        total, weight = torch.zeros_like(fallback), torch.zeros_like(fallback)
        for U, V, user_kernel, item_kernel in zip(
            *self._local_models(state), strict=True
        ):
            near = torch.outer(user_kernel, item_kernel)
            total.addcmul_(near, _all_products(U, V))
            weight.add_(near)
        sums = average(total, weight, fallback).cpu().double()
        return (sums + self.fitted.intercept_).numpy()

    def fold_in(self, rows):
        factors, biases = self._fold_in_preliminary(rows)
        n_models = len(self.local_items)
        local = [self._solve_local(t, rows).coef for t in range(n_models)]
        return LocalState(
            torch.cat([factors, biases.unsqueeze(1)], 1),
            self._kernels_of(factors),
            torch.stack(local, 1).to(factors.dtype),
        )

    def left_out(self, rows):
        preliminary = self._leave_out_preliminary(rows).cpu()
        item = self.item_vectors.cpu().double()[rows.indices]
        fallback = (preliminary[:, :-1] * item[:, :-1]).sum(1)
        fallback += preliminary[:, -1] + item[:, -1]
        total, weight = torch.zeros_like(fallback), torch.zeros_like(fallback)
        for t in range(len(self.local_items)):
            near = self._kernels_of(preliminary[:, :-1], [t]).squeeze(1)
            near *= self.item_kernels[t].cpu()[rows.indices]
            solutions = self._solve_local(t, rows, leave_one_out=True)
            left_out = solutions.left_out.cpu()
            offset = self.local_items[t].cpu()[rows.indices, -1]
            # NaN if no other rating of the row is near; the vector is then zero.
            total += near * (left_out.nan_to_num() + offset)
            weight += near
        return average(total, weight, fallback).numpy() + self.fitted.intercept_

    def _fold_in_preliminary(self, rows) -> FactorState:
        return super().fold_in(rows)

    def _local_models(self, state) -> LocalModels:
        return LocalModels(
            state.local.transpose(0, 1).contiguous(),
            self.local_items,
            state.kernels.T.contiguous(),
            self.item_kernels,
        )

    def _kernels_of(self, factors: Tensor, models=slice(None)) -> Tensor:
        """Return the kernels between users and anchors, (n_users, n_models)."""
        anchors = self.tensor(self.fitted._anchor_factors[models]).to(factors)
        is_fitted = (self.fitted.user_kernels_[models] > 0).any(axis=1)
        kernels = kernel(factors, anchors, self.fitted._bandwidth)
        return kernels * torch.as_tensor(is_fitted).to(factors)

    def _solve_local(self, t, rows, leave_one_out=False):
        """Solve for new users in local model t by weighted ridge regressions."""
        items = self.local_items[t].double()
        weights = self.item_kernels[t].double()
        indices = self.tensor(rows.indices)
        targets = self.tensor(rows.data) - self.fitted.intercept_
        design = with_ones(items)
        return solve_rows(
            self.tensor(rows.indptr),
            indices,
            targets - items[indices, -1],
            design,
            positive_penalty(self.fitted._local_lambda_u, design),
            # An item that is not near has negligible weight, but can be left out.
            weights=weights[indices].clamp(min=_NOT_NEAR),
            intercept=False,
            leave_one_out=leave_one_out,
        )

    def _leave_out_preliminary(self, rows) -> Tensor:
        """Return each rating's preliminary user vector without it, (nnz, k + 1)."""
        targets = self.tensor(rows.data - self.offsets(rows))
        design = self.tensor(self.design())
        size = design.shape[1]
        pattern = self.pattern(rows)
        eye = torch.eye(size, dtype=design.dtype, device=self.device)
        users, cholesky = condition(
            pattern,
            targets,
            design,
            prior=design.new_zeros(rows.shape[0], size),
            prior_precision=positive_penalty(self.fitted._lambda_u, design) * eye,
            rating_precisions=torch.ones_like(targets),
        )
        # Leaving a rating out moves its user's vector by the error times inv(A) z.
        inverse = torch.cholesky_inverse(cholesky)
        moves = torch.stack(
            [sddmm(pattern, inverse[:, a].contiguous(), design) for a in range(size)], 1
        )
        kept = 1 - (moves * design[pattern.col]).sum(1)
        error = (targets - sddmm(pattern, users, design)) / kept
        return users[pattern.row] - error.unsqueeze(1) * moves


def _all_products(users, items):
    return torch.addmm(items[:, -1], users, with_ones(items).T)
