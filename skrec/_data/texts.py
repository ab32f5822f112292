"""Texts of items: validation, wrapping, and matching with the rated items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.feature_extraction.text import TfidfVectorizer

from .ids import positions_of, refuse_masked, union_of_ids
from .joins import look_up, warn_of_failed_join
from .unsplit import Unsplit, check_unique_ids

_ALLOWED = "a mapping or pandas Series from item id to text"
_CUT = (
    "In cross-validation, scikit-learn splits any sized object whose length equals the "
    "number of samples, and turns a mapping into a list: wrap the texts in "
    "skrec.text.ItemTexts, which is not split."
)


class ItemTexts(Unsplit):
    """Container for item texts that cross-validation does not split.

    scikit-learn splits any sized object whose length equals the number of samples.
    Texts belong to items, not to samples, so `fit` needs all of them in every split.
    This wrapper has no length and is therefore passed on unchanged.

    Parameters
    ----------
    texts : mapping, Series or sequence
        Texts of the items, as

        - a mapping or pandas Series from item id to text (with a rating matrix, the
          ids are column numbers), or
        - a sequence with one text for each column of a rating matrix.

        A text is a str. None, NaN, ``pd.NA`` and blank strings mean that an item has
        no text.

    Attributes
    ----------
    ids : ndarray of shape (n_texts,) or None
        Item ids in the order of `texts`. None if `texts` is a sequence.

    texts : tuple of length n_texts
        Texts, with None for missing texts.

    Raises
    ------
    TypeError, ValueError
        If `texts` is of another type or empty, has an id twice, or has a text that is
        neither a str nor missing.

    Examples
    --------
    >>> from skrec.text import ItemTexts
    >>> item_texts = ItemTexts({"Alien": "A crew wakes a creature."})
    >>> item_texts
    ItemTexts(<1 text by item id>)

    Pass it to `fit`, to a search or to cross-validation in place of the texts:
    ``GridSearchCV(recommender, param_grid).fit(X, y, item_texts=item_texts)``.
    """

    texts: tuple[str | None, ...]

    def __init__(
        self, texts: Mapping[Any, Any] | pd.Series | Sequence[Any] | ItemTexts
    ) -> None:
        self.ids, self.texts = _split(texts, "texts")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ItemTexts):
            return NotImplemented
        return self._contents() == other._contents()

    def __repr__(self) -> str:
        n_texts = len(self.texts)
        of = "by column" if self.ids is None else "by item id"
        return f"ItemTexts(<{n_texts} text{'' if n_texts == 1 else 's'} {of}>)"

    def _contents(self) -> tuple[str | None, ...] | dict[Any, str | None]:
        if self.ids is None:
            return self.texts
        return dict(zip(self.ids.tolist(), self.texts, strict=True))


class ResolvedTexts(NamedTuple):
    """Texts matched with items.

    Attributes
    ----------
    ids : ndarray of shape (n_items,)
        Ids of the items that have a rating or a text, ascending.

    texts : list of length n_items
        Text of each item, with None for missing texts.
    """

    ids: NDArray[Any]
    texts: list[str | None]


def resolve_item_texts(
    item_texts: Any,
    item_ids: NDArray[Any],
    *,
    on_matrix: bool,
    rated: NDArray[Any] | None = None,
) -> ResolvedTexts:
    """Match the texts passed to `fit` with the items of the ratings.

    Parameters
    ----------
    item_texts : mapping, Series, ItemTexts or sequence
        Texts, as described in `ItemTexts`.

    item_ids : ndarray of shape (n_known,)
        Ids of the items in the ratings, ascending, as in `Ratings.items`.

    on_matrix : bool
        Whether the ratings are a matrix. `item_ids` are then all its column numbers.

    rated : ndarray or None
        Those of the `item_ids` that are rated; None means all.

    Returns
    -------
    resolved : ResolvedTexts
        Items and their texts. With pairs, the ids are `item_ids` and the ids of
        cold-start items, which have a text and no rating. Ids with neither a rating
        nor a text are omitted.

    Raises
    ------
    TypeError, ValueError
        If a sequence is given with pairs, or its length is not the number of columns;
        if an id has no column, or another type than the ids of the ratings; or if the
        texts are invalid for `ItemTexts`.

    Warns
    -----
    UserWarning
        If the ids of the texts seem not to be those of the ratings: fewer than half of
        the rated items have an id among them, and most texts belong to other items.
    """
    ids, texts = _split(item_texts, "item_texts")
    if ids is None:
        wrapped = isinstance(item_texts, ItemTexts)
        _check_aligned(item_texts, texts, len(item_ids), on_matrix, wrapped)
        return ResolvedTexts(item_ids, list(texts))
    positions = look_up(ids, item_ids, "item_texts", "item")
    known = positions >= 0
    if on_matrix and not known.all():
        missing = ", ".join(map(repr, ids[~known][:3].tolist()))
        raise ValueError(
            "X is a matrix, so the ids in item_texts must be its column numbers, "
            f"integers from 0 to {len(item_ids) - 1}, got {missing}: remove these ids, "
            "or give a sequence with one text for each column."
        )
    has_text = np.array([text is not None for text in texts])
    cold = ids[~known & has_text]
    if not on_matrix:
        # A mapping that was split is a list, which is refused.
        hint = (
            " In cross-validation, wrap a Series in skrec.text.ItemTexts, because "
            "scikit-learn splits it if it is as long as X."
        )
        hint = hint if isinstance(item_texts, pd.Series) else ""
        rated = item_ids if rated is None else rated
        matched = look_up(ids, rated, "item_texts", "item")
        new = ids[(matched < 0) & has_text]
        matched = matched[matched >= 0]
        warn_of_failed_join(rated, matched, new, "item_texts", "item", hint)
    all_ids = union_of_ids(item_ids, cold)
    aligned: list[str | None] = [None] * len(all_ids)
    for position, text in zip(positions_of(ids, all_ids, "item"), texts, strict=True):
        if text is not None:
            aligned[position] = text
    return ResolvedTexts(all_ids, aligned)


def reduce_texts(
    texts: Sequence[str | None], n_components: int, random_state: np.random.RandomState
) -> NDArray[np.float64]:
    """Reduce the tf-idf vectors of texts by a truncated singular value decomposition.

    Parameters
    ----------
    texts : sequence of length n_texts
        Texts, with None for missing texts.

    n_components : int
        Maximum number of components; there are no more components than words.

    random_state : RandomState
        Random number generator of the randomized singular value decomposition.

    Returns
    -------
    reduced : ndarray of shape (n_texts, n_components)
        Components of each text, scaled to a mean square of 1 among texts that have
        words; zeros for the other texts.

    Raises
    ------
    ValueError
        If the vocabulary is empty.
    """
    words = TfidfVectorizer(stop_words="english", max_df=0.5, sublinear_tf=True)
    try:
        tfidf = words.fit_transform([text or "" for text in texts])
    except ValueError as error:
        raise ValueError(
            "item_texts has no words to learn from: each of its words is a stop word, "
            "or occurs in more than half of the texts. Give longer texts, or fit "
            "without item_texts."
        ) from error
    # Imported here: with its linear models it takes a tenth of a small fit.
    from sklearn.decomposition import TruncatedSVD

    n_components = min(n_components, tfidf.shape[1])
    reduction = TruncatedSVD(n_components, random_state=random_state)
    with config_context(transform_output="default"):
        reduced = reduction.fit_transform(tfidf)
    has_words = reduced.any(axis=1)
    return reduced / np.sqrt(np.square(reduced[has_words]).mean())


def check_texts(
    values: Any, name: str, labels: Sequence[Any] | None = None
) -> list[str | None]:
    """Validate a sequence of texts.

    Parameters
    ----------
    values : iterable of length n_texts
        Texts.

    name : str
        Name of `values` in the error messages.

    labels : sequence of length n_texts, default=None
        Name of each text in the error messages. None means its position.

    Returns
    -------
    texts : list of length n_texts
        Texts, with None for missing and blank texts.

    Raises
    ------
    TypeError, ValueError
        If `values` is a single text or not a sequence, or has an entry that is neither
        a str nor missing.
    """
    texts = _to_list(values, name)
    for position, text in enumerate(texts):
        if isinstance(text, str):
            if not text or text.isspace():
                texts[position] = None
        elif text is None or (pd.api.types.is_scalar(text) and pd.isna(text)):
            texts[position] = None
        else:
            at = position if labels is None else labels[position]
            where = "position" if labels is None else "item"
            raise TypeError(
                f"{name} has an object of type {type(text).__name__} at {where} "
                f"{at!r}: texts must be str, or missing (None, NaN, pd.NA)."
            )
    return texts


def _to_list(values: Any, name: str) -> list[Any]:
    if isinstance(values, str | bytes):
        raise ValueError(
            f"{name} is a single text, but an iterable of texts is expected: give "
            f"[{name}] for one text."
        )
    if isinstance(values, Mapping | set | frozenset) or not isinstance(
        values, Iterable
    ):
        raise TypeError(
            f"{name} must be a sequence of texts, got {type(values).__name__}."
        )
    if not hasattr(values, "__array__"):
        return list(values)
    refuse_masked(values, name)
    array = np.asarray(values, dtype=object)
    if array.ndim != 1:
        raise ValueError(
            f"{name} must have one dimension, got {type(values).__name__} of shape "
            f"{array.shape}: give the column with the texts."
        )
    return array.tolist()


def _split(texts: Any, name: str) -> tuple[NDArray[Any] | None, tuple[str | None, ...]]:
    """Return item ids (None if the texts belong to columns) and texts."""
    if isinstance(texts, ItemTexts):
        return texts.ids, texts.texts
    by_id = isinstance(texts, Mapping | pd.Series)
    if not by_id and not (hasattr(texts, "__len__") and isinstance(texts, Iterable)):
        raise TypeError(
            f"{name} must be {_ALLOWED}, skrec.text.ItemTexts around one, or a "
            "sequence with one text for each column of a matrix, got "
            f"{type(texts).__name__}."
        )
    if not isinstance(texts, str | bytes) and len(texts) == 0:
        raise ValueError(
            f"{name} is an empty {type(texts).__name__}: give at least one text."
        )
    if not by_id:
        return None, tuple(check_texts(texts, name))
    if isinstance(texts, Mapping):
        keys, values = list(texts.keys()), list(texts.values())
    else:
        keys, values = texts.index, texts
    ids = check_unique_ids(keys, name, "item", "text")
    return ids, tuple(check_texts(values, name, ids.tolist()))


def _check_aligned(
    item_texts: Any,
    texts: tuple[str | None, ...],
    n_items: int,
    on_matrix: bool,
    wrapped: bool,
) -> None:
    """Raise an error for a sequence that cannot belong to the columns of a matrix."""
    kind = "ItemTexts around a sequence" if wrapped else type(item_texts).__name__
    # Wrapped texts were not split.
    hint = "" if wrapped else f" {_CUT}"
    if not on_matrix:
        raise TypeError(
            f"item_texts is of type {kind}, but with user-item pairs a sequence does "
            f"not tell which text belongs to which item: give {_ALLOWED}, or "
            f"skrec.text.ItemTexts around one.{hint}"
        )
    if len(texts) != n_items:
        raise ValueError(
            f"item_texts has {len(texts)} texts, but X has {n_items} columns: give one "
            "text for each column, None for a missing text, or a mapping or pandas "
            f"Series from column number to text.{hint}"
        )
