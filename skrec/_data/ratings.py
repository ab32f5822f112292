"""Either form of ratings in, one immutable record out."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import _check_sample_weight

from .ids import check_pairs, positions_of, refuse_masked

# Each row and each column takes memory, rated or not.
_MAX_SIZE = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings of items by users, each at most once, sorted by user and item.

    Ratings of weight 0 are left out, but their users and items stay known. The arrays
    are read-only and share no memory with what the ratings were made from.

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

    def with_items(self, items: np.ndarray) -> Ratings:
        """The same ratings among further items.

        `items` has the ids of all, ascending, those of the present ones among them.
        """
        if len(items) == len(self.items):
            return self
        places = positions_of(self.items, items, "item")
        return Ratings(
            self.users,
            items,
            self.indptr,
            places[self.indices].astype(self.indices.dtype),
            self.values,
            self.weights,
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
        User and item ids, or a matrix whose stored entries are the ratings, as
        `check_rating_matrix` understands them.

    y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
        The ratings of pairs; further ratings beside a matrix, which rate nothing that
        X rates.

    sample_weight : array-like, sparse or None
        A weight for each rating: of shape (n_ratings,) beside pairs; beside a matrix
        of shape (n_users,), each for all ratings in a row, those in y included, or
        sparse with an entry exactly where X or y has one. A rating of weight 0 counts
        as absent, so that its pair may occur once more.

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
        The ratings. A stored zero is a rating of 0, and so is a stored False; True is
        1. The formats BSR and DIA store zeros also where nothing was meant, so that
        only their nonzero entries are ratings.

    name : str, default="X"
        What the messages call it.

    n_items : int or None
        The number of columns it must have, if given.

    Returns
    -------
    R : csr_array of shape (n_users, n_items), dtype float64
        With sorted indices. It shares no memory with the input.

    Raises
    ------
    TypeError, ValueError
        If R is not sparse, or not of real, finite numbers, or stores an entry twice.
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
    if max(R.shape) > _MAX_SIZE:
        raise ValueError(
            f"{name} has shape {R.shape}, but rows and columns must not exceed "
            f"{_MAX_SIZE}: each takes memory, rated or not. Give user-item pairs, "
            "whose ids may be any numbers."
        )
    matrix = _to_csr(R, name)
    if not np.isfinite(matrix.data).all():
        raise ValueError(
            f"{name} contains NaN or infinity among its stored entries: store finite "
            "numbers only, and no entry where there is no rating."
        )
    return matrix


def check_matrix_weights(sample_weight, R: sp.csr_array) -> np.ndarray | None:
    """One weight for each stored entry of R.

    Parameters
    ----------
    sample_weight : sparse with the entries of R, array-like of shape (n_users,) or None
        The weights. One a row is the weight of each entry in it.

    R : csr_array of shape (n_users, n_items)
        The ratings, as `check_rating_matrix` returns them.

    Returns
    -------
    weights : ndarray of shape (nnz,) or None

    Raises
    ------
    ValueError
        If weights are negative or all zero, or do not match R.
    """
    if sample_weight is None:
        return None
    if sp.issparse(sample_weight):
        weights = _entry_weights(sample_weight, R)
    else:
        weights = _check_weights(sample_weight, R)[row_numbers(R)]
    if not weights.any():
        raise ValueError("sample_weight is zero everywhere: no rating is left.")
    return weights


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
            "X with user-item pairs requires y to be passed, but the target y is None: "
            "give one rating for each row of X, or a sparse matrix as X."
        )
    for name, values in (("y", y), ("sample_weight", sample_weight)):
        if sp.issparse(values):
            raise TypeError(
                f"{name} is sparse, but X has user-item pairs: give a 1-D array with "
                "one number for each row of X."
            )
    users, items = check_pairs(X)
    y = _check_target(y, len(users))
    if sample_weight is not None:
        sample_weight = _check_weights(sample_weight, users)
    rows, user_ids = pd.factorize(users, sort=True)
    columns, item_ids = pd.factorize(items, sort=True)
    R, order = _sorted_csr(y, rows, columns, (len(user_ids), len(item_ids)))
    weights = None if sample_weight is None else sample_weight[order]
    ratings = _make_record(user_ids, item_ids, R, weights)
    at = _first_repeated(ratings.matrix)
    if at is not None:
        raise ValueError(
            f"X has repeated user-item pairs, among them user {user_ids[at[0]]} with "
            f"item {item_ids[at[1]]}: keep one rating of each pair, for example the "
            "mean by DataFrame.groupby([user, item]).mean()."
        )
    return ratings


def _matrix_ratings(X, y, sample_weight) -> Ratings:
    R = check_rating_matrix(X)
    if y is not None:
        R = _join(R, y)
    if R.nnz == 0:
        raise ValueError(
            f"X is a matrix of shape {R.shape} without any rating: at least 1 stored "
            "entry is required."
        )
    weights = check_matrix_weights(sample_weight, R)
    return _make_record(np.arange(R.shape[0]), np.arange(R.shape[1]), R, weights)


def _join(R, y) -> sp.csr_array:
    """The ratings of X and y in one matrix."""
    if not sp.issparse(y):
        raise TypeError(
            "X is a rating matrix, so that y must be None or a sparse matrix of the "
            f"same shape with further ratings, got {type(y).__name__}."
        )
    more = check_rating_matrix(y, name="y")
    if more.shape != R.shape:
        raise ValueError(
            f"y has shape {more.shape}, but X has shape {R.shape}: give further "
            "ratings of the same users and items."
        )
    joined, _ = _sorted_csr(
        np.concatenate([R.data, more.data]),
        np.concatenate([row_numbers(R), row_numbers(more)]),
        np.concatenate([R.indices, more.indices]),
        R.shape,
    )
    at = _first_repeated(joined)
    if at is not None:
        raise ValueError(
            f"X and y overlap: both rate row {at[0]}, column {at[1]}. Remove the "
            "rating from one of them."
        )
    return joined


def _check_weights(sample_weight, samples) -> np.ndarray:
    refuse_masked(sample_weight, "sample_weight")
    return _check_sample_weight(
        sample_weight, X=samples, dtype=np.float64, ensure_non_negative=True
    )


def _entry_weights(sample_weight, R) -> np.ndarray:
    weights = check_rating_matrix(sample_weight, name="sample_weight")
    if not (
        weights.shape == R.shape
        and np.array_equal(weights.indptr, R.indptr)
        and np.array_equal(weights.indices, R.indices)
    ):
        raise ValueError(
            "sample_weight must have a stored entry exactly where the ratings (of X "
            "and y, if both are given) have one: build it with their indices and "
            "indptr, or give one weight a row."
        )
    if (weights.data < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`.")
    return weights.data


def _make_record(users, items, R, weights) -> Ratings:
    ratings = Ratings(users, items, R.indptr, R.indices, R.data, weights)
    return ratings if weights is None else ratings.select(weights > 0)


def _to_csr(R, name) -> sp.csr_array:
    """CSR with sorted indices, never summing entries that are stored twice."""
    coo = R.tocoo()
    row, col, data = coo.row, coo.col, coo.data.astype(np.float64)
    if R.format in ("bsr", "dia"):
        stored = data != 0
        row, col, data = row[stored], col[stored], data[stored]
    for numbers, size in zip((row, col), R.shape, strict=True):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < size:
            raise ValueError(
                f"{name} stores entries outside its shape {R.shape}: build it with the "
                "right shape."
            )
    csr, _ = _sorted_csr(data, row, col, R.shape)
    at = _first_repeated(csr)
    if at is not None:
        raise ValueError(
            f"{name} stores row {at[0]}, column {at[1]} more than once: call its "
            "sum_duplicates() if the entries are to be added, or remove all but one."
        )
    return csr


def _sorted_csr(data, row, col, shape) -> tuple[sp.csr_array, np.ndarray]:
    """A CSR array with sorted indices, and the order that its entries had."""
    order = np.argsort(row.astype(np.int64) * shape[1] + col, kind="stable")
    counts = np.bincount(row, minlength=shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return sp.csr_array((data[order], col[order], indptr), shape=shape), order


def _first_repeated(matrix) -> tuple[int, int] | None:
    """The first row and column that is stored twice, if indices are sorted."""
    rows = row_numbers(matrix)
    at = np.flatnonzero((np.diff(rows) == 0) & (np.diff(matrix.indices) == 0))
    return (int(rows[at[0]]), int(matrix.indices[at[0]])) if len(at) else None


def _check_target(y, n_ratings) -> np.ndarray:
    refuse_masked(y, "y")
    y = column_or_1d(y, warn=True)
    is_object = y.dtype == object
    if is_object and pd.isna(y).any():
        raise ValueError("Input y contains NaN: leave out the pairs without a rating.")
    has_others = is_object and not all(isinstance(rating, Number) for rating in y)
    if has_others or y.dtype.kind not in "biufO":
        found = "text or other objects" if has_others else y.dtype
        raise TypeError(
            f"y must hold numbers, the ratings, got {found}: convert it, for example "
            "with astype(float)."
        )
    if len(y) != n_ratings:
        raise ValueError(
            f"X has {n_ratings} user-item pairs, but y has {len(y)} ratings: give one "
            "rating for each pair."
        )
    return check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
