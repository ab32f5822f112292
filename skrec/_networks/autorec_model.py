"""Fitted AutoRec models."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .._core.batches import damped_means
from .._core.networks import Autoencoder, OutputActivation
from .._core.ridge import positive_penalty, solve_rows
from .._factorization.models import FactorModel, FactorState
from .._prediction import Contribution
from .autorec_trainer import fitted_weights


class AutoRecModel(FactorModel):
    """AutoRec of either kind: products of codes and decoder rows, plus biases.

    With a baseline, the biases are effects of users and items.
    """

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        name = fitted._activations[1]
        self.output = OutputActivation(name, *fitted._output_range)
        self.has_effects = fitted._lambda_u is not None

    product_kind = "network"

    def contributions(self, case, by):
        if self.output.is_identity:
            return super().contributions(case, by)
        score = float(self.scores_at(case.state, *np.array([[0], [case.item]]))[0])
        return [
            Contribution("mean", "", self.fitted.intercept_),
            Contribution("network", "", score - self.fitted.intercept_),
        ]

    def link(self, sums):
        if self.output.is_identity:
            return sums
        shift, unit = self.fitted._output_scale
        return shift + unit * self.output(sums)

    def residuals(self, rows) -> Tensor:
        """Ratings less the mean and the effects of their items, in double precision."""
        if not self.has_effects:
            return self.tensor(rows.data)
        items = self.fitted.item_effects_[rows.indices]
        return self.tensor(rows.data - self.fitted.intercept_ - items)


class ItemAutoRec(AutoRecModel):
    """AutoRec of items: new users' decoder rows are ridge regressions on the codes.

    This is the solution to which training would converge for the row.
    """

    @torch.no_grad()
    def fold_in(self, rows):
        solutions, scale = self._solve(rows)
        coef, biases = solutions.coef, solutions.intercept
        if self.has_effects:
            coef, biases = coef[:, :-1] * scale, coef[:, -1]
        dtype = self.item_factors.dtype
        coef = coef.to(dtype).contiguous()
        return FactorState.of(coef, biases.to(dtype).contiguous())

    def left_out(self, rows):
        solutions, _ = self._solve(rows, leave_one_out=True)
        left_out = solutions.left_out.cpu().numpy()
        if self.has_effects:
            left_out += self.fitted.intercept_ + self.fitted.item_effects_[rows.indices]
        elif not self.output.is_identity:
            shift, unit = self.fitted._output_scale
            left_out = shift + unit * left_out
        return left_out

    def _solve(self, rows, leave_one_out=False):
        """Solve for the decoder rows and biases of new users.

        Returns
        -------
        solutions : RowSolutions
            Solutions. With effects, the last coefficient is the effect of the user.

        scale : float
            Factor from the other coefficients to decoder weights.
        """
        fitted, output = self.fitted, self.output
        factors = self.item_factors.double()
        # The loss has no factor 1/2.
        penalty, scale = positive_penalty(fitted.alpha_ / 2, factors), 1.0
        targets, start = self.residuals(rows), 0.0
        if self.has_effects:
            # A column of ones for the effect, and codes scaled such that all
            # coefficients have the penalty of the effect
            scale = (fitted._lambda_u / penalty) ** 0.5
            ones = factors.new_ones(len(factors), 1)
            factors, penalty = torch.cat([factors * scale, ones], 1), fitted._lambda_u
        if not output.is_identity:
            shift, unit = fitted._output_scale
            targets = (targets - shift) / unit
            mean = float(fitted._scale.standardize(np.array(fitted.global_mean_)))
            start = output.start((mean - shift) / unit)
        solutions = solve_rows(
            self.tensor(rows.indptr),
            self.tensor(rows.indices),
            targets,
            factors,
            penalty,
            intercept=not self.has_effects,
            link=None if output.is_identity else output,
            start=start,
            leave_one_out=leave_one_out,
        )
        return solutions, scale


class UserAutoRec(AutoRecModel):
    """AutoRec of users: the network also encodes new users."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        weights, activation = fitted_weights(fitted), fitted._activations[0]
        self.network = Autoencoder(
            weights, activation, self.output, device, self.has_effects
        )

    @torch.no_grad()
    def fold_in(self, rows):
        pattern, ratings = self.pattern(rows), self.residuals(rows)
        biases = ratings.new_zeros(rows.shape[0])
        if self.has_effects:
            biases = damped_means(pattern, ratings, self.fitted._lambda_u)
            ratings = ratings - biases.index_select(0, pattern.row)
        dtype = self.item_factors.dtype
        codes = self.network.encode(
            pattern, self.fitted._input(pattern, ratings.to(dtype))
        )
        return FactorState.of(codes, biases.to(dtype))

    def left_out(self, rows):
        left_out = self.network.leave_one_out(
            self.pattern(rows),
            self.residuals(rows).to(self.item_factors.dtype),
            self.fitted._input,
            self.fitted._lambda_u,
        )
        if not self.output.is_identity:
            shift, unit = self.fitted._output_scale
            left_out = shift + unit * left_out
        return left_out.cpu().numpy() + self.fitted.intercept_
