"""Fitted AutoRec models."""

from __future__ import annotations

import torch
from torch import Tensor

from .._core.networks import Autoencoder, OutputActivation
from .._core.ridge import RowSolutions, positive_penalty, solve_rows
from .._factorization.models import FactorModel, FactorState
from .autorec_trainer import fitted_weights


class AutoRecModel(FactorModel):
    """AutoRec of either kind: products of codes and decoder rows."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        name = fitted._activations[1]
        self.output = OutputActivation(name, *fitted.rating_range_)

    def link(self, sums):
        return self.output(sums)


class ItemAutoRec(AutoRecModel):
    """AutoRec of items: new users' decoder rows are ridge regressions on the codes.

    This is the solution to which training would converge for the row.
    """

    @torch.no_grad()
    def fold_in(self, rows):
        solutions = self._solve(rows)
        dtype = self.item_factors.dtype
        return FactorState(solutions.coef.to(dtype), solutions.intercept.to(dtype))

    def left_out(self, rows):
        left_out = self._solve(rows, leave_one_out=True).left_out
        assert left_out is not None
        return left_out.cpu().numpy()

    def _solve(self, rows, leave_one_out=False) -> RowSolutions:
        factors, output = self.item_factors.double(), self.output
        return solve_rows(
            self.tensor(rows.indptr),
            self.tensor(rows.indices),
            self.tensor(rows.data),
            factors,
            positive_penalty(
                self.fitted._alpha / 2, factors
            ),  # the loss has no factor 1/2
            link=None if output.is_identity else output,
            start=output.start(self.fitted.global_mean_),
            leave_one_out=leave_one_out,
        )


class UserAutoRec(AutoRecModel):
    """AutoRec of users: the network also encodes new users."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        weights, activation = fitted_weights(fitted), fitted._activations[0]
        self.network = Autoencoder(weights, activation, self.output, device)

    @torch.no_grad()
    def fold_in(self, rows):
        pattern, ratings = self.pattern(rows), self._ratings(rows)
        codes = self.network.encode(pattern, self.fitted._input(pattern, ratings))
        return FactorState(codes, codes.new_zeros(len(codes)))

    def left_out(self, rows):
        left_out = self.network.leave_one_out(
            self.pattern(rows), self._ratings(rows), self.fitted._input
        )
        return left_out.cpu().numpy()

    def _ratings(self, rows) -> Tensor:
        return self.tensor(rows.data).to(self.item_factors.dtype)
