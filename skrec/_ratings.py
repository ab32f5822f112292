"""Either form of ratings in, one immutable record out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_consistent_length

from ._ids import check_pairs


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings of items by users, each at most once, sorted by user and item.

    Ratings of weight 0 are left out, but their users and items stay known.

    Attributes
    ----------
    users : ndarray of shape (n_users,)
        The ids of the users, ascending.

    items : ndarray of shape (n_items,)
        The ids of the items, ascending.

    indptr : ndarray of shape (n_users + 1,)
        Where each user's ratings begin, as in the CSR format.

    indices : ndarray of shape (n_ratings,)
        The position in `items` of each rated item.

    values : ndarray of shape (n_ratings,), dtype float64
        The ratings.

    weights : ndarray of shape (n_ratings,), dtype float64, or None
        The weight of each rating, positive. None means 1 each.
    """

    users: np.ndarray
    items: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    weights: np.ndarray | None = None

    def __post_init__(self):
        for name in self.__dataclass_fields__:
            array = getattr(self, name)
            if array is not None:
                view = array.view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_users, n_items)"""
        return len(self.users), len(self.items)

    @property
    def n_ratings(self) -> int:
        return len(self.values)

    @property
    def rows(self) -> np.ndarray:
        """The position in `users` of each rating's user, of shape (n_ratings,)."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.indptr))

    @property
    def matrix(self) -> sp.csr_array:
        """The ratings as a CSR array of shape (n_users, n_items)."""
        return sp.csr_array((self.values, self.indices, self.indptr), shape=self.shape)

    def select(self, mask: np.ndarray) -> Ratings:
        """The ratings where `mask` is true; users and items stay known."""
        indptr = np.concatenate([[0], np.cumsum(mask)])[self.indptr]
        weights = None if self.weights is None else self.weights[mask]
        return Ratings(
            self.users,
            self.items,
            indptr,
            self.indices[mask],
            self.values[mask],
            weights,
        )


def is_matrix(X: Any) -> bool:
    """Whether X is a rating matrix (samples are users) and not user-item pairs."""
    return sp.issparse(X)


def check_ratings(X, y=None, sample_weight=None) -> Ratings:
    """Validate ratings in either form.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
        User and item ids, or a matrix whose stored entries are the ratings.

    y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
        The ratings of pairs; further ratings beside a matrix.

    sample_weight : array-like, sparse or None
        A weight for each rating: of shape (n_ratings,) beside pairs, sparse with the
        entries of X beside a matrix, or of shape (n_users,) there.

    Returns
    -------
    ratings : Ratings

    Raises
    ------
    TypeError, ValueError
        If anything in the input is not what it should be.
    """
    if is_matrix(X):
        return _matrix_ratings(X, y, sample_weight)
    return _pair_ratings(X, y, sample_weight)


def check_rating_matrix(
    R: Any, *, name: str = "X", n_items: int | None = None
) -> sp.csr_array:
    """Validate a sparse matrix whose stored entries are ratings.

    Parameters
    ----------
    R : {sparse matrix, sparse array} of shape (n_users, n_items)
        The ratings. A stored zero is a rating of 0.

    name : str, default="X"
        What the messages call it.

    n_items : int or None
        The number of columns it must have, if given.

    Returns
    -------
    R : csr_array of shape (n_users, n_items), dtype float64
        With sorted indices. It shares no memory that `R` may change.
    """
    if not is_matrix(R):
        raise TypeError(
            f"{name} must be a SciPy sparse matrix or array, got {type(R).__name__}."
        )
    if R.ndim != 2:
        raise ValueError(
            f"{name} must have two dimensions, users and items, got shape {R.shape}."
        )
    if R.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {R.dtype}.")
    if n_items is not None and R.shape[1] != n_items:
        raise ValueError(
            f"{name} has {R.shape[1]} columns, but the model knows {n_items} items: "
            "give it one column for each of `items_`, in that order."
        )
    matrix = _to_csr(R, name)
    if not np.isfinite(matrix.data).all():
        raise ValueError(
            f"{name} contains NaN or infinity among its stored entries: store finite "
            "ratings only, and no entry where there is no rating."
        )
    return matrix


