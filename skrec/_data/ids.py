"""Ids of users and items: validation, conversion to plain arrays, and lookup."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Number
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from .lazy import refuse_lazy

# Types of public parameters: ids of shape (n,), and pairs of shape (n_ratings, 2).
Ids: TypeAlias = ArrayLike | Sequence[Any]
Pairs: TypeAlias = ArrayLike | Sequence[Sequence[Any]] | pd.DataFrame

# A table of integers has at most so many entries, and for each id.
_TABLE_START, _TABLE_FACTOR = 2**12, 8
# Ids that are looked up at a time where temporary arrays would take memory
_CHUNK = 2**18

_ID_REMEDY = (
    "ids may be integers, floats, booleans, strings or other sortable values, with one "
    "type per column"
)
# What to do with a dense table of users and items.
TABLE_REMEDY = "X, y = skrec.model_selection.table_to_samples(X)"
# Lossless dtypes for each kind of objects that pandas infers.
_NUMBER_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (np.int64, np.uint64),
    "floating": (np.float64,),
    "mixed-integer-float": (np.float64,),
    "boolean": (np.bool_,),
}


def check_pairs(X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split user-item pairs into two arrays of ids.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_ratings, 2)
        User ids in the first column, item ids in the second.

    Returns
    -------
    users, items : ndarray of shape (n_ratings,)
        Ids of dtype int64, uint64 (only beyond the range of int64), float64, bool, or
        object (strings, or other values of one type).

    Raises
    ------
    TypeError, ValueError
        If X has the wrong shape, or ids that are missing or of mixed types.
    """
    users, items = _split_columns(X)
    return _check_column(users, "user"), _check_column(items, "item")


def check_ids(ids: Any, what: str) -> NDArray[Any]:
    """Validate ids of shape (n,).

    Parameters
    ----------
    ids : array-like of shape (n,)
        Ids of one sortable type.

    what : {"user", "item"}
        Side that the ids belong to, for the error messages.

    Returns
    -------
    ids : ndarray of shape (n,)
        Ids of the dtypes that `check_pairs` returns. They may share memory with the
        input.

    Raises
    ------
    TypeError, ValueError
        If ids are missing, of mixed types, or of the wrong shape.
    """
    array = _to_array(ids, f"{what}s")
    if array.ndim != 1 or len(array) == 0:
        remedy = f": give a list, [{ids!r}]" if np.isscalar(ids) else ""
        raise ValueError(
            f"The {what} ids must be a 1-D array-like with at least 1 id, got "
            f"{type(ids).__name__} of shape {array.shape}{remedy}."
        )
    return _check_column(array, what)


def check_matrix_ids(ids: NDArray[Any], what: str) -> None:
    """Raise an error for ids that cannot be row or column numbers of a matrix.

    Raises
    ------
    ValueError
        If an id is negative or not an integer.
    """
    numeric = ids.dtype.kind in "iuf"
    if not numeric or (ids < 0).any() or (ids != np.floor(ids)).any():
        raise ValueError(
            f"The model was fitted on a matrix, so the {what} ids in X must be its "
            f"{'row' if what == 'user' else 'column'} numbers, which are non-negative "
            f"integers, got {_kind_of(ids)} from {ids.min()} to {ids.max()}."
        )


def positions_of(
    ids: NDArray[Any], known: NDArray[Any], what: str
) -> NDArray[np.int64]:
    """Return the position of each id among the known ids; -1 for an unseen id.

    Numbers are compared by value, regardless of their dtype: 1.0 equals 1.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        Ids to look up, as returned by `check_pairs` or `check_ids`.

    known : ndarray of shape (n_known,)
        Known ids in any order, without duplicates.

    what : {"user", "item"}
        Side that the ids belong to, for the error message.

    Returns
    -------
    positions : ndarray of shape (n,), dtype int64
        Positions in `known`.

    Raises
    ------
    TypeError
        If the types of the ids can never match, for example strings and numbers.
    """
    return IdIndex(known, what).positions(ids)


