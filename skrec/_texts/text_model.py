"""Fitted factorizations that predict ratings of items from their texts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .._core.ridge import positive_penalty
from .._data.ratings import PRIOR_RATINGS, row_numbers
from .._factorization.models import RidgeModel


class TextDistances:
    """Differences between item vectors and the predictions from their texts.

    Users rate items they chose, so their ratings are higher on average than the texts
    alone predict. For items that have a text but no ratings, the mean difference over
    the items that a user has rated corrects this.

    Parameters
    ----------
    fitted : object
        Estimator, or an object with its attributes.
    """

    def __init__(self, fitted: Any):
        factors = fitted.item_factors_ - fitted.text_factors_
        biases = fitted.item_biases_ - fitted.text_biases_
        self.is_compared = (fitted._has_text & fitted._is_rated).astype(factors.dtype)
        vectors = np.column_stack([factors, biases])
        self.vectors = vectors * self.is_compared[:, np.newaxis]

    def means(self, rows: sp.csr_array) -> np.ndarray:
        """Mean differences over the items of each row, shrunk toward 0.

        Parameters
        ----------
        rows : csr_array of shape (n_rows, n_items)
            Weight of each item.

        Returns
        -------
        means : ndarray of shape (n_rows, n_factors + 1)
            Mean differences of factors and of biases.
        """
        counts = rows @ self.is_compared
        return (rows @ self.vectors) / (counts + PRIOR_RATINGS)[:, np.newaxis]

    def biases(self, rows: sp.csr_array, factors: np.ndarray) -> np.ndarray:
        """Mean differences as ratings, given users' factors, of shape (n_rows,)."""
        means = self.means(rows)
        return (means[:, :-1] * factors).sum(axis=1) + means[:, -1]


class TextState(NamedTuple):
    """Parameters of users.

    Attributes
    ----------
    factors : Tensor of shape (n_users, n_factors)
        Factors of the users.

    biases : Tensor of shape (n_users,)
        Biases of the users.

    text_biases : Tensor of shape (n_users,)
        Corrections added for items that have a text but no ratings.
    """

    factors: Tensor
    biases: Tensor
    text_biases: Tensor


class TextModel(RidgeModel):
    """Factor model in which items may have a text but no ratings."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        text_biases = self.tensor(fitted.user_text_biases_)
        self.users = TextState(self.users.factors, self.users.biases, text_biases)
        self.is_text_only = fitted._has_text & ~fitted._is_rated
        self.distances = None
        if fitted.text_factors_ is not None:
            self.distances = TextDistances(fitted)

    def sums_at(self, state, pattern):
        sums = super().sums_at(state, pattern)
        is_text_only = self.tensor(self.is_text_only).index_select(0, pattern.col)
        biases = state.text_biases.index_select(0, pattern.row)
        sums += (biases * is_text_only).cpu()
        return sums

    def all_sums(self, state):
        sums = super().all_sums(state)
        text_only = torch.as_tensor(np.flatnonzero(self.is_text_only))
        sums[:, text_only.to(self.device)] += state.text_biases.unsqueeze(1)
        return sums

    def fold_in(self, rows):
        factors, biases = super().fold_in(rows)
        if self.distances is None:
            return TextState(factors, biases, torch.zeros_like(biases))
        text_biases = self.distances.biases(_ones(rows), factors.cpu().numpy())
        return TextState(factors, biases, self.tensor(text_biases))

    def left_out(self, rows):
        left_out = super().left_out(rows)
        text_only = self.is_text_only[rows.indices]
        if text_only.any():
            biases = self._left_out_text_biases(rows, rows.data - left_out)
            left_out[text_only] += biases[text_only]
        return left_out

    def _left_out_text_biases(self, rows, left_out_errors) -> np.ndarray:
        """Text bias of each row without each of its ratings (leave-one-out).

        This holds for ratings of items that have a text but no ratings in `fit`.
        Leaving out one of them, with error e, changes only the row's vector, which
        becomes ``w - e inv(A) z``. The text bias is the product of that vector and a
        direction d. The ridge regression of ``Z d`` on Z has the residuals
        ``penalty * z' inv(A) d``.
        """
        assert self.distances is not None
        row, design = row_numbers(rows), self.design()
        directions = self.distances.means(_ones(rows))
        if self.fitted._has_biases:
            directions[:, -1] = 0
        else:
            directions = directions[:, :-1]
        products = (directions[row] * design[rows.indices]).sum(1)
        coef = self.solve(rows, products).coef.cpu().numpy()
        residuals = products - (coef[row] * design[rows.indices]).sum(1)
        penalty = positive_penalty(self.fitted._lambda_u, torch.as_tensor(design))
        whole = self.fold_in(rows).text_biases.cpu().numpy()[row]
        return whole - residuals / penalty * left_out_errors


def _ones(rows: sp.csr_array) -> sp.csr_array:
    """Matrix with a 1 for each stored rating, including stored zeros."""
    ones = np.ones(rows.nnz, bool)
    return sp.csr_array((ones, rows.indices, rows.indptr), shape=rows.shape)
