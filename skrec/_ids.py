"""Ids of users and items: checked, in one plain array a column, and looked up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

_ID_REMEDY = "ids may be integers, floats, booleans or strings, one type a column"


def check_pairs(X) -> tuple[np.ndarray, np.ndarray]:
    """Split user-item pairs into two arrays of ids.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_ratings, 2)
        User ids in the first column, item ids in the second.

    Returns
    -------
    users, items : ndarray of shape (n_ratings,)

    Raises
    ------
    TypeError, ValueError
        If X has another shape, or ids that are missing or of mixed types.
    """
    columns = _split_columns(X)
    return _check_column(columns[0], "user"), _check_column(columns[1], "item")


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

    Raises
    ------
    TypeError, ValueError
        If ids are missing, or of mixed types, or have another shape.
    """
    if np.ndim(ids) != 1:
        raise ValueError(
            f"The {what} ids must be a 1-D array-like, got {np.ndim(ids)} dimensions."
        )
    return _check_column(ids if hasattr(ids, "iloc") else _to_array(ids), what)


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
            f"are allowed, got {ids.dtype} from {ids.min()!r} to {ids.max()!r}."
        )


def positions_of(ids: np.ndarray, known: np.ndarray, what: str) -> np.ndarray:
    """Where each id stands among the known ones; -1 for an unseen id.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        The ids to look up.

    known : ndarray of shape (n_known,)
        Ids in ascending order.

    what : {"user", "item"}
        What the ids are of, for the message.

    Returns
    -------
    positions : ndarray of shape (n,), dtype int64

    Raises
    ------
    TypeError
        If one side is text and the other numbers, so that nothing can match.
    """
    if len(ids) and _is_text(ids) != _is_text(known):
        wanted, found = ("strings", "numbers")[:: 1 if _is_text(known) else -1]
        raise TypeError(
            f"The {what} ids in X are {found}, but the model was fitted on {wanted}: "
            f"convert the column, for example with astype({known.dtype.name!r})."
        )
    return pd.Index(known).get_indexer(pd.Index(ids))


def _split_columns(X) -> list[Any]:
    if hasattr(X, "columns") and hasattr(X, "shape"):
        columns = [
            X.iloc[:, i] if hasattr(X, "iloc") else X[name]
            for i, name in enumerate(X.columns)
        ]
        return _two_columns(columns, X.shape)
    if isinstance(X, np.matrix):
        raise TypeError("np.matrix is not supported: use np.asarray(X) instead.")
    if sp.issparse(X):
        raise TypeError("X is sparse where user-item pairs are meant.")
    array = X if isinstance(X, np.ndarray) else _to_array(X)
    if array.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {array.ndim}D array instead: X must have the "
            "columns user id and item id. Reshape your data with X.reshape(-1, 2), or "
            "give a sparse rating matrix."
        )
    return _two_columns([array[:, i] for i in range(array.shape[1])], array.shape)


def _to_array(X) -> np.ndarray:
    """An array that keeps numbers and strings apart where X mixes them."""
    if hasattr(X, "__array__"):
        return np.asarray(X)
    try:
        array = np.array(X, dtype=object)
    except ValueError as error:
        raise ValueError(
            "X must have two columns, user id and item id, in every row."
        ) from error
    return array


def _two_columns(columns, shape):
    if len(columns) != 2:
        raise ValueError(
            f"X has {len(columns)} features, but user-item pairs have 2: user id and "
            "item id. For a matrix with one column an item, give a SciPy sparse "
            "matrix, for example scipy.sparse.csr_array(X)."
        )
    if shape[0] == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={tuple(shape)}) while a minimum of 1 "
            "is required."
        )
    return columns


def _check_column(column, what: str) -> np.ndarray:
    """Ids as an array of one sortable type without missing values."""
    ids = _ids_to_array(column)
    if ids.dtype.kind in "mM":
        raise TypeError(
            f"The {what} ids are of type {ids.dtype}; times are no ids: {_ID_REMEDY}."
        )
    if ids.dtype.kind == "c":
        raise ValueError(f"Complex data not supported as {what} ids: {_ID_REMEDY}.")
    if ids.dtype.kind == "O":
        ids = _check_object_ids(ids, what)
    if ids.dtype.kind == "f" and not np.isfinite(ids).all():
        raise ValueError(
            f"The {what} ids contain NaN or infinity: remove these rows or give them "
            "an id."
        )
    if ids.dtype.kind not in "biufUSTO":
        raise TypeError(f"The {what} ids are of type {ids.dtype}: {_ID_REMEDY}.")
    return ids


def _ids_to_array(column) -> np.ndarray:
    if isinstance(column, pd.Series):
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.astype(column.cat.categories.dtype)
        if isinstance(column.dtype, pd.PeriodDtype):
            raise TypeError(f"Periods are no ids: {_ID_REMEDY}.")
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            column = column.dt.tz_localize(None)
        missing = column.isna()
        if missing.any():
            raise ValueError(
                f"Column {column.name!r} has {missing.sum()} missing ids (NaN): remove "
                "these rows or give them an id."
            )
        # A nullable or Arrow column becomes the plain NumPy type of its values.
        kind = {"i": "int64", "u": "uint64", "f": "float64", "b": "bool"}
        return column.to_numpy(dtype=kind.get(getattr(column.dtype, "kind", "O")))
    return np.asarray(column)


def _check_object_ids(ids: np.ndarray, what: str) -> np.ndarray:
    missing = pd.isna(ids)
    if missing.any():
        raise ValueError(
            f"The {what} ids contain {missing.sum()} missing values (NaN): remove "
            "these rows or give them an id."
        )
    kind = pd.api.types.infer_dtype(ids, skipna=False)
    if kind == "string":
        return ids
    if kind in ("integer", "floating", "mixed-integer-float", "boolean"):
        return np.array(ids.tolist())
    if kind.startswith(("datetime", "date", "timedelta", "time", "period")):
        raise TypeError(f"The {what} ids are {kind}s; times are no ids: {_ID_REMEDY}.")
    try:
        pd.factorize(ids, sort=True)
        sorted(set(ids.tolist()))
    except TypeError as error:
        raise TypeError(
            f"The {what} ids are of mixed or unsortable types (argument must be a "
            f"string or a number): {_ID_REMEDY}. {error}"
        ) from error
    return ids


def _is_text(ids: np.ndarray) -> bool:
    if ids.dtype.kind == "O":
        return pd.api.types.infer_dtype(ids, skipna=False) == "string"
    return ids.dtype.kind in "UST"
