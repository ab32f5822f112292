"""Files with one rating per line, parsed in blocks, whose malformed lines are named."""

import io
import re
from collections.abc import Callable, Iterator
from typing import IO, TypeVar

import pandas as pd

from ._errors import LineError

_BLOCK = 1 << 24  # bytes parsed at a time, to bound the memory of the parser
_SHOWN = 60  # characters of a malformed line in a message
_MARK = b"\xef\xbb\xbf"  # the byte order mark, with which spreadsheet programs begin
_T = TypeVar("_T")

INTEGER = rb"\d{1,18}"  # fits into 64 bits
DECIMAL = rb"-?\d{1,18}(?:\.\d{1,18})?"


def line_pattern(fields: bytes) -> re.Pattern[bytes]:
    """Compile the pattern of one whole line with the given fields."""
    return re.compile(rb"^" + fields + rb"[ \t]*\r?(?:\n|\Z)", re.MULTILINE)


def check_lines(block: bytes, pattern: re.Pattern[bytes], described: str) -> None:
    """Raise ValueError if a line is neither blank nor matches the pattern."""
    for line in pattern.sub(b"", block).splitlines():
        if line.strip():
            shown = line.decode("utf-8", "backslashreplace")[:_SHOWN]
            raise ValueError(f"{shown!r} is not in the format '{described}'")


def read_numbers(block: bytes, names: list[str], separator: str) -> pd.DataFrame:
    """Read the columns of checked lines: integers or, in other columns, floats."""
    if not block.strip():
        return pd.DataFrame(columns=names, dtype="float64")
    return pd.read_csv(io.BytesIO(block), sep=separator, header=None, names=names)


def parse_lines(
    file: IO[bytes], parse: Callable[[bytes], _T], n_before: int = 0
) -> Iterator[_T]:
    """Yield what `parse` makes of blocks of whole lines.

    If it raises ValueError or OverflowError for a block, it must also do so for every
    part of it that begins alike and contains the malformed line.

    Raises
    ------
    LineError
        With the first malformed line. `n_before` lines precede those of the file.
    """
    while block := file.read(_BLOCK):
        block += file.readline()
        if not n_before:
            block = block.removeprefix(_MARK)
        try:
            yield parse(block)
        except (ValueError, OverflowError) as error:
            raise _first_error(block, parse, n_before, error) from error
        n_before += block.count(b"\n")


def _first_error(
    block: bytes, parse: Callable[[bytes], object], n_before: int, error: Exception
) -> LineError:
    """Find the first malformed line by halving the part that contains it."""
    lines = io.BytesIO(block).readlines()
    low, high = 0, len(lines)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            parse(b"".join(lines[:middle]))
        except (ValueError, OverflowError) as earlier:
            high, error = middle, earlier
        else:
            low = middle
    return LineError(f"line {n_before + high}: {error}", n_before + high)
