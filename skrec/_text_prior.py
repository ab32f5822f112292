"""Item vectors as a convolutional network predicts them from texts."""

from __future__ import annotations

import functools

import numpy as np
import torch

from ._core.batches import drop
from ._core.device import as_tensor, make_generator
from ._core.text_cnn import TextBatch, TextCNN, cut_texts
from ._core.training import PenalisedLoss, run_epoch
from ._factorization import ItemPrior

# Texts that are read at once when nothing is trained.
_INFERENCE_BATCH = 1024


class TextPrior(ItemPrior):
    """The prior of ConvMF.

    Parameters
    ----------
    network : TextCNN
        The network, which is trained in place.

    sequences : ndarray of shape (n_texts, max_words)
        The words of each text.

    items : ndarray of shape (n_texts,)
        The item that each text belongs to. The others have the mean of these.

    n_items : int
        The number of items.

    random_state : RandomState
        Determines batches and dropout.

    epochs : int
        Epochs in each call of `fit`.

    batch_size : int
        Texts in a step.

    learning_rate : float
        The step size of Adam.

    dropout, word_dropout : float
        The probability that a hidden unit is left out, and that a word is.

    lambda_w : float
        The penalty on the squared weights.
    """

    settles = False

    def __init__(
        self,
        network: TextCNN,
        sequences: np.ndarray,
        items: np.ndarray,
        n_items: int,
        random_state: np.random.RandomState,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        dropout: float,
        word_dropout: float,
        lambda_w: float,
    ):
        self.network = network
        self.epochs, self.lambda_w = epochs, lambda_w
        device = network.vectors.device
        self.items = torch.as_tensor(items, device=device)
        self.order = make_generator(random_state.randint(np.iinfo(np.int32).max))
        noise = make_generator(random_state.randint(np.iinfo(np.int32).max), device)
        self.drop = functools.partial(drop, rate=dropout, generator=noise)
        self.drop_words = functools.partial(drop, rate=word_dropout, generator=noise)
        shuffled = torch.randperm(len(sequences), generator=self.order)
        self.batches = _to_batches(network, sequences, shuffled, batch_size)
        self.shares = [len(batch.texts) / len(sequences) for batch in self.batches]
        everything = torch.arange(len(sequences))
        self.whole = _to_batches(network, sequences, everything, _INFERENCE_BATCH)
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=learning_rate, fused=True
        )
        self._means = network.vectors.new_zeros(n_items, len(network.output_bias))
        self._predict()

    def parameters(self):
        return [*self.network.parameters(), self._means]

    def means(self):
        return self._means

    def fit(self, vectors, weights):
        vectors, weights = vectors[self.items], weights[self.items]

        def loss(batch: TextBatch):
            outputs = self.network(batch, self.drop, self.drop_words)
            error = outputs - vectors[batch.texts]
            return 0.5 * torch.dot(weights[batch.texts], error.square().sum(1))

        objective = PenalisedLoss(
            loss, self.network.parameters(), self.network.penalised(), self.lambda_w
        )
        for _ in range(self.epochs):
            run_epoch(objective, self.batches, self.shares, self.optimizer, self.order)
        self._predict()

    def penalty(self):
        weights = self.network.penalised()
        squares = sum(float(w.detach().square().sum()) for w in weights)
        return self.lambda_w / 2 * squares

    def _predict(self):
        outputs = _outputs(self.network, self.whole)
        self._means.copy_(outputs.mean(0).expand_as(self._means))
        self._means[self.items] = outputs


def read(
    weights: dict[str, np.ndarray], sequences: np.ndarray, device: torch.device
) -> np.ndarray:
    """What a fitted network makes of texts.

    Parameters
    ----------
    weights : dict of str to ndarray
        The state of a `TextCNN`.

    sequences : ndarray of shape (n_texts, max_words)
        The words of each text.

    device : torch.device
        Where to compute.

    Returns
    -------
    outputs : ndarray of shape (n_texts, n_outputs)
    """
    state = {name: as_tensor(array) for name, array in weights.items()}
    network = TextCNN.from_weights(state, device)
    order = torch.arange(len(sequences))
    batches = _to_batches(network, sequences, order, _INFERENCE_BATCH)
    return _outputs(network, batches).cpu().numpy()


def _to_batches(network, sequences, order, batch_size) -> list[TextBatch]:
    """Texts in this order, in batches for a network."""
    sequences = torch.as_tensor(sequences.astype(np.int64))
    longest = max(len(filters) for filters in network.filters)
    batches = cut_texts(sequences, order, batch_size, longest)
    return [batch.to(network.vectors.device) for batch in batches]


@torch.no_grad()
def _outputs(network, batches) -> torch.Tensor:
    """The outputs of a network for texts in the order of the batches."""
    return torch.cat([network(batch) for batch in batches])
