"""Predictions, split into contributions that sum to them.

The vector of a user, with its bias as the last entry, is a sum of parts: one for each
rated item, one for each block of features, and so on. So is the vector of an item. The
product of two sums is the sum over either side's parts, each times the whole vector of
the other side.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ._prediction import Case, Contribution, Predictor
from ._serving import rows_of_ratings

# Kinds of parts whose biases are reported as one: that of the user or of the item.
_SHARED = (
    "rated item",
    "average user",
    "average item",
    "item ratings",
    "factors",
    "network",
    "remainder",
)


# Kind, names and vectors of some parts
PartGroup: TypeAlias = tuple[str, Any, np.ndarray]


class Parts(NamedTuple):
    """Vector of a user or an item as a sum of named parts.

    Attributes
    ----------
    labels : list of tuple (str, object)
        Kind and name of each part.

    vectors : ndarray of shape (n_parts, k + 1)
        Parts; the last entries are those of the bias.
    """

    labels: list[tuple[str, Any]]
    vectors: np.ndarray

    @classmethod
    def of(cls, *groups: PartGroup) -> Parts:
        """Join groups, each a kind, the names of its parts and their vectors."""
        labels = [(kind, name) for kind, names, _ in groups for name in names]
        return cls(labels, np.concatenate([vectors for *_, vectors in groups]))

    def completed(self, total: np.ndarray, kind: str, name: str = "") -> Parts:
        """Add the part with which the others sum to a vector."""
        rest = total - self.vectors.sum(axis=0)
        return Parts([*self.labels, (kind, name)], np.vstack([self.vectors, rest]))

    def refined(self, finer: dict[tuple[str, str], Parts]) -> Parts:
        """Replace some parts by finer ones and what these leave."""
        found = []
        for label, vector in zip(self.labels, self.vectors, strict=True):
            if label in finer:
                found.append(finer[label].completed(vector, *label))
            else:
                found.append(Parts([label], vector[np.newaxis]))
        return Parts(
            [label for parts in found for label in parts.labels],
            np.concatenate([parts.vectors for parts in found]),
        )

    def contributions(self, side: str, other: np.ndarray | None) -> list[Contribution]:
        """Contributions of this side's biases, and of the product if it is split here.

        Parameters
        ----------
        side : {"user", "item"}
            This side.

        other : ndarray of shape (k,) or None
            Factors of the other side; None if the product is split there.
        """
        is_shared = np.array([kind in _SHARED for kind, _ in self.labels])
        values = np.where(is_shared, 0.0, self.vectors[:, -1])
        if other is not None:
            values = values + self.vectors[:, :-1] @ other
        bias = float(self.vectors[is_shared, -1].sum())
        return [
            Contribution(f"{side} bias", "", bias),
            *(
                Contribution(*label, float(value))
                for label, value in zip(self.labels, values, strict=True)
            ),
        ]


def solve_parts(precision: np.ndarray, *groups: PartGroup) -> Parts:
    """Split a posterior mean into parts.

    Parameters
    ----------
    precision : ndarray of shape (k, k)
        Precision matrix A.

    *groups : tuple of (str, sequence, ndarray of shape (n_parts, k))
        Kinds, names and vectors whose sum is A times the mean.
    """
    labels, vectors = Parts.of(*groups)
    return Parts(labels, np.linalg.solve(precision, vectors.T).T)


def split_product(
    users: Parts, items: Parts, by: Literal["user", "item"]
) -> list[Contribution]:
    """Split biases plus the product of factors into the parts of both sides."""
    p, q = (parts.vectors[:, :-1].sum(axis=0) for parts in (users, items))
    own = users.contributions("user", q if by == "user" else None)
    others = items.contributions("item", p if by == "item" else None)
    return [own[0], others[0], *own[1:], *others[1:]]


def explain(
    predictor: Predictor, user: Any, item: Any, by: Any, item_text: str | None
) -> pd.Series:
    """Split an unclipped prediction; see `BaseRecommender.explain`.

    Parameters
    ----------
    predictor : Predictor
        Predictor of the model.

    user : object or csr_array of shape (1, n_items)
        Id of a user, or the ratings of a new user.

    item : object
        Id of an item.

    by : {"user", "item"}
        Side whose parts split the product of the factors.

    item_text : str or None
        Text of the item, to be split.
    """
    fitted, scale = predictor.fitted, predictor.scale
    place = int(predictor.item_position(item))
    is_table = isinstance(user, pd.DataFrame)
    if is_table or sp.issparse(user):
        position = None
        if is_table:
            _, rows = rows_of_ratings(predictor, user, name="user")
        else:
            rows = predictor.check_rows(user, name="user")
        if rows.shape[0] != 1:
            raise ValueError(f"user must be one user, got {rows.shape[0]} rows.")
        users = predictor.users_of_rows(rows)
    else:
        position = int(predictor.user_position(user))
        users = predictor.known_users(np.array([position]))
        rows = predictor.seen_by(np.array([position]))
    finer = {}
    if item_text is not None:
        if place < 0:
            raise ValueError(f"item_text is given, but the model has no item {item!r}.")
        finer = fitted._split_text(place, item_text)
    mean = fitted.global_mean_
    if place < 0 or not predictor.is_modeled[place]:
        found = [("user bias", "", users.means[0] - mean)]
    elif not users.is_known[0]:
        found = [("item bias", "", fitted.item_means_[place] - mean)]
    else:
        rows = predictor.informative(rows)
        case = Case(users.state, rows, position, place, finer)
        first, *others = predictor.model.contributions(case, by)
        mean = scale.mean + scale.std * first.value
        found = [(kind, name, scale.std * value) for kind, name, value in others]
    return _as_series([("mean", "", mean), *found])


def _as_series(found: list[tuple[str, Any, float]]) -> pd.Series:
    """Contributions by kind and name, the largest of a kind first, without zeros."""
    kinds = list(dict.fromkeys(kind for kind, *_ in found))
    found = [part for part in found if part[2] != 0 or part[0] == "mean"]
    found.sort(key=lambda part: (kinds.index(part[0]), -abs(part[2])))
    index = pd.MultiIndex.from_arrays(
        [
            [kind for kind, *_ in found],
            pd.Index([name for _, name, _ in found], dtype=object, tupleize_cols=False),
        ],
        names=["kind", "name"],
    )
    return pd.Series([value for *_, value in found], index, name="contribution")
