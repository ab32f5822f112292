"""What is known of items and users: matching with the ratings, and encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_memory

from .features import Features, split_features
from .ids import positions_of, union_of_ids
from .joins import look_up, warn_of_failed_join

# A sparse matrix with fewer entries, or a larger part of them not 0, becomes dense.
_LARGE, _DENSITY = 2**24, 0.1


class ResolvedFeatures(NamedTuple):
    """A table of features, matched with the users or items of the ratings.

    Attributes
    ----------
    name : str
        Name of the argument, for error messages.

    ids : ndarray of shape (n,)
        Ids of the users or items that have a rating or features, ascending.

    places : ndarray of shape (n_described,)
        Position in `ids` of each row of the table, ascending.

    table : DataFrame, ndarray or csr_array of n_described rows
        Features.
    """

    name: str
    ids: NDArray[Any]
    places: NDArray[np.int64]
    table: Any

    def among(self, ids: NDArray[Any], what: str) -> ResolvedFeatures:
        """The same features among more ids, ascending."""
        places = positions_of(self.ids, ids, what)[self.places]
        return self._replace(ids=ids, places=places)


class EncodedFeatures(NamedTuple):
    """Features as numbers.

    Attributes
    ----------
    encoder : transformer
        Fitted encoder.

    values : ndarray or csr_array of shape (n_described, p)
        Output of the encoder.

    center, scale : ndarray of shape (p,)
        Means of the columns, and the root mean square length of the centered rows of
        the block of each column.

    blocks : dict of str to slice
        Columns of each block, in order.

    names : ndarray of shape (p,)
        Names of the columns.
    """

    encoder: Any
    values: Any
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    blocks: dict[str, slice]
    names: NDArray[Any]


def resolve_features(
    features: Any, known: NDArray[Any], what: str, *, on_matrix: bool
) -> ResolvedFeatures:
    """Match the features passed to `fit` with the users or items of the ratings.

    Parameters
    ----------
    features : DataFrame, mapping, Series, array-like, sparse or Features
        Features, as described in `Features`.

    known : ndarray of shape (n_known,)
        Ids in the ratings, ascending.

    what : {"user", "item"}
        Side that the features belong to.

    on_matrix : bool
        Whether the ratings are a matrix. `known` are then its row or column numbers.

    Raises
    ------
    TypeError, ValueError
        If the features cannot be matched with the ratings, or are invalid for
        `Features`.

    Warns
    -----
    UserWarning
        If the ids seem not to be those of the ratings.
    """
    name = f"{what}_features"
    ids, table = split_features(features, name)
    line = "row" if what == "user" else "column"
    if on_matrix and (ids is None or what == "user"):
        _check_aligned(features, table, len(known), name, line)
        return ResolvedFeatures(name, known, np.arange(len(known)), table)
    if ids is None:
        raise TypeError(
            f"{name} is of type {type(features).__name__}, but with user-item pairs an "
            f"array does not tell which row belongs to which {what}: give a DataFrame "
            f"whose index holds the {what} ids."
        )
    positions = look_up(ids, known, name, what)
    new = ids[positions < 0]
    if on_matrix and len(new):
        raise ValueError(
            f"X is a matrix, so the ids in {name} must be its {line} numbers, integers "
            f"from 0 to {len(known) - 1}, got {new.tolist()[0]!r}: remove these rows, "
            f"or give an array with one row for each {line}."
        )
    if not on_matrix:
        warn_of_failed_join(known, positions[positions >= 0], new, name, what)
    all_ids = union_of_ids(known, new)
    places = positions_of(ids, all_ids, what)
    order = np.argsort(places)
    return ResolvedFeatures(name, all_ids, places[order], _take(table, order))


def encode_features(
    resolved: ResolvedFeatures, encoder: Any, memory: Any
) -> EncodedFeatures:
    """Fit an encoder to the features, and describe its output.

    Parameters
    ----------
    resolved : ResolvedFeatures
        Features.

    encoder : transformer
        Encoder, which is cloned.

    memory : str, object with the interface of joblib.Memory, or None
        Cache of fitted encoders.

    Raises
    ------
    TypeError, ValueError
        If the output is not a finite matrix with one row for each row of the table, or
        if it says nothing because its columns are constant.
    """
    fit_transform = check_memory(memory).cache(_fit_transform)
    encoder, values = fit_transform(clone(encoder), resolved.table)
    values = check_encoded(encoder, values, len(resolved.places), resolved.name)
    blocks = _blocks_of(encoder, values.shape[1])
    names = _names_of(encoder, values.shape[1])
    return describe(encoder, values, blocks, names, resolved.name)


def describe(
    encoder: Any,
    values: Any,
    blocks: dict[str, slice],
    names: NDArray[Any],
    argument: str,
) -> EncodedFeatures:
    """Compute center and scale of encoded features.

    Raises
    ------
    ValueError
        If all columns are constant.
    """
    center = np.asarray(values.mean(axis=0), np.float64).reshape(-1)
    squares = np.asarray((values**2).mean(axis=0), np.float64).reshape(-1)
    # Rounding errors of constant columns are no variance.
    variances = np.where(squares - center**2 > 1e-12 * squares, squares - center**2, 0)
    scale = np.ones(values.shape[1])
    for block in blocks.values():
        scale[block] = np.sqrt(variances[block].sum()) or 1.0
    if not variances.any():
        raise ValueError(
            f"{argument} says nothing: it is the same for all rows, or each "
            "column has another value in each row, as ids have. Give columns that "
            "some rows share."
        )
    return EncodedFeatures(encoder, values, center, scale, blocks, names)


def check_encoded(encoder: Any, values: Any, n_rows: int, name: str) -> Any:
    """Check the output of an encoder, and return it as an ndarray or a csr_array."""
    found = f"the encoder {type(encoder).__name__} returned"
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    values = _compact(values) if sp.issparse(values) else np.asarray(values)
    if values.ndim != 2 or values.shape[0] != n_rows or values.shape[1] == 0:
        raise ValueError(
            f"{name} has {n_rows} rows, but {found} shape {values.shape}: it must "
            "return a matrix with one row for each row."
        )
    if values.dtype.kind not in "fiub":
        raise TypeError(
            f"{found} entries of type {values.dtype} for {name}: it must return "
            "numbers."
        )
    entries = values if isinstance(values, np.ndarray) else values.data
    if not np.isfinite(entries).all():
        raise ValueError(
            f"{found} NaN or infinite numbers for {name}: add an imputer, for example "
            "sklearn.impute.SimpleImputer."
        )
    if isinstance(values, np.ndarray):
        # The order in memory may change the last bits of sums.
        return np.ascontiguousarray(values, dtype=np.float64)
    return values.astype(np.float64)


def _compact(values: Any) -> Any:
    """Make an array of a sparse matrix, unless that would waste memory."""
    values = sp.csr_array(values)
    size = values.shape[0] * values.shape[1]
    if size < _LARGE or values.nnz > _DENSITY * size:
        return values.toarray()
    values.sum_duplicates()
    return values


def _check_aligned(
    features: Any, table: Any, n_known: int, name: str, line: str
) -> None:
    """Raise an error for features that cannot belong to the rows of a matrix."""
    if isinstance(features, Mapping):
        raise TypeError(
            f"{name} is a mapping, but the users of a matrix are its rows, which "
            f"cross-validation splits: give a DataFrame or an array with one row for "
            f"each {line}, in the order of X."
        )
    if table.shape[0] != n_known:
        wrapped = isinstance(features, Features)
        hint = (
            " In cross-validation, wrap item features in skrec.features.Features, "
            "because scikit-learn splits a table that is as long as X."
        )
        raise ValueError(
            f"{name} has {table.shape[0]} rows, but X has {n_known} {line}s: give one "
            f"row for each {line}."
            f"{hint if line == 'column' and not wrapped else ''}"
        )


def _take(table: Any, order: NDArray[np.int64]) -> Any:
    return table.iloc[order] if isinstance(table, pd.DataFrame) else table[order]


def _fit_transform(encoder, table):
    """Fit an encoder and return it with its output, so that both are cached."""
    return encoder, encoder.fit_transform(table)


def _blocks_of(encoder: Any, n_columns: int) -> dict[str, slice]:
    """Columns of each block: those of an encoder of columns, else all."""
    found = getattr(encoder, "output_indices_", None)
    if found is None:
        return {"features": slice(0, n_columns)}
    return {name: block for name, block in found.items() if block.stop > block.start}


def _names_of(encoder: Any, n_columns: int) -> NDArray[Any]:
    if hasattr(encoder, "get_feature_names_out"):
        try:
            return np.asarray(encoder.get_feature_names_out(), dtype=object)
        except (AttributeError, ValueError):
            pass  # a pipeline whose steps have no names
    return np.array([f"x{j}" for j in range(n_columns)], dtype=object)
