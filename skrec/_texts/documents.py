"""Conversion of item texts to documents, the input of a prior."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.utils.validation import check_memory

from .._fitting import Fit
from .._sklearn_compat import N_WRAPPERS


@dataclass
class Documents:
    """Vectorized texts that contain known words.

    Attributes
    ----------
    vectorizer : transformer
        Fitted vectorizer.

    values : ndarray or csr_array of shape (n_texts, n_columns)
        Output of the vectorizer for the texts.

    items : ndarray of shape (n_texts,)
        Position of the item of each text.
    """

    vectorizer: Any
    values: Any
    items: np.ndarray


def read_item_texts(fit: Fit) -> Documents | None:
    """Vectorize the texts of a fit; without texts, warn and return None."""
    estimator = fit.estimator
    places = {j: text for j, text in enumerate(fit.texts or []) if text is not None}
    if not places:
        if fit.group.rank > 0:
            return None
        warnings.warn(
            "There are no item_texts: the factorization goes without. Pass item_texts "
            "to fit, or use PMFRegressor or BiasedMFRegressor.",
            # This function, `fit`, and its wrappers.
            stacklevel=2 + N_WRAPPERS + 1,
        )
        return None
    items = np.array(list(places))
    vectorizer, values = _vectorize(fit, list(places.values()))
    values = estimator._check_documents(vectorizer, values)
    matrix: Any = values
    entries = matrix.data if sp.issparse(values) else matrix
    if not np.isfinite(entries).all():
        raise ValueError(
            f"The vectorizer {type(vectorizer).__name__} returned NaN or infinite "
            "numbers for item_texts: use one that returns counts or finite weights."
        )
    # Texts without a known word are ignored.
    is_readable = has_words(values)
    if not is_readable.any():
        raise ValueError(
            f"item_texts has no word that the {type(vectorizer).__name__} knows: give "
            "texts that have, or another vectorizer."
        )
    items, values = items[is_readable], values[is_readable]
    fit.mark_described(items)
    return Documents(vectorizer, values, items)


def new_vectorizer(estimator: Any) -> Any:
    """Unfitted vectorizer of an estimator."""
    if estimator.vectorizer is None:
        return estimator._default_vectorizer()
    return clone(estimator.vectorizer)


def continued(fit: Fit) -> Any:
    """Estimator whose text model a warm start continues, or None."""
    previous = fit.previous
    has_read = previous is not None and previous.text_factors_ is not None
    return previous if has_read else None


def has_words(documents: Any) -> np.ndarray:
    """Mask of shape (n_texts,) of the rows that have an entry."""
    return (documents != 0).sum(axis=1) > 0


def check_bags(vectorizer: Any, documents: Any) -> sp.csr_array:
    """Reject documents that are not bags of words."""
    is_sparse = sp.issparse(documents)
    if not is_sparse or (documents.data < 0).any():
        found = "negative entries" if is_sparse else type(documents).__name__
        raise TypeError(
            "vectorizer must turn texts into a sparse matrix of shape (n_texts, "
            "n_words) without negative entries, as CountVectorizer does, got "
            f"{type(vectorizer).__name__} that returns {found}."
        )
    documents = sp.csr_array(documents)
    documents.eliminate_zeros()
    documents.sort_indices()
    return documents


def _vectorize(fit: Fit, texts: list[str]) -> tuple[Any, Any]:
    """Fitted vectorizer and its output for the texts."""
    estimator, previous = fit.estimator, continued(fit)
    if estimator._keeps_vectorizer and previous is not None:
        return previous.vectorizer_, previous.vectorizer_.transform(texts)
    fit_transform = check_memory(estimator.memory).cache(_fit_transform)
    try:
        return fit_transform(new_vectorizer(estimator), texts)
    except ValueError as error:
        raise ValueError(
            f"The vectorizer cannot learn from the {len(texts)} texts in item_texts: "
            f"{error} The default one leaves out English stop words and words in more "
            "than half of the texts; give another one."
        ) from error


def _fit_transform(vectorizer, texts):
    """Fit a vectorizer and return it with its output, so that both are cached."""
    return vectorizer, vectorizer.fit_transform(texts)
