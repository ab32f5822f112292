"""Fitted restricted Boltzmann machines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._core.chunks import row_chunks
from .._core.softmax import SoftmaxSolutions, solve_softmax_rows
from .._core.sparse import Pattern
from .._prediction import Model
from .rbm_trainer import fitted_machine, nearest_levels

# Penalty that shrinks the biases of a new user toward the mean of the fitted users, and
# smallest penalty on the weights that guarantees a unique solution.
_BIAS_PENALTY, _SMALLEST_PENALTY = 1.0, 1e-3


class VisibleState(NamedTuple):
    """Users as visible units.

    Attributes
    ----------
    weights : Tensor of shape (n_users, n_levels, n_hidden)
        Weights of the users.

    biases : Tensor of shape (n_users, n_levels)
        Biases of the users.
    """

    weights: Tensor
    biases: Tensor


class HiddenState(NamedTuple):
    """Users as cases.

    Attributes
    ----------
    hidden : Tensor of shape (n_users, n_hidden)
        Probabilities of the users' hidden units.
    """

    hidden: Tensor


class RBM(Model):
    """RBM of either kind, which predicts the mean of the levels."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        self.levels = self.tensor(fitted.levels_)
        self.width = len(self.levels)

    def expected(self, logits: Tensor) -> np.ndarray:
        """Expected ratings, given the logits of the levels in the last axis."""
        probabilities = torch.softmax(logits.double(), -1)
        return (probabilities @ self.levels).cpu().numpy()

    def expected_at(
        self, hidden: Tensor, at: np.ndarray, weights: Tensor, biases: Tensor, unit
    ) -> np.ndarray:
        """Expected ratings of pairs of a case and a visible unit."""
        ratings = np.empty(len(at))
        for part in row_chunks(len(at), weights[0].numel()):
            h, v = hidden[at[part]], unit[part]
            sums = torch.einsum("nf,nlf->nl", h, weights[v]) + biases[v]
            ratings[part] = self.expected(sums)
        return ratings

    def seen_by(self, rows) -> tuple[Pattern, Tensor]:
        """Visible units of rows of ratings: their pattern and their levels."""
        levels = nearest_levels(self.fitted.levels_, rows.data)
        return self.pattern(rows), torch.as_tensor(levels, device=self.device)


class ItemRBM(RBM):
    """RBM of items: users are visible units, new users are softmax regressions."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        weights, biases = fitted.weights_, fitted.visible_biases_
        self.users = VisibleState(self.tensor(weights), self.tensor(biases))
        self.hidden = self.tensor(fitted.hidden_probabilities_)

    def transform(self, state):
        return state.weights.flatten(1).cpu().numpy()

    def scores_at(self, state, row, item):
        return self.expected_at(self.hidden, item, state.weights, state.biases, row)

    def scores(self, state):
        logits = state.weights @ self.hidden.T + state.biases.unsqueeze(2)
        return self.expected(logits.transpose(1, 2))

    def fold_in(self, rows):
        coef = self._solve(rows).coef.to(self.hidden.dtype)
        return VisibleState(coef[..., :-1].contiguous(), coef[..., -1].contiguous())

    def left_out(self, rows):
        logits = self._solve(rows, leave_one_out=True).left_out
        assert logits is not None
        return self.expected(logits)

    @torch.no_grad()
    def _solve(self, rows, leave_one_out=False) -> SoftmaxSolutions:
        """Weights of new users, shrunk toward the mean of the fitted ones."""
        fitted = self.fitted
        hidden = fitted.hidden_probabilities_
        features = np.column_stack([hidden, np.ones(len(hidden))]).astype(np.float64)
        is_known = np.diff(fitted._seen.indptr) > 0
        mean = fitted.weights_[is_known].mean(0)
        bias = fitted.visible_biases_[is_known].mean(0)
        prior = np.column_stack([mean, bias]).astype(np.float64)
        penalty = np.full(prior.shape[1], max(fitted._alpha, _SMALLEST_PENALTY))
        penalty[-1] = _BIAS_PENALTY
        return solve_softmax_rows(
            self.tensor(rows.indptr),
            self.tensor(rows.indices),
            self.seen_by(rows)[1],
            self.tensor(features),
            self.tensor(penalty),
            self.tensor(prior),
            leave_one_out=leave_one_out,
        )


class UserRBM(RBM):
    """RBM of users: items are visible units."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        self.machine = fitted_machine(fitted, device).requires_grad_(False)
        self.users = HiddenState(self.tensor(fitted.hidden_probabilities_))
        self.weights = self.tensor(fitted.weights_)
        self.biases = self.tensor(fitted.visible_biases_)

    def transform(self, state):
        return state.hidden.cpu().numpy()

    def scores_at(self, state, row, item):
        return self.expected_at(state.hidden, row, self.weights, self.biases, item)

    def scores(self, state):
        logits = state.hidden @ self.machine.weights.T
        return self.expected(logits.view(-1, *self.biases.shape) + self.biases)

    def fold_in(self, rows):
        return HiddenState(self.machine.hidden(*self.seen_by(rows)))

    def left_out(self, rows):
        left_out = self.machine.leave_one_out(*self.seen_by(rows))
        ratings = np.empty(rows.nnz)
        for part in row_chunks(rows.nnz, self.weights[0].numel()):
            ratings[part] = self.expected(left_out(part))
        return ratings
