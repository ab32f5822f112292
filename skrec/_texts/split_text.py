"""The part of an item's vector that comes from its text, split by words and windows.

The linear path is a sum over words. The network is split by the windows that win a
filter, compared with the empty text, in which every window is padding. With f and f'
the pooled values of the filters for the text and for the empty text, each layer of tanh
is replaced by its secant between the two (the rescale rule of DeepLIFT, Shrikumar,
Greenside and Kundaje 2017):

    (1)  s_i = (tanh(a_i) - tanh(a'_i)) / (a_i - a'_i),  a = f W + c,  a' = f' W + c
    (2)  share of filter j = (f_j - f'_j) sum_i W_ji s_i O_i

so that the shares sum to the difference of the outputs. With linear outputs these are
also the integrated gradients on the line from f' to f, without a quadrature.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from sklearn import config_context
from torch import Tensor

from .._core.device import as_tensor
from .._core.text_cnn import TextCNN
from .._explanation import Parts
from .network_prior import to_batches

# Largest difference of a text's vector from that of the fit, relative to its entries
_SAME = 1e-3
# Differences from which a secant is as exact as the derivative in the middle
_FAR = 1e-4


def split_text(model: Any, item: int, text: str) -> dict[tuple[str, str], Parts]:
    """Split what a text adds to the vector of an item of a `ConvMFRegressor`.

    Parameters
    ----------
    model : ConvMFRegressor
        Fitted model.

    item : int
        Position of the item in `items_`.

    text : str
        Its text in `fit`.

    Returns
    -------
    finer : dict of (kind, name) to Parts
        Finer parts for each part that `item_parts` of the model has of the text.
    """
    if not isinstance(text, str):
        raise TypeError(f"item_text must be a str, got {type(text).__name__}.")
    if model.text_factors_ is None:
        raise ValueError("item_text needs a model that was fitted with item_texts.")
    sequence = model.vectorizer_.transform([text])
    words = {place: word for word, place in model.vectorizer_.vocabulary_.items()}
    stored, is_auto = _stored(model, item), model._lambda_u is None
    finer, total = {}, np.zeros(len(stored))
    if is_auto and model._word_encoder is not None:
        finer["text", "words"], added = _split_words(model, sequence, words)
        total += added
    if model.text_weights_:
        state = {name: as_tensor(w) for name, w in model.text_weights_.items()}
        cpu = torch.device("cpu")
        network = TextCNN.from_weights(state, cpu, squashes=not is_auto).double()
        parts, added = _split_windows(network, sequence, words, len(stored))
        finer["text", "network" if is_auto else ""] = parts
        total += added
    if np.abs(total - stored).max() > _SAME * max(1.0, np.abs(stored).max()):
        name = model.items_[[item]].tolist()[0]
        raise ValueError(
            f"item_text is not the text that item {name!r} had in `fit` or "
            "`extend_items`: give that text, or no item_text if it had none."
        )
    return finer


def _stored(model: Any, item: int) -> np.ndarray:
    """What the text adds to the vector of an item, according to the fit."""
    if model._lambda_u is not None:
        return np.append(model.text_factors_[item], model.text_biases_[item])
    stored = model._item_described_means[item] - model.item_prior_mean_
    if model._item_feature_parts is None:
        return stored
    n_features = model._item_feature_parts.shape[1] - (model._word_encoder is not None)
    return stored - model._item_feature_parts[item, :n_features].sum(axis=0)


def _split_words(
    model: Any, sequence: np.ndarray, words: dict[int, str]
) -> tuple[Parts, np.ndarray]:
    """Parts of the linear path for each word, and its vector."""
    block = list(model.item_feature_blocks_.values())[-1]
    weights, encoder = model.item_feature_weights_[block], model._word_encoder
    with config_context(transform_output="default"):
        tfidf = encoder[:-1].transform(sequence).tocsr()
    vectors = encoder[-1].components_.T[tfidf.indices] @ weights
    vectors = tfidf.data[:, np.newaxis] * vectors
    parts = Parts.of(("text word", [words[i] for i in tfidf.indices], vectors))
    return parts, vectors.sum(axis=0) - model.item_feature_center_[block] @ weights


@torch.no_grad()
def _split_windows(
    network: TextCNN, sequence: np.ndarray, words: dict[int, str], size: int
) -> tuple[Parts, np.ndarray]:
    """Parts of the network for each window that wins a filter, and its output."""
    (batch,) = to_batches(network, sequence, torch.arange(1), 1)
    read = batch.words[batch.buckets[0][1][0]]
    vectors, found, phrases = network.vectors[read], [], []
    for filters, bias in zip(network.filters, network.filter_biases, strict=True):
        windows = vectors.unfold(0, len(filters), 1)
        best, first = torch.einsum("npo,opf->nf", windows, filters).max(0)
        found.append(torch.relu(torch.stack([best, torch.zeros_like(best)]) + bias))
        for start in first.tolist():
            window = read[start : start + len(filters)].tolist()
            phrases.append(" ".join(words[i] for i in window if i))
    features = torch.cat(found, 1)
    layer = features @ network.hidden + network.hidden_bias
    outputs = torch.tanh(layer) @ network.output + network.output_bias
    moved = (features[0] - features[1]).unsqueeze(1)
    shares = moved * ((network.hidden * _secant(layer)) @ network.output)  # (2)
    if network.squashes:
        shares, outputs = shares * _secant(outputs), torch.tanh(outputs)
    if outputs.shape[1] < size:  # without biases
        shares, outputs = (
            torch.nn.functional.pad(some, (0, 1)) for some in (shares, outputs)
        )
    sums: dict[str, Any] = defaultdict(lambda: np.zeros(size))
    for phrase, share in zip(phrases, shares.numpy(), strict=True):
        sums[phrase] += share
    sums.pop("", None)  # padding has the share 0
    total = outputs[0].numpy()
    parts = np.reshape(list(sums.values()), (-1, size))
    return Parts.of(("text window", list(sums), parts)), total


def _secant(ends: Tensor) -> Tensor:
    """Slope (1) of the secant of tanh between two rows."""
    difference = ends[0] - ends[1]
    derivative = 1 - torch.tanh(ends.mean(0)).square()
    is_far = difference.abs() > _FAR
    secant = (torch.tanh(ends[0]) - torch.tanh(ends[1])) / difference
    return torch.where(is_far, secant, derivative)
