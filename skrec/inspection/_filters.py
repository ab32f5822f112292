"""Inspection of the text network of a fitted ConvMF."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from .._core.device import as_tensor, own_settings
from .._core.text_cnn import TextCNN
from .._texts.convmf import ConvMFRegressor
from .._texts.network_prior import INFERENCE_BATCH, to_batches
from ..text import ItemTexts

__all__ = ["filter_phrases", "phrase_values"]


@own_settings()
def phrase_values(model: ConvMFRegressor, phrases: Iterable[str] | str) -> pd.DataFrame:
    """Compute the value of each filter of a fitted ConvMF for phrases.

    The value of a filter for a text is its maximum over the windows of the text, which
    is the input of the hidden layer. Replacing one word of a phrase shows how much the
    value depends on this word.

    Parameters
    ----------
    model : ConvMFRegressor
        Model that was fitted with texts.

    phrases : iterable of str, or str
        Phrases or whole texts, or a single one. Words outside the vocabulary of the
        model are ignored.

    Returns
    -------
    values : DataFrame of shape (n_phrases, n_filters)
        Values of the filters. The index has the phrases; the columns are pairs of
        window size and filter number.

    Raises
    ------
    ValueError
        If the model was fitted without texts, or if `phrases` is empty.

    Examples
    --------
    >>> from skrec import ConvMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.inspection import phrase_values
    >>> data = make_ratings(n_users=60, n_items=40, random_state=0)
    >>> model = ConvMFRegressor(n_filters=2, max_iter=2, random_state=0)
    >>> model = model.fit(data.R, item_texts=data.item_texts)
    >>> phrase_values(model, data.item_texts[:4]).shape
    (4, 6)
    """
    network = _network(model)
    phrases = [phrases] if isinstance(phrases, str) else list(phrases)
    if not phrases:
        raise ValueError("phrases is empty: give at least one phrase.")
    sequences, order = model.vectorizer_.transform(phrases), torch.arange(len(phrases))
    batches = to_batches(network, sequences, order, INFERENCE_BATCH)
    values = torch.cat([network.features(batch) for batch in batches])
    return pd.DataFrame(values.numpy(), pd.Index(phrases), _columns(network))


@own_settings()
def filter_phrases(
    model: ConvMFRegressor,
    item_texts: Mapping[Any, Any] | pd.Series | ItemTexts | Sequence[Any],
    *,
    n_phrases: int = 3,
) -> pd.DataFrame:
    """Find the phrases with the highest value of each filter of a fitted ConvMF.

    Parameters
    ----------
    model : ConvMFRegressor
        Model that was fitted with texts.

    item_texts : mapping, Series, ItemTexts or sequence
        Texts to search for phrases. The items of a sequence are numbered from 0.

    n_phrases : int, default=3
        Number of distinct phrases per filter.

    Returns
    -------
    phrases : DataFrame
        One row per phrase, grouped by filter, highest value first. The columns are
        "window" (the window size in words), "filter" (the number of the filter),
        "phrase" (the words that the model sees), "value" (the value of the filter) and
        "item" (the id of an item whose text has the phrase).

    Raises
    ------
    ValueError
        If the model was fitted without texts.

    Examples
    --------
    >>> from skrec import ConvMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.inspection import filter_phrases
    >>> data = make_ratings(n_users=60, n_items=40, random_state=0)
    >>> model = ConvMFRegressor(n_filters=2, max_iter=2, random_state=0)
    >>> model = model.fit(data.R, item_texts=data.item_texts)
    >>> filter_phrases(model, data.item_texts, n_phrases=1).columns.tolist()
    ['window', 'filter', 'phrase', 'value', 'item']
    """
    network = _network(model)
    texts = item_texts if isinstance(item_texts, ItemTexts) else ItemTexts(item_texts)
    items = np.arange(len(texts.texts)) if texts.ids is None else texts.ids
    sequences = model.vectorizer_.transform([text or "" for text in texts.texts])
    sequences = torch.as_tensor(sequences.astype(np.int64))
    words = np.append("", model.vectorizer_.get_feature_names_out())
    found = []
    for i, bias in enumerate(network.filter_biases):
        window = len(network.filters[i])
        windows, text, values = _distinct_windows(network, i, sequences)
        best = values.topk(min(n_phrases, len(values)), dim=0).indices
        for number, places in enumerate(best.T):
            for place in places.tolist():
                value = torch.relu(values[place, number] + bias[number])
                phrase = " ".join(words[windows[place].numpy()]).strip()
                found.append([window, number, phrase, float(value), items[text[place]]])
    return pd.DataFrame(found, columns=["window", "filter", "phrase", "value", "item"])


def _network(model: Any) -> TextCNN:
    """Return the network of a fitted model."""
    check_is_fitted(model)
    if not (isinstance(model, ConvMFRegressor) and model.text_weights_):
        raise ValueError(
            "model must be a ConvMFRegressor that was fitted with item_texts, got a "
            f"{type(model).__name__} without filters: fit a ConvMFRegressor with "
            "item_texts."
        )
    weights = {name: as_tensor(w) for name, w in model.text_weights_.items()}
    network = TextCNN.from_weights(weights, torch.device("cpu"))
    return network.requires_grad_(False)


def _columns(network: TextCNN) -> pd.MultiIndex:
    pairs = [(len(f), n) for f in network.filters for n in range(f.shape[2])]
    return pd.MultiIndex.from_tuples(pairs, names=["window", "filter"])


def _distinct_windows(
    network: TextCNN, i: int, sequences: torch.Tensor
) -> tuple[torch.Tensor, NDArray[Any], torch.Tensor]:
    """Return the distinct windows, a text that has each of them, and their values."""
    filters = network.filters[i]
    # Windows may extend into the padding, as they do in the network.
    longest = max(len(filters) for filters in network.filters)
    padding = max(0, longest - sequences.shape[1])
    padded = torch.nn.functional.pad(sequences, (0, padding))
    windows = padded.unfold(1, len(filters), 1)
    text, place = (windows[:, :, 0] != 0).nonzero(as_tuple=True)
    windows, inverse = torch.unique(windows[text, place], dim=0, return_inverse=True)
    first = torch.zeros(len(windows), dtype=torch.int64)
    first[inverse.flip(0)] = text.flip(0)
    tables = network.vectors @ filters
    values = sum(table[windows[:, o]] for o, table in enumerate(tables))
    return windows, first.numpy(), values
