"""Columns of a table: what their cells are, and how each kind becomes numbers."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import chain
from numbers import Real
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.preprocessing import OneHotEncoder, SplineTransformer

Block: TypeAlias = NDArray[np.float64] | Any  # or a SciPy sparse array

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
# Strings that are looked at, words of a text, and texts that are decomposed, at most.
_MAX_SAMPLE = 10_000
_MAX_WORDS = 20_000
_MAX_DECOMPOSED = 20_000


class Encoder(Protocol):
    """What turns the cells of one column into columns of numbers."""

    names: list[str]

    def fit_transform(self, cells: NDArray[Any]) -> Block:
        """Learn from the cells, and convert them. No columns: nothing to learn."""

    def transform(self, cells: NDArray[Any]) -> Block:
        """Convert cells."""


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
    n_values = values.shape[0] if is_sparse(values) else len(values)
    return values[:: -(-n_values // n_max)]


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


def is_sparse(values: Any) -> bool:
    """Whether values are a SciPy sparse array or matrix."""
    return bool(sp.issparse(values))


def to_dense(values: Any) -> NDArray[Any]:
    """Return values as an ndarray."""
    return values.toarray() if is_sparse(values) else values


class Spline:
    """Cubic B-splines of numbers; of few distinct numbers piecewise linear ones."""

    def __init__(self, n_knots: int) -> None:
        self.n_knots = n_knots

    def fit_transform(self, cells: NDArray[Any]) -> Block:
        is_missing = np.isnan(cells)
        numbers = cells[~is_missing]
        self.has_missing = bool(is_missing.any())
        # Scaled, because the splines extend the range of the knots.
        self.low, self.high = numbers.min(), numbers.max()
        self.scale = max(abs(self.low), abs(self.high)) or 1.0
        self.basis, self.mean = None, np.empty(0)
        if self.low < self.high:
            self.basis = self._fit_basis(numbers / self.scale)
            self.mean = self.basis.transform(numbers[:, None] / self.scale).mean(axis=0)
        self.names = [f"spline{i}" for i in range(len(self.mean))]
        self.names += ["missing"] * self.has_missing
        return self.transform(cells)

    def _fit_basis(self, numbers: NDArray[np.float64]) -> SplineTransformer:
        distinct = np.unique(numbers)
        is_few = len(distinct) <= self.n_knots
        knots = distinct
        if not is_few:
            knots = np.unique(np.quantile(numbers, np.linspace(0, 1, self.n_knots)))
        # Knots that nearly coincide would divide by nearly zero.
        knots = knots[np.diff(knots, append=np.inf) > 1e-9 * (knots[-1] - knots[0])]
        basis = SplineTransformer(
            knots=knots[:, None], degree=1 if is_few else 3, extrapolation="constant"
        )
        return basis.fit(knots[:, None])

    def transform(self, cells: NDArray[Any]) -> Block:
        is_missing = np.isnan(cells)
        # The mean is neutral: the difference is what the indicator is for.
        result = np.tile(self.mean, (len(cells), 1))
        if self.basis is not None and not is_missing.all():
            numbers = cells[~is_missing].clip(self.low, self.high) / self.scale
            result[~is_missing] = self.basis.transform(numbers[:, None])
        if self.has_missing:
            result = np.column_stack([result, is_missing])
        return result


class Categories:
    """Indicators of categories. Unseen ones are zeros, missing ones a category."""

    def __init__(self, max_categories: int) -> None:
        self.encoder = OneHotEncoder(
            handle_unknown="ignore", min_frequency=2, max_categories=max_categories
        )

    def fit_transform(self, cells: NDArray[Any]) -> Block:
        result = self.encoder.fit_transform(cells[:, None])
        names = self.encoder.get_feature_names_out([""])
        self.names = [name.removeprefix("_") for name in names]
        return result

    def transform(self, cells: NDArray[Any]) -> Block:
        return self.encoder.transform(cells[:, None])


class Labels:
    """Indicators of the labels that are seen at least twice."""

    names: list[str]

    def __init__(self, separator: str) -> None:
        self.separator = separator
        self.counter = CountVectorizer(
            analyzer=tuple, binary=True, min_df=2, dtype=np.float64
        )

    def fit_transform(self, cells: NDArray[Any]) -> Block:
        return _fit_vectorizer(self, self.counter, self._split(cells))

    def transform(self, cells: NDArray[Any]) -> Block:
        return self.counter.transform(self._split(cells))

    def _split(self, cells: NDArray[Any]) -> list[tuple[str, ...]]:
        split = label_splitter(self.separator) if self.separator else tuple
        return [() if cell is None else split(cell) for cell in cells]


class Words:
    """Tf-idf of words, reduced by a truncated singular value decomposition."""

    names: list[str]

    def __init__(self, n_components: int, random_state: Any) -> None:
        self.n_components = n_components
        self.random_state = random_state
        self.tfidf = TfidfVectorizer(
            analyzer=split_words,
            min_df=2,
            max_df=0.5,
            max_features=_MAX_WORDS,
            sublinear_tf=True,
        )

    def fit_transform(self, cells: NDArray[Any]) -> Block:
        # Missing texts do not count in the frequencies of words.
        present = np.flatnonzero([cell is not None for cell in cells])
        tfidf = _fit_vectorizer(self, self.tfidf, cells[present].tolist())
        if not self.names:
            return tfidf
        self.svd = None
        # Otherwise the decomposition would be a rotation of the words.
        if len(self.names) > self.n_components:
            self.svd = TruncatedSVD(self.n_components, random_state=self.random_state)
            self.svd.fit(_spread(tfidf, _MAX_DECOMPOSED))
            self.names = [str(i) for i in range(len(self.svd.components_))]
            reduced = np.zeros((len(cells), len(self.names)))
            reduced[present] = self.svd.transform(tfidf)
            return reduced
        positions = present, np.arange(len(present))
        shape = len(cells), len(present)
        return sp.csr_array((np.ones(len(present)), positions), shape) @ tfidf

    def transform(self, cells: NDArray[Any]) -> Block:
        tfidf = self.tfidf.transform([cell or "" for cell in cells])
        return tfidf if self.svd is None else self.svd.transform(tfidf)


def _fit_vectorizer(encoder: Any, vectorizer: Any, documents: list[Any]) -> Block:
    """Learn the vocabulary, which may be empty."""
    try:
        result = vectorizer.fit_transform(documents)
    except ValueError:  # nothing occurs twice
        encoder.names = []
        return np.empty((len(documents), 0))
    encoder.names = vectorizer.get_feature_names_out().tolist()
    return result


class Numbers:
    """Columns of numbers as they are, or standardized; missing ones are their mean."""

    def __init__(self, names: list[str] | None = None, *, standardize: bool) -> None:
        self.given_names = names
        self.standardize = standardize

    def fit_transform(self, cells: NDArray[Any]) -> Block:
        if is_sparse(cells):
            self.scale, self.mean = 1.0, cells.mean(axis=0)
            self.names = [str(i) for i in range(cells.shape[1])]
            return cells
        self.scale = np.maximum(np.abs(np.nan_to_num(cells)).max(axis=0), 1e-300)
        scaled = cells / self.scale
        n_present = np.maximum((~np.isnan(cells)).sum(axis=0), 1)
        self.mean = np.nansum(scaled, axis=0) / n_present
        deviation = np.sqrt(np.nansum((scaled - self.mean) ** 2, axis=0) / n_present)
        self.deviation = np.where(deviation > 1e-12, deviation, 1.0)
        self.names = self.given_names or [str(i) for i in range(cells.shape[1])]
        return self.transform(cells)

    def transform(self, cells: NDArray[Any]) -> Block:
        if is_sparse(cells):
            return cells
        if self.standardize:
            standardized = (cells / self.scale - self.mean) / self.deviation
            return np.where(np.isnan(cells), 0.0, standardized)
        return np.where(np.isnan(cells), self.mean * self.scale, cells)
