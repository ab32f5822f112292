"""Texts of items: checked, wrapped and matched with the items of the ratings."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from .ids import check_ids, positions_of, refuse_masked, union_of_ids

_ALLOWED = "a mapping or pandas Series from item id to text"
_CUT = (
    "In cross-validation, scikit-learn cuts any sized object whose length equals the "
    "number of samples, and makes a list of a mapping in doing so: wrap it in "
    "skrec.text.ItemTexts, which passes whole."
)


class ItemTexts:
    """Texts of items that pass whole through cross-validation.

    scikit-learn cuts any sized object whose length equals the number of samples to the
    samples of each split. Texts belong to items, not to samples, and must reach `fit`
    whole. This wrapper has no size, so that they do.

    Parameters
    ----------
    texts : mapping, Series or sequence
        - A mapping or pandas Series from item id to text: with a rating matrix the ids
          are column numbers.
        - A sequence with one text for each column of a rating matrix.

        A text is a str. None, NaN, ``pd.NA`` and blank text stand for no text.

    Attributes
    ----------
    ids : ndarray of shape (n_texts,) or None
        The item ids in the order of `texts`; None if the texts belong to columns.

    texts : tuple of length n_texts
        The texts, None where there is none.

    Raises
    ------
    TypeError, ValueError
        If `texts` is something else, has no entry, an id twice, or a text that is
        neither a str nor missing.

    Examples
    --------
    >>> from skrec.text import ItemTexts
    >>> item_texts = ItemTexts({"Alien": "A crew wakes a creature."})
    >>> item_texts
    ItemTexts(<1 text by item id>)

    It is given to `fit`, or to a search or cross-validation, like the texts themselves:
    ``GridSearchCV(recommender, param_grid).fit(X, y, item_texts=item_texts)``.
    """

    def __init__(self, texts):
        self.ids, self.texts = _split(texts, "texts")

    def __eq__(self, other):
        if not isinstance(other, ItemTexts):
            return NotImplemented
        return self._contents() == other._contents()

    def __repr__(self):
        n_texts = len(self.texts)
        of = "by column" if self.ids is None else "by item id"
        return f"ItemTexts(<{n_texts} text{'' if n_texts == 1 else 's'} {of}>)"

    def __sklearn_clone__(self):
        return copy.deepcopy(self)

    def _contents(self):
        if self.ids is None:
            return self.texts
        return dict(zip(self.ids.tolist(), self.texts, strict=True))


class ResolvedTexts(NamedTuple):
    """Texts matched with items.

    Attributes
    ----------
    ids : ndarray of shape (n_items,)
        The ids of the items that are rated or have a text, ascending.

    texts : list of length n_items
        The text of each of them, None where there is none.
    """

    ids: np.ndarray
    texts: list[str | None]


def resolve_item_texts(
    item_texts: Any, item_ids: np.ndarray, *, on_matrix: bool
) -> ResolvedTexts:
    """Match the texts that `fit` was given with the items of the ratings.

    Parameters
    ----------
    item_texts : mapping, Series, ItemTexts or sequence
        What the user gave, as `ItemTexts` describes it.

    item_ids : ndarray of shape (n_known,)
        The ids of the items in the ratings, ascending, as `Ratings.items` has them.

    on_matrix : bool
        Whether the ratings came as a matrix, so that `item_ids` are all its column
        numbers.

    Returns
    -------
    resolved : ResolvedTexts
        Its ids are `item_ids` and, beside pairs, those that only have a text: the cold
        items. An id with neither a rating nor a text is left out.

    Raises
    ------
    TypeError, ValueError
        If there is a sequence beside pairs, or one of another length than the matrix
        has columns; an id for which there is no column, or of another type than those
        of the ratings; or anything that `ItemTexts` refuses.
    """
    ids, texts = _split(item_texts, "item_texts")
    if ids is None:
        wrapped = isinstance(item_texts, ItemTexts)
        _check_aligned(item_texts, texts, len(item_ids), on_matrix, wrapped)
        return ResolvedTexts(item_ids, list(texts))
    known = _look_up(ids, item_ids) >= 0
    if on_matrix and not known.all():
        missing = ", ".join(map(repr, ids[~known][:3].tolist()))
        raise ValueError(
            "X is a matrix, so that the ids in item_texts are its column numbers: "
            f"integers from 0 to {len(item_ids) - 1} are allowed. There is no column "
            f"for {missing}: remove it, or give a sequence with one text for each "
            "column."
        )
    has_text = np.array([text is not None for text in texts])
    all_ids = union_of_ids(item_ids, ids[~known & has_text])
    aligned: list[str | None] = [None] * len(all_ids)
    for position, text in zip(positions_of(ids, all_ids, "item"), texts, strict=True):
        if text is not None:
            aligned[position] = text
    return ResolvedTexts(all_ids, aligned)


def reduce_texts(
    texts: Sequence[str | None], n_components: int, random_state: np.random.RandomState
) -> np.ndarray:
    """Reduce the tf-idf of texts to a few numbers each.

    Parameters
    ----------
    texts : sequence of length n_texts
        The texts, None where there is none.

    n_components : int
        How many numbers a text becomes at most; no more than there are words.

    random_state : RandomState
        Determines the randomised singular value decomposition.

    Returns
    -------
    reduced : ndarray of shape (n_texts, n_components)
        Of mean square 1 among texts that have words; zero for the others.

    Raises
    ------
    ValueError
        If no word is left.
    """
    words = TfidfVectorizer(stop_words="english", max_df=0.5, sublinear_tf=True)
    try:
        tfidf = words.fit_transform([text or "" for text in texts])
    except ValueError as error:
        raise ValueError(
            "The texts have no words to learn from: they are stop words, or in more "
            "than half of the texts."
        ) from error
    n_components = min(n_components, tfidf.shape[1])
    reduction = TruncatedSVD(n_components, random_state=random_state)
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
        The texts.

    name : str
        What the messages call it.

    labels : sequence of length n_texts, default=None
        What the messages call each text; its position by default.

    Returns
    -------
    texts : list of length n_texts
        The texts, None for those that are missing or blank.

    Raises
    ------
    TypeError, ValueError
        If `values` is a single text or no sequence, or has an entry that is neither a
        str nor missing.
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
            f"{name} is a single text, where an iterable of texts is meant: give "
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
            f"{array.shape}: give the column that holds the texts."
        )
    return array.tolist()


def _split(texts: Any, name: str) -> tuple[np.ndarray | None, tuple[str | None, ...]]:
    """Item ids (None if the texts belong to columns) and texts."""
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
    ids = _check_keys(keys, name)
    return ids, tuple(check_texts(values, name, ids.tolist()))


def _check_keys(keys, name: str) -> np.ndarray:
    try:
        ids = check_ids(keys, "item")
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} has keys that are no item ids. {error}") from error
    repeated = pd.Index(ids, tupleize_cols=False).duplicated()
    if repeated.any():
        raise ValueError(
            f"{name} has repeated ids, among them {ids[repeated].tolist()[0]!r}: keep "
            "one text of each item."
        )
    return ids


def _check_aligned(item_texts, texts, n_items, on_matrix, wrapped):
    """Refuse a sequence that cannot belong to the columns of a matrix."""
    kind = "ItemTexts around a sequence" if wrapped else type(item_texts).__name__
    # What is wrapped has never been cut.
    hint = "" if wrapped else f" {_CUT}"
    if not on_matrix:
        raise TypeError(
            f"item_texts is of type {kind}, but beside user-item pairs nothing says "
            f"which text belongs to which item: give {_ALLOWED}, or "
            f"skrec.text.ItemTexts around one.{hint}"
        )
    if len(texts) != n_items:
        raise ValueError(
            f"item_texts has {len(texts)} texts, but X has {n_items} columns: give one "
            "text for each column, None where there is none, or a mapping or pandas "
            f"Series from column number to text.{hint}"
        )


def _look_up(ids: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    try:
        return positions_of(ids, item_ids, "item")
    except TypeError:
        found, wanted = (type(array.tolist()[0]).__name__ for array in (ids, item_ids))
        raise TypeError(
            f"The ids in item_texts are of type {found}, but those of the ratings are "
            f"of type {wanted}, so that none can match: convert one of them."
        ) from None
