"""The linear path from the words of texts to the prior means of items."""

from __future__ import annotations

from typing import Self

import numpy as np
import scipy.sparse as sp
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.pipeline import Pipeline, make_pipeline

from .._data.side_information import EncodedFeatures, describe
from .._factorization.knowledge import SideKnowledge
from .documents import Documents

# Block of columns of the texts, and its largest number of columns.
TEXT_BLOCK, _N_COMPONENTS = "item_texts", 200
# Largest difference of tf-idf vectors of length 1 that are the same
_SAME = 1e-12


class SequenceCounts(TransformerMixin, BaseEstimator):
    """Transformer from sequences of words to the counts of the words."""

    def fit(self, X: np.ndarray, y: None = None) -> Self:
        """Note the number of words."""
        self.n_words_ = int(X.max()) + 1
        return self

    def transform(self, X: np.ndarray) -> sp.csr_array:
        """Count the words of each sequence; 0 is padding."""
        row, place = np.nonzero((X > 0) & (self.n_words_ > X))
        shape = len(X), self.n_words_
        ones = np.ones(len(row))
        return sp.coo_array((ones, (row, X[row, place])), shape=shape).tocsr()


def encode_words(
    documents: Documents, random_state: np.random.RandomState
) -> EncodedFeatures | None:
    """Encode the tf-idf vectors of texts by a truncated singular value decomposition.

    Parameters
    ----------
    documents : Documents
        Sequences of words.

    random_state : RandomState
        Source of randomness of the decomposition.

    Returns
    -------
    encoded : EncodedFeatures or None
        Encoded words; None if all texts have the same.
    """
    n_words = len(np.unique(documents.values)) - 1
    n_components = max(1, min(_N_COMPONENTS, n_words - 1, len(documents.items) - 1))
    encoder: Pipeline = make_pipeline(
        SequenceCounts(),
        TfidfTransformer(sublinear_tf=True),
        TruncatedSVD(n_components, random_state=random_state),
    )
    with config_context(transform_output="default"):
        tfidf = encoder[:-1].fit_transform(documents.values)
        spread = tfidf.max(axis=0).toarray() - tfidf.min(axis=0).toarray()
        if spread.max() < _SAME:
            return None
        values = encoder[-1].fit_transform(tfidf)
    n_columns = values.shape[1]
    names = np.array([f"{TEXT_BLOCK}_{j}" for j in range(n_columns)], dtype=object)
    blocks = {TEXT_BLOCK: slice(0, n_columns)}
    return describe(encoder, values, blocks, names, "item_texts")


def join(known: SideKnowledge | None, words: SideKnowledge) -> SideKnowledge:
    """Append the columns of texts to features. Items without either have the center.

    The encoder is that of the features.
    """
    if known is None:
        return words._replace(encoded=words.encoded._replace(encoder=None))
    places = np.union1d(known.places, words.places)
    parts = [_spread(some, places) for some in (known, words)]
    one, other = known.encoded, words.encoded
    n_columns, name = one.values.shape[1], TEXT_BLOCK
    while name in one.blocks:
        name += "_"
    stack = np.hstack if all(isinstance(p, np.ndarray) for p in parts) else _hstack
    encoded = EncodedFeatures(
        one.encoder,
        stack(parts),
        np.concatenate([one.center, other.center]),
        np.concatenate([one.scale, other.scale]),
        one.blocks | {name: slice(n_columns, n_columns + other.values.shape[1])},
        np.concatenate([one.names, other.names]),
    )
    return SideKnowledge(known.n, places, encoded)


def _spread(known: SideKnowledge, places: np.ndarray):
    """Encoded features at these places, which include the own ones."""
    values, center = known.encoded.values, known.encoded.center
    own = np.searchsorted(places, known.places)
    if isinstance(values, np.ndarray):
        spread = np.tile(center, (len(places), 1))
        spread[own] = values
        return spread
    missing = np.setdiff1d(np.arange(len(places)), own)
    filled = sp.vstack([values, sp.csr_array(np.tile(center, (len(missing), 1)))])
    return filled.tocsr()[np.argsort(np.concatenate([own, missing]))]


def _hstack(parts) -> sp.csr_array:
    return sp.csr_array(sp.hstack(parts))
