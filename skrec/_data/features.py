"""Tables of what is known of items or users: validation and wrapping."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from numbers import Number
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from .ids import refuse_masked
from .stored import refuse_broken
from .unsplit import Unsplit, check_unique_ids

# A frame with one row for each id, or a matrix.
Table: TypeAlias = pd.DataFrame | NDArray[Any] | Any  # or csr_array

_ALLOWED = (
    "a DataFrame indexed by id, a mapping from id to a vector or to named attributes, "
    "a 2-D array or sparse matrix with one row for each row or column of a rating "
    "matrix, or skrec.features.Features around one of them"
)
_CUT = (
    " In cross-validation, scikit-learn splits any sized object whose length equals "
    "the number of samples, and turns a mapping into a list: wrap the table in "
    "skrec.features.Features, which is not split."
)


class Features(Unsplit):
    """Container for a table of features that cross-validation does not split.

    scikit-learn splits any sized object whose length equals the number of samples.
    Features belong to items or users, not to samples, so `fit` needs all of them in
    every split. This wrapper has no length and is therefore passed on unchanged.

    Parameters
    ----------
    table : DataFrame, Series, mapping, array or sparse matrix
        What is known of items or users, as

        - a DataFrame with one row for each of them, indexed by id,
        - a Series indexed by id, which becomes a table of one column,
        - a mapping from id to a vector (a sequence of numbers; all of one length) or
          to named attributes (a mapping or Series), or
        - a 2-D array or sparse matrix of numbers, whose rows are aligned with the
          columns (items) or rows (users) of a rating matrix.

    Attributes
    ----------
    ids : ndarray of shape (n_rows,) or None
        Ids in the order of the rows. None if the table is an array.

    table : DataFrame, ndarray or csr_array of shape (n_rows, n_columns)
        Copy of the table.

    Raises
    ------
    TypeError, ValueError
        If `table` is of another type or empty, or has an id twice.

    See Also
    --------
    FeatureEncoder : Convert a table to a numeric matrix.
    skrec.text.ItemTexts : The same for one text per item.

    Examples
    --------
    >>> import pandas as pd
    >>> from skrec.features import Features
    >>> films = pd.DataFrame(
    ...     {"year": [1979, 1995, 2009], "genres": ["Horror|SciFi", "Crime", "Comedy"]},
    ...     index=["Alien", "Heat", "Up"],
    ... )
    >>> Features(films)
    Features(<3 rows of 2 columns by id>)
    >>> Features({"Alien": [0.1, 0.9], "Heat": [0.3, 0.2]}).table
    array([[0.1, 0.9],
           [0.3, 0.2]])

    Pass it to `fit`, to a search or to cross-validation in place of the table:
    ``GridSearchCV(recommender, param_grid).fit(X, y, item_features=Features(films))``.
    """

    table: Table

    def __init__(self, table: Any) -> None:
        self.ids, found = split_features(table, "table")
        self.table = copy.deepcopy(found)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Features):
            return NotImplemented
        return _equal(self._sorted(), other._sorted())

    def __repr__(self) -> str:
        counts = zip(self.table.shape, ("row", "column"), strict=True)
        rows, columns = (f"{n} {what}{'' if n == 1 else 's'}" for n, what in counts)
        of = "by position" if self.ids is None else "by id"
        return f"Features(<{rows} of {columns} {of}>)"

    def _sorted(self) -> tuple[NDArray[Any] | None, Table]:
        """Return ids and table in the order of the ids, which is irrelevant."""
        if self.ids is None:
            return None, self.table
        order = np.argsort(self.ids, kind="stable")
        table = self.table
        rows = table.iloc[order] if isinstance(table, pd.DataFrame) else table[order]
        return self.ids[order], rows


def split_features(features: Any, name: str) -> tuple[NDArray[Any] | None, Table]:
    """Validate what is known of items or users.

    Parameters
    ----------
    features : DataFrame, Series, mapping, array, sparse matrix or Features
        Features, as described in `Features`.

    name : str
        Name of the argument in the error messages. If it starts with "user", its ids
        are those of users, otherwise those of items.

    Returns
    -------
    ids : ndarray of shape (n_rows,) or None
        Ids in the order of the rows. None if the rows are aligned with a matrix.

    table : DataFrame, ndarray or csr_array of shape (n_rows, n_columns)
        The table, which may share memory with `features`.

    Raises
    ------
    TypeError, ValueError
        If the features are invalid for `Features`.
    """
    if isinstance(features, Features):
        return features.ids, features.table
    if isinstance(features, pd.DataFrame):
        return _check_index(features.index, name), _check_size(features, name)
    if isinstance(features, pd.Series):
        column = "feature" if features.name is None else features.name
        table = features.to_frame(column)
        return _check_index(features.index, name), _check_size(table, name)
    if isinstance(features, Mapping):
        return _split_mapping(features, name)
    return None, _check_matrix(features, name)


def _split_mapping(features: Mapping[Any, Any], name: str) -> tuple[Any, Table]:
    if not features:
        raise ValueError(f"{name} is an empty mapping: give at least one id.")
    keys, values = list(features), list(features.values())
    ids = _check_ids(keys, name)
    if all(isinstance(value, Mapping | pd.Series) for value in values):
        records = [dict(value) for value in values]
        index = pd.Index(ids, tupleize_cols=False)
        return ids, _check_size(pd.DataFrame(records, index), name)
    for key, value in features.items():
        if not _is_vector(value):
            kind = type(value).__name__
            raise TypeError(
                f"{name} is a mapping that has an object of type {kind} for the id "
                f"{key!r}, but all values must be vectors (sequences of numbers), or "
                "all must be mappings from names to attributes. Give one attribute as "
                "a pandas Series indexed by id, and several columns as "
                "pandas.DataFrame(columns, index=ids)."
            )
    lengths = [len(value) for value in values]
    if len(set(lengths)) > 1:
        other = next(i for i, length in enumerate(lengths) if length != lengths[0])
        raise ValueError(
            f"{name} has vectors of different lengths: {lengths[0]} for the id "
            f"{keys[0]!r}, {lengths[other]} for {keys[other]!r}. Give vectors of one "
            "length."
        )
    return ids, _check_matrix(np.array(values, dtype=np.float64), name)


def _is_vector(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "biuf"
    return isinstance(value, list | tuple) and all(
        isinstance(number, Number) and not isinstance(number, complex)
        for number in value
    )


def _check_index(index: pd.Index, name: str) -> NDArray[Any]:
    if isinstance(index, pd.MultiIndex):
        raise TypeError(
            f"{name} has a MultiIndex with the levels {list(index.names)}, but one id "
            "per row is expected: keep one level as index, with reset_index(level=...)."
        )
    if len(index) == 0:
        raise ValueError(f"{name} has no rows: give at least one row.")
    return _check_ids(index, name)


def _check_ids(keys: Any, name: str) -> NDArray[Any]:
    what = "user" if name.startswith("user") else "item"
    return check_unique_ids(keys, name, what, "row")


def _check_matrix(features: Any, name: str) -> Table:
    if isinstance(features, np.matrix):
        raise TypeError(f"{name} is a np.matrix: use np.asarray({name}) instead.")
    is_sparse: bool = sp.issparse(features)
    if not is_sparse and not isinstance(features, np.ndarray):
        hint = _CUT if isinstance(features, list) else ""
        raise TypeError(
            f"{name} must be {_ALLOWED}, got {type(features).__name__}.{hint}"
        )
    refuse_masked(features, name)
    if is_sparse:
        features = refuse_broken(features, name)
    if features.ndim != 2:
        raise ValueError(
            f"{name} must have two dimensions, one row for each item or user and one "
            f"column for each feature, got an array of shape {features.shape}. Reshape "
            "a single feature with reshape(-1, 1)."
        )
    if features.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} is an array of dtype {features.dtype}, but arrays must be "
            "numeric: give a DataFrame indexed by id for columns of other types."
        )
    return _check_size(sp.csr_array(features) if is_sparse else features, name)


def _check_size(table: Any, name: str) -> Any:
    if 0 in table.shape:
        raise ValueError(
            f"{name} is empty, with {table.shape[0]} rows and {table.shape[1]} "
            "columns: give at least one row and one column."
        )
    return table


def _equal(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    (ids, table), (other_ids, other_table) = one, other
    if (ids is None) != (other_ids is None) or type(table) is not type(other_table):
        return False
    if table.shape != other_table.shape or not np.array_equal(ids, other_ids):
        return False
    if isinstance(table, pd.DataFrame):
        # The ids are compared already; an index may have another dtype.
        plain, other_plain = (t.reset_index(drop=True) for t in (table, other_table))
        return plain.equals(other_plain)
    arrays = zip(_arrays_of(table), _arrays_of(other_table), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in arrays)


def _arrays_of(table: Any) -> list[NDArray[Any]]:
    is_sparse: bool = sp.issparse(table)
    if not is_sparse:
        return [table]
    table = table.copy()
    table.sum_duplicates()
    table.eliminate_zeros()
    return [table.indptr, table.indices, table.data]
