"""Fitted models that consist of factors and biases of users and items."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._core.ridge import RowSolutions, positive_penalty, solve_rows
from .._core.sparse import Pattern, sddmm
from .._explanation import PartGroup, Parts, solve_parts, split_product
from .._prediction import Case, Contribution, Model

_NO_STD = (
    "return_std=True needs the covariances that a fit with lambda_u='auto' and "
    "lambda_v='auto' estimates; this one had numbers."
)


class FactorState(NamedTuple):
    """Factors and biases of users.

    Attributes
    ----------
    factors : Tensor of shape (n_users, n_factors)
        Factors of the users.

    biases : Tensor of shape (n_users,)
        Biases of the users.

    cold_biases : Tensor of shape (n_users,)
        Corrections added for items that are described but not rated; see
        `described.Distances`.
    """

    factors: Tensor
    biases: Tensor
    cold_biases: Tensor

    @classmethod
    def of(cls, factors: Tensor, biases: Tensor) -> FactorState:
        """State without corrections."""
        return cls(factors, biases, torch.zeros_like(biases))

    @classmethod
    def split(cls, vectors: Tensor) -> FactorState:
        """Split vectors, whose last entries are the biases."""
        return cls.of(vectors[:, :-1].contiguous(), vectors[:, -1].contiguous())

    def joined(self) -> Tensor:
        """Vectors: factors followed by the bias."""
        return torch.cat([self.factors, self.biases.unsqueeze(1)], 1)


class FactorModel(Model):
    """Model of ratings: a link function of the product of factors, plus biases."""

    def __init__(self, fitted: Any, device: torch.device):
        super().__init__(fitted, device)
        self.users = FactorState.of(
            self.tensor(fitted.user_factors_), self.tensor(fitted.user_biases_)
        )
        self.is_cold = fitted._is_described & ~fitted._is_rated
        self.item_factors = self.tensor(fitted.item_factors_)
        self.item_biases = self.tensor(fitted.item_biases_)
        self.offset = float(fitted.intercept_)
        self.cold = torch.as_tensor(np.flatnonzero(self.is_cold)).to(device)
        self.columns = self.item_factors.T.contiguous()

    def link(self, sums: Tensor) -> Tensor:
        """Turn sums into ratings minus the intercept."""
        return sums

    # Kind of the parts of a prediction that are products of factors
    product_kind = "factors"

    def contributions(self, case, by):
        items = self.item_parts(case).refined(case.finer)
        found = split_product(self.user_parts(case), items, by)
        if self.is_cold[case.item]:
            cold_bias = float(case.state.cold_biases[0])
            found.append(Contribution("self-selection", "", cold_bias))
        return [Contribution("mean", "", float(self.fitted.intercept_)), *found]

    def user_parts(self, case: Case) -> Parts:
        """Split the vector of a user."""
        return Parts.of((self.product_kind, [""], _double(case.state.joined())))

    def item_parts(self, case: Case) -> Parts:
        """Split the vector of an item."""
        vector = self.item_vector(case.item)
        return Parts.of((self.product_kind, [""], vector[np.newaxis]))

    def item_vector(self, item: int) -> np.ndarray:
        """Factors and bias of an item, in double precision."""
        fitted = self.fitted
        vector = np.append(fitted.item_factors_[item], fitted.item_biases_[item])
        return vector.astype(np.float64)

    def transform(self, state):
        return state.factors.cpu().numpy()

    def scores_at(self, state, row, item):
        pattern = self.pattern_of_pairs(len(state.factors), row, item)
        return self.link(self.sums_at(state, pattern)).numpy() + self.fitted.intercept_

    def scores(self, state):
        ratings = self.link(self.all_sums(state).cpu()).numpy()
        # The sum with a large intercept needs double precision.
        return np.add(ratings, self.fitted.intercept_, dtype=np.float64)

    def rankings(self, state):
        return self.link(self.all_sums(state))

    def sums_at(self, state, pattern: Pattern) -> Tensor:
        """Return products plus biases at the entries of a pattern, on the CPU."""
        sums = sddmm(pattern, state.factors, self.item_factors).cpu().double()
        biases = state.biases.index_select(0, pattern.row)
        sums += (biases + self.item_biases.index_select(0, pattern.col)).cpu()
        if self.is_cold.any():
            is_cold = self.tensor(self.is_cold).index_select(0, pattern.col)
            sums += (state.cold_biases.index_select(0, pattern.row) * is_cold).cpu()
        return sums

    def all_sums(self, state) -> Tensor:
        """Return products plus biases of all items, on the device."""
        sums = torch.addmm(self.item_biases, state.factors, self.columns)
        sums += state.biases.unsqueeze(1)
        if len(self.cold):
            sums[:, self.cold] += state.cold_biases.unsqueeze(1)
        return sums


class RidgeModel(FactorModel):
    """Factor model that folds in new users by ridge regression of their ratings.

    The attribute `_lambda_u` of the estimator is the penalty. `_has_biases` tells
    whether the last entry of a vector is a bias.
    """

    def fold_in(self, rows):
        coef = self.solve(rows, rows.data - self.offsets(rows)).coef
        coef = coef.to(self.item_factors.dtype)
        if not self.fitted._has_biases:
            return FactorState.of(coef, coef.new_zeros(len(coef)))
        return FactorState.split(coef)

    def left_out(self, rows):
        offsets = self.offsets(rows)
        left_out = self.solve(rows, rows.data - offsets, leave_one_out=True).left_out
        assert left_out is not None
        return left_out.cpu().numpy() + offsets

    def user_parts(self, case):
        rows, vectors = case.rows, self.design()
        penalty = positive_penalty(self.fitted._lambda_u, torch.as_tensor(vectors))
        precision = penalty * np.eye(vectors.shape[1])
        z = vectors[rows.indices]
        weights = rating_weights(self.fitted, case)[:, np.newaxis]
        targets = (rows.data - self.offsets(rows))[:, np.newaxis]
        ids = self.fitted.items_[rows.indices]
        found = solve_parts(
            precision + z.T @ (weights * z),
            ("rated item", ids, weights * targets * z),
            *self.prior_parts(case, precision),
        )
        if not self.fitted._has_biases:
            no_bias = np.zeros((len(found.labels), 1))
            found = Parts(found.labels, np.hstack([found.vectors, no_bias]))
        return completed_by_fit(found, case)

    def prior_parts(self, case: Case, precision: np.ndarray) -> list[PartGroup]:
        """Parts of the prior mean of a user, times the prior precision."""
        return []

    def std_at(self, user, item):
        raise ValueError(_NO_STD)

    def std(self, rows):
        raise ValueError(_NO_STD)

    def offsets(self, rows) -> np.ndarray:
        """Return the part of each rating that is independent of the user's vector."""
        biases = self.fitted.item_biases_[rows.indices]
        return self.fitted.intercept_ + biases.astype(np.float64)

    def solve(self, rows, targets, leave_one_out=False) -> RowSolutions:
        """Solve for the vectors of new users by ridge regression on the targets."""
        design, penalty = self._ridge
        return solve_rows(
            self.tensor(rows.indptr),
            self.tensor(rows.indices),
            self.tensor(targets),
            design,
            penalty,
            intercept=False,
            leave_one_out=leave_one_out,
        )

    @functools.cached_property
    def _ridge(self) -> tuple[Tensor, float]:
        """Design matrix, which stays on the device, and penalty."""
        design = self.tensor(self.design())
        return design, positive_penalty(self.fitted._lambda_u, design)

    def design(self) -> np.ndarray:
        """Return the design matrix: item factors, and a column of 1 for a bias."""
        factors = self.fitted.item_factors_.astype(np.float64)
        if not self.fitted._has_biases:
            return factors
        return np.column_stack([factors, np.ones(len(factors))])


def rating_weights(fitted: Any, case: Case) -> np.ndarray:
    """Weights of the ratings of a user; 1 for a new user."""
    weights = getattr(fitted, "_rating_weights", None)
    if weights is None or case.user is None:
        return np.ones(case.rows.nnz)
    start, end = fitted._seen.indptr[case.user : case.user + 2]
    return weights[start:end].astype(np.float64)


def completed_by_fit(parts: Parts, case: Case) -> Parts:
    """Parts of a user, with what the vector of the fit has in addition to them."""
    if case.user is None or case.rows.nnz == 0:
        return parts
    return parts.completed(_double(case.state.joined())[0], "remainder")


def _double(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().astype(np.float64)
