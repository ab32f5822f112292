"""Splits of ratings, comparison of models, and conversion between the two forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from ._data.ids import Ids, Pairs, check_ids, positions_of, refuse_masked
from ._data.ratings import (
    RatingMatrix,
    check_rating_matrix,
    check_ratings,
    is_matrix,
    row_numbers,
)
from ._evaluation import evaluate
from ._splitters import (
    ItemKFold,
    LeaveLastOut,
    RatingKFold,
    TimeSplit,
    UserKFold,
    split_rows,
)

__all__ = [
    "ItemKFold",
    "LeaveLastOut",
    "RatingKFold",
    "TimeSplit",
    "UserKFold",
    "evaluate",
    "ratings_to_samples",
    "samples_to_ratings",
    "split_rows",
    "table_to_samples",
]


def ratings_to_samples(
    R: RatingMatrix,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Turn a rating matrix into user-item pairs and ratings.

    Parameters
    ----------
    R : {sparse matrix, sparse array} of shape (n_users, n_items)
        Rating matrix. Every stored entry is a rating, including stored zeros. In the
        formats BSR and DIA, which pad with zeros, only nonzero entries are ratings.

    Returns
    -------
    X : ndarray of shape (n_ratings, 2), dtype int64
        Row and column of each rating, sorted by row, then by column.

    y : ndarray of shape (n_ratings,), dtype float64
        The ratings.

    See Also
    --------
    samples_to_ratings : The inverse. It is exact when given ``range(n_users)`` and
        ``range(n_items)``, which preserve rows and columns without ratings.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from skrec.model_selection import ratings_to_samples
    >>> X, y = ratings_to_samples(sp.csr_array([[5, 0], [0, 3]]))
    >>> X
    array([[0, 0],
           [1, 1]])
    >>> y
    array([5., 3.])
    """
    R = check_rating_matrix(R, name="R")
    X = np.column_stack([row_numbers(R), R.indices]).astype(np.int64)
    return X, R.data


def samples_to_ratings(
    X: Pairs, y: ArrayLike, users: Ids | None = None, items: Ids | None = None
) -> tuple[sp.csr_array, NDArray[Any], NDArray[Any]]:
    """Turn user-item pairs and ratings into a rating matrix.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_ratings, 2)
        User and item id of each rating.

    y : array-like of shape (n_ratings,)
        Ratings.

    users : array-like of shape (n_users,), default=None
        User id of each row, in any order. None means the users in X, ascending.

    items : array-like of shape (n_items,), default=None
        Item id of each column, in any order. None means the items in X, ascending.

    Returns
    -------
    R : csr_array of shape (n_users, n_items), dtype float64
        Rating matrix.

    users : ndarray of shape (n_users,)
        User id of each row.

    items : ndarray of shape (n_items,)
        Item id of each column.

    Raises
    ------
    TypeError, ValueError
        If a pair occurs twice, if an id in X is not in `users` or `items`, if `users`
        or `items` has an id twice, or if ids or ratings are missing or of mixed types.

    See Also
    --------
    ratings_to_samples : The inverse; it returns row and column numbers as ids.

    Examples
    --------
    >>> from skrec.model_selection import samples_to_ratings
    >>> R, users, items = samples_to_ratings([["ann", "up"], ["bob", "alien"]], [5, 3])
    >>> R.toarray()
    array([[0., 5.],
           [3., 0.]])
    >>> users, items
    (array(['ann', 'bob'], dtype=object), array(['alien', 'up'], dtype=object))
    """
    if is_matrix(X):
        raise TypeError("X is already a rating matrix: give user-item pairs.")
    ratings = check_ratings(X, y)
    users, rows = _places(ratings.users, users, "user")
    items, columns = _places(ratings.items, items, "item")
    entries = (rows[ratings.rows], columns[ratings.indices])
    R = sp.coo_array((ratings.values, entries), shape=(len(users), len(items)))
    return check_rating_matrix(R, name="R"), users, items


def table_to_samples(
    table: pd.DataFrame | ArrayLike,
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Turn a dense table of users and items into user-item pairs and ratings.

    Parameters
    ----------
    table : {DataFrame, array-like} of shape (n_users, n_items)
        Ratings, with NaN (or None) where a user has not rated an item, such as a pivot
        table. A 0 is a rating of 0. If missing ratings are zeros in your table, replace
        them first, for example by ``table.replace(0, np.nan)``.

    Returns
    -------
    X : DataFrame of shape (n_ratings, 2)
        Index (user id) and column (item id) of each rating, row by row. The columns are
        named as the axes of the table if both have names, and "user" and "item"
        otherwise. The ids of an
        array are row and column numbers.

    y : ndarray of shape (n_ratings,), dtype float64
        The ratings.

    Raises
    ------
    TypeError
        If the table is sparse, or its entries are not numbers.
    ValueError
        If the table does not have two dimensions, has no ratings, or has several levels
        of ids.

    See Also
    --------
    ratings_to_samples : The same for a sparse matrix.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skrec.model_selection import table_to_samples
    >>> table = pd.DataFrame(
    ...     {"alien": [5, 0], "up": [np.nan, 3]}, index=["ann", "bob"]
    ... )
    >>> X, y = table_to_samples(table)
    >>> X
      user   item
    0  ann  alien
    1  bob  alien
    2  bob     up
    >>> y
    array([5., 0., 3.])
    """
    if is_matrix(table):
        raise TypeError(
            "table is sparse: use ratings_to_samples, which keeps stored zeros."
        )
    refuse_masked(table, "table")
    if not isinstance(table, pd.DataFrame):
        array = np.asarray(table)
        if array.ndim != 2:
            raise ValueError(
                f"table must have two dimensions, users and items, got {array.ndim}."
            )
        table = pd.DataFrame(array)
    if table.index.nlevels > 1 or table.columns.nlevels > 1:
        raise ValueError(
            "table has several levels of ids, but one id per row and per column is "
            "expected: remove levels with droplevel."
        )
    try:
        ratings = table.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"table must contain numbers or missing values ({error}): set a column of "
            "ids as index, with table.set_index(...)."
        ) from error
    rows, columns = np.nonzero(~np.isnan(ratings))
    if not len(rows):
        raise ValueError(
            f"table has shape {table.shape}, but no ratings: at least 1 is required."
        )
    users, items = table.index, table.columns
    names = [users.name, items.name]
    if not all(isinstance(name, str) for name in names) or names[0] == names[1]:
        names = ["user", "item"]
    X = pd.DataFrame(dict(zip(names, (users[rows], items[columns]), strict=True)))
    return X, ratings[rows, columns]


def _places(
    found: NDArray[Any], given: Ids | None, what: str
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the ids of all rows or columns, and the position of each id in X."""
    if given is None:
        return found.copy(), np.arange(len(found))
    ids = check_ids(given, what).copy()
    repeated = pd.Series(ids, dtype=ids.dtype).duplicated().to_numpy()
    if repeated.any():
        raise ValueError(
            f"{what}s has {ids[repeated.argmax()]} more than once: give each {what} "
            "once."
        )
    places = positions_of(found, ids, what)
    if (places < 0).any():
        raise ValueError(
            f"X has {what} {found[places.argmin()]}, which is not among the "
            f"{len(ids)} {what}s given: add it to {what}s, or remove its ratings."
        )
    return ids, places
