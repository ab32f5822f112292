"""Validation of the arrays of sparse matrices, before compiled code reads them."""

from __future__ import annotations

from typing import Any

import numpy as np


def refuse_broken(matrix: Any, name: str) -> Any:
    """Return a sparse matrix whose arrays fit together, without unused entries.

    SciPy's compiled routines trust these arrays, so that wrong ones are read as other
    entries or end the process. Matrices become wrong if their arrays are assigned to,
    or are read from a damaged file.

    Parameters
    ----------
    matrix : sparse matrix or sparse array, any format
        Matrix to check. It is not changed.

    name : str
        Name of the matrix in the error message.

    Returns
    -------
    matrix : sparse matrix or sparse array
        The same matrix or, if there is room behind the last row (or column, in the
        format CSC), one without that room which shares its memory.

    Raises
    ------
    ValueError
        If `indptr` does not start at 0, decreases, has a wrong length or exceeds the
        entries; if there are fewer indices or values than entries; or if an index is
        outside of the shape.
    """
    if matrix.format not in ("csr", "csc", "bsr"):
        return matrix
    data, indices, indptr = (
        np.asarray(a) for a in (matrix.data, matrix.indices, matrix.indptr)
    )
    n_rows, n_columns = matrix.shape
    if matrix.format == "csc":
        n_rows, n_columns = n_columns, n_rows
    elif matrix.format == "bsr":
        n_rows //= data.shape[1]
        n_columns //= data.shape[2]
    problem = _problem_of(data, indices, indptr, n_rows, n_columns)
    if problem:
        raise ValueError(
            f"{name} is a broken sparse matrix in the format {matrix.format.upper()}: "
            f"{problem}. Build it anew, for example with scipy.sparse.coo_array."
        )
    n_entries = int(indptr[-1])
    if n_entries == len(indices) == len(data):
        return matrix
    parts = data[:n_entries], indices[:n_entries], indptr
    return type(matrix)(parts, shape=matrix.shape)


def _problem_of(
    data: Any, indices: Any, indptr: Any, n_rows: int, n_columns: int
) -> str | None:
    """Return what is wrong with the arrays of a compressed matrix, or None."""
    for array, what in ((indices, "indices"), (indptr, "indptr")):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            return f"{what} is of shape {array.shape} and dtype {array.dtype}"
    if len(indptr) != n_rows + 1:
        return f"indptr has {len(indptr)} entries, not {n_rows + 1}"
    if indptr[0] != 0:
        return f"indptr starts at {indptr[0]}, not at 0"
    if (indptr[1:] < indptr[:-1]).any():
        return "indptr decreases"
    n_entries = indptr[-1]
    if n_entries > min(len(indices), len(data)):
        return (
            f"indptr ends at {n_entries}, but there are {len(indices)} indices and "
            f"{len(data)} values"
        )
    used = indices[:n_entries]
    if n_entries and (used.min() < 0 or used.max() >= n_columns):
        return f"an index is outside its shape ({used.min()} to {used.max()})"
    return None
