"""Ids of users and items: checked, in one plain array a column, and looked up."""

from __future__ import annotations

from itertools import pairwise
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

_ID_REMEDY = (
    "ids may be integers, floats, booleans, strings or other values that sort, of one "
    "type a column"
)
# The types that objects of a kind, as pandas infers it, can have without a loss.
_NUMBER_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (np.int64, np.uint64),
    "floating": (np.float64,),
    "mixed-integer-float": (np.float64,),
    "boolean": (np.bool_,),
}


def check_pairs(X) -> tuple[np.ndarray, np.ndarray]:
    """Split user-item pairs into two arrays of ids.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_ratings, 2)
        User ids in the first column, item ids in the second.

    Returns
    -------
    users, items : ndarray of shape (n_ratings,)
        Of dtype int64, uint64 (only beyond the range of int64), float64, bool, or
        object: strings, or other values of one type.

    Raises
    ------
    TypeError, ValueError
        If X has another shape, or ids that are missing or of mixed types.
    """
    users, items = _split_columns(X)
    return _check_column(users, "user"), _check_column(items, "item")


def check_ids(ids, what: str) -> np.ndarray:
    """Validate ids of shape (n,).

    Parameters
    ----------
    ids : array-like of shape (n,)
        Ids of one sortable type.

    what : {"user", "item"}
        What the ids are of, for the messages.

    Returns
    -------
    ids : ndarray of shape (n,)
        Of the dtypes that `check_pairs` returns. It may share the memory of `ids`.

    Raises
    ------
    TypeError, ValueError
        If ids are missing, or of mixed types, or have another shape.
    """
    array = _to_array(ids, f"{what}s")
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(
            f"The {what} ids must be a 1-D array-like of at least 1 id, got "
            f"{type(ids).__name__} of shape {array.shape}."
        )
    return _check_column(array, what)


def check_matrix_ids(ids: np.ndarray, what: str) -> None:
    """Refuse ids that cannot be row or column numbers of a matrix.

    Raises
    ------
    ValueError
        If an id is negative or not an integer.
    """
    numeric = ids.dtype.kind in "iuf"
    if not numeric or (ids < 0).any() or (ids != np.floor(ids)).any():
        raise ValueError(
            f"The model was fitted on a matrix, so that the {what} ids in X are its "
            f"{'row' if what == 'user' else 'column'} numbers: non-negative integers "
            f"are allowed, got {_kind_of(ids)} from {ids.min()} to {ids.max()}."
        )


def positions_of(ids: np.ndarray, known: np.ndarray, what: str) -> np.ndarray:
    """Where each id stands among the known ones; -1 for an unseen id.

    Numbers are compared by value, whatever their type: 1.0 is 1.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        The ids to look up, as `check_pairs` or `check_ids` returns them.

    known : ndarray of shape (n_known,)
        Ids in any order, each once.

    what : {"user", "item"}
        What the ids are of, for the message.

    Returns
    -------
    positions : ndarray of shape (n,), dtype int64

    Raises
    ------
    TypeError
        If one side is, say, text and the other numbers, so that nothing can match.
    """
    found, wanted = _kind_of(ids), _kind_of(known)
    if found != wanted:
        target = "str" if wanted == "strings" else known.dtype.name
        raise TypeError(
            f"The {what} ids in X are {found}, but the known ones are {wanted}: "
            f"convert the column, for example with astype({target!r})."
        )
    if ids.dtype != known.dtype:
        # Only Python compares integers and floats of any size by their exact values.
        ids, known = ids.astype(object), known.astype(object)
    index = pd.Index(known, dtype=known.dtype, tupleize_cols=False)
    target = pd.Index(ids, dtype=ids.dtype, tupleize_cols=False)
    return index.get_indexer(target).astype(np.int64, copy=False)


