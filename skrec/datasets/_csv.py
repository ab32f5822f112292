"""Compressed CSV files with a header, whose malformed lines are named."""

import contextlib
import csv
import gzip
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ._errors import LineError

UNREADABLE = (ValueError, OverflowError, EOFError, gzip.BadGzipFile, zlib.error)
_MAX_DIGITS = 18  # of an integer of 64 bits
_MAX_FIELD = 2**30  # characters; the csv module's own limit is 2**17
_limit_lock = threading.Lock()


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Allow long fields, such as all tags of a movie; the limit is the process's."""
    with _limit_lock:
        before = csv.field_size_limit(_MAX_FIELD)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def read_csv(path: Path, index: str) -> pd.DataFrame:
    """Read all columns as str (empty fields are missing), indexed by a column of ids.

    Raises
    ------
    LineError
        If a line is malformed; with the last line of its row.
    ValueError, EOFError, gzip.BadGzipFile, zlib.error
        If the file is not compressed, truncated or has no such column.
    """
    lines: dict[int, int] = {}
    rows = []
    # Decoded line by line: the decoder of a text file reads ahead.
    with _long_fields(), gzip.open(path, "rb") as file:
        reader = csv.reader((line.decode("utf-8") for line in file), strict=True)
        try:
            header = next(reader, [])
            if index not in header or len(set(header)) < len(header):
                raise ValueError(f"its header {header} must have the column {index!r}")
            at = header.index(index)
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise ValueError(f"{len(fields)} fields instead of {len(header)}")
                text = fields[at]
                if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
                    raise ValueError(f"{text!r} as {index} id, not a whole number")
                if int(text) in lines:
                    raise ValueError(f"the {index} id {text} twice")
                lines[int(text)] = reader.line_num
                rows.append(fields)
        except UnicodeDecodeError as error:
            line = reader.line_num + 1
            raise LineError(f"{path.name}, line {line} is not UTF-8", line) from error
        except (ValueError, csv.Error) as error:
            line = max(reader.line_num, 1)
            raise LineError(f"{path.name}, line {line} has {error}", line) from error
    table = pd.DataFrame(rows, columns=header, dtype="str").drop(columns=index)
    table.index = pd.Index(list(lines), dtype="int64", name=index)
    return table.where(table != "")
