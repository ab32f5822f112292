"""Latent Dirichlet allocation for the texts of CTR."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.decomposition import LatentDirichletAllocation

from .._core.device import as_tensor
from .._core.sparse import Pattern
from .._core.topics import expected, fit_topics, infer_proportions


def fit_lda(
    documents: sp.csr_array, n_topics: int, max_iter: int, seed: int, dtype: torch.dtype
) -> LatentDirichletAllocation:
    """Fit a topic model to texts.

    The estimator's own `fit` treats one text at a time. Here a step is one for all
    texts.

    Parameters
    ----------
    documents : csr_array of shape (n_texts, n_words)
        Counts of each word in the texts.

    n_topics : int
        Number of topics.

    max_iter : int
        Number of updates of the topics.

    seed : int
        Seed of the initial topics, which are those of the estimator.

    dtype : torch.dtype
        Precision of the computation.

    Returns
    -------
    lda : LatentDirichletAllocation
        Fitted estimator, except for `bound_`, the perplexity of the texts.
    """
    lda = LatentDirichletAllocation(n_topics, max_iter=max_iter, random_state=seed)
    # Return arrays, regardless of the global output configuration of transformers.
    lda.set_output(transform="default")
    random_state, prior = np.random.RandomState(seed), 1 / n_topics
    start = random_state.gamma(100.0, 0.01, (n_topics, documents.shape[1]))
    topics = as_tensor(start.T.copy()).to(dtype)
    topics = fit_topics(*to_tensors(documents, dtype), topics, prior, max_iter).double()
    lda.components_ = topics.T.numpy().copy()
    lda.exp_dirichlet_component_ = expected(topics, 0).T.numpy().copy()
    lda.doc_topic_prior_ = lda.topic_word_prior_ = prior
    lda.random_state_, lda.n_features_in_ = random_state, documents.shape[1]
    lda.n_iter_, lda.n_batch_iter_ = max_iter, max_iter + 1
    return lda


def transform(lda: LatentDirichletAllocation, documents: sp.csr_array) -> torch.Tensor:
    """Compute what the estimator's `transform` returns, in double precision."""
    words = as_tensor(lda.exp_dirichlet_component_.T.copy()).double()
    bags = to_tensors(documents, torch.float64)
    return infer_proportions(*bags, words, lda.doc_topic_prior_)


def to_tensors(
    documents: sp.csr_array, dtype: torch.dtype
) -> tuple[Pattern, torch.Tensor]:
    """Convert documents to their pattern and counts, on the CPU."""
    crow, col = map(torch.tensor, (documents.indptr, documents.indices))
    return Pattern(crow, col, documents.shape), as_tensor(documents.data).to(dtype)