def union_of_ids(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Ids that have none in common together, ascending.

    They are of a type that holds each of them exactly.
    """
    if len(new) == 0:
        return known
    if new.dtype == known.dtype:
        return np.sort(np.concatenate([known, new]))
    # NumPy would round large integers to make them floats.
    both = np.concatenate([known.astype(object), new.astype(object)])
    return np.sort(_check_column(both, "item"))


def refuse_masked(values: Any, name: str) -> None:
    """Refuse masked entries, which NumPy's functions would take for values.

    Raises
    ------
    ValueError
        If `values` is a masked array with an entry masked.
    """
    if isinstance(values, np.ndarray) and np.ma.is_masked(values):
        raise ValueError(
            f"{name} is a masked array with masked entries: remove their rows, or fill "
            "them with values."
        )


def _split_columns(X) -> list[Any]:
    if sp.issparse(X):
        raise TypeError("X is sparse where user-item pairs are meant.")
    if hasattr(X, "shape") and hasattr(X, "columns"):
        _check_shape(X.shape)
        if hasattr(X, "iloc"):
            return [X.iloc[:, 0], X.iloc[:, 1]]
        return [X[name] for name in getattr(X, "column_names", X.columns)]
    array = _to_array(X)
    if array.ndim == 1 and array.size and isinstance(array[0], list | tuple):
        raise ValueError(
            "X has rows of different lengths: give each a user id and an item id."
        )
    _check_shape(array.shape)
    return [array[:, 0], array[:, 1]]


def _check_shape(shape):
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
            "item id. For a matrix with one column an item, give a SciPy sparse "
            "matrix, for example scipy.sparse.csr_array(X)."
        )
    if shape[0] == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={tuple(shape)}) while a minimum of 1 "
            "is required: X must have a row for each rating."
        )


def _to_array(values, name="X") -> np.ndarray:
    """An array that keeps numbers and strings apart where `values` mixes them."""
    if isinstance(values, np.matrix):
        raise TypeError(f"np.matrix is not supported: use np.asarray({name}) instead.")
    refuse_masked(values, name)
    if hasattr(values, "to_numpy"):
        return values.to_numpy()
    if hasattr(values, "__array__"):
        return np.asarray(values)
    return np.array(values, dtype=object)


def _check_column(column, what: str) -> np.ndarray:
    """Ids as an array of one sortable type without missing values."""
    ids = _to_array(column)
    if ids.dtype.kind in "mM":
        raise TypeError(
            f"The {what} ids are of type {ids.dtype}; times are no ids: {_ID_REMEDY}."
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


def _refuse_missing(ids, what):
    missing = int(pd.isna(ids).sum())
    if missing:
        raise ValueError(
            f"The {what} ids have {missing} missing values (NaN): remove these rows or "
            "give them an id."
        )
    if ids.dtype.kind == "f" and np.isinf(ids).any():
        raise ValueError(
            f"The {what} ids contain infinity: remove these rows or give them an id."
        )


def _check_object_ids(ids: np.ndarray, what: str) -> np.ndarray:
    kind = pd.api.types.infer_dtype(ids, skipna=False)
    if kind == "string":
        return ids
    if kind == "complex":
        return ids.astype(np.complex128)
    if kind.startswith(("date", "time", "period")):
        raise TypeError(f"The {what} ids are {kind}s; times are no ids: {_ID_REMEDY}.")
    for dtype in _NUMBER_TYPES.get(kind, ()):
        try:
            numbers: np.ndarray = ids.astype(dtype)
        except OverflowError:
            continue
        if (numbers == ids).all():
            _refuse_missing(numbers, what)
            return numbers
    _check_sortable(ids, what)
    return ids


def _check_sortable(ids, what):
    """Refuse objects of several types or without a total order."""
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


def _kind_of(ids) -> str:
    """What ids are, as far as it decides whether they can match others."""
    if ids.dtype.kind != "O" or isinstance(ids[0], Number):
        return "numbers"
    return "strings" if isinstance(ids[0], str) else f"of type {type(ids[0]).__name__}"
