"""Sizes of the chunks of a computation that does not fit in memory as a whole."""

from __future__ import annotations

# Numbers in a chunk: 128 MiB in double precision.
CHUNK = 2**24


def chunk_length(width: int) -> int:
    """Number of rows of `width` numbers in a chunk, at least 1."""
    return max(1, CHUNK // max(1, width))


def row_chunks(n_rows: int, width: int) -> list[slice]:
    """Cut rows into ranges that take at most `CHUNK` numbers, or have one row.

    Parameters
    ----------
    n_rows : int
        Number of rows.

    width : int
        Numbers that are held for each row while it is processed.

    Returns
    -------
    chunks : list of slice
        Ranges that cover all rows in order; one empty range if there are no rows.
    """
    step = chunk_length(width)
    return [slice(at, min(at + step, n_rows)) for at in range(0, max(n_rows, 1), step)]
