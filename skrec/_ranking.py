"""Metrics of recommended lists, given held-out ratings."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from ._data.ids import Pairs, check_ids, check_pairs, positions_of
from ._data.ratings import check_ratings, is_matrix

_COLUMNS = ("user", "item")


class _Lists(NamedTuple):
    """Recommended lists, matched with held-out ratings.

    Attributes
    ----------
    row : ndarray of shape (n_entries,)
        Number of the user of each recommended item.

    rank : ndarray of shape (n_entries,)
        Its place in the user's list, from 0 to k - 1.

    is_hit : ndarray of shape (n_entries,), dtype bool
        Whether it is relevant to the user.

    n_relevant : ndarray of shape (n_users,)
        Number of relevant held-out items of each user, at least 1.
    """

    row: NDArray[np.int64]
    rank: NDArray[np.int64]
    is_hit: NDArray[np.bool_]
    n_relevant: NDArray[np.int64]

    def sums(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum a value of each recommended item over the hits of each user."""
        hits = self.row[self.is_hit]
        sums = np.bincount(hits, values[self.is_hit], len(self.n_relevant))
        return sums.astype(np.float64)


def precision_at_k(
    X: Any,
    y: ArrayLike | None,
    recommended: pd.DataFrame,
    *,
    k: int = 10,
    threshold: float | None = None,
) -> float:
    """Share of the first k recommended items that are relevant, mean over users.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
        User and item id of each held-out rating; or a matrix whose stored entries are
        these ratings, with row and column numbers as ids.

    y : array-like of shape (n_ratings,) or None
        Held-out ratings; None with a matrix.

    recommended : DataFrame with the columns "user" and "item"
        Recommended items of each user, best first, as `recommend` returns them. Users
        without a list count as users with an empty one.

    k : int, default=10
        Length of the lists; further items are ignored.

    threshold : float, default=None
        Smallest rating of a relevant item, in the unit of the ratings. None means the
        mean of y.

    Returns
    -------
    precision : float
        Mean over the users with at least one relevant held-out item. An item that the
        user has not rated counts as irrelevant.

    Raises
    ------
    TypeError, ValueError
        If no held-out rating is relevant, or if an argument is invalid.

    Examples
    --------
    >>> import pandas as pd
    >>> from skrec.metrics import precision_at_k
    >>> X, y = [["ann", "Up"], ["ann", "Alien"], ["bob", "Heat"]], [5, 1, 4]
    >>> lists = pd.DataFrame({
    ...     "user": ["ann", "ann", "bob", "bob"], "item": ["Up", "Heat", "Up", "Alien"]
    ... })
    >>> precision_at_k(X, y, lists, k=2)
    0.25
    """
    lists = _match(X, y, recommended, k, threshold)
    return _mean(lists.sums(np.ones(len(lists.row)))) / k


def recall_at_k(
    X: Any,
    y: ArrayLike | None,
    recommended: pd.DataFrame,
    *,
    k: int = 10,
    threshold: float | None = None,
) -> float:
    """Share of the relevant items that are among the first k, mean over users.

    Parameters
    ----------
    X, y, recommended, k, threshold
        As for `precision_at_k`.

    Returns
    -------
    recall : float
        Mean over the users with at least one relevant held-out item.

    Examples
    --------
    >>> import pandas as pd
    >>> from skrec.metrics import recall_at_k
    >>> X, y = [["ann", "Up"], ["ann", "Alien"], ["ann", "Heat"]], [5, 1, 4]
    >>> lists = pd.DataFrame({"user": ["ann", "ann"], "item": ["Up", "Alien"]})
    >>> recall_at_k(X, y, lists, k=2)
    0.5
    """
    lists = _match(X, y, recommended, k, threshold)
    return _mean(lists.sums(np.ones(len(lists.row))) / lists.n_relevant)