class IdIndex:
    """Known ids, prepared for many look-ups.

    Parameters
    ----------
    known : ndarray of shape (n_known,)
        Known ids in any order, without duplicates.

    what : {"user", "item"}
        Side that the ids belong to, for the error message.
    """

    def __init__(self, known: NDArray[Any], what: str):
        self.known, self.what = known, what

    def positions(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """Return the position of each id; see `positions_of`."""
        known = self.known
        if ids.dtype == known.dtype == np.int64 and self._table is not None:
            low, table = self._table
            is_inside = (ids >= low) & (ids < low + len(table))
            if is_inside.all():
                return table[ids - low]
            return np.where(is_inside, table[np.where(is_inside, ids - low, 0)], -1)
        found, wanted = _kind_of(ids), _kind_of(known)
        if found != wanted:
            target = "str" if wanted == "strings" else known.dtype.name
            raise TypeError(
                f"The {self.what} ids in X are {found}, but the known {self.what} ids "
                f"are {wanted}: convert the column, for example with "
                f"astype({target!r})."
            )
        index = self._index
        if ids.dtype != known.dtype:
            # Python objects compare exactly; NumPy would round large integers to
            # floats.
            ids = ids.astype(object)
            index = pd.Index(known.astype(object), dtype=object, tupleize_cols=False)
        target = pd.Index(ids, dtype=ids.dtype, tupleize_cols=False)
        return index.get_indexer(target).astype(np.int64, copy=False)

    @functools.cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.known, dtype=self.known.dtype, tupleize_cols=False)

    @functools.cached_property
    def _table(self) -> tuple[int, NDArray[np.int64]] | None:
        """Lowest id, and the position of each integer from there; None if too large."""
        low, high = int(self.known.min()), int(self.known.max())
        if high - low >= _TABLE_FACTOR * len(self.known) + _TABLE_START:
            return None
        table = np.full(high - low + 1, -1)
        table[self.known - low] = np.arange(len(self.known))
        return low, table


