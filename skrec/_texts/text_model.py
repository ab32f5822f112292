"""Fitted factorizations that predict ratings of items from their texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._core.collectives import ALONE, Group
from .._core.ridge import positive_penalty
from .._data.ratings import row_numbers
from .._explanation import Parts
from .._factorization.described import Distances, ones_at
from .._factorization.models import RidgeModel


class TextModel(RidgeModel):
    """Factor model in which items may have a text but no ratings."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        cold_biases = self.tensor(fitted.user_text_biases_)
        self.users = self.users._replace(cold_biases=cold_biases)
        self.distances = text_distances(fitted)

    def item_parts(self, case):
        vector, fitted, item = self.item_vector(case.item), self.fitted, case.item
        if fitted.text_factors_ is None or not fitted._is_described[item]:
            return super().item_parts(case)
        text = np.append(fitted.text_factors_[item], fitted.text_biases_[item])
        found = Parts.of(("text", [""], text[np.newaxis].astype(np.float64)))
        if not fitted._is_rated[item]:
            return found
        return found.completed(vector, "item ratings")

    def fold_in(self, rows):
        state = super().fold_in(rows)
        if self.distances is None:
            return state
        biases = self.distances.biases(ones_at(rows), state.factors.cpu().numpy())
        return state._replace(cold_biases=self.tensor(biases))

    def left_out(self, rows):
        left_out = super().left_out(rows)
        cold = self.is_cold[rows.indices]
        if cold.any():
            biases = self._left_out_cold_biases(rows, rows.data - left_out)
            left_out[cold] += biases[cold]
        return left_out

    def _left_out_cold_biases(self, rows, left_out_errors) -> np.ndarray:
        """Text bias of each row without each of its ratings (leave-one-out).

        This holds for ratings of items that have a text but no ratings in `fit`.
        Leaving out one of them, with error e, changes only the row's vector, which
        becomes ``w - e inv(A) z``. The text bias is the product of that vector and a
        direction d. The ridge regression of ``Z d`` on Z has the residuals
        ``penalty * z' inv(A) d``.
        """
        assert self.distances is not None
        row, design = row_numbers(rows), self.design()
        directions = self.distances.means(ones_at(rows))
        if self.fitted._has_biases:
            directions[:, -1] = 0
        else:
            directions = directions[:, :-1]
        products = (directions[row] * design[rows.indices]).sum(1)
        coef = self.solve(rows, products).coef.cpu().numpy()
        residuals = products - (coef[row] * design[rows.indices]).sum(1)
        penalty = positive_penalty(self.fitted._lambda_u, torch.as_tensor(design))
        whole = self.fold_in(rows).cold_biases.cpu().numpy()[row]
        return whole - residuals / penalty * left_out_errors


def text_distances(fitted: Any, group: Group = ALONE) -> Distances | None:
    """Differences between the item vectors and those of the texts, if there are any.

    The users may be dealt out to the ranks of a group.
    """
    if fitted.text_factors_ is None:
        return None
    described = np.column_stack([fitted.text_factors_, fitted.text_biases_])
    return Distances(fitted, described, group)
