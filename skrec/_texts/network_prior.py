"""Item priors computed from texts by a neural network."""

from __future__ import annotations

import functools
from abc import abstractmethod

import numpy as np
import torch

from .._core.batches import drop
from .._core.device import as_tensor, make_generator
from .._core.optimizers import Adam
from .._core.symmetric import Triangle
from .._core.text_cnn import TextBatch, TextCNN, cut_texts
from .._core.training import PenalizedLoss, run_epoch
from .._factorization.priors import Prior

# Number of texts in each batch for inference.
INFERENCE_BATCH = 1024


class NetworkPrior(Prior):
    """Prior whose means are the outputs of a network for the texts of the items.

    The network is trained to predict the item vectors. A subclass defines how texts are
    split into batches, and the loss of a batch.

    Parameters
    ----------
    network : torch.nn.Module
        Network, trained in place. Called with a batch, it returns the outputs for the
        texts of the batch.

    items : ndarray of shape (n_texts,)
        Position of the item of each text. Items without text get the mean output.

    n_items : int
        Number of items.

    random_state : RandomState
        Source of randomness for batches and dropout.

    epochs : int
        Number of training epochs in each call of `fit`.

    batch_size : int
        Number of texts in each training step.

    learning_rate : float
        Step size of Adam.

    lambda_w : float
        Penalty on the squared weights (weight decay).
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
        self.optimizer = Adam(network.parameters(), learning_rate)
        outputs = compute_outputs(network, self.whole)
        self._means = outputs.new_zeros(n_items, outputs.shape[1])
        self._spread(outputs)

    @abstractmethod
    def _cut(self, order: torch.Tensor, batch_size: int) -> list:
        """Split texts in this order into batches, whose `texts` are their indices."""

    @abstractmethod
    def _loss(self, batch, vectors: torch.Tensor, weights: torch.Tensor):
        """Loss of a batch, given the vectors and penalties of its items."""

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

        self.train(loss)

    def train(self, loss):
        """Run some epochs on a loss of a batch, and store the outputs."""
        objective = PenalizedLoss(
            loss, self.network.parameters(), self.network.penalized(), self.lambda_w
        )
        for _ in range(self.epochs):
            run_epoch(objective, self.batches, self.shares, self.optimizer, self.order)
        self._spread(compute_outputs(self.network, self.whole))

    def penalty(self):
        weights = self.network.penalized()
        squares = sum(w.detach().square().sum().double() for w in weights)
        return self.lambda_w / 2 * squares

    def attributes(self):
        state = self.network.state_dict()
        return {"text_weights_": {n: w.cpu().numpy().copy() for n, w in state.items()}}

    def _spread(self, outputs):
        """Set the prior means of all items."""
        self._means.copy_(outputs.mean(0).expand_as(self._means))
        self._means[self.items] = outputs


class TextPrior(NetworkPrior):
    """Prior of ConvMF: the outputs of a convolutional network.

    Parameters
    ----------
    network : TextCNN
        Convolutional network.

    sequences : ndarray of shape (n_texts, max_words)
        Word indices of each text.

    items, n_items, random_state, **training
        See `NetworkPrior`.

    dropout, word_dropout : float
        Probabilities that a hidden unit and a word, respectively, are dropped.
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


class EvidencePrior(TextPrior):
    """Network that is a part of the prior means of a variational factorization.

    It descends the objective of the prior means, in which the vectors are integrated
    out, instead of chasing the vectors, which follow its own last output. See
    `PriorNetwork`.
    """

    def mean(self) -> torch.Tensor:
        """Mean output over the texts."""
        return self._means[self.items].mean(0)

    def descend(self, L, covariances, q, others):
        triangle = Triangle(len(L), L.device)
        items = self.items
        # An item without ratings has q = 0, and P = 0 up to rounding.
        is_rated = (q[items] != 0).any(1, keepdim=True)
        q, others = q[items], others[items]
        covariances = covariances[items]

        def loss(batch):
            rows = batch.texts
            means = self.network(batch, self.drop, self.drop_words) + others[rows]
            moved = means @ L
            S = triangle.unpack(covariances[rows])
            image = moved - (S @ moved.unsqueeze(-1)).squeeze(-1) @ L
            image = torch.where(is_rated[rows], image, 0)
            return 0.5 * (means * image).sum() - (means * q[rows]).sum()

        self.train(loss)


def read(
    weights: dict[str, np.ndarray],
    sequences: np.ndarray,
    device: torch.device,
    *,
    squashes: bool = True,
) -> np.ndarray:
    """Compute the outputs of a fitted network for texts.

    Parameters
    ----------
    weights : dict of str to ndarray
        State of a `TextCNN`.

    sequences : ndarray of shape (n_texts, max_words)
        Word indices of each text.

    device : torch.device
        Device to compute on.

    squashes : bool
        Whether the outputs pass through tanh.

    Returns
    -------
    outputs : ndarray of shape (n_texts, n_outputs)
        Outputs of the network.
    """
    state = {name: as_tensor(array) for name, array in weights.items()}
    network = TextCNN.from_weights(state, device, squashes=squashes)
    order = torch.arange(len(sequences))
    batches = to_batches(network, sequences, order, INFERENCE_BATCH)
    return compute_outputs(network, batches).cpu().numpy()


def to_batches(network, sequences, order, batch_size) -> list[TextBatch]:
    """Split texts in this order into batches for a network."""
    sequences = torch.as_tensor(sequences.astype(np.int64))
    longest = max(len(filters) for filters in network.filters)
    batches = cut_texts(sequences, order, batch_size, longest)
    return [batch.to(network.vectors.device) for batch in batches]


@torch.no_grad()
def compute_outputs(network, batches) -> torch.Tensor:
    """Compute the outputs of a network for the texts, in the order of the batches."""
    return torch.cat([network(batch) for batch in batches])
