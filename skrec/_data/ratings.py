"""Validation of both forms of ratings, and their conversion to one record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from numbers import Number
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import DTypeLike, NDArray
from sklearn.utils import check_array, column_or_1d

from .._sklearn_compat import check_sample_weight
from .ids import TABLE_REMEDY, check_pairs, factorize, positions_of, refuse_masked
from .lazy import refuse_lazy
from .stored import refuse_broken

# Type of public parameters; the values are ratings.
RatingMatrix: TypeAlias = sp.spmatrix | sp.sparray

# Each row and each column takes memory, even without ratings.
_MAX_SIZE = 2**31 - 1
# Shrinkage of means: number of extra ratings at the global mean. It is about the ratio
# of the variances within and between the items of MovieLens.
PRIOR_RATINGS = 5.0
# Precision of standardized ratings. The ratings in another unit, which differ by
# rounding errors, then become the same numbers.
_GRID = 2.0**-30
# Ratings that are processed at a time where temporary arrays would take memory
_CHUNK = 2**18


def keep(x: Any) -> Any:
    """Return the argument: the sum over the only process."""
    return x


def average(
    x: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    total: Callable[[Any], Any] = keep,
) -> float:
    """Return the weighted mean over all processes, whose sums `total` sums up."""
    sums = (
        (x.sum(), len(x)) if weights is None else ((x * weights).sum(), weights.sum())
    )
    return float(total(sums[0]) / total(sums[1]))


class Scale(NamedTuple):
    """Standardization of ratings, by default none.

    Attributes
    ----------
    mean, std : float
        Mean and standard deviation of the ratings, which become 0 and 1.
    """

    mean: float = 0.0
    std: float = 1.0

    def standardize(self, ratings: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bring ratings to the scale of the model."""
        if self == Scale():
            return ratings
        return np.rint((ratings - self.mean) / self.std / _GRID) * _GRID

    def restore(self, values: NDArray[Any], out: Any = None) -> NDArray[np.float64]:
        """Bring predictions of the model to the unit of the ratings."""
        values = np.multiply(values, self.std, out=out, dtype=np.float64)
        return np.add(values, self.mean, out=values)


