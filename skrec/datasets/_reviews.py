"""Documents of items or users from the reviews of given ratings only."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from numpy.typing import ArrayLike

from .._data.ids import Pairs, check_pairs
from .._sklearn_compat import StrOptions
from ._base import validated_parameters


@validated_parameters({"side": [StrOptions({"item", "user"})]})
def join_reviews(
    X: Pairs,
    reviews: ArrayLike | Sequence[str | None],
    *,
    side: Literal["item", "user"] = "item",
) -> pd.Series:
    r"""Join the reviews of ratings into one document for each item or each user.

    A review says what its writer thinks of the item, and often the rating itself. A
    document for the evaluation on held-out ratings must therefore not contain their
    reviews: give this function the training ratings and their reviews only.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_ratings, 2)
        User and item ids of the ratings whose reviews are joined.

    reviews : array-like of str of shape (n_ratings,)
        Review of each rating, in the order of `X`. Empty, blank and missing (None, NaN)
        reviews are skipped.

    side : {"item", "user"}, default="item"
        Whether to join the reviews of each item, or those by each user.

    Returns
    -------
    documents : Series of str of shape (n_documents,)
        Documents, named "text" and indexed by item or user id in ascending order, with
        the reviews in the order of `X`, separated by a line break. Items or users
        without a review are not included.

    Raises
    ------
    TypeError, ValueError
        If `X` has no valid ids, if the reviews are not strings, or if their number or
        their index differs from that of `X`.

    See Also
    --------
    load_amazon : Load ratings with reviews.
    skrec.text.ItemTexts : Wrapper of texts that scikit-learn does not split.

    Notes
    -----
    A search or `cross_val_score` passes the same texts to all folds, so that they
    contain the reviews of the fold that is predicted. Join the reviews for each fold in
    a loop instead, or search on a single split, with
    :class:`~sklearn.model_selection.PredefinedSplit` and the documents of its training
    part.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.model_selection import train_test_split
    >>> from skrec.datasets import join_reviews
    >>> X = pd.DataFrame({
    ...     "user": ["ann", "bob", "cleo", "bob"],
    ...     "item": ["drum", "drum", "drum", "flute"],
    ... })
    >>> y = [5, 1, 4, 5]
    >>> reviews = pd.Series(["Loud!", "It broke.", "I like it.", "Sweet tone."])
    >>> X_train, X_test, y_train, y_test, reviews_train, _ = train_test_split(
    ...     X, y, reviews, test_size=1, random_state=9
    ... )
    >>> X_test
      user  item
    1  bob  drum

    What bob wrote about the drum is not in the document:

    >>> join_reviews(X_train, reviews_train).to_dict()
    {'drum': 'Loud!\nI like it.', 'flute': 'Sweet tone.'}
    """
    users, items = check_pairs(X)
    ids = items if side == "item" else users
    parts: dict[Any, list[str]] = {}
    for id_, text in zip(
        ids.tolist(), _check_reviews(reviews, X, len(ids)), strict=True
    ):
        if text and not text.isspace():
            parts.setdefault(id_, []).append(text)
    found = sorted(parts)
    index = pd.Index(found, name=side, tupleize_cols=False)
    if not found:
        index = index.astype(ids.dtype)
    documents = ["\n".join(parts[id_]) for id_ in found]
    return pd.Series(documents, index=index, dtype="str", name="text")


def _check_reviews(reviews: Any, X: Any, n_ratings: int) -> list[str]:
    """Return one string for each rating, "" if there is no review."""
    sequence = hasattr(reviews, "__len__") and getattr(reviews, "ndim", 1) == 1
    if not sequence or isinstance(reviews, str | bytes | Mapping):
        raise TypeError(
            "reviews must be a 1-D array-like with one string for each row of X, got "
            f"{type(reviews).__name__}."
        )
    if len(reviews) != n_ratings:
        raise ValueError(
            f"There are {len(reviews)} reviews but {n_ratings} ratings in X: pass the "
            "reviews of these ratings only, split together with them, for example "
            "train_test_split(X, y, reviews)."
        )
    frames = isinstance(X, pd.DataFrame) and isinstance(reviews, pd.Series)
    if frames and not X.index.equals(reviews.index):
        raise ValueError(
            "X and reviews have different indices, so they seem to be of different "
            "ratings. If they have the same order, pass reviews.to_numpy()."
        )
    texts = list(reviews)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            if not pd.api.types.is_scalar(text) or not pd.isna(text):
                raise TypeError(
                    f"Review {position} is of type {type(text).__name__}, but reviews "
                    "must be strings, or None if missing."
                )
            texts[position] = ""
    return texts
