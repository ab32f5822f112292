"""What is known of items and users: matching with the ratings, and encoding."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.utils.validation import check_memory

from .._sklearn_compat import N_WRAPPERS
from .features import Features, split_features
from .ids import positions_of, union_of_ids
from .joins import look_up, warn_of_failed_join

# A sparse matrix with fewer entries, or a larger part of them not 0, becomes dense.
_LARGE, _DENSITY = 2**24, 0.1
# Variance of a column, relative to the square of its largest number, that is rounding.
_SAME = 1e-24


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
        _warn_of_default_index(features, known, positions, name, what)
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
    # Numbers of any size: the squares of their quotients do not overflow.
    if isinstance(values, np.ndarray):
        unit = _positive(np.abs(values).max(axis=0))
        variances = np.square((values - center) / unit).mean(axis=0)
    else:
        extremes = values.max(axis=0).toarray(), -values.min(axis=0).toarray()
        unit = _positive(np.maximum(*extremes).reshape(-1))
        squares = (values @ sp.diags_array(1 / unit)).power(2).mean(axis=0)
        variances = np.asarray(squares).reshape(-1) - (center / unit) ** 2
    # Rounding errors of constant columns are no variance.
    std = np.sqrt(np.where(variances > _SAME, variances, 0)) * unit
    if not std.any():
        raise ValueError(
            f"{argument} says nothing: it is the same for all rows. Give columns in "
            "which some rows differ, and that some rows share."
        )
    scale = np.ones(values.shape[1])
    for block in blocks.values():
        largest = std[block].max()
        if largest:
            scale[block] = largest * np.sqrt(np.square(std[block] / largest).sum())
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


def _warn_of_default_index(
    features: Any,
    known: NDArray[Any],
    positions: NDArray[np.int64],
    name: str,
    what: str,
) -> None:
    """Warn if a column of a table has the ids better than its default index."""
    if not isinstance(features, pd.DataFrame) or features.index.name is not None:
        return
    if not isinstance(features.index, pd.RangeIndex) or features.index.start != 0:
        return
    n_matched = np.sum(positions >= 0)
    for column in features.columns:
        cells = features[column]
        if cells.isin(known).sum() > n_matched and cells.is_unique:
            warnings.warn(
                f"The index of {name} is the default one, 0 to {len(features) - 1}, "
                f"and more of the {what} ids are in its column {column!r}: give "
                f"{name}.set_index({column!r}) if they are the ids.",
                UserWarning,
                # This function, its caller, `Fit`, `fit`, and its wrappers.
                stacklevel=4 + N_WRAPPERS + 1,
            )
            return


def _positive(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(numbers > 0, numbers, 1.0)


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
    ids = features.ids if isinstance(features, Features) else None
    if line == "row" and ids is not None and not np.array_equal(ids, range(len(ids))):
        raise ValueError(
            f"{name} is Features by id, but the users of a matrix are its rows, which "
            "cross-validation splits: give the table itself, with one row for each "
            "row, in the order of X."
        )
    if table.shape[0] != n_known:
        wrapped = isinstance(features, Features)
        hint = (
            " In cross-validation, wrap item features in skrec.features.Features, "
            "because scikit-learn splits a table that is as long as X."
        )
        unwrap = " Features is not split with X: give the table itself."
        raise ValueError(
            f"{name} has {table.shape[0]} rows, but X has {n_known} {line}s: give one "
            f"row for each {line}."
            f"{hint if line == 'column' and not wrapped else ''}"
            f"{unwrap if line == 'row' and wrapped else ''}"
        )


def _take(table: Any, order: NDArray[np.int64]) -> Any:
    return table.iloc[order] if isinstance(table, pd.DataFrame) else table[order]


def _fit_transform(encoder, table):
    """Fit an encoder and return it with its output, so that both are cached."""
    # Frames cannot hold sparse output, which a global setting would ask for.
    with config_context(transform_output="default"):
        return encoder, encoder.fit_transform(table)


def transform_new(encoder: Any, table: Any, n_rows: int, name: str) -> Any:
    """Encode the features of further users or items with a fitted encoder."""
    with config_context(transform_output="default"):
        values = encoder.transform(table)
    return check_encoded(encoder, values, n_rows, name)


def _blocks_of(encoder: Any, n_columns: int) -> dict[str, slice]:
    """Columns of each block: those of an encoder of columns, else all."""
    found = getattr(encoder, "output_indices_", None)
    if found is not None:
        blocks = {
            str(name): columns
            for name, columns in found.items()
            if columns.stop > columns.start
        }
        covered = np.concatenate([np.arange(n_columns)[c] for c in blocks.values()])
        if np.array_equal(np.sort(covered), np.arange(n_columns)):
            return blocks
    return {"features": slice(0, n_columns)}


def _names_of(encoder: Any, n_columns: int) -> NDArray[Any]:
    if hasattr(encoder, "get_feature_names_out"):
        try:
            return np.asarray(encoder.get_feature_names_out(), dtype=object)
        except (AttributeError, ValueError):
            pass  # a pipeline whose steps have no names
    return np.array([f"x{j}" for j in range(n_columns)], dtype=object)