def hit_rate_at_k(
    X: Any,
    y: ArrayLike | None,
    recommended: pd.DataFrame,
    *,
    k: int = 10,
    threshold: float | None = None,
) -> float:
    """Share of the users with a relevant item among the first k.

    Parameters
    ----------
    X, y, recommended, k, threshold
        As for `precision_at_k`.

    Returns
    -------
    hit_rate : float
        Share of the users with at least one relevant held-out item.

    Examples
    --------
    >>> import pandas as pd
    >>> from skrec.metrics import hit_rate_at_k
    >>> X, y = [["ann", "Up"], ["bob", "Heat"]], [5, 5]
    >>> lists = pd.DataFrame({"user": ["ann", "bob"], "item": ["Up", "Alien"]})
    >>> hit_rate_at_k(X, y, lists)
    0.5
    """
    lists = _match(X, y, recommended, k, threshold)
    return _mean(lists.sums(np.ones(len(lists.row))) > 0)


def ndcg_at_k(
    X: Any,
    y: ArrayLike | None,
    recommended: pd.DataFrame,
    *,
    k: int = 10,
    threshold: float | None = None,
) -> float:
    """Normalized discounted cumulative gain of the first k items, mean over users.

    The gain of a relevant item is 1, divided by the binary logarithm of its place plus
    1. The sum is divided by that of a list that starts with all relevant items [1]_.

    Parameters
    ----------
    X, y, recommended, k, threshold
        As for `precision_at_k`.

    Returns
    -------
    ndcg : float
        Mean over the users with at least one relevant held-out item.

    See Also
    --------
    sklearn.metrics.ndcg_score : The same for dense matrices, with graded gains.

    References
    ----------
    .. [1] Kalervo Järvelin and Jaana Kekäläinen. 2002. "Cumulated Gain-Based Evaluation
       of IR Techniques". ACM Transactions on Information Systems 20(4).
       https://doi.org/10.1145/582415.582418

    Examples
    --------
    >>> import pandas as pd
    >>> from skrec.metrics import ndcg_at_k
    >>> X, y = [["ann", "Up"], ["ann", "Alien"]], [5, 1]
    >>> lists = pd.DataFrame({"user": ["ann", "ann"], "item": ["Alien", "Up"]})
    >>> round(ndcg_at_k(X, y, lists), 2)
    0.63
    """
    lists = _match(X, y, recommended, k, threshold)
    discounts = 1 / np.log2(np.arange(k) + 2)
    best = np.cumsum(discounts)[np.minimum(lists.n_relevant, k) - 1]
    return _mean(lists.sums(discounts[lists.rank]) / best)


def map_at_k(
    X: Any,
    y: ArrayLike | None,
    recommended: pd.DataFrame,
    *,
    k: int = 10,
    threshold: float | None = None,
) -> float:
    """Mean average precision of the first k items.

    The average precision of a user is the sum of the precisions at the places of the
    hits, divided by the number of relevant items or by k, whichever is smaller.

    Parameters
    ----------
    X, y, recommended, k, threshold
        As for `precision_at_k`.

    Returns
    -------
    mean_average_precision : float
        Mean over the users with at least one relevant held-out item.

    Examples
    --------
    >>> import pandas as pd
    >>> from skrec.metrics import map_at_k
    >>> X, y = [["ann", "Up"], ["ann", "Alien"]], [5, 1]
    >>> lists = pd.DataFrame({"user": ["ann", "ann"], "item": ["Alien", "Up"]})
    >>> map_at_k(X, y, lists)
    0.5
    """
    lists = _match(X, y, recommended, k, threshold)
    order = np.lexsort([lists.rank, lists.row])
    hits = np.empty(len(order))
    # Hits of the same user up to each place
    total = np.cumsum(lists.is_hit[order])
    before = np.concatenate([[0], total])[np.searchsorted(lists.row[order], lists.row)]
    hits[order] = total
    precisions = (hits - before) / (lists.rank + 1)
    return _mean(lists.sums(precisions) / np.minimum(lists.n_relevant, k))


