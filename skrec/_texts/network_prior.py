"""Item vectors as a network predicts them from texts."""

from __future__ import annotations

import functools
from abc import abstractmethod

import numpy as np
import torch

from .._core.batches import drop
from .._core.device import as_tensor, make_generator
from .._core.text_cnn import TextBatch, TextCNN, cut_texts
from .._core.training import PenalizedLoss, run_epoch
from .._factorization.priors import Prior

# Texts that are read at once when nothing is trained.
INFERENCE_BATCH = 1024


class NetworkPrior(Prior):
    """What a network makes of texts, which is trained to come near the items.

    A subclass says how texts become batches, and what the loss of a batch is.

    Parameters
    ----------
    network : torch.nn.Module
        The network, which is trained in place. Called with a batch it returns the
        outputs for its texts.

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

    lambda_w : float
        The penalty on the squared weights.
    """

    settles = False

    def __init__(
        self,
        network,
        items: np.ndarray,
        n_items: int,
        random_state: np.random.RandomState,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        lambda_w: float,
    ):
        self.network = network
        self.epochs, self.lambda_w = epochs, lambda_w
        device = next(network.parameters()).device
        self.items = torch.as_tensor(items, device=device)
        self.order = make_generator(random_state.randint(np.iinfo(np.int32).max))
        seed = random_state.randint(np.iinfo(np.int32).max)
        self.dropout_generator = make_generator(seed, device)
        shuffled = torch.randperm(len(items), generator=self.order)
        self.batches = self._cut(shuffled, batch_size)
        self.shares = [len(batch.texts) / len(items) for batch in self.batches]
        self.whole = self._cut(torch.arange(len(items)), INFERENCE_BATCH)
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=learning_rate, fused=True
        )
        outputs = compute_outputs(network, self.whole)
        self._means = outputs.new_zeros(n_items, outputs.shape[1])
        self._spread(outputs)

    @abstractmethod
    def _cut(self, order: torch.Tensor, batch_size: int) -> list:
        """Texts in this order, in batches that have the numbers of their `texts`."""

    @abstractmethod
    def _loss(self, batch, vectors: torch.Tensor, weights: torch.Tensor):
        """The loss of a batch, given the vectors of its items and their penalties."""

    def parameters(self):
        return [*self.network.parameters(), self._means]

    def optimizers(self):
        return [self.optimizer]

    def generators(self):
        return [self.order, self.dropout_generator]

    def means(self):
        return self._means

    def fit(self, vectors, penalties):
        vectors, penalties = vectors[self.items], penalties[self.items]

        def loss(batch):
            return self._loss(batch, vectors[batch.texts], penalties[batch.texts])

        objective = PenalizedLoss(
            loss, self.network.parameters(), self.network.penalized(), self.lambda_w
        )
        for _ in range(self.epochs):
            run_epoch(objective, self.batches, self.shares, self.optimizer, self.order)
        self._spread(compute_outputs(self.network, self.whole))

    def penalty(self):
        weights = self.network.penalized()
        squares = sum(float(w.detach().square().sum()) for w in weights)
        return self.lambda_w / 2 * squares

    def attributes(self):
        state = self.network.state_dict()
        return {"text_weights_": {n: w.cpu().numpy().copy() for n, w in state.items()}}

    def _spread(self, outputs):
        """Set the means of all items."""
        self._means.copy_(outputs.mean(0).expand_as(self._means))
        self._means[self.items] = outputs


class TextPrior(NetworkPrior):
    """The prior of ConvMF.

    Parameters
    ----------
    network : TextCNN
        The network.

    sequences : ndarray of shape (n_texts, max_words)
        The words of each text.

    items, n_items, random_state, **training
        As for `NetworkPrior`.

    dropout, word_dropout : float
        The probability that a hidden unit is left out, and that a word is.
    """

    def __init__(
        self,
        network: TextCNN,
        sequences: np.ndarray,
        items: np.ndarray,
        n_items: int,
        random_state: np.random.RandomState,
        *,
        dropout: float,
        word_dropout: float,
        **training,
    ):
        self.sequences = sequences
        super().__init__(network, items, n_items, random_state, **training)
        self.drop = functools.partial(
            drop, rate=dropout, generator=self.dropout_generator
        )
        self.drop_words = functools.partial(
            drop, rate=word_dropout, generator=self.dropout_generator
        )

    def _cut(self, order, batch_size):
        return to_batches(self.network, self.sequences, order, batch_size)

    def _loss(self, batch, vectors, weights):
        error = self.network(batch, self.drop, self.drop_words) - vectors
        return 0.5 * torch.dot(weights, error.square().sum(1))


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
    batches = to_batches(network, sequences, order, INFERENCE_BATCH)
    return compute_outputs(network, batches).cpu().numpy()


def to_batches(network, sequences, order, batch_size) -> list[TextBatch]:
    """Texts in this order, in batches for a network."""
    sequences = torch.as_tensor(sequences.astype(np.int64))
    longest = max(len(filters) for filters in network.filters)
    batches = cut_texts(sequences, order, batch_size, longest)
    return [batch.to(network.vectors.device) for batch in batches]


@torch.no_grad()
def compute_outputs(network, batches) -> torch.Tensor:
    """The outputs of a network for texts in the order of the batches."""
    return torch.cat([network(batch) for batch in batches])
