"""Priors of the vectors of items, or of users: where their means come from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._core.conjugate_gradients import solve_columns
from .._core.normal_rows import implicit_values
from .._core.sparse import Pattern, spmm


class Prior:
    """A prior with mean zero, and the interface of all priors.

    A vector has the factors, followed by the bias where there are biases.
    """

    # Whether the objective settles: not where `fit` takes stochastic steps.
    settles = True

    def parameters(self) -> list[Tensor]:
        """All tensors that `fit` changes."""
        return []

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers that `fit` uses."""
        return []

    def generators(self) -> list[torch.Generator]:
        """The generators of random numbers that `fit` uses."""
        return []

    def means(self) -> Tensor | None:
        """The present means of shape (n, k), or None for zero."""
        return None

    def fit(self, vectors: Tensor, penalties: Tensor) -> None:
        """Improve the prior, given the vectors of shape (n, k) and their penalties."""

    def resume(self, vectors: Tensor, penalties: Tensor) -> None:
        """Start from the vectors of an earlier fit."""

    def penalty(self) -> float:
        """The penalty of the prior's own parameters in the objective."""
        return 0.0

    def attributes(self) -> dict[str, Any]:
        """The fitted attributes that belong to the prior."""
        return {}


class MeanPrior(Prior):
    """All vectors are shrunk toward their mean.

    Parameters
    ----------
    is_rated : Tensor of shape (n,), dtype bool
        Which vectors count in the mean.

    k : int
        The length of a vector.

    dtype : torch.dtype
        The precision.
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
        rated = penalties.clamp(min=eps) * self.is_rated  # a penalty of 0 has no mean
        self._means.copy_((rated @ vectors / rated.sum()).expand_as(self._means))

    def resume(self, vectors, penalties):
        self.fit(vectors, penalties)


class ImplicitPrior(Prior):
    """The mean of a user's vector is a sum over the items that the user has rated.

    Parameters
    ----------
    pattern : Pattern of shape (n_users, n_items)
        Who has rated what.

    links : Tensor of shape (n_items, k)
        The contribution of each item, which is changed in place.

    penalty : float
        The penalty of the links, positive.
    """

    def __init__(self, pattern: Pattern, links: Tensor, penalty: float):
        self.pattern, self.links, self._penalty = pattern, links, penalty
        self.values = implicit_values(pattern, links.dtype)

    def parameters(self):
        return [self.links]

    def means(self):
        return spmm(self.pattern, self.values, self.links)

    def fit(self, vectors, penalties):
        # The ridge regression of the vectors on who has rated what.
        transposed, values = self.pattern.transposed, self.values[self.pattern.order]
        penalties = penalties.unsqueeze(1)

        def times(x):
            image = penalties * spmm(self.pattern, self.values, x)
            return spmm(transposed, values, image) + self._penalty * x

        diagonal = spmm(transposed, values.square(), penalties) + self._penalty
        right = spmm(transposed, values, penalties * vectors)
        self.links.copy_(solve_columns(times, right, diagonal, self.links))

    def penalty(self):
        return self._penalty / 2 * float(self.links.square().sum())

    def attributes(self):
        return {"item_links_": self.links.cpu().numpy().copy()}