def check_matrix_weights(sample_weight, R: sp.csr_array) -> np.ndarray | None:
    """One weight for each stored entry of R.

    Parameters
    ----------
    sample_weight : sparse with the entries of R, array-like of shape (n_users,) or None
        The weights.

    R : csr_array of shape (n_users, n_items)
        The ratings, as `check_rating_matrix` returns them.

    Returns
    -------
    weights : ndarray of shape (nnz,) or None

    Raises
    ------
    ValueError
        If weights are negative or do not match R.
    """
    if sample_weight is None:
        return None
    if not sp.issparse(sample_weight):
        per_row = _check_sample_weight(
            sample_weight, X=R, dtype=np.float64, ensure_non_negative=True
        )
        return per_row[row_numbers(R)]
    weights = check_rating_matrix(sample_weight, name="sample_weight")
    if not (
        weights.shape == R.shape
        and np.array_equal(weights.indptr, R.indptr)
        and np.array_equal(weights.indices, R.indices)
    ):
        raise ValueError(
            "sample_weight must have a stored entry exactly where the ratings have "
            "one: build it with their indices and indptr."
        )
    if (weights.data < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`.")
    return weights.data


def row_numbers(matrix: sp.csr_array) -> np.ndarray:
    """The row of each stored entry, of shape (nnz,)."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def select_entries(matrix: sp.csr_array, mask: np.ndarray) -> sp.csr_array:
    """The matrix with only those stored entries where `mask` is true."""
    if mask.all():
        return matrix
    indptr = np.concatenate([[0], np.cumsum(mask)])[matrix.indptr]
    return sp.csr_array(
        (matrix.data[mask], matrix.indices[mask], indptr), shape=matrix.shape
    )


def _pair_ratings(X, y, sample_weight) -> Ratings:
    if y is None:
        raise ValueError(
            "User-item pairs require y to be passed, but the target y is None: give "
            "one rating for each row of X, or a sparse matrix as X."
        )
    if sp.issparse(y):
        raise TypeError(
            "y is sparse, but X has user-item pairs: give y as a 1-D array of ratings."
        )
    users, items = check_pairs(X)
    y = _check_target(y)
    check_consistent_length(users, y)
    weights = None
    if sample_weight is not None:
        if sp.issparse(sample_weight):
            raise TypeError(
                "sample_weight is sparse, but X has user-item pairs: give one weight "
                "for each row of X."
            )
        weights = _check_sample_weight(
            sample_weight, X=users, dtype=np.float64, ensure_non_negative=True
        )
    user_codes, user_ids = pd.factorize(users, sort=True)
    item_codes, item_ids = pd.factorize(items, sort=True)
    shape = (len(user_ids), len(item_ids))
    order = _sorted_entries(user_codes, item_codes, shape)
    user_codes, item_codes = user_codes[order], item_codes[order]
    _refuse_repeated(user_codes, item_codes, user_ids, item_ids)
    return _make_record(
        user_ids,
        item_ids,
        _row_starts(user_codes, shape[0]),
        item_codes,
        y[order],
        None if weights is None else weights[order],
    )


def _matrix_ratings(X, y, sample_weight) -> Ratings:
    R = check_rating_matrix(X)
    if 0 in R.shape or R.nnz == 0:
        raise ValueError(
            f"X is a matrix of shape {R.shape} without any rating: at least 1 stored "
            "entry is required."
        )
    weights = check_matrix_weights(sample_weight, R)
    if y is not None:
        R, weights = _join(R, weights, y)
    return _make_record(
        np.arange(R.shape[0]),
        np.arange(R.shape[1]),
        R.indptr,
        R.indices,
        R.data,
        weights,
    )


def _join(R, weights, y):
    """The ratings of X and y in one matrix; y carries weight 1 where X has weights."""
    if not sp.issparse(y):
        raise TypeError(
            "X is a rating matrix, so that y must be None or a sparse matrix of the "
            f"same shape with further ratings, got {type(y).__name__}."
        )
    more = check_rating_matrix(y, name="y", n_items=R.shape[1])
    if more.shape != R.shape:
        raise ValueError(f"y has shape {more.shape}, but X has shape {R.shape}.")
    row = np.concatenate([row_numbers(R), row_numbers(more)])
    col = np.concatenate([R.indices, more.indices])
    order = _sorted_entries(row, col, R.shape)
    row, col = row[order], col[order]
    repeated = np.flatnonzero((row[1:] == row[:-1]) & (col[1:] == col[:-1]))
    if len(repeated):
        raise ValueError(
            f"X and y overlap: both rate row {row[repeated[0]]}, column "
            f"{col[repeated[0]]}. Each rating belongs to one of them."
        )
    indptr = _row_starts(row, R.shape[0])
    if weights is not None:
        weights = np.concatenate([weights, np.ones(more.nnz)])[order]
    data = np.concatenate([R.data, more.data])[order]
    return sp.csr_array((data, col, indptr), shape=R.shape), weights


def _make_record(users, items, indptr, indices, values, weights) -> Ratings:
    ratings = Ratings(users, items, indptr, indices, values, weights)
    if weights is not None and not weights.all():
        ratings = ratings.select(weights > 0)
        if ratings.n_ratings == 0:
            raise ValueError("sample_weight is zero everywhere: no rating is left.")
    return ratings


def _to_csr(R, name) -> sp.csr_array:
    """CSR with sorted indices, never summing entries that are stored twice."""
    if R.format == "csr":
        csr = sp.csr_array(
            (R.data.astype(np.float64), R.indices.copy(), R.indptr.copy()),
            shape=R.shape,
        )
        csr.sort_indices()
        rows = row_numbers(csr)
    else:
        coo = R.tocoo()
        order = _sorted_entries(coo.row, coo.col, R.shape)
        rows = coo.row[order]
        data = coo.data[order].astype(np.float64)
        indptr = _row_starts(rows, R.shape[0])
        csr = sp.csr_array((data, coo.col[order], indptr), shape=R.shape)
    at = _first_repeated(rows, csr.indices)
    if at is not None:
        raise ValueError(
            f"{name} stores row {rows[at]}, column {csr.indices[at]} more than once: "
            "call its sum_duplicates() if the entries are to be added, or remove all "
            "but one."
        )
    return csr


def _sorted_entries(row, col, shape) -> np.ndarray:
    """The order of entries by row, then column."""
    if shape[0] * shape[1] < 2**63:
        return np.argsort(row.astype(np.int64) * shape[1] + col, kind="stable")
    return np.lexsort((col, row))


def _row_starts(rows, n_rows) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_rows))])


def _first_repeated(row, col) -> int | None:
    """Where sorted entries first repeat."""
    same = (row[1:] == row[:-1]) & (col[1:] == col[:-1])
    return int(same.argmax()) if same.any() else None


def _refuse_repeated(user_codes, item_codes, user_ids, item_ids):
    at = _first_repeated(user_codes, item_codes)
    if at is not None:
        raise ValueError(
            f"X has repeated user-item pairs, among them user "
            f"{user_ids[user_codes[at]]!r} with item {item_ids[item_codes[at]]!r}: "
            "keep one rating of each pair, for example the mean by "
            "DataFrame.groupby([user, item]).mean()."
        )


def _check_target(y) -> np.ndarray:
    y = column_or_1d(y, warn=True)
    if y.dtype.kind not in "biufO":
        raise ValueError(f"y must hold numbers, the ratings, got dtype {y.dtype}.")
    return check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
