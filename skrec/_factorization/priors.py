"""Priors of the vectors of items or users, which differ in their means."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._core.collectives import ALONE, Group
from .._core.conjugate_gradients import solve_columns
from .._core.normal_rows import implicit_values
from .._core.optimizers import Optimizer
from .._core.sparse import Pattern, spmm


class Prior:
    """Prior with mean zero, and the interface of all priors.

    A vector consists of the factors, followed by the bias if the model has biases.
    """

    # Whether the objective converges; it does not if `fit` takes stochastic steps.
    settles = True

    def parameters(self) -> list[Tensor]:
        """Return all tensors that `fit` changes."""
        return []

    def optimizers(self) -> list[Optimizer]:
        """Return the optimizers that `fit` uses."""
        return []

    def generators(self) -> list[torch.Generator]:
        """Return the random number generators that `fit` uses."""
        return []

    def means(self) -> Tensor | None:
        """Return the current means of shape (n, k), or None for zero means."""
        return None

    def fit(self, vectors: Tensor, penalties: Tensor) -> None:
        """Update the prior, given the vectors of shape (n, k) and their penalties."""

    def resume(self, vectors: Tensor, penalties: Tensor) -> None:
        """Initialize the prior from the vectors of a previous fit."""

    def penalty(self) -> Tensor | float:
        """Return the penalty on the prior's own parameters in the objective.

        A tensor is a scalar in double precision, on the device.
        """
        return 0.0

    def attributes(self) -> dict[str, Any]:
        """Return the fitted attributes that belong to the prior."""
        return {}


class MeanPrior(Prior):
    """Prior that shrinks all vectors toward their mean.

    Parameters
    ----------
    is_rated : Tensor of shape (n,), dtype bool
        Mask of the vectors that are included in the mean.

    k : int
        Length of a vector.

    dtype : torch.dtype
        Precision of the means.
    """

    def __init__(self, is_rated: Tensor, k: int, dtype: torch.dtype):
        self.is_rated = is_rated
        self._means = is_rated.new_zeros(len(is_rated), k, dtype=dtype)

    def parameters(self):
        return [self._means]

    def means(self):
        return self._means

    def fit(self, vectors, penalties):
        eps = torch.finfo(penalties.dtype).eps
        rated = penalties.clamp(min=eps) * self.is_rated  # avoid 0 / 0
        self._means.copy_((rated @ vectors / rated.sum()).expand_as(self._means))

    def resume(self, vectors, penalties):
        self.fit(vectors, penalties)


class ImplicitPrior(Prior):
    """Prior whose mean for a user is a sum over the items that the user has rated.

    Parameters
    ----------
    pattern : Pattern of shape (n_users, n_items)
        Positions of the ratings.

    links : Tensor of shape (n_items, k)
        Contribution of each item, changed in place.

    penalty : float
        Penalty on the links. Must be positive.

    group : Group
        Ranks that have the users.
    """

    def __init__(
        self, pattern: Pattern, links: Tensor, penalty: float, group: Group = ALONE
    ):
        self.pattern, self.links, self._penalty = pattern, links, penalty
        self.group = group
        self.values = implicit_values(pattern.crow.diff(), links.dtype)

    def parameters(self):
        return [self.links]

    def means(self):
        return self.values * spmm(self.pattern, None, self.links)

    def fit(self, vectors, penalties):
        # Ridge regression of the vectors on the pattern of ratings
        transposed, values = self.pattern.transposed, self.values
        penalties, total = penalties.unsqueeze(1), self.group.sum

        def times(x):
            image = penalties * values.square() * spmm(self.pattern, None, x)
            return total(spmm(transposed, None, image)) + self._penalty * x

        diagonal = total(spmm(transposed, None, values.square() * penalties))
        diagonal += self._penalty
        right = total(spmm(transposed, None, values * penalties * vectors))
        found = solve_columns(times, right, diagonal, self.links, group=self.group)
        self.links.copy_(found)

    def penalty(self):
        return self._penalty / 2 * self.links.square().sum().double()

    def attributes(self):
        return {"item_links_": self.links.cpu().numpy().copy()}
