"""Damped effects of users and items, to which a network adds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._core.collectives import ALONE, Group
from .._data.ratings import Ratings, take_in_chunks
from .._factorization.baseline import estimate_penalties, solve_effects


class Effects(NamedTuple):
    """Damped effects that the network adds to.

    Attributes
    ----------
    users, items : ndarray of shape (n_users,) and (n_items,)
        Effects of users and of items.

    lambda_u, lambda_v : float
        Penalties on the effects of users and of items.
    """

    users: np.ndarray
    items: np.ndarray
    lambda_u: float
    lambda_v: float

    @classmethod
    def of(cls, ratings: Ratings, mean: float, group: Group = ALONE) -> Effects:
        """Estimate the effects in the ratings of all ranks with a known mean."""
        penalties = estimate_penalties(ratings, mean, group)
        return cls(*solve_effects(ratings, mean, *penalties, group), *penalties)

    def at(self, ratings: Ratings) -> np.ndarray:
        """Sum of both effects for each rating."""
        effects = np.repeat(self.users, np.diff(ratings.indptr))
        effects += take_in_chunks(self.items, ratings.indices)
        return effects
