"""What turns each kind of column into numbers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.preprocessing import OneHotEncoder, SplineTransformer

from .columns import label_splitter, split_words

Block: TypeAlias = NDArray[np.float64] | Any  # or a SciPy sparse array

# Words of a text, and texts that are decomposed, at most.
_MAX_WORDS = 20_000
_MAX_DECOMPOSED = 20_000


class Encoder(Protocol):
    """What turns the cells of one column into columns of numbers."""

    names: list[str]

    def fit_transform(self, cells: NDArray[Any]) -> Block:
        """Learn from the cells, and convert them. No columns: nothing to learn."""

    def transform(self, cells: NDArray[Any]) -> Block:
        """Convert cells."""


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
        return basis.set_output(transform="default").fit(knots[:, None])

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
        ).set_output(transform="default")

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
            # Imported here: with its linear models it takes a tenth of a small fit.
            from sklearn.decomposition import TruncatedSVD

            self.svd = TruncatedSVD(self.n_components, random_state=self.random_state)
            self.svd.set_output(transform="default")
            self.svd.fit(tfidf[:: -(-tfidf.shape[0] // _MAX_DECOMPOSED)])
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


def is_sparse(values: Any) -> bool:
    """Whether values are a SciPy sparse array or matrix."""
    return bool(sp.issparse(values))


def to_dense(values: Any) -> NDArray[Any]:
    """Return values as an ndarray."""
    return values.toarray() if is_sparse(values) else values


def density(blocks: Collection[Block]) -> float:
    """Return the proportion of nonzero values."""
    counts = [sp.csr_array(block).count_nonzero() for block in blocks]
    return sum(counts) / sum(block.shape[0] * block.shape[1] for block in blocks)
