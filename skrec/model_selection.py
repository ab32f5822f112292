"""Between the two forms of ratings: pairs and matrices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ._data.ids import check_ids, positions_of
from ._data.ratings import check_rating_matrix, check_ratings, is_matrix, row_numbers

__all__ = ["ratings_to_samples", "samples_to_ratings"]


def ratings_to_samples(R):
    """Turn a rating matrix into user-item pairs and ratings.

    Parameters
    ----------
    R : {sparse matrix, sparse array} of shape (n_users, n_items)
        The ratings. Every stored entry is one, a stored zero included (in the formats
        BSR and DIA, which pad with zeros, every nonzero entry).

    Returns
    -------
    X : ndarray of shape (n_ratings, 2), dtype int64
        The row and column of each rating, in the order of rows, then columns.

    y : ndarray of shape (n_ratings,), dtype float64
        The ratings.

    See Also
    --------
    samples_to_ratings : The inverse, exact if it is given ``range(n_users)`` and
        ``range(n_items)``: they tell the rows and columns without ratings.

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


def samples_to_ratings(X, y, users=None, items=None):
    """Turn user-item pairs and ratings into a rating matrix.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_ratings, 2)
        The user and item id of each rating.

    y : array-like of shape (n_ratings,)
        The ratings.

    users : array-like of shape (n_users,), default=None
        The user of each row, in any order. By default the users in X, ascending.

    items : array-like of shape (n_items,), default=None
        The item of each column, in any order. By default the items in X, ascending.

    Returns
    -------
    R : csr_array of shape (n_users, n_items), dtype float64
        The ratings.

    users : ndarray of shape (n_users,)
        The user of each row.

    items : ndarray of shape (n_items,)
        The item of each column.

    Raises
    ------
    TypeError, ValueError
        If a pair occurs twice, or an id of X is not among those given, or one of those
        is given twice, or ids or ratings are missing or of mixed types.

    See Also
    --------
    ratings_to_samples : The inverse, exact if it is given the same users and items.

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
        raise TypeError("X is a rating matrix already: give user-item pairs.")
    ratings = check_ratings(X, y)
    users, rows = _places(ratings.users, users, "user")
    items, columns = _places(ratings.items, items, "item")
    entries = (rows[ratings.rows], columns[ratings.indices])
    R = sp.coo_array((ratings.values, entries), shape=(len(users), len(items)))
    return check_rating_matrix(R, name="R"), users, items


def _places(found, given, what):
    """The ids of all rows or columns, and which of them each id found in X takes."""
    if given is None:
        return found.copy(), np.arange(len(found))
    given = check_ids(given, what).copy()
    repeated = pd.Series(given, dtype=given.dtype).duplicated().to_numpy()
    if repeated.any():
        raise ValueError(
            f"{what}s has {given[repeated.argmax()]} more than once: give each {what} "
            "once."
        )
    places = positions_of(found, given, what)
    if (places < 0).any():
        raise ValueError(
            f"X has {what} {found[places.argmin()]}, which is not among the "
            f"{len(given)} {what}s given: add it there, or remove its ratings."
        )
    return given, places
