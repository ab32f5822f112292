"""Fitted LLORMA model: local models around anchors, blended by kernels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._core.normal_rows import condition, parts, with_ones
from .._core.prior_means import NormalPrior
from .._core.ridge import positive_penalty, solve_rows
from .._core.sparse import sddmm
from .._core.symmetric import inverse_of
from .._core.variational import Moments, Vectors, fold_in, leave_out
from .._prediction import Contribution, Model
from .alternation import products
from .llorma_trainer import LocalModels, average, kernel
from .models import FactorState, RidgeModel
from .variational_model import VariationalModel

# Negligible weight of a rating that is not near the anchor
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


class LLORMAModel(Model):
    """Weighted mean of the local models and the preliminary model."""

    # Arrays in `scores`: three sums and the predictions of a local model
    width = 4

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        is_auto = fitted._lambda_u is None
        self.solver = (VariationalSolver if is_auto else RidgeSolver)(fitted, device)
        self.users = LocalState(
            self.solver.users.joined(),
            self.tensor(fitted.user_kernels_).T,
            self.tensor(fitted.local_user_factors_).transpose(0, 1),
        )
        self.item_vectors = FactorState.of(
            self.solver.item_factors, self.solver.item_biases
        ).joined()
        self.local_items = self.tensor(fitted.local_item_factors_)
        self.item_kernels = self.tensor(fitted.item_kernels_)
        # Models that were not fitted because training ended early have no kernels.
        is_fitted = (fitted.user_kernels_ > 0).any(axis=1)
        self.fitted_models: list[int] = np.flatnonzero(is_fitted).tolist()

    def transform(self, state):
        return state.vectors[:, :-1].cpu().numpy()

    def scores_at(self, state, row, item):
        pattern = self.pattern_of_pairs(len(state.vectors), row, item)
        preliminary = products(pattern, state.vectors, self.item_vectors, True)
        total, weight = torch.zeros_like(preliminary), torch.zeros_like(preliminary)
        models = self._local_models(state)
        for t in self.fitted_models:
            models.add(t, pattern, total, weight)
        return self._blend(total, weight, preliminary).cpu().numpy()

    def scores(self, state):
        return self.rankings(state).cpu().numpy()

    def rankings(self, state):
        preliminary = _all_products(state.vectors, self.item_vectors)
        total, weight = torch.zeros_like(preliminary), torch.zeros_like(preliminary)
        models = self._local_models(state)
        for t in self.fitted_models:
            near = torch.outer(models.user_kernels[t], models.item_kernels[t])
            total.addcmul_(near, _all_products(models.users[t], models.items[t]))
            weight.add_(near)
        return self._blend(total, weight, preliminary)

    def contributions(self, case, by):
        # The prediction is a mean of models, and so are the biases.
        state, i = case.state, case.item
        weights = np.append(
            (state.kernels[0] * self.item_kernels[:, i]).cpu().numpy().astype(float),
            self.fitted._preliminary_weight,
        )
        if not weights.any():
            weights[-1] = 1.0
        users = torch.cat([state.local[0], state.vectors]).cpu().numpy()
        vectors = torch.cat([self.local_items[:, i], self.item_vectors[[i]]])
        items = vectors.cpu().numpy().astype(float)
        products = (users[:, :-1] * items[:, :-1]).sum(axis=1)
        parts = np.stack([users[:, -1], items[:, -1], products])
        values = parts @ weights / weights.sum()
        kinds = "user bias", "item bias", "factors"
        return [
            Contribution("mean", "", self.fitted.intercept_),
            *(
                Contribution(kind, "", float(v))
                for kind, v in zip(kinds, values, strict=True)
            ),
        ]

    def fold_in(self, rows):
        vectors = self.solver.fold_in(rows).joined()
        n_models = len(self.local_items)
        kernels = vectors.new_zeros(len(vectors), n_models)
        k = self.local_items.shape[2]
        local = vectors.new_zeros(len(vectors), n_models, k)
        for t in self.fitted_models:
            kernels[:, t] = self._kernel(t, vectors)
            local[:, t] = self.solver.fold_in_local(t, rows, kernels[:, t])
        return LocalState(vectors, kernels, local)

    def left_out(self, rows):
        vectors = self.solver.vectors_without_each(rows)
        item = self.item_vectors.double()[self.tensor(rows.indices)]
        preliminary = (vectors[:, :-1] * item[:, :-1]).sum(1)
        preliminary += vectors[:, -1] + item[:, -1]
        total, weight = torch.zeros_like(preliminary), torch.zeros_like(preliminary)
        for t in self.fitted_models:
            user_kernel = self._kernel(t, vectors)
            near = user_kernel * self.item_kernels[t][self.tensor(rows.indices)]
            total += near * self.solver.left_out_local(t, rows, user_kernel)
            weight += near
        return self._blend(total, weight, preliminary).cpu().numpy()

    def _blend(self, total: Tensor, weight: Tensor, preliminary: Tensor) -> Tensor:
        sums = average(total, weight, preliminary, self.fitted._preliminary_weight)
        return sums.double() + self.fitted.intercept_

    def _local_models(self, state) -> LocalModels:
        return LocalModels(
            state.local.transpose(0, 1).contiguous(),
            self.local_items,
            state.kernels.T.contiguous(),
            self.item_kernels,
        )

    def _kernel(self, t: int, vectors: Tensor) -> Tensor:
        """Return the kernel between users and anchor t."""
        anchor = self.tensor(self.fitted._anchor_factors[[t]]).to(vectors)
        return kernel(vectors[:, :-1], anchor, self.fitted._bandwidth).squeeze(1)


class RidgeSolver(RidgeModel):
    """Ridge regressions of new users, in the preliminary and in the local models."""

    def fold_in_local(self, t: int, rows, user_kernel: Tensor) -> Tensor:
        """Return the vectors of new users in local model t.

        Parameters
        ----------
        t : int
            Number of the model.

        rows : csr_array
            Ratings of the users.

        user_kernel : Tensor of shape (n_users,)
            Kernel between users and anchor, which has no effect on ridge regressions.
        """
        return self._solve_local(t, rows).coef

    def left_out_local(self, t: int, rows, user_kernel: Tensor) -> Tensor:
        """Return local predictions of each rating from the others of its row.

        Here, `user_kernel` has an entry for each rating, which is left out of it.
        """
        left_out = self._solve_local(t, rows, leave_one_out=True).left_out
        offset = self.tensor(self.fitted.local_item_factors_[t][rows.indices, -1])
        # NaN if no other rating of the row is near; the vector is then zero.
        return left_out.nan_to_num() + offset

    def vectors_without_each(self, rows) -> Tensor:
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
        inverse = inverse_of(cholesky)
        moves = torch.stack(
            [sddmm(pattern, inverse[:, a].contiguous(), design) for a in range(size)], 1
        )
        kept = 1 - (moves * design[pattern.col]).sum(1)
        error = (targets - sddmm(pattern, users, design)) / kept
        return users[pattern.row] - error.unsqueeze(1) * moves

    def _solve_local(self, t, rows, leave_one_out=False):
        """Solve for new users in local model t by weighted ridge regressions."""
        items = self.tensor(self.fitted.local_item_factors_[t]).double()
        weights = self.tensor(self.fitted.item_kernels_[t]).double()
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


class VariationalSolver(VariationalModel):
    """Posteriors of new users; the interface is that of `RidgeSolver`."""

    def fold_in_local(self, t: int, rows, user_kernel: Tensor) -> Tensor:
        pattern = self.pattern(rows)
        item_kernel = self.tensor(self.fitted.item_kernels_[t])
        return fold_in(
            *self._local(t),
            pattern,
            self._ratings(rows),
            user_kernel[pattern.row] * item_kernel[pattern.col],
        )

    def left_out_local(self, t: int, rows, user_kernel: Tensor) -> Tensor:
        moments, prior, noise = self._local(t)
        # All ratings of a row have the same factor in their weights.
        noises = noise / user_kernel.clamp(min=_NOT_NEAR)
        weights = self.tensor(self.fitted.item_kernels_[t][rows.indices]).double()
        ratings, found = self._ratings(rows), []
        width = 4 * moments.triangle.k**2
        for _, part, entries in parts(self.pattern(rows), width):
            _, predicted = leave_out(
                moments,
                prior,
                noises[entries],
                part,
                ratings[entries],
                weights[entries],
            )
            found.append(predicted)
        return torch.cat(found)

    def vectors_without_each(self, rows) -> Tensor:
        return torch.cat([vectors for vectors, _ in self._without_each(rows)])

    def _local(self, t: int) -> tuple[Moments, NormalPrior, float]:
        """Return item moments, prior of the users and noise variance of model t."""
        fitted = self.fitted
        items = Vectors(
            self.tensor(fitted.local_item_factors_[t]),
            self.tensor(fitted._local_item_covariances[t]),
        )
        center = self.tensor(fitted.local_user_prior_means_[t]).double()
        covariance = self.tensor(fitted.local_user_prior_covariances_[t]).double()
        links = center.new_zeros(0, len(center))
        prior = NormalPrior.of(center, covariance, links)
        return Moments(items), prior, float(fitted.local_noise_variances_[t])


def _all_products(users, items):
    return torch.addmm(items[:, -1], users, with_ones(items).T)