def coverage(recommended: pd.DataFrame, items: ArrayLike) -> float:
    """Share of the items that are recommended to at least one user.

    Parameters
    ----------
    recommended : DataFrame with the columns "user" and "item"
        Recommended items, as `recommend` returns them.

    items : array-like of shape (n_items,)
        Ids of all items, such as `items_` of the model.

    Returns
    -------
    coverage : float

    Examples
    --------
    >>> import pandas as pd
    >>> from skrec.metrics import coverage
    >>> lists = pd.DataFrame({"user": ["ann", "bob"], "item": ["Up", "Up"]})
    >>> coverage(lists, ["Alien", "Up"])
    0.5
    """
    _check_lists(recommended)
    ids = pd.unique(check_ids(items, "item"))
    places = _places(recommended, "item", ids)
    return len(np.unique(places[places >= 0])) / len(ids)


def novelty(recommended: pd.DataFrame, X: Any) -> float:
    """Mean surprise of the recommended items, in bits.

    The surprise of an item that a share p of the users has rated is ``-log2(p)`` [1]_:
    0 for an item that everybody has rated, 10 for one that one in 1,024 has.

    Parameters
    ----------
    recommended : DataFrame with the columns "user" and "item"
        Recommended items, as `recommend` returns them.

    X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
        The training ratings. Items without any count as if one user had rated them.

    Returns
    -------
    novelty : float

    References
    ----------
    .. [1] Tao Zhou, Zoltán Kuscsik, Jian-Guo Liu, Matúš Medo, Joseph Rushton Wakeling
       and Yi-Cheng Zhang. 2010. "Solving the apparent diversity-accuracy dilemma of
       recommender systems". PNAS 107(10). https://doi.org/10.1073/pnas.1000488107

    Examples
    --------
    >>> import pandas as pd
    >>> from skrec.metrics import novelty
    >>> lists = pd.DataFrame({"user": ["ann", "bob"], "item": ["Up", "Heat"]})
    >>> novelty(lists, [["ann", "Up"], ["bob", "Up"], ["bob", "Alien"], ["cy", "Heat"],
    ...                 ["cy", "Up"], ["dee", "Up"]])
    1.0
    """
    _check_lists(recommended)
    if not len(recommended):
        raise ValueError("recommended is empty: it needs at least one item.")
    ratings = check_ratings(X, None if is_matrix(X) else np.ones(len(X)))
    shape = len(ratings.users), len(ratings.items)
    ones = np.ones(len(ratings.indices), bool)
    seen = sp.coo_array((ones, (ratings.rows, ratings.indices)), shape).tocsr()
    return surprise(recommended["item"], ratings.items, seen)


def surprise(recommended: Any, items: NDArray[Any], seen: sp.csr_array) -> float:
    """Mean surprise of recommended items, given who has rated what; NaN for none."""
    if not len(recommended):
        return np.nan
    counts = np.bincount(seen.indices, minlength=len(items)).clip(min=1)
    places = positions_of(check_ids(recommended, "item"), items, "item")
    found = np.where(places < 0, 1, counts[places])
    n_users = np.sum(np.diff(seen.indptr) > 0)
    return float(np.mean(np.log2(n_users) - np.log2(found)))


