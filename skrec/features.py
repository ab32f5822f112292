"""Features of items and users: an encoder of tables, and a container for `fit`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ._data.columns import check_finite, columns_of, is_frame, kind_of, read_column
from ._data.encoders import (
    Block,
    Categories,
    Encoder,
    Labels,
    Numbers,
    Spline,
    Words,
    density,
    is_sparse,
    to_dense,
)
from ._data.features import Features
from ._sklearn_compat import (
    Interval,
    check_feature_names_in,
    validated,
)

__all__ = ["FeatureEncoder", "Features"]

# More columns of numbers than this are the coordinates of vectors.
_MAX_SPLINES = 20
# Results with more columns and a smaller share of nonzero values are sparse.
_MIN_SPARSE_COLUMNS = 1000
_MAX_DENSITY = 0.3
# Name of the only block of an array.
_ARRAY = "features"
# Contents that can be read as strings are interchangeable.
_STRINGS = {"strings", "categories"}


class FeatureEncoder(TransformerMixin, BaseEstimator):
    r"""Convert a table of what is known of items or users to a numeric matrix.

    Each column of the table becomes a block of columns that a linear model can use.
    What a column is, is found by looking at it, see Notes.

    Parameters
    ----------
    n_text_components : int, default=200
        Maximum number of columns of a text.

    n_knots : int, default=8
        Maximum number of knots of the splines of a number, at least 2.

    max_categories : int, default=200
        Maximum number of columns of a category. The rarest categories share one.

    random_state : int, RandomState instance or None, default=None
        Seed of the randomized singular value decomposition of texts. None means 0, so
        that results are always reproducible.

    Attributes
    ----------
    kinds_ : dict of str to str
        Kind of each column of the table: "numbers", "category", "labels", "text",
        "date", "vector", or "constant" if it is dropped.

    output_indices_ : dict of str to slice
        Columns of the output for each column of the table that is not dropped, in
        order. More than 20 columns of numbers share the entry "numbers", and an array
        has the only entry "features".

    sparse_output_ : bool
        Whether `transform` returns a sparse array: the output has more than 1000
        columns and is mostly zeros.

    n_features_in_ : int
        Number of columns of the table.

    feature_names_in_ : ndarray of shape (n_columns,)
        Names of the columns, as str. Not defined for arrays.

    See Also
    --------
    Features : Container for a table that cross-validation does not split.
    sklearn.compose.ColumnTransformer : Choose the transformer of each column yourself.

    Notes
    -----
    The kinds and what becomes of them:

    - "numbers": integers, floats, decimals. Cubic B-splines with knots at quantiles,
      constant beyond the range, and an indicator of missing values if there are any.
      A number with at most `n_knots` distinct values is interpolated between them
      instead, so that codes get indicators. More than 20 columns of numbers, such as
      the coordinates of an embedding, become one standardized block, where a missing
      value is the mean.
    - "date": dates and times, as their year with its fraction, like a number.
    - "category": booleans, columns of dtype "category", and strings with few distinct
      values: at most half as many as there are rows and, if they have several words,
      at most `max_categories`. Strings of one word are a category whenever one is
      repeated. Indicators; categories that occur once share one, missing values have
      their own.
    - "labels": lists, tuples, sets or arrays of strings, and strings of labels
      separated by a bar, as in ``"Action|Comedy"``, by a semicolon or by a comma.
      Strings are labels if a tenth of them have the separator, labels have at most 40
      characters on average, and, for a semicolon or comma, labels occur in two
      different strings on average. Indicators of the labels that occur at least twice.
    - "text": other strings of several words. Tf-idf of words that occur in at least
      two and at most half of the texts, reduced to `n_text_components` by a truncated
      singular value decomposition. In scripts written without blanks, such as Chinese,
      Japanese or Thai, pairs of neighboring characters are the words. At most 20,000
      words are kept, and at most 20,000 of the texts are decomposed.
    - "vector": arrays or lists of numbers, all of one length, stacked. Missing numbers
      are the mean of their position.
    - "constant": columns without any information, which are dropped: with a single
      value, without values, with different strings of one word each (ids), or with
      labels or words none of which occurs twice.

    Kinds of strings are found in at most 10,000 of them. Strings of digits are
    strings, and codes that are integers are numbers: convert a column to say
    otherwise, for example with ``astype(str)``. None, NaN, ``pd.NA``, ``NaT`` and
    blank strings are missing values. Categories, labels and words that are not seen in
    `fit` are zeros.

    A 2-D numeric array or sparse matrix is one block as it is, except that NaN in a
    dense array becomes the mean of the column.

    Examples
    --------
    >>> import pandas as pd
    >>> from skrec.features import FeatureEncoder
    >>> films = pd.DataFrame(
    ...     {
    ...         "year": [1979, 1986, 1995, 1995, 1999, 2009],
    ...         "genres": ["Horror|SciFi", "Action|SciFi", "Action|Crime",
    ...                    "Animation", "Animation|SciFi", "Animation"],
    ...         "country": ["UK", "US", "US", "US", None, "US"],
    ...     },
    ...     index=["Alien", "Aliens", "Heat", "Toy Story", "The Iron Giant", "Up"],
    ... )
    >>> encoder = FeatureEncoder()
    >>> encoded = encoder.fit_transform(films)
    >>> encoder.kinds_
    {'year': 'numbers', 'genres': 'labels', 'country': 'category'}
    >>> encoder.output_indices_
    {'year': slice(0, 5, None), 'genres': slice(5, 8, None),
     'country': slice(8, 10, None)}
    >>> encoder.get_feature_names_out()[5:]
    array(['genres__Action', 'genres__Animation', 'genres__SciFi',
           'country__US', 'country__infrequent_sklearn'], dtype=object)
    >>> encoded[:, encoder.output_indices_["genres"]]
    array([[0., 0., 1.],
           [1., 0., 1.],
           [1., 0., 0.],
           [0., 1., 0.],
           [0., 1., 1.],
           [0., 1., 0.]])
    """

    kinds_: dict[str, str]
    output_indices_: dict[str, slice]
    sparse_output_: bool
    n_features_in_: int
    feature_names_in_: NDArray[Any]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_text_components": [Interval(Integral, 1, None, closed="left")],
        "n_knots": [Interval(Integral, 2, None, closed="left")],
        "max_categories": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_text_components: int = 200,
        n_knots: int = 8,
        max_categories: int = 200,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_text_components = n_text_components
        self.n_knots = n_knots
        self.max_categories = max_categories
        self.random_state = random_state

    @validated
    def fit(self, X: pd.DataFrame | ArrayLike, y: None = None) -> Self:
        """Find the kinds of the columns and learn their encodings.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_rows, n_columns)
            Table with one row for each item or user.

        y : None
            Ignored.

        Returns
        -------
        self : object
            Fitted encoder.

        Raises
        ------
        TypeError, ValueError
            If X is empty, has a column name twice, cells of mixed or unsupported
            types, or infinite numbers; or if all its columns are dropped.
        """
        self._fit(X)
        return self

    @validated
    def fit_transform(
        self, X: pd.DataFrame | ArrayLike, y: None = None
    ) -> NDArray[np.float64] | sp.csr_array:
        """Learn the encodings of the columns and convert the same table.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_rows, n_columns)
            Table with one row for each item or user.

        y : None
            Ignored.

        Returns
        -------
        encoded : {ndarray, csr_array} of shape (n_rows, n_outputs)
            Blocks of the columns side by side.

        Raises
        ------
        TypeError, ValueError
            As in `fit`.
        """
        return self._fit(X)

    def transform(
        self, X: pd.DataFrame | ArrayLike
    ) -> NDArray[np.float64] | sp.csr_array:
        """Convert a table.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_rows, n_columns)
            Table with the columns of the one in `fit`, in any order. Other columns of
            a DataFrame are ignored.

        Returns
        -------
        encoded : {ndarray, csr_array} of shape (n_rows, n_outputs)
            Blocks of the columns side by side.

        Raises
        ------
        TypeError, ValueError
            If X is empty, lacks a column, has a column whose type is not that in
            `fit`, or has infinite numbers.
        """
        check_is_fitted(self, "output_indices_")
        return self._join(
            self._encoders[name].transform(cells)
            for name, cells in self._arrange(self._read_again(X))
            if name in self._encoders
        )

    def get_feature_names_out(
        self, input_features: ArrayLike | None = None
    ) -> NDArray[Any]:
        """Get the names of the columns of the output.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Must be `feature_names_in_` if given and defined.

        Returns
        -------
        names : ndarray of shape (n_outputs,), dtype object
            Names such as "genres__Action": a column of the table, and what is in it.
            Columns of numbers in a common block, and of an array, keep their names.
        """
        check_is_fitted(self, "output_indices_")
        inputs = check_feature_names_in(self, input_features)
        if _ARRAY in self._encoders and not self._contents:
            return inputs
        names = [
            entry if name == self._common else f"{name}__{entry}"
            for name, encoder in self._encoders.items()
            for entry in encoder.names
        ]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _fit(self, X: Any) -> Block:
        blocks: dict[str, Block] = {}
        self._encoders: dict[str, Encoder] = {}
        for name, cells, encoder in self._choose(X):
            block = encoder.fit_transform(cells)
            if block.shape[1]:
                blocks[name], self._encoders[name] = block, encoder
            else:
                self.kinds_[name] = "constant"
        if not blocks:
            raise ValueError(
                f"X has no column to learn from. The columns {list(self.kinds_)} have "
                "a single value, different strings of one word, or labels or words "
                "none of which occurs twice: give other columns."
            )
        ends = np.cumsum([block.shape[1] for block in blocks.values()]).tolist()
        slices = map(slice, [0, *ends], ends)
        self.output_indices_ = dict(zip(blocks, slices, strict=True))
        is_wide = ends[-1] > _MIN_SPARSE_COLUMNS
        self.sparse_output_ = is_wide and density(blocks.values()) < _MAX_DENSITY
        return self._join(blocks.values())

    def _choose(self, X: Any) -> Iterator[tuple[str, NDArray[Any], Encoder]]:
        """Find the kinds of the columns; yield the cells and encoder of each block."""
        self.kinds_, self._contents = {}, {}
        # Name and columns of the common block of many columns of numbers.
        self._common, self._members = "", []
        if not is_frame(X):
            self.kinds_[_ARRAY] = "vector"
            yield _ARRAY, self._check_array(X, reset=True), Numbers(standardize=False)
            return
        given = columns_of(X)
        self.n_features_in_ = len(given)
        self.feature_names_in_ = np.array(list(given), dtype=object)
        columns, separators = {}, {}
        for name, column in given.items():
            content, cells = read_column(column, name)
            kind, separators[name] = kind_of(content, cells, self.max_categories)
            self._contents[name], self.kinds_[name] = content, kind
            columns[name] = cells
        numbers = [name for name, kind in self.kinds_.items() if kind == "numbers"]
        if len(numbers) > _MAX_SPLINES:
            self._common = _new_name("numbers", set(columns) - set(numbers))
            self._members = numbers
        seed = 0 if self.random_state is None else self.random_state
        random_state = check_random_state(seed)
        for name, cells in self._arrange(columns):
            kind = self.kinds_.get(name, "")
            if name == self._common:
                yield name, cells, Numbers(numbers, standardize=True)
            elif kind in ("numbers", "date"):
                yield name, cells, Spline(self.n_knots)
            elif kind == "category":
                yield name, cells, Categories(self.max_categories)
            elif kind == "labels":
                yield name, cells, Labels(separators[name])
            elif kind == "text":
                yield name, cells, Words(self.n_text_components, random_state)
            elif kind == "vector":
                yield name, cells, Numbers(standardize=False)

    def _arrange(self, columns: dict[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the cells of each block; columns of numbers may have a common one."""
        members = dict.fromkeys(self._members)
        for name, cells in columns.items():
            if name not in members:
                yield name, cells
            elif name == self._members[0]:
                yield self._common, np.column_stack([columns[m] for m in members])

    def _read_again(self, X: Any) -> dict[str, Any]:
        """Return the cells of each column that has a use, in the order of `fit`."""
        if not self._contents:
            return {_ARRAY: self._check_array(X, reset=False)}
        names = list(self._contents)
        if not is_frame(X):
            raise TypeError(
                f"X is of type {type(X).__name__}, but this FeatureEncoder was fitted "
                f"on a DataFrame: give a DataFrame with the columns {names}."
            )
        given = columns_of(X)
        missing = [name for name in names if name not in given]
        if missing:
            raise ValueError(
                f"X lacks the columns {missing}, which the table in fit had: add them, "
                "with None where nothing is known."
            )
        used = [name for name in names if self.kinds_[name] != "constant"]
        return {name: self._read_column_again(given[name], name) for name in used}

    def _read_column_again(self, column: pd.Series, name: str) -> NDArray[Any]:
        found, cells = read_column(column, name)
        wanted = self._contents[name]
        if found == "nothing" and wanted in ("numbers", "dates", "vectors"):
            cells = cells.astype(np.float64)
        if wanted == "vectors":
            length = len(self._encoders[name].names)
            if found == "nothing":
                cells = np.repeat(cells[:, None], length, axis=1)
            elif found == wanted and cells.shape[1] != length:
                raise ValueError(
                    f"The column {name!r} has vectors of {cells.shape[1]} numbers, but "
                    f"it had vectors of {length} in fit: give vectors of that length."
                )
        if found not in (wanted, "nothing") and not {found, wanted} <= _STRINGS:
            raise TypeError(
                f"The column {name!r} has {found}, but it had {wanted} in fit: give "
                "the same type."
            )
        return cells

    def _check_array(self, X: Any, reset: bool) -> Any:
        array = validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr",
            dtype=np.float64,
            ensure_all_finite=is_sparse(X),
        )
        if not is_sparse(array):
            names = [f"x{j}" for j in range(array.shape[1])]
            check_finite(array, names, range(len(array)))
        return array

    def _join(self, blocks: Iterable[Block]) -> Block:
        if self.sparse_output_:
            return sp.hstack([sp.csr_array(block) for block in blocks], format="csr")
        return np.hstack([to_dense(block) for block in blocks])


def _new_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