def factorize(ids: NDArray[Any], what: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distinct ids, ascending, and the position of each id among them.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        Ids as returned by `check_pairs`.

    what : {"user", "item"}
        Side that the ids belong to.

    Returns
    -------
    distinct : ndarray of shape (n_distinct,)
        Distinct ids.

    positions : ndarray of shape (n,), dtype int32 or int64
        Positions in `distinct`.

    Raises
    ------
    ValueError
        If an id has a lone surrogate.
    """
    index = IdIndex(np.sort(_distinct(ids)), what)
    _refuse_surrogates(index.known, what)
    is_small = len(index.known) <= np.iinfo(np.int32).max
    positions = np.empty(len(ids), np.int32 if is_small else np.int64)
    for start in range(0, len(ids), _CHUNK):
        part = slice(start, start + _CHUNK)
        positions[part] = index.positions(ids[part])
    return index.known, positions


def _refuse_surrogates(ids: NDArray[Any], what: str) -> None:
    """Raise an error for strings that no text file and no table can hold."""
    if ids.dtype != object or not isinstance(ids[0], str):
        return
    try:
        "".join(ids).encode()
    except UnicodeEncodeError as error:
        broken = next(i for i in ids if not i.isascii() and _has_surrogate(i))
        raise ValueError(
            f"The {what} id {broken!r} has a lone surrogate, which is no character: "
            "the file was decoded with a wrong encoding. Read it with the right one or "
            "replace the character."
        ) from error


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _distinct(ids: NDArray[Any]) -> NDArray[Any]:
    """Distinct ids in any order."""
    if ids.dtype == np.int64:
        low, high = int(ids.min()), int(ids.max())
        if high - low < max(_TABLE_START, len(ids)):
            is_present = np.zeros(high - low + 1, bool)
            for start in range(0, len(ids), _CHUNK):
                is_present[ids[start : start + _CHUNK] - low] = True
            return np.flatnonzero(is_present) + low
    return pd.unique(ids)


def union_of_ids(known: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """Return the sorted union of two disjoint arrays of ids.

    Its dtype represents every id exactly.
    """
    if len(new) == 0:
        return known
    if new.dtype == known.dtype:
        return np.sort(np.concatenate([known, new]))
    # As objects: NumPy would round large integers to floats.
    both = np.concatenate([known.astype(object), new.astype(object)])
    return np.sort(_check_column(both, "item"))


def merge_ids(
    known: NDArray[Any], new: NDArray[Any], what: str
) -> tuple[NDArray[Any], Callable[[NDArray[Any], Any], NDArray[Any]]]:
    """Join known ids with new ones.

    Returns
    -------
    ids : ndarray
        All ids, ascending.

    merge : callable
        Function of values of the known ids and values of the new ids, arrays or a
        number, that returns those of all ids.
    """
    ids = union_of_ids(known, new)
    old, added = (positions_of(some, ids, what) for some in (known, new))

    def merge(values: NDArray[Any], new_values: Any) -> NDArray[Any]:
        merged = np.empty((len(ids), *values.shape[1:]), values.dtype)
        merged[old], merged[added] = values, new_values
        return merged

    return ids, merge


def refuse_masked(values: Any, name: str) -> None:
    """Raise an error for masked entries, which NumPy would treat as values.

    Raises
    ------
    ValueError
        If `values` is a masked array with masked entries.
    """
    if isinstance(values, np.ndarray) and np.ma.is_masked(values):
        raise ValueError(
            f"{name} is a masked array with masked entries: remove the masked rows, or "
            "fill them with values."
        )


def _split_columns(X: Any) -> list[Any]:
    refuse_lazy(X, "X")
    if sp.issparse(X):
        raise TypeError("X is sparse, but user-item pairs are expected.")
    if hasattr(X, "shape") and hasattr(X, "columns"):
        _check_shape(X.shape)
        if hasattr(X, "iloc"):
            return [X.iloc[:, 0], X.iloc[:, 1]]
        return [X[name] for name in getattr(X, "column_names", X.columns)]
    array = _to_array(X)
    if array.ndim == 1 and array.size and isinstance(array[0], list | tuple):
        raise ValueError(
            "X has rows of different lengths: each row must have a user id and an item "
            "id."
        )
    _check_shape(array.shape)
    return [array[:, 0], array[:, 1]]


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise ValueError(
            f"Expected 2D array, got {len(shape)}D array instead: X must have the "
            "columns user id and item id. Reshape your data with X.reshape(-1, 2), or "
            "give a sparse rating matrix."
        )
    if shape[1] < 2:
        raise ValueError(
            f"Found array with {shape[1]} feature(s) (shape={tuple(shape)}) while a "
            "minimum of 2 is required: X must have the columns user id and item id."
        )
    if shape[1] > 2:
        raise ValueError(
            f"X has {shape[1]} features, but user-item pairs have 2: user id and "
            "item id. For a table with one row per user and one column per item, use "
            f"{TABLE_REMEDY}, which keeps ratings of 0 and omits missing ones."
        )
    if shape[0] == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={tuple(shape)}) while a minimum of 1 "
            "is required: X must have one row per rating."
        )


def _to_array(values: Any, name: str = "X") -> NDArray[Any]:
    """Convert to an array without turning numbers into strings."""
    if isinstance(values, np.matrix):
        raise TypeError(f"np.matrix is not supported: use np.asarray({name}) instead.")
    refuse_masked(values, name)
    if hasattr(values, "to_numpy"):
        return values.to_numpy()
    if hasattr(values, "__array__"):
        return np.asarray(values)
    return np.array(values, dtype=object)


def _check_column(column: Any, what: str) -> NDArray[Any]:
    """Return ids as an array of one sortable type without missing values."""
    ids = _to_array(column)
    if ids.dtype.kind in "mM":
        raise TypeError(
            f"The {what} ids are of type {ids.dtype}, but times cannot be ids: "
            f"{_ID_REMEDY}."
        )
    if ids.dtype.kind in "UST":
        ids = ids.astype(object)
    _refuse_missing(ids, what)
    if ids.dtype.kind == "O":
        ids = _check_object_ids(ids, what)
    kind, size = ids.dtype.kind, ids.dtype.itemsize
    if kind == "c":
        raise ValueError(f"Complex data not supported as {what} ids: {_ID_REMEDY}.")
    if ids.ndim != 1 or kind not in "biufO" or (kind == "f" and size > 8):
        raise TypeError(
            f"The {what} ids are of type {ids.dtype} and shape {ids.shape}: "
            f"{_ID_REMEDY}."
        )
    if kind in "iu":
        fits = kind == "i" or ids.max() <= np.iinfo(np.int64).max
        return ids.astype(np.int64 if fits else np.uint64, copy=False)
    return ids.astype(np.float64, copy=False) if kind == "f" else ids


def _refuse_missing(ids: NDArray[Any], what: str) -> None:
    missing = int(pd.isna(ids).sum())
    if missing:
        raise ValueError(
            f"The {what} ids have {missing} missing values (NaN): remove these rows, "
            "or give them ids."
        )
    if ids.dtype.kind == "f" and np.isinf(ids).any():
        raise ValueError(
            f"The {what} ids contain infinity: remove these rows, or give them ids."
        )


def _check_object_ids(ids: NDArray[Any], what: str) -> NDArray[Any]:
    kind = pd.api.types.infer_dtype(ids, skipna=False)
    if kind == "string":
        return ids
    if kind == "complex":
        return ids.astype(np.complex128)
    if kind.startswith(("date", "time", "period")):
        raise TypeError(
            f"The {what} ids are {kind}s, but times cannot be ids: {_ID_REMEDY}."
        )
    for dtype in _NUMBER_TYPES.get(kind, ()):
        try:
            numbers: NDArray[Any] = ids.astype(dtype)
        except OverflowError:
            continue
        if (numbers == ids).all():
            _refuse_missing(numbers, what)
            return numbers
    _check_sortable(ids, what)
    return ids


def _check_sortable(ids: NDArray[Any], what: str) -> None:
    """Raise an error for objects of several types or without a total order."""
    types = set(map(type, ids))
    try:
        ascending = sorted(set(ids.tolist()))
        sortable = all(a < b for a, b in pairwise(ascending))
    except TypeError:
        sortable = False
    if len(types) > 1 or not sortable:
        found = ", ".join(sorted(t.__name__ for t in types))
        raise TypeError(
            f"The {what} ids are of mixed or unsortable types ({found}; each argument "
            f"must be a string or a number): {_ID_REMEDY}."
        )


def _kind_of(ids: NDArray[Any]) -> str:
    """Return the kind of ids; only ids of the same kind can match."""
    if ids.dtype.kind != "O" or isinstance(ids[0], Number):
        return "numbers"
    return "strings" if isinstance(ids[0], str) else f"of type {type(ids[0]).__name__}"