def rank_rated(X: Pairs, predicted: ArrayLike) -> pd.DataFrame:
    """Order the items of each user by their predicted ratings.

    With the result as `recommended`, the metrics tell how well a model orders the items
    that a user has rated, instead of how well it finds them among all items.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_ratings, 2)
        User and item ids.

    predicted : array-like of shape (n_ratings,)
        Predicted ratings.

    Returns
    -------
    recommended : DataFrame
        Columns "user", "item" and "rating". Ties keep the order of X.

    Examples
    --------
    >>> from skrec.metrics import rank_rated
    >>> rank_rated([["ann", "Up"], ["bob", "Up"], ["ann", "Heat"]], [3.5, 4.0, 4.5])
      user  item  rating
    0  ann  Heat     4.5
    1  ann    Up     3.5
    2  bob    Up     4.0
    """
    users, items = check_pairs(X)
    predicted = np.asarray(predicted, dtype=np.float64)
    if np.isnan(predicted).any():
        raise ValueError("predicted contains NaN: the items cannot be put in order.")
    if predicted.shape != users.shape:
        raise ValueError(
            f"predicted has shape {predicted.shape}, but X has {len(users)} pairs: "
            "give one predicted rating for each."
        )
    lists = pd.DataFrame({"user": users, "item": items, "rating": predicted})
    order = np.lexsort([-predicted, pd.factorize(users)[0]])
    return lists.iloc[order].reset_index(drop=True)


METRICS: dict[str, Callable[..., float]] = {
    "NDCG": ndcg_at_k,
    "MAP": map_at_k,
    "precision": precision_at_k,
    "recall": recall_at_k,
    "hit rate": hit_rate_at_k,
}


def check_cut(k: Any, threshold: Any) -> None:
    """Validate the length of the lists and the smallest relevant rating."""
    is_bool = isinstance(k, bool | np.bool_)
    if is_bool or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k must be a positive integer, got {k!r}.")
    if threshold is not None and (
        isinstance(threshold, bool | np.bool_) or not isinstance(threshold, Real)
    ):
        raise TypeError(f"threshold must be a number or None, got {threshold!r}.")


def _match(X: Any, y: Any, recommended: Any, k: Any, threshold: Any) -> _Lists:
    """Match recommended lists with the relevant held-out ratings."""
    check_cut(k, threshold)
    _check_lists(recommended)
    ratings = check_ratings(X, y)
    threshold = ratings.values.mean() if threshold is None else threshold
    is_relevant = ratings.values >= threshold
    if not is_relevant.any():
        raise ValueError(
            f"No held-out rating is at least threshold={threshold}: the largest is "
            f"{ratings.values.max()}. Give a lower threshold."
        )
    n_relevant = np.bincount(ratings.rows[is_relevant], minlength=len(ratings.users))
    counted = np.flatnonzero(n_relevant)
    users = _places(recommended, "user", ratings.users)
    items = _places(recommended, "item", ratings.items)
    place = np.full(len(ratings.users) + 1, -1)  # -1 is the place of unknown users
    place[counted] = np.arange(len(counted))
    row = place[users]
    rank = pd.Series(users).groupby(users).cumcount().to_numpy()
    kept = (row >= 0) & (rank < k)
    n_items = len(ratings.items)
    relevant = (ratings.rows * n_items + ratings.indices)[is_relevant]
    cells = users[kept] * n_items + items[kept]
    is_hit = np.isin(cells, relevant) & (items[kept] >= 0)
    return _Lists(row[kept], rank[kept], is_hit, n_relevant[counted])


def _check_lists(recommended: Any) -> None:
    if not isinstance(recommended, pd.DataFrame) or not set(_COLUMNS) <= set(
        recommended.columns
    ):
        found = type(recommended).__name__
        if isinstance(recommended, pd.DataFrame):
            found = f"columns {recommended.columns.tolist()}"
        raise TypeError(
            "recommended must be a DataFrame with the columns 'user' and 'item', as "
            f"`recommend` returns it, got {found}."
        )
    repeated = recommended.duplicated(list(_COLUMNS)).to_numpy()
    if repeated.any():
        user, item = recommended.iloc[repeated.argmax()][list(_COLUMNS)]
        raise ValueError(
            f"recommended has item {item!r} of user {user!r} more than once: list each "
            "item once."
        )


def _places(recommended: pd.DataFrame, what: str, known: NDArray[Any]) -> Any:
    """Positions of the users or items of lists among those of the ratings."""
    if not len(recommended):
        return np.zeros(0, np.int64)
    return positions_of(check_ids(recommended[what], what), known, what)


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values))
