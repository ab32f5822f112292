"""A convolutional network over texts with max-over-time pooling.

The value of filter f at the window that begins at word s of a text, and its maximum:

    (1)  value_sf = sum_o table_o[word_{s + o}, f],  table_o = vectors @ filters[o]
    (2)  max_f    = max_s value_sf

Two things make this cheap. The tables have the products of each distinct word with each
slice of the filters, so that windows only add up rows of the tables. Only the winning
window s* of each text and filter passes its gradient g_f back, so that the backward
pass visits one window of each text and filter instead of all:

    (3)  d vectors[word_{s* + o}] += g_f filters[o, :, f]
    (4)  d filters[o, :, f]       += g_f vectors[word_{s* + o}]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter, ParameterList
from torch.nn.functional import embedding_bag

from .batches import keep_all

# Texts of a bucket differ in length by at most a quarter plus this number of words.
_BUCKET_SLACK = 8


class TextBatch(NamedTuple):
    """Batch of texts.

    Attributes
    ----------
    texts : Tensor of shape (n_texts,)
        Index of each text.

    words : Tensor of shape (n_words,)
        Distinct words of the texts in ascending order; the padding, 0, comes first.

    buckets : list of (Tensor of shape (n,), Tensor of shape (n, length))
        For texts of similar length: their positions in `texts`, and their sequences of
        words as positions in `words`.
    """

    texts: Tensor
    words: Tensor
    buckets: list[tuple[Tensor, Tensor]]

    def to(self, device: torch.device) -> TextBatch:
        """The same batch on another device."""
        buckets = [(rows.to(device), words.to(device)) for rows, words in self.buckets]
        return TextBatch(self.texts.to(device), self.words.to(device), buckets)


def cut_texts(
    sequences: Tensor, texts: Tensor, batch_size: int, longest_window: int
) -> list[TextBatch]:
    """Cut texts into batches, and each into buckets of similar length.

    Parameters
    ----------
    sequences : Tensor of shape (n_sequences, max_words)
        Words of each text, from 1 on, followed by padding, 0.

    texts : Tensor of shape (n_texts,)
        Indices of the selected texts, in the order of the batches.

    batch_size : int
        Number of texts in a batch.

    longest_window : int
        Number of words in the longest window. Sequences of a bucket exceed its longest
        text by this number, so that they contain all distinct windows.

    Returns
    -------
    batches : list of TextBatch
    """
    # Texts shorter than the longest window still have one window.
    sequences = torch.nn.functional.pad(
        sequences, (0, max(0, longest_window - sequences.shape[1]))
    )
    lengths = (sequences != 0).sum(1)
    batches = []
    for part in texts.split(int(batch_size)):
        # Replace words by their positions among the distinct words of the batch.
        words, places = torch.unique(sequences[part], return_inverse=True)
        if words[0] != 0:
            words = torch.cat([words.new_zeros(1), words])
            places = places + 1
        sizes, order = torch.sort(lengths[part], stable=True)
        buckets, start = [], 0
        while start < len(part):
            limit = int(sizes[start] * 1.25) + _BUCKET_SLACK
            end = int(torch.searchsorted(sizes, limit, right=True))
            rows = order[start:end]
            width = min(sequences.shape[1], int(sizes[end - 1]) + longest_window)
            buckets.append((rows, places[rows, :width]))
            start = end
        batches.append(TextBatch(part, words, buckets))
    return batches


def max_convolution(batch: TextBatch, vectors: Tensor, filters: Tensor) -> Tensor:
    """Largest value (2) of each filter over the windows of each text.

    Parameters
    ----------
    batch : TextBatch
        Texts.

    vectors : Tensor of shape (n_words, p)
        Vectors of the words of the batch; zero for the padding.

    filters : Tensor of shape (window, p, n_filters)
        Filters of one window size.

    Returns
    -------
    maxima : Tensor of shape (n_texts, n_filters)
    """
    return _MaxConvolution.apply(batch, vectors, filters)


class _MaxConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, batch, vectors, filters):
        window, _, n_filters = filters.shape
        n_words = len(vectors)
        # (1): row o * n_words + i has the products of word i and slice o of all filters
        tables = (vectors @ filters).view(window * n_words, n_filters)
        offsets = n_words * torch.arange(window, device=vectors.device)
        maxima = vectors.new_empty(len(batch.texts), n_filters)
        winners = torch.empty(
            (window, *maxima.shape), dtype=torch.int64, device=vectors.device
        )
        for rows, words in batch.buckets:
            windows = words.unfold(1, window, 1)
            bags = (windows + offsets).reshape(-1, window)
            values = embedding_bag(bags, tables, mode="sum")
            values = values.view(len(rows), -1, n_filters)
            maxima[rows], first = values.max(1)  # (2)
            # The words of the winning windows are all that the gradients need.
            for o in range(window):
                winners[o, rows] = words.gather(1, first + o)
        ctx.save_for_backward(vectors, filters, winners)
        return maxima

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        vectors, filters, winners = ctx.saved_tensors
        window, p, n_filters = filters.shape
        n_columns = window * n_filters
        grad_vectors = grad_filters = None
        if ctx.needs_input_grad[1]:
            # (3): sum the g_f of each word, slice and filter, then multiply once.
            columns = torch.arange(n_columns, device=grad.device)
            places = winners * n_columns + columns.view(window, 1, n_filters)
            # Row i of `sums` belongs to word i, its columns to the slices and filters.
            sums = grad.new_zeros(len(vectors) * n_columns)
            sums.index_add_(0, places.view(-1), grad.expand_as(winners).reshape(-1))
            slices = filters.transpose(1, 2).reshape(n_columns, p)
            grad_vectors = sums.view(len(vectors), n_columns) @ slices
        if ctx.needs_input_grad[2]:
            # (4): for each slice and filter, a weighted sum of the winners' vectors
            weights = grad.T.expand(window, -1, -1).reshape(n_columns, -1)
            sums = embedding_bag(
                winners.transpose(1, 2).reshape(n_columns, -1),
                vectors.detach(),
                mode="sum",
                per_sample_weights=weights,
            )
            grad_filters = sums.view(window, n_filters, p).transpose(1, 2)
        return None, grad_vectors, grad_filters


class TextCNN(torch.nn.Module):
    """Network from texts to latent factors.

    The layers are an embedding, convolution with ReLU, max over time, and two layers
    with tanh, the last of which may be linear.

    Parameters
    ----------
    vectors : Tensor of shape (n_words + 1, p)
        Initial word vectors. Row 0 belongs to the padding and stays zero.

    window_sizes : sequence of int
        Numbers of words in a window.

    n_filters : int
        Number of filters of each window size.

    n_hidden : int
        Number of hidden units between the filters and the output.

    n_outputs : int
        Number of outputs of a text.

    generator : torch.Generator
        Generator of the other initial weights (Glorot and Bengio 2010), on the CPU.

    device : torch.device
        Device of the parameters and of the computation.

    squashes : bool
        Whether the outputs pass through tanh. Linear outputs begin at 0.
    """

    def __init__(
        self,
        vectors: Tensor,
        window_sizes: Sequence[int],
        n_filters: int,
        n_hidden: int,
        n_outputs: int,
        generator: torch.Generator,
        device: torch.device,
        *,
        squashes: bool = True,
    ):
        super().__init__()
        self.squashes = squashes
        p = vectors.shape[1]

        def draw(*shape, fan_in, fan_out):
            # Glorot and Bengio: variance 2 / (fan_in + fan_out)
            limit = (6 / (fan_in + fan_out)) ** 0.5
            weights = torch.empty(shape, dtype=vectors.dtype)
            return Parameter(weights.uniform_(-limit, limit, generator=generator))

        def zeros(size):
            return Parameter(torch.zeros(size, dtype=vectors.dtype))

        vectors = vectors.clone()
        vectors[0] = 0
        self.vectors = Parameter(vectors)
        self.filters = ParameterList(
            draw(w, p, n_filters, fan_in=w * p, fan_out=n_filters) for w in window_sizes
        )
        self.filter_biases = ParameterList(zeros(n_filters) for _ in window_sizes)
        n_features = len(window_sizes) * n_filters
        self.hidden = draw(n_features, n_hidden, fan_in=n_features, fan_out=n_hidden)
        self.hidden_bias = zeros(n_hidden)
        self.output = draw(n_hidden, n_outputs, fan_in=n_hidden, fan_out=n_outputs)
        self.output_bias = zeros(n_outputs)
        if not squashes:
            torch.nn.init.zeros_(self.output)
        self.to(device)

    @classmethod
    def from_weights(
        cls, state: dict[str, Tensor], device: torch.device, *, squashes: bool = True
    ) -> TextCNN:
        """Network with the parameters of a state dict."""
        filters = [w for name, w in state.items() if name.startswith("filters.")]
        n_hidden, n_outputs = state["output"].shape
        network = cls(
            state["vectors"],
            [len(w) for w in filters],
            filters[0].shape[2],
            n_hidden,
            n_outputs,
            torch.Generator(),
            torch.device("cpu"),
            squashes=squashes,
        )
        network.load_state_dict(state)
        return network.to(device)

    def penalized(self) -> list[Tensor]:
        """All parameters except the biases."""
        return [self.vectors, *self.filters, self.hidden, self.output]

    def features(
        self, batch: TextBatch, drop_words: Callable[[Tensor], Tensor] = keep_all
    ) -> Tensor:
        """Pooled filter values, of shape (n_texts, n_windows * n_filters)."""
        vectors = self.vectors.index_select(0, batch.words)
        # The mask keeps the vector of the padding at zero: it gets no gradient.
        is_word = (batch.words != 0).to(vectors.dtype).unsqueeze(1)
        vectors = vectors * drop_words(is_word)
        # Bias and ReLU come after the maximum: both are monotonic.
        return torch.cat(
            [
                torch.relu(max_convolution(batch, vectors, f) + b)
                for f, b in zip(self.filters, self.filter_biases, strict=True)
            ],
            1,
        )

    def forward(
        self,
        batch: TextBatch,
        drop: Callable[[Tensor], Tensor] = keep_all,
        drop_words: Callable[[Tensor], Tensor] = keep_all,
    ) -> Tensor:
        """Outputs of the texts, of shape (n_texts, n_outputs).

        Parameters
        ----------
        batch : TextBatch
            Texts.

        drop : callable
            Dropout during training, applied to the hidden units.

        drop_words : callable
            Word dropout, applied to a factor of each distinct word of the batch, of
            shape (n_words, 1). A word is dropped from all texts of the batch at once.
        """
        features = self.features(batch, drop_words)
        hidden = torch.tanh(torch.addmm(self.hidden_bias, features, self.hidden))
        outputs = torch.addmm(self.output_bias, drop(hidden), self.output)
        return torch.tanh(outputs) if self.squashes else outputs
