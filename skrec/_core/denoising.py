"""A stacked denoising autoencoder of sparse rows.

The rows X are reconstructed whole, zeros included, but the sum of squared errors needs
the reconstruction only at the entries x of X. With the last hidden layer H, followed by
a column of ones, and the decoder D, including its biases, the reconstruction is H D':

    (1)  ||X - H D'||^2 = ||H D'||^2 + sum_entries x (x - 2 (H D')_entry)
    (2)  ||H D'||^2     = sum of the elementwise product of H' H and D' D
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter, ParameterList

from .batches import keep_all
from .sparse import Pattern, sddmm, spmm

# Products of matrices with 201 columns took twice as long as with 208.
_MULTIPLE = 16


class BagBatch(NamedTuple):
    """Batch of texts as bags of words.

    Attributes
    ----------
    texts : Tensor of shape (n_texts,)
        Index of each text.

    pattern : Pattern of shape (n_texts, n_words)
        Words of each text.

    values : Tensor of shape (nnz,)
        Value of each word in each text.
    """

    texts: Tensor
    pattern: Pattern
    values: Tensor


def cut_bags(
    pattern: Pattern, values: Tensor, texts: Tensor, batch_size: int
) -> list[BagBatch]:
    """Cut texts into batches.

    Parameters
    ----------
    pattern : Pattern of shape (n_texts, n_words)
        Words of each text.

    values : Tensor of shape (nnz,)
        Value of each word in each text.

    texts : Tensor of shape (n,)
        Indices of the selected texts, in the order of the batches.

    batch_size : int
        Number of texts in a batch.

    Returns
    -------
    batches : list of BagBatch
    """
    batches = []
    for part in texts.to(values.device).split(int(batch_size)):
        rows, entries = pattern.rows(part)
        batches.append(BagBatch(part, rows, values[entries]))
    return batches


class DenoisingAutoencoder(torch.nn.Module):
    """Autoencoder from rows to codes and back.

    The activation of the hidden layers and of the code is tanh. The reconstruction is
    linear.

    Parameters
    ----------
    n_words : int
        Number of columns of the rows.

    hidden_layer_sizes : sequence of int
        Numbers of units in the layers between a row and its code. The layers between
        the code and the reconstruction have the same sizes in reverse order.

    n_outputs : int
        Number of units of the code.

    generator : torch.Generator
        Generator of the initial weights (Glorot and Bengio 2010), on the CPU.

    dtype : torch.dtype
        Data type of the parameters.

    device : torch.device
        Device of the parameters and of the computation.
    """

    def __init__(
        self,
        n_words: int,
        hidden_layer_sizes: Sequence[int],
        n_outputs: int,
        generator: torch.Generator,
        dtype: torch.dtype,
        device: torch.device,
    ):
        super().__init__()
        self.n_encoders = len(hidden_layer_sizes) + 1
        sizes = [n_words, *hidden_layer_sizes, n_outputs]
        # The last layer of the decoder is separate: only (1) uses it.
        sizes += [*reversed(hidden_layer_sizes)]

        def draw(n_in, n_out):
            # Glorot and Bengio: variance 2 / (n_in + n_out)
            limit = (6 / (n_in + n_out)) ** 0.5
            weights = torch.empty(n_in, n_out, dtype=dtype)
            return Parameter(weights.uniform_(-limit, limit, generator=generator))

        self.layers = ParameterList(draw(a, b) for a, b in itertools.pairwise(sizes))
        self.biases = ParameterList(
            Parameter(torch.zeros(size, dtype=dtype)) for size in sizes[1:]
        )
        self.decoder = draw(n_words, sizes[-1])
        self.decoder_bias = Parameter(torch.zeros(n_words, dtype=dtype))
        self.to(device)

    def penalized(self) -> list[Tensor]:
        """All parameters except the biases."""
        return [*self.layers, self.decoder]

    def forward(
        self, batch: BagBatch, corrupt: Callable[[Tensor], Tensor] = keep_all
    ) -> Tensor:
        """Codes of shape (n_texts, n_outputs), from values changed by `corrupt`."""
        sums = spmm(batch.pattern, corrupt(batch.values), self.layers[0])
        code = torch.tanh(sums + self.biases[0])
        return self._through(code, 1, self.n_encoders)

    def squared_error(self, batch: BagBatch, codes: Tensor) -> Tensor:
        """Sum of squared errors (1) of all rows, reconstructed from their codes."""
        hidden = self._through(codes, self.n_encoders, len(self.layers))
        # H and D with the biases as a further column
        hidden = _append(hidden, torch.ones_like(hidden[:, 0]))
        decoder = _append(self.decoder, self.decoder_bias)
        # (2), then the entries of (1): no dense reconstruction is needed.
        squares = (_Gram.apply(hidden) * _Gram.apply(decoder)).sum()
        at_entries = sddmm(batch.pattern, hidden, decoder)
        return squares + torch.dot(batch.values - 2 * at_entries, batch.values)

    def _through(self, code: Tensor, start: int, stop: int) -> Tensor:
        for i in range(start, stop):
            code = torch.tanh(torch.addmm(self.biases[i], code, self.layers[i]))
        return code


def _append(A: Tensor, column: Tensor) -> Tensor:
    """Append a column, and columns of zeros up to a multiple of `_MULTIPLE`."""
    n_zeros = -(A.shape[1] + 1) % _MULTIPLE
    return torch.cat([A, column.unsqueeze(1), A.new_zeros(len(A), n_zeros)], 1)


class _Gram(torch.autograd.Function):
    """The product A' A, whose two equal gradients are one product."""

    @staticmethod
    def forward(ctx, A):
        ctx.save_for_backward(A)
        return A.T @ A

    @staticmethod
    def backward(ctx, grad):
        (A,) = ctx.saved_tensors
        return A @ (grad + grad.T)
