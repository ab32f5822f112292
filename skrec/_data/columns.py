"""Columns of a table: what their cells are, and of what kind that makes them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import chain
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_REMEDY = {
    "numbers": "pandas.to_numeric(column, errors='coerce') makes numbers of all",
    "strings": "column.astype(str) makes strings of all",
    "dates": "pandas.to_datetime(column, errors='coerce') makes dates of all",
}
_CONTAINERS = (list, tuple, set, frozenset, np.ndarray, pd.Series)
# Scripts that are written without blanks: Thai, Lao, Burmese, Khmer, Chinese, Japanese.
_UNSPACED = (
    "\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# \w lacks the combining marks that words of other scripts are written with.
_LETTER = (
    r"\w\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u200c\u200d"
)
_ASCII_WORD = re.compile(r"\w\w+")
_WORD = re.compile(
    rf"(?=([{_UNSPACED}]{{2}}))[{_UNSPACED}]|(?:(?![{_UNSPACED}])[{_LETTER}]){{2,}}"
)
_LONGEST_LABEL = 40
_SEPARATORS = "|;,"
# Strings that are looked at, at most.
_MAX_SAMPLE = 10_000


def is_frame(X: Any) -> bool:
    """Whether X is a DataFrame, of pandas or convertible to one."""
    return isinstance(X, pd.DataFrame) or hasattr(X, "to_pandas")


def columns_of(X: Any) -> dict[str, pd.Series]:
    """Return the columns of a frame by their names, which become str.

    Raises
    ------
    ValueError
        If the frame is empty, or has a name twice.
    """
    frame = X if isinstance(X, pd.DataFrame) else X.to_pandas()
    if 0 in frame.shape:
        raise ValueError(
            f"X is empty, with {frame.shape[0]} rows and {frame.shape[1]} columns (a "
            "minimum of 1 is required): give at least one row and one column."
        )
    columns: dict[str, pd.Series] = {}
    for name, column in frame.items():
        if str(name) in columns:
            raise ValueError(
                f"X has more than one column named {str(name)!r}: rename or remove one."
            )
        columns[str(name)] = column
    return columns


def read_column(column: pd.Series, name: str) -> tuple[str, NDArray[Any]]:
    """Return what the cells of a column are, and the cells in a uniform form.

    Parameters
    ----------
    column : Series of length n_rows
        Cells of any type.

    name : str
        Name of the column in the error messages.

    Returns
    -------
    content : {"numbers", "dates", "strings", "categories", "labels", "vectors", \
            "nothing"}
        What the cells are, those that are not missing.

    cells : ndarray of shape (n_rows,) or (n_rows, n_numbers)
        Numbers and dates (years) as float64, vectors as rows; NaN where missing.
        Others as objects: str, tuple of str for labels; None where missing.

    Raises
    ------
    TypeError, ValueError
        If cells are of mixed or unsupported types, or numbers are infinite.
    """
    dtype = column.dtype
    if column.isna().all():
        return "nothing", np.full(len(column), None, dtype=object)
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(dtype):
        return "categories", _fill(column, column.notna(), _category)
    if pd.api.types.is_numeric_dtype(dtype) and dtype.kind != "c":
        return "numbers", _numbers(column, name)
    cells = column.astype(object)
    present = cells.notna()
    found: dict[str, Any] = {}
    for kind in dict.fromkeys(map(type, cells[present])):
        example = next(c for c in cells[present] if type(c) is kind)
        found.setdefault(_content(example), example)
    if "labels or vectors" in found:
        lists = cells.where(present, None)
        found.update(_contents_of_lists(lists[present], found.pop("labels or vectors")))
    if len(found) > 1:
        first, second = list(found)[:2]
        remedies = [_REMEDY[content] for content in found if content in _REMEDY]
        raise TypeError(
            f"The column {name!r} mixes {first} ({_short(found[first])}) and {second} "
            f"({_short(found[second])}): give one type. "
            f"{'; '.join(remedies) or 'Split it into two columns'}."
        )
    content = next(iter(found), "nothing")
    if content in _READERS:
        return content, _READERS[content](cells, present, name)
    if content == "nothing":
        return content, np.full(len(cells), None, dtype=object)
    raise TypeError(
        f"The column {name!r} has {content} ({_short(found[content])}), but cells may "
        "be numbers, booleans, strings, dates, lists of strings, vectors of numbers, "
        "or missing: convert or remove it."
    )


def _content(cell: Any) -> str:
    if isinstance(cell, str):
        return "strings"
    if isinstance(cell, bool | np.bool_):
        return "categories"
    if isinstance(cell, Real | Decimal):
        return "numbers"
    if isinstance(cell, datetime.date | np.datetime64 | pd.Period):
        return "dates"
    if isinstance(cell, _CONTAINERS):
        return "labels or vectors"
    return f"objects of type {type(cell).__name__}"


def _contents_of_lists(cells: Iterable[Any], example: Any) -> dict[str, Any]:
    """Return what is in lists, with an example of each; of empty lists: nothing."""
    found: dict[str, Any] = {}
    for cell in cells:
        if isinstance(cell, np.ndarray) and cell.dtype.kind in "biuf":
            contents = {"numbers"} if cell.ndim == 1 and len(cell) else set()
            if cell.ndim != 1:
                contents = {f"arrays of shape {cell.shape}"}
        elif isinstance(cell, list | tuple) and set(map(type, cell)) == {float}:
            contents = {"numbers"}  # the others would take long for large vectors
        elif isinstance(cell, _CONTAINERS):
            contents = {_content(c) for c in cell if _is_present(c)}
        else:
            continue
        for content in contents:
            kind = {"strings": "labels", "numbers": "vectors"}.get(content)
            found.setdefault(kind or f"lists of {content}", cell)
    return found or {"labels": example}


def _numbers(column: pd.Series, name: str) -> NDArray[np.float64]:
    try:
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except OverflowError:
        numbers = np.array([_to_float(cell) for cell in column])
    check_finite(numbers[:, None], [name], column.index)
    return numbers


def _to_float(cell: Any) -> float:
    try:
        return float(cell) if _is_present(cell) else np.nan
    except OverflowError:
        return np.inf


def check_finite(
    values: NDArray[np.float64], names: list[str], rows: Iterable[Any]
) -> None:
    """Raise an error for infinite numbers.

    Raises
    ------
    ValueError
        If there is one, with its column and its row.
    """
    infinite = np.isinf(values)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise ValueError(
            f"The column {names[column]!r} contains infinity, in the row "
            f"{list(rows)[row]!r}: replace it with a finite number, or with NaN if it "
            "is missing."
        )


def _read_dates(column: pd.Series, present: pd.Series, name: str) -> NDArray[Any]:
    years = np.full(len(column), np.nan)
    for position in np.flatnonzero(present):
        date = column.iloc[position]
        if isinstance(date, np.datetime64):
            date = pd.Timestamp(date)
        elif isinstance(date, pd.Period):
            date = date.start_time
        # Julian years are long enough: the day after December 31 is the larger.
        years[position] = date.year + (date.timetuple().tm_yday - 1) / 366
    return years


def _read_vectors(column: pd.Series, present: pd.Series, name: str) -> NDArray[Any]:
    vectors = [_to_vector(cell) if len(cell) else None for cell in column[present]]
    lengths = dict.fromkeys(len(v) for v in vectors if v is not None)
    if len(lengths) > 1:
        first, second = list(lengths)[:2]
        raise ValueError(
            f"The column {name!r} has vectors of {first} and of {second} numbers: give "
            "vectors of one length, or lists of strings for labels."
        )
    rows = np.full((len(column), next(iter(lengths))), np.nan)
    for position, vector in zip(np.flatnonzero(present), vectors, strict=True):
        if vector is not None:
            rows[position] = vector
    check_finite(rows, [name] * rows.shape[1], column.index)
    return rows


def _to_vector(cell: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(cell, dtype=np.float64)
    except (OverflowError, TypeError, ValueError):  # huge integers, pd.NA
        return np.array([_to_float(number) for number in cell])


def _fill(
    column: pd.Series, present: pd.Series, convert: Callable[[Any], Any]
) -> NDArray[Any]:
    cells = np.full(len(column), None, dtype=object)
    for position, cell in zip(
        np.flatnonzero(present), column[present.to_numpy()], strict=True
    ):
        cells[position] = convert(cell)
    return cells


def _category(cell: Any) -> str | None:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # integers become floats beside missing ones
    return str(cell).strip() or None


def _labels(cell: Iterable[Any]) -> tuple[str, ...]:
    labels = (label.strip() for label in cell if _is_present(label))
    return tuple(dict.fromkeys(label for label in labels if label))


def _is_present(cell: Any) -> bool:
    return not (pd.api.types.is_scalar(cell) and pd.isna(cell))


def _short(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:37]}..."


_READERS: dict[str, Callable[[pd.Series, pd.Series, str], NDArray[Any]]] = {
    "numbers": lambda column, _, name: _numbers(column, name),
    "dates": _read_dates,
    "strings": lambda column, present, _: _fill(
        column, present, lambda cell: cell.strip() or None
    ),
    "categories": lambda column, present, _: _fill(column, present, _category),
    "labels": lambda column, present, _: _fill(column, present, _labels),
    "vectors": _read_vectors,
}


def kind_of(content: str, cells: NDArray[Any], max_categories: int) -> tuple[str, str]:
    """Return the kind of a column, and the separator of its labels.

    Parameters
    ----------
    content, cells : str, ndarray
        Results of `read_column`.

    max_categories : int
        Largest number of distinct strings of several words that are categories.

    Returns
    -------
    kind : {"numbers", "category", "labels", "text", "date", "vector", "constant"}
        Kind of the column, by the rules that `FeatureEncoder` documents.

    separator : str
        Separator of the labels in a string; empty if there is none.
    """
    if content == "nothing":
        return "constant", ""
    if content == "vectors":
        return ("vector" if (cells != cells[:1]).any() else "constant"), ""
    is_missing = pd.isna(cells)
    distinct = set(cells[~is_missing].tolist())
    if len(distinct) + is_missing.any() < 2:
        return "constant", ""
    if content != "strings":
        kinds = {"dates": "date", "categories": "category"}
        return kinds.get(content, content), ""
    return _kind_of_strings(cells[~is_missing].tolist(), distinct, max_categories)


def _kind_of_strings(
    cells: list[str], distinct: set[str], max_categories: int
) -> tuple[str, str]:
    sample = _spread(cells, _MAX_SAMPLE)
    for separator in _SEPARATORS:
        if _separates_labels(separator, sample):
            return "labels", separator
    n_words = sum(len(split_words(cell)) for cell in sample)
    several_words = n_words >= 1.5 * len(sample)
    if 2 * len(distinct) <= len(cells) and (
        len(distinct) <= max_categories or not several_words
    ):
        return "category", ""
    if several_words:
        return "text", ""
    return ("category" if len(distinct) < len(cells) else "constant"), ""


def _separates_labels(separator: str, cells: list[str]) -> bool:
    if sum(separator in cell for cell in cells) < len(cells) / 10:
        return False
    labels = list(chain.from_iterable(map(label_splitter(separator), set(cells))))
    is_short = sum(map(len, labels)) <= _LONGEST_LABEL * len(labels)
    # A bar is hardly anything else, but sentences and names have commas.
    return is_short and (separator == "|" or 2 * len(set(labels)) <= len(labels))


def _spread(values: Any, n_max: int) -> Any:
    """Return at most `n_max` values in equal distances."""
    return values[:: -(-len(values) // n_max)]


def label_splitter(separator: str) -> Callable[[str], tuple[str, ...]]:
    """Return the function that splits strings into labels."""
    return lambda cell: tuple(
        dict.fromkeys(filter(None, map(str.strip, cell.split(separator))))
    )


def split_words(text: str) -> list[str]:
    """Return the words of a text, in lowercase.

    In scripts without blanks, a word is each pair of neighboring characters.
    """
    text = text.lower()
    if text.isascii():
        return _ASCII_WORD.findall(text)
    return [match[1] or match[0] for match in _WORD.finditer(text)]
