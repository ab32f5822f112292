"""ConvMF by variational Bayes: its trainer, and the vectors of new items."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn import config_context

from .._core.device import inference_device, to_array
from .._data.ids import positions_of, union_of_ids
from .._data.side_information import transform_new
from .._factorization.described import Distances, ones_at
from .._factorization.knowledge import (
    Knowledge,
    SideKnowledge,
    feature_means,
    feature_parts,
)
from .._factorization.variational_trainer import VariationalTrainer
from .._fitting import Fit
from .documents import Documents, new_vectorizer
from .linear_path import encode_words, join
from .network_prior import EvidencePrior, read


class VariationalTextTrainer(VariationalTrainer):
    """Trainer of a variational factorization whose items have texts and features.

    Parameters
    ----------
    fit : Fit
        Fit of a `ConvMFRegressor`.

    documents : Documents or None
        Texts of the items; None if there are none.

    network : EvidencePrior or None
        Network over the texts; None without.

    has_linear_path : bool
        Whether the words are inputs of a linear path.
    """

    def __init__(
        self,
        fit: Fit,
        documents: Documents | None,
        network: EvidencePrior | None,
        *,
        has_linear_path: bool,
    ):
        self.network, self.words = network, None
        users, items = Knowledge.of(fit)
        self.item_encoder = None if items is None else items.encoded.encoder
        if documents is None:
            self.vectorizer = new_vectorizer(fit.estimator)
        else:
            self.vectorizer = documents.vectorizer
            if has_linear_path:
                self.words = encode_words(documents, fit.random_state)
            if self.words is not None:
                n_items = len(fit.ratings.items)
                words = SideKnowledge(n_items, documents.items, self.words)
                items = join(items, words)
        super().__init__(fit, Knowledge(users, items))
        self.model.items.network = network
        self.must_settle = network is None

    def parameters(self):
        own = [] if self.network is None else self.network.parameters()
        return [*super().parameters(), *own]

    def optimizers(self):
        return [] if self.network is None else self.network.optimizers()

    def generators(self):
        return [] if self.network is None else self.network.generators()

    def canonical(self):
        """Users and items in the canonical bases.

        The mean output of the network, which items without text have, belongs to the
        center.
        """
        users, (vectors, prior) = super().canonical()
        if self.network is not None:
            moved = self.bases()[1].to(prior.center) @ self.network.mean()
            prior = prior._replace(center=prior.center + moved)
        return [users, (vectors, prior)]

    def describe(self, attributes: dict[str, Any]) -> dict[str, Any]:
        described, weights = attributes["_item_described_means"], {}
        if described is None:
            center = attributes["item_prior_mean_"]
            described = np.tile(center, (len(self.known.items_), 1))
        if self.network is not None:
            mean = self.network.mean()
            basis = self.bases()[1].to(mean)
            outputs = self.network.means() - mean
            described = described + to_array(outputs @ basis.T)
            weights = self.network.attributes()["text_weights_"]
            weights["output_bias"] -= to_array(mean)
            for name in ("output", "output_bias"):
                weights[name] = weights[name] @ to_array(basis.T)
        reads = self.words is not None or self.network is not None
        attributes = vars(self.known) | attributes
        attributes["_item_described_means"] = described
        return {
            "vectorizer_": self.vectorizer,
            "text_weights_": weights,
            "item_encoder_": self.item_encoder,
            "_word_encoder": None if self.words is None else self.words.encoder,
            "_item_described_means": described,
            "text_factors_": described[:, :-1].copy() if reads else None,
            "text_biases_": described[:, -1].copy() if reads else None,
            "user_text_biases_": text_biases(attributes),
        }


def text_biases(attributes: dict[str, Any]) -> np.ndarray:
    """Corrections that the users of a fit have for items without ratings."""
    fitted = SimpleNamespace(**attributes)
    distances = Distances(fitted, fitted._item_described_means)
    biases = distances.biases(ones_at(fitted._seen), fitted.user_factors_)
    return biases.astype(fitted.user_biases_.dtype)


def describe_items(
    model: Any,
    texts: tuple[np.ndarray, Any] | None,
    features: tuple[np.ndarray, Any] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and expected vectors of new items of a fitted model.

    Parameters
    ----------
    model : ConvMFRegressor
        Fitted model.

    texts : tuple of ndarray and documents, or None
        Ids of items that have a text, and their texts, vectorized.

    features : tuple of ndarray and table, or None
        Ids of items that have features, and these.

    Returns
    -------
    ids : ndarray of shape (n_new,)
        Ids.

    vectors : ndarray of shape (n_new, k + 1)
        Expected vectors.

    parts : ndarray of shape (n_new, n_blocks, k + 1)
        What each block of features adds to the vectors; see `feature_parts`.
    """
    (ids, *others) = [some[0] for some in (texts, features) if some]
    for more in others:
        ids = union_of_ids(ids, more[~np.isin(more, ids)])
    ids = np.sort(ids)
    center, weights = model.item_feature_center_, model.item_feature_weights_
    blocks = list((model.item_feature_blocks_ or {}).values())
    size = len(model.item_prior_mean_)
    parts, outputs = np.zeros((len(ids), len(blocks), size)), np.zeros((len(ids), size))
    has_words = model._word_encoder is not None
    if features is not None:
        new, table = features
        values = transform_new(model.item_encoder_, table, len(new), "item_features")
        own = blocks[:-1] if has_words else blocks
        parts[positions_of(new, ids, "item"), : len(own)] = feature_parts(
            values, center, weights, own
        )
    if texts is not None:
        places = positions_of(texts[0], ids, "item")
        if has_words:
            block = blocks[-1]
            with config_context(transform_output="default"):
                values = model._word_encoder.transform(texts[1])
            parts[places, -1] = feature_means(values, center[block], weights[block])
        if model.text_weights_:
            device = inference_device(model.device)
            outputs[places] = read(
                model.text_weights_, texts[1], device, squashes=False
            )
    return ids, model.item_prior_mean_ + parts.sum(axis=1) + outputs, parts
