"""Fitted restricted Boltzmann machines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._core.batches import damped_means, damped_means_without
from .._core.chunks import row_chunks
from .._core.softmax import SoftmaxSolutions, solve_softmax_rows
from .._core.sparse import Pattern, sddmm
from .._prediction import Contribution, Model
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

    effects : Tensor of shape (n_users,)
        Effects of the users; 0 without a baseline.
    """

    weights: Tensor
    biases: Tensor
    effects: Tensor


class HiddenState(NamedTuple):
    """Users as cases.

    Attributes
    ----------
    hidden : Tensor of shape (n_users, n_hidden)
        Probabilities of the users' hidden units.

    effects : Tensor of shape (n_users,)
        Effects of the users; 0 without a baseline.
    """

    hidden: Tensor
    effects: Tensor


class RBM(Model):
    """RBM of either kind, which predicts the mean of the levels, plus effects."""

    # Whether users are the visible units
    is_item: bool

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        self.levels = self.tensor(fitted.levels_)
        self.width = len(self.levels)
        self.machine = fitted_machine(fitted, device).requires_grad_(False)
        self.has_effects = fitted.user_effects_ is not None
        n_users, n_items = len(fitted.users_), len(fitted.items_)
        users, items = np.zeros(n_users), np.zeros(n_items)
        if self.has_effects:
            users, items = fitted.user_effects_, fitted.item_effects_
        self.user_effects, self.item_effects = self.tensor(users), items

    def expected(self, logits: Tensor) -> np.ndarray:
        """Expected levels, given the logits of the levels in the last axis."""
        probabilities = torch.softmax(logits.double(), -1)
        return (probabilities @ self.levels).cpu().numpy()

    def expected_at(
        self, pattern: Pattern, hidden: Tensor, weights: Tensor, biases: Tensor
    ) -> np.ndarray:
        """Expected levels of pairs of a case and a visible unit.

        Parameters
        ----------
        pattern : Pattern of shape (n_users, n_items)
            The pairs.

        hidden, weights, biases : Tensor
            Hidden units of the cases, weights and biases of the visible units. One side
            of the pattern are cases, the other one visible units.
        """
        h = hidden - self.machine.center
        unit = pattern.row if self.is_item else pattern.col
        sums = [
            sddmm(pattern, *((W, h) if self.is_item else (h, W)))
            for W in weights.unbind(1)
        ]
        logits, found = torch.stack(sums, 1), np.empty(pattern.nnz)
        for part in row_chunks(len(found), self.width):
            found[part] = self.expected(logits[part] + biases[unit[part]])
        return found

    def contributions(self, case, by):
        at = np.array([0]), np.array([case.item])
        score = float(self.scores_at(case.state, *at)[0])
        user, item = float(case.state.effects[0]), float(self.item_effects[case.item])
        return [
            Contribution("mean", "", 0.0),
            Contribution("user bias", "", user),
            Contribution("item bias", "", item),
            Contribution("network", "", score - user - item),
        ]

    def effects_at(self, state, row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Sums of the effects of pairs of a row of the state and an item."""
        return state.effects.cpu().numpy()[row] + self.item_effects[item]

    def effects(self, state) -> np.ndarray:
        """Sums of the effects of all users of a state and all items."""
        return state.effects.cpu().numpy()[:, np.newaxis] + self.item_effects

    def residuals(self, rows) -> Tensor:
        """Ratings less the effects of their items, in double precision."""
        return self.tensor(rows.data - self.item_effects[rows.indices])

    def new_effects(self, rows) -> Tensor:
        """Effects of new users."""
        residuals = self.residuals(rows)
        if not self.has_effects:
            return residuals.new_zeros(rows.shape[0])
        return damped_means(self.pattern(rows), residuals, self.fitted._lambda_u)

    def effects_without(self, rows) -> Tensor:
        """Effect of the user of each rating, estimated from the other ratings."""
        residuals = self.residuals(rows)
        if not self.has_effects:
            return torch.zeros_like(residuals)
        return damped_means_without(
            self.pattern(rows), residuals, self.fitted._lambda_u
        )

    def places(self, residuals: Tensor, effects: Tensor) -> Tensor:
        """Levels of residuals, less the effect of the user of each."""
        own = (residuals - effects).cpu().numpy() - self.fitted._shift
        levels = nearest_levels(self.fitted.levels_, own)
        return torch.as_tensor(levels, device=self.device)

    def seen_by(self, rows) -> tuple[Pattern, Tensor]:
        """Visible units of rows of ratings: their pattern and their levels."""
        pattern = self.pattern(rows)
        effects = self.new_effects(rows).index_select(0, pattern.row)
        return pattern, self.places(self.residuals(rows), effects)


class ItemRBM(RBM):
    """RBM of items: users are visible units, new users are softmax regressions."""

    is_item = True

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        weights, biases = fitted.weights_, fitted.visible_biases_
        self.users = VisibleState(
            self.tensor(weights), self.tensor(biases), self.user_effects
        )
        self.hidden = self.tensor(fitted.hidden_probabilities_)

    def factors(self, side):
        return self.transform(self.users) if side == "user" else self.hidden

    def transform(self, state):
        return state.weights.flatten(1).cpu().numpy()

    def scores_at(self, state, row, item):
        pattern = self.pattern_of_pairs(len(state.weights), row, item)
        levels = self.expected_at(pattern, self.hidden, state.weights, state.biases)
        return levels + self.effects_at(state, row, item)

    def scores(self, state):
        hidden = self.hidden - self.machine.center
        logits = state.weights @ hidden.T + state.biases.unsqueeze(2)
        return self.expected(logits.transpose(1, 2)) + self.effects(state)

    def fold_in(self, rows):
        coef = self._solve(rows).coef.to(self.hidden.dtype)
        if self.has_effects:
            weights, biases = coef, self.machine.visible_bias[:1].expand(len(coef), -1)
        else:
            weights, biases = coef[..., :-1], coef[..., -1]
        return VisibleState(
            weights.contiguous(), biases.contiguous(), self.new_effects(rows)
        )

    def left_out(self, rows):
        logits = self._solve(rows, leave_one_out=True).left_out
        assert logits is not None
        effects = self.effects_without(rows).cpu().numpy()
        return self.expected(logits) + effects + self.item_effects[rows.indices]

    @torch.no_grad()
    def _solve(self, rows, leave_one_out=False) -> SoftmaxSolutions:
        """Weights of new users, shrunk toward the mean of the fitted ones.

        The last coefficients are biases, but with effects biases are given.
        """
        fitted = self.fitted
        is_known = np.diff(fitted._seen.indptr) > 0
        features = self.hidden.double() - self.machine.center
        prior = self.tensor(fitted.weights_[is_known].mean(0)).double()
        alpha = max(fitted._alpha, _SMALLEST_PENALTY)
        penalty = features.new_full((features.shape[1],), alpha)
        biases, intercept = fitted.visible_biases_[is_known].mean(0), None
        if self.has_effects:
            intercept = self.tensor(fitted.visible_biases_[0]).double()
        else:
            ones = features.new_ones(len(features), 1)
            features = torch.cat([features, ones], 1)
            biases = self.tensor(biases).double().unsqueeze(1)
            prior = torch.cat([prior, biases], 1)
            penalty = torch.cat([penalty, penalty.new_full((1,), _BIAS_PENALTY)])
        return solve_softmax_rows(
            self.tensor(rows.indptr),
            self.tensor(rows.indices),
            self.seen_by(rows)[1],
            features,
            penalty,
            prior,
            intercept=intercept,
            leave_one_out=leave_one_out,
        )


class UserRBM(RBM):
    """RBM of users: items are visible units."""

    is_item = False

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        hidden = self.tensor(fitted.hidden_probabilities_)
        self.users = HiddenState(hidden, self.user_effects)
        self.weights = self.tensor(fitted.weights_)
        self.biases = self.tensor(fitted.visible_biases_)

    def factors(self, side):
        return self.transform(self.users) if side == "user" else self.weights.flatten(1)

    def transform(self, state):
        return state.hidden.cpu().numpy()

    def scores_at(self, state, row, item):
        pattern = self.pattern_of_pairs(len(state.hidden), row, item)
        levels = self.expected_at(pattern, state.hidden, self.weights, self.biases)
        return levels + self.effects_at(state, row, item)

    def scores(self, state):
        logits = (state.hidden - self.machine.center) @ self.machine.weights.T
        logits = logits.view(-1, *self.biases.shape) + self.biases
        return self.expected(logits) + self.effects(state)

    def fold_in(self, rows):
        return HiddenState(
            self.machine.hidden(*self.seen_by(rows)), self.new_effects(rows)
        )

    def left_out(self, rows):
        if self.has_effects:
            return self._left_out_with_effects(rows)
        left_out = self.machine.leave_one_out(*self.seen_by(rows))
        ratings = np.empty(rows.nnz)
        for part in row_chunks(rows.nnz, self.weights[0].numel()):
            ratings[part] = self.expected(left_out(part))
        return ratings

    def _left_out_with_effects(self, rows):
        """Predict each rating from the others, whose levels change with the effect."""
        pattern, residuals = self.pattern(rows), self.residuals(rows)
        effects = self.effects_without(rows)
        ratings = effects.cpu().numpy() + self.item_effects[rows.indices]
        longest = int(pattern.crow.diff().max())
        width = max(self.weights[0].numel(), longest)
        for part in row_chunks(rows.nnz, width):
            # The row of each rating, then the same without the rating itself
            whole, entries = pattern.rows(pattern.row[part].long())
            is_other = entries != whole.row + part.start
            crow = whole.crow - torch.arange(len(whole.crow), device=self.device)
            others = Pattern(crow, whole.col[is_other], whole.shape)
            places = self.places(
                residuals[entries[is_other]], effects[part][others.row.long()]
            )
            hidden = self.machine.hidden(others, places)
            unit = rows.indices[part]
            own = self.pattern_of_pairs(len(unit), np.arange(len(unit)), unit)
            ratings[part] += self.expected_at(own, hidden, self.weights, self.biases)
        return ratings
