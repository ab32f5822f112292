"""Alternating optimization of a factorization with an item prior from texts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import scipy.sparse as sp
import torch

from .._factorization.alternation import AlternationTrainer, mean_item_prior
from .._factorization.priors import Prior
from .._fitting import Fit
from .documents import Documents, new_vectorizer
from .text_model import text_distances


class TextTrainer(AlternationTrainer):
    """Trainer that runs the alternation of a `TextFactorization`.

    Parameters
    ----------
    fit : Fit
        Fit of a `TextFactorization`.

    documents : Documents or None
        Texts of the items; None if there are none.

    prior : Prior or None
        Prior of the items that have texts; None if there are none.

    item_penalties : ndarray of shape (n_items,) or None
        See `AlternationTrainer`.
    """

    def __init__(
        self,
        fit: Fit,
        documents: Documents | None,
        prior: Prior | None,
        item_penalties: np.ndarray | None,
    ):
        self.known, self.reads = fit.known, prior is not None
        has_biases = fit.estimator.fit_biases
        if documents is None:
            self.vectorizer = new_vectorizer(fit.estimator)
            prior = mean_item_prior(fit, fit.training) if has_biases else None
        else:
            self.vectorizer = documents.vectorizer
        super().__init__(
            fit,
            has_biases=has_biases,
            item_prior=prior,
            item_penalties=item_penalties,
        )

    def attributes(self):
        attributes = super().attributes() | {"vectorizer_": self.vectorizer}
        users = attributes["user_biases_"]
        if not self.reads:
            return attributes | {
                "text_factors_": None,
                "text_biases_": None,
                "user_text_biases_": np.zeros_like(users),
                **self.params._learned_without_texts,
            }
        means = self.alternation.items.prior.means()
        assert means is not None
        factors, biases = self._split(means)
        attributes |= {"text_factors_": factors, "text_biases_": biases}
        fitted = SimpleNamespace(**vars(self.known), **attributes)
        distances = text_distances(fitted, self.alternation.group)
        assert distances is not None
        text_biases = distances.biases(self._weights(), attributes["user_factors_"])
        return attributes | {"user_text_biases_": text_biases.astype(users.dtype)}

    def _weights(self) -> sp.csr_array:
        """Weights of the training ratings."""
        users = self.alternation.users
        pattern, weights = users.pattern, users.weights
        weights = torch.ones(pattern.nnz) if weights is None else weights
        entries = (t.cpu().numpy() for t in (weights, pattern.col, pattern.crow))
        return sp.csr_array(tuple(entries), shape=pattern.shape)