class Values(NamedTuple):
    """Ratings in few bytes, exactly: their levels and a code of each, or numbers.

    Attributes
    ----------
    stored : ndarray of shape (n_ratings,)
        Code of each rating, uint8 or uint16. Without levels, the ratings themselves,
        float32 if that is exact and otherwise float64.

    levels : ndarray of shape (n_levels,), dtype float64, or None
        Rating of each code. None if there are more than 65,536 different ratings.
    """

    stored: NDArray[Any]
    levels: NDArray[np.float64] | None

    @classmethod
    def of(cls, ratings: NDArray[np.float64]) -> Values:
        """Store ratings; the arrays are new. Zeros lose their sign."""
        levels = _levels_of(ratings)
        if levels is None:
            stored = ratings.astype(np.float32)
            is_exact = all(
                np.array_equal(stored[part], ratings[part])
                for part in chunks(len(ratings))
            )
            return cls(stored if is_exact else ratings.copy(), None)
        stored = np.empty(len(ratings), np.uint8 if len(levels) <= 2**8 else np.uint16)
        for part in chunks(len(ratings)):
            stored[part] = np.searchsorted(levels, ratings[part])
        return cls(stored, levels)

    def decode(self, dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """Ratings as an array of floats."""
        if self.levels is None:
            return self.stored.astype(dtype)
        return take_in_chunks(self.levels.astype(dtype), self.stored)

    def map(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> Values:
        """Apply a function of each rating."""
        if self.levels is None:
            return Values(function(self.stored.astype(np.float64)), None)
        return Values(self.stored, function(self.levels))

    def take(self, entries: NDArray[Any] | slice) -> Values:
        """Ratings at indices, in a range, or where a mask is true."""
        return Values(self.stored[entries], self.levels)


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings without repeated pairs, sorted by user and item.

    Ratings with weight 0 are omitted, but their users and items are kept. The arrays
    are read-only and share no memory with the input.

    Attributes
    ----------
    users : ndarray of shape (n_users,)
        User ids, ascending.

    items : ndarray of shape (n_items,)
        Item ids, ascending.

    indptr : ndarray of shape (n_users + 1,)
        Index of each user's first rating, as in the CSR format.

    indices : ndarray of shape (n_ratings,)
        Position in `items` of each rated item.

    stored : Values of n_ratings ratings
        Ratings, stored in few bytes. `values` has them as numbers.

    weights : ndarray of shape (n_ratings,), dtype float64, or None
        Positive weight of each rating. None means that all weights are 1.
    """

    users: NDArray[Any]
    items: NDArray[Any]
    indptr: NDArray[Any]
    indices: NDArray[Any]
    stored: Values
    weights: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        for name in ("users", "items", "indptr", "indices", "weights"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))
        object.__setattr__(self, "stored", Values(*map(_read_only, self.stored)))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of users and number of items."""
        return len(self.users), len(self.items)

    @property
    def n_ratings(self) -> int:
        """Number of ratings."""
        return len(self.indices)

    @property
    def values(self) -> NDArray[np.float64]:
        """Ratings as a new array of shape (n_ratings,), dtype float64."""
        return self.stored.decode()

    @property
    def rows(self) -> NDArray[np.int64]:
        """Position in `users` of each rating's user, of shape (n_ratings,)."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.indptr))

    @property
    def matrix(self) -> sp.csr_array:
        """Ratings as a CSR array of shape (n_users, n_items)."""
        return sp.csr_array((self.values, self.indices, self.indptr), shape=self.shape)

    def moments(
        self, total: Callable[[Any], Any] = keep, is_constant: bool | None = None
    ) -> tuple[float, float]:
        """Return the weighted mean and the weighted standard deviation.

        Parameters
        ----------
        total : callable
            Function that sums a number over all processes that have ratings.

        is_constant : bool or None
            Whether all ratings of all processes are equal. None means to look at those
            of this one.
        """
        values, weights = self.values, self.weights
        if is_constant is None:
            is_constant = bool(np.all(values == values[0]))
        if is_constant:
            return float(values[0]), 0.0
        mean = average(values, weights, total)
        variance = average((values - mean) ** 2, weights, total)
        return float(mean), float(np.sqrt(variance))

    def select(self, mask: NDArray[np.bool_]) -> Ratings:
        """Return the ratings where `mask` is true, with all users and items."""
        weights = None if self.weights is None else self.weights[mask]
        return Ratings(
            self.users,
            self.items,
            _selected_indptr(self.indptr, mask),
            self.indices[mask],
            self.stored.take(mask),
            weights,
        )

    def with_items(self, items: NDArray[Any]) -> Ratings:
        """Return the same ratings with additional items.

        `items` are all item ids, ascending, including the present ones.
        """
        if len(items) == len(self.items):
            return self
        places = positions_of(self.items, items, "item").astype(self.indices.dtype)
        indices = take_in_chunks(places, self.indices)
        return replace(self, items=items, indices=indices)

    def with_users(self, users: NDArray[Any]) -> Ratings:
        """Return the same ratings with additional users.

        `users` are all user ids, ascending, including the present ones.
        """
        if len(users) == len(self.users):
            return self
        counts = np.zeros(len(users), self.indptr.dtype)
        counts[positions_of(self.users, users, "user")] = np.diff(self.indptr)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(self.indptr.dtype)
        return replace(self, users=users, indptr=indptr)


def is_matrix(X: Any) -> bool:
    """Return whether X is a rating matrix (samples are users), not pairs."""
    return sp.issparse(X)


def check_ratings(X: Any, y: Any = None, sample_weight: Any = None) -> Ratings:
    """Validate ratings in either form.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
        User and item ids, or a matrix whose stored entries are the ratings, as
        described in `check_rating_matrix`.

    y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
        Ratings of the pairs. With a matrix, further ratings that do not overlap with
        those in X, or None.

    sample_weight : array-like, sparse or None
        Weight of each rating. With pairs, the shape is (n_ratings,). With a matrix,
        either the shape is (n_users,) and a weight applies to all ratings in its row,
        including those in y, or the weights are sparse with an entry exactly where X
        or y has one. Ratings with weight 0 are ignored; their pairs may occur again.

    Returns
    -------
    ratings : Ratings
        The validated ratings.

    Raises
    ------
    TypeError, ValueError
        If the input is invalid.
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
        Rating matrix. A stored 0 or False is a rating of 0; True is a rating of 1. The
        formats BSR and DIA pad with zeros, so only their nonzero entries are ratings.

    name : str, default="X"
        Name of R in the error messages.

    n_items : int or None
        Required number of columns. None means any number.

    Returns
    -------
    R : csr_array of shape (n_users, n_items), dtype float64
        The ratings, with sorted indices. It shares no memory with the input.

    Raises
    ------
    TypeError, ValueError
        If R is not sparse, has values that are not real and finite, stores an entry
        twice, or is broken.
    """
    if not is_matrix(R):
        raise TypeError(
            f"{name} must be a SciPy sparse matrix or array, got {type(R).__name__}."
        )
    if R.ndim != 2:
        raise ValueError(
            f"{name} must have two dimensions (users, items), got shape {R.shape}."
        )
    if R.dtype.kind not in "biuf":
        raise TypeError(f"{name} must contain real numbers, got dtype {R.dtype}.")
    if n_items is not None and R.shape[1] != n_items:
        raise ValueError(
            f"{name} has {R.shape[1]} columns, but the model was fitted on {n_items} "
            "items: give one column for each item of `items_`, in the same order."
        )
    if max(R.shape) > _MAX_SIZE:
        raise ValueError(
            f"{name} has shape {R.shape}, but rows and columns must not exceed "
            f"{_MAX_SIZE}, because each takes memory even without ratings. Give "
            "user-item pairs, whose ids may be any numbers."
        )
    matrix = _to_csr(refuse_broken(R, name), name)
    if not np.isfinite(matrix.data).all():
        raise ValueError(
            f"{name} contains NaN or infinity among its stored entries: remove these "
            "entries. A missing rating is an entry that is not stored."
        )
    return matrix


def check_matrix_weights(
    sample_weight: Any, R: sp.csr_array
) -> NDArray[np.float64] | None:
    """Return one weight for each stored entry of R.

    Parameters
    ----------
    sample_weight : sparse with the entries of R, array-like of shape (n_users,) or None
        Weights. With shape (n_users,), a weight applies to all entries in its row.

    R : csr_array of shape (n_users, n_items)
        Ratings, as returned by `check_rating_matrix`.

    Returns
    -------
    weights : ndarray of shape (nnz,) or None
        Weight of each stored entry. None if `sample_weight` is None.

    Raises
    ------
    ValueError
        If weights are negative, all zero, or do not match R.
    """
    if sample_weight is None:
        return None
    if sp.issparse(sample_weight):
        weights = _entry_weights(sample_weight, R)
    else:
        weights = _check_weights(sample_weight, R)[row_numbers(R)]
    if not weights.any():
        raise ValueError(
            "sample_weight is zero for all ratings: at least one weight must be "
            "positive."
        )
    return weights


def row_numbers(matrix: sp.csr_array) -> NDArray[np.int64]:
    """Return the row of each stored entry, of shape (nnz,)."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def shrunken_means(
    positions: NDArray[Any],
    size: int,
    ratings: NDArray[np.float64],
    global_mean: float,
    weights: NDArray[np.float64] | None = None,
    total: Callable[[Any], Any] = keep,
) -> NDArray[np.float64]:
    """Return the mean rating of each user or item, shrunk toward the global mean.

    Parameters
    ----------
    positions : ndarray of shape (n_ratings,)
        Position of the user or item of each rating.

    size : int
        Number of users or items.

    ratings : ndarray of shape (n_ratings,)
        Ratings.

    global_mean : float
        Mean of all ratings. It counts as `PRIOR_RATINGS` extra ratings.

    weights : ndarray of shape (n_ratings,) or None
        Weight of each rating. None means that all weights are 1.

    total : callable
        Function that sums an array over all processes that have ratings of the users or
        items.

    Returns
    -------
    means : ndarray of shape (size,)
        The shrunk means.
    """
    counts = total(np.bincount(positions, weights, minlength=size))
    weighted = ratings if weights is None else ratings * weights
    sums = total(np.bincount(positions, weighted, minlength=size))
    return (sums + PRIOR_RATINGS * global_mean) / (counts + PRIOR_RATINGS)


def select_entries(matrix: sp.csr_array, mask: NDArray[np.bool_]) -> sp.csr_array:
    """Return the matrix with only the stored entries where `mask` is true."""
    if mask.all():
        return matrix
    indptr = _selected_indptr(matrix.indptr, mask)
    return sp.csr_array(
        (matrix.data[mask], matrix.indices[mask], indptr), shape=matrix.shape
    )


def chunks(n: int) -> Iterator[slice]:
    """Cut n entries into ranges that are processed one after the other."""
    return (slice(at, min(at + _CHUNK, n)) for at in range(0, n, _CHUNK))


def take_in_chunks(table: NDArray[Any], positions: NDArray[Any]) -> NDArray[Any]:
    """Return ``table[positions]``, for which NumPy would copy positions as int64."""
    found = np.empty(len(positions), table.dtype)
    for part in chunks(len(positions)):
        found[part] = table[positions[part]]
    return found


def _pair_ratings(X: Any, y: Any, sample_weight: Any) -> Ratings:
    if y is None:
        _refuse_table(X)
        raise ValueError(
            "X with user-item pairs requires y to be passed, but the target y is None: "
            "give one rating for each row of X, or give X as a sparse rating matrix."
        )
    for name, values in (("y", y), ("sample_weight", sample_weight)):
        if sp.issparse(values):
            raise TypeError(
                f"{name} is sparse, but X has user-item pairs: give a 1-D array with "
                "one number for each row of X."
            )
    users, items = check_pairs(X)
    y = check_target(y, len(users))
    if sample_weight is not None:
        sample_weight = _check_weights(sample_weight, users)
    user_ids, rows = factorize(users, "user")
    item_ids, columns = factorize(items, "item")
    del users, items  # They are copies if X has another type.
    cells = _sort_cells(rows, columns, (len(user_ids), len(item_ids)))
    del rows, columns
    stored = Values.of(y).take(cells.data)
    weights = None if sample_weight is None else sample_weight[cells.data]
    ratings = _make_record(user_ids, item_ids, cells, stored, weights)
    at = _first_repeated(ratings.indices, ratings.indptr)
    if at is not None:
        raise ValueError(
            f"X has repeated user-item pairs, among them user {user_ids[at[0]]} with "
            f"item {item_ids[at[1]]}: keep one rating per pair, for example the mean, "
            "by DataFrame.groupby([user, item]).mean()."
        )
    return ratings


def _refuse_table(X: Any) -> None:
    """Raise an error for a dense table of users and items, such as a pivot table."""
    table = X if hasattr(X, "shape") else np.array(X, dtype=object)
    shape = tuple(table.shape)
    if len(shape) == 2 and (shape[1] > 2 or pd.isna(np.asarray(table)).any()):
        raise ValueError(
            f"X of shape {shape} requires y to be passed, but the target y is None. If "
            "X is a dense table of users and items with NaN for missing ratings, such "
            f"as a pivot table, use {TABLE_REMEDY}, which keeps ratings of 0. "
            "Otherwise give a sparse rating matrix, or user-item pairs with y."
        )


def _matrix_ratings(X: Any, y: Any, sample_weight: Any) -> Ratings:
    R = check_rating_matrix(X)
    if y is not None:
        R = _join(R, y)
    if R.nnz == 0:
        raise ValueError(
            f"X is a matrix of shape {R.shape} without ratings: at least 1 stored "
            "entry is required."
        )
    weights = check_matrix_weights(sample_weight, R)
    ids = np.arange(R.shape[0]), np.arange(R.shape[1])
    return _make_record(*ids, R, Values.of(R.data), weights)


def _join(R: sp.csr_array, y: Any) -> sp.csr_array:
    """Return the ratings of X and y in one matrix."""
    if not sp.issparse(y):
        raise TypeError(
            "X is a rating matrix, so y must be None or a sparse matrix of the same "
            f"shape with further ratings, got {type(y).__name__}."
        )
    more = check_rating_matrix(y, name="y")
    if more.shape != R.shape:
        raise ValueError(
            f"y has shape {more.shape}, but X has shape {R.shape}: both must have the "
            "same users and items."
        )
    both = R, more
    cells = _sort_cells(
        np.concatenate([row_numbers(part) for part in both]),
        np.concatenate([part.indices for part in both]),
        R.shape,
    )
    values = np.concatenate([part.data for part in both])[cells.data]
    joined = sp.csr_array((values, cells.indices, cells.indptr), shape=R.shape)
    at = _first_repeated(joined.indices, joined.indptr)
    if at is not None:
        raise ValueError(
            f"X and y overlap: both rate row {at[0]}, column {at[1]}. Remove the "
            "rating from one of them."
        )
    return joined


def _check_weights(sample_weight: Any, samples: Any) -> NDArray[np.float64]:
    refuse_masked(sample_weight, "sample_weight")
    weights: NDArray[np.float64] = check_sample_weight(
        sample_weight, samples, np.float64
    )
    return weights


def _entry_weights(sample_weight: Any, R: sp.csr_array) -> NDArray[np.float64]:
    weights = check_rating_matrix(sample_weight, name="sample_weight")
    if not (
        weights.shape == R.shape
        and np.array_equal(weights.indptr, R.indptr)
        and np.array_equal(weights.indices, R.indices)
    ):
        raise ValueError(
            "sample_weight must have a stored entry exactly where the ratings (of X "
            "and y, if both are given) have one: build it with their indices and "
            "indptr, or give one weight per row."
        )
    if (weights.data < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`.")
    return weights.data


def _make_record(
    users: NDArray[Any],
    items: NDArray[Any],
    cells: sp.csr_array,
    stored: Values,
    weights: NDArray[np.float64] | None,
) -> Ratings:
    ratings = Ratings(users, items, cells.indptr, cells.indices, stored, weights)
    if weights is None or (weights > 0).all():
        return ratings
    ratings = ratings.select(weights > 0)
    # Levels that only ignored ratings have are no levels.
    return replace(ratings, stored=Values.of(ratings.values))


def _to_csr(R: Any, name: str) -> sp.csr_array:
    """Copy to CSR with sorted indices; raise an error for duplicate entries."""
    if R.format == "csr":
        csr = _as_floats(sp.csr_array, R)
        csr.sort_indices()
    elif R.format == "csc":
        csr = _as_floats(sp.csc_array, R).tocsr()
    else:
        csr = _coo_to_csr(R, name)
    at = _first_repeated(csr.indices, csr.indptr)
    if at is not None:
        raise ValueError(
            f"{name} stores row {at[0]}, column {at[1]} more than once: call its "
            "sum_duplicates() to add the entries, or remove all but one."
        )
    return csr


def _as_floats(container: Any, R: Any) -> Any:
    """Copy a compressed matrix, with indices of 32 bits where they suffice."""
    index = np.int32 if max(R.nnz, *R.shape) <= _MAX_SIZE else np.int64
    parts = R.data.astype(np.float64), R.indices.astype(index), R.indptr.astype(index)
    return container(parts, shape=R.shape)


def _coo_to_csr(R: Any, name: str) -> sp.csr_array:
    coo = R.tocoo(copy=False)
    row, col, data = coo.row, coo.col, coo.data.astype(np.float64)
    if R.format in ("bsr", "dia"):
        stored = data != 0
        row, col, data = row[stored], col[stored], data[stored]
    for numbers, size in zip((row, col), R.shape, strict=True):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < size:
            raise ValueError(
                f"{name} stores entries outside its shape {R.shape}: build it with a "
                "shape that contains all entries."
            )
    cells = _sort_cells(row, col, R.shape)
    return sp.csr_array((data[cells.data], cells.indices, cells.indptr), shape=R.shape)


def _sort_cells(
    row: NDArray[Any], col: NDArray[Any], shape: tuple[int, int]
) -> sp.csr_array:
    """Sort cells by row and column; the entries are the sorting order, a stable one."""
    index: Any = np.int32 if max(len(row), *shape) <= _MAX_SIZE else np.int64
    places = row.astype(index, copy=False), col.astype(index, copy=False)
    cells: Any = sp.coo_array((np.arange(len(row), dtype=index), places), shape=shape)
    # Otherwise, the entries of repeated cells would be added up.
    cells.has_canonical_format = True
    # Each conversion is a counting sort, first by columns and then by rows.
    cells = cells.tocsc()
    return cells.tocsr()


def _first_repeated(
    indices: NDArray[Any], indptr: NDArray[Any]
) -> tuple[int, int] | None:
    """Return the first row and column that is stored twice. Needs sorted indices."""
    is_first = np.zeros(len(indices) + 1, bool)
    is_first[indptr] = True
    is_repeated = indices[1:] == indices[:-1]
    is_repeated &= ~is_first[1:-1]
    if not is_repeated.any():
        return None
    at = int(np.argmax(is_repeated))
    return int(np.searchsorted(indptr, at, side="right")) - 1, int(indices[at])


def _selected_indptr(indptr: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Beginnings of the rows when only the entries of a mask are left."""
    before = np.zeros(len(mask) + 1, indptr.dtype)
    np.cumsum(mask, out=before[1:])
    return before[indptr]


def _levels_of(ratings: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Different ratings, ascending; None if codes of them would not save memory."""
    most = min(2**16, max(2**8, len(ratings) // 4))
    levels = np.zeros(0)
    for part in chunks(len(ratings)):
        levels = np.union1d(levels, pd.unique(ratings[part]))
        if len(levels) > most:
            return None
    return levels + 0.0  # -0.0 becomes 0.0


def _read_only(array: Any) -> Any:
    if array is None:
        return None
    view = array.view()
    view.flags.writeable = False
    return view


def check_target(y: Any, n_ratings: int) -> NDArray[np.float64]:
    refuse_lazy(y, "y")
    refuse_masked(y, "y")
    y = column_or_1d(y, warn=True)
    is_object = y.dtype == object
    if is_object and pd.isna(y).any():
        raise ValueError("Input y contains NaN: remove the pairs without a rating.")
    has_others = is_object and not all(isinstance(rating, Number) for rating in y)
    if has_others or y.dtype.kind not in "biufO":
        found = "text or other objects" if has_others else y.dtype
        raise TypeError(
            f"y must contain numbers, got {found}: convert it, for example with "
            "astype(float)."
        )
    if len(y) != n_ratings:
        raise ValueError(
            f"X has {n_ratings} user-item pairs, but y has {len(y)} ratings: give one "
            "rating for each pair."
        )
    return check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
