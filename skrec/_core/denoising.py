"""A stacked denoising autoencoder of sparse rows.

The rows are reconstructed whole, zeros included, but the sum of squared errors needs
only the reconstruction at the entries: with the last hidden layer H, followed by a
column of ones, and the decoder D, its biases included, the squares of all
reconstructions sum to the product of ``H' H`` and ``D' D``.
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


class BagBatch(NamedTuple):
    """Texts as bags of words that are processed together.

    Attributes
    ----------
    texts : Tensor of shape (n_texts,)
        The number of each text.

    pattern : Pattern of shape (n_texts, n_words)
        Which words the texts have.

    values : Tensor of shape (nnz,)
        How much of them.
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
        Which words each text has.

    values : Tensor of shape (nnz,)
        How much of them.

    texts : Tensor of shape (n,)
        Which texts are wanted, in the order of the batches.

    batch_size : int
        Texts in a batch.

    Returns
    -------
    batches : list of BagBatch
    """
    batches = []
    for part in texts.to(values.device).split(batch_size):
        rows, entries = pattern.rows(part)
        batches.append(BagBatch(part, rows, values[entries]))
    return batches


class DenoisingAutoencoder(torch.nn.Module):
    """Rows to a code, from which they are reconstructed.

    Hidden layers are hyperbolic tangents; the code is, too. The reconstruction is
    linear.

    Parameters
    ----------
    n_words : int
        Columns of the rows.

    hidden_layer_sizes : sequence of int
        Units of the layers between a row and its code. Those between the code and the
        reconstruction are the same in reverse.

    n_outputs : int
        Numbers in a code.

    generator : torch.Generator
        Draws the initial weights (Glorot and Bengio 2010). On the CPU.

    dtype : torch.dtype
        The precision.

    device : torch.device
        Where to compute.
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
        sizes += [*reversed(hidden_layer_sizes)]

        def draw(n_in, n_out):
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

    def penalised(self) -> list[Tensor]:
        """All parameters but the biases."""
        return [*self.layers, self.decoder]

    def forward(
        self, batch: BagBatch, corrupt: Callable[[Tensor], Tensor] = keep_all
    ) -> Tensor:
        """The codes of shape (n_texts, n_outputs); `corrupt` changes the values."""
        sums = spmm(batch.pattern, corrupt(batch.values), self.layers[0])
        code = torch.tanh(sums + self.biases[0])
        return self._through(code, 1, self.n_encoders)

    def squared_error(self, batch: BagBatch, codes: Tensor) -> Tensor:
        """The squared distance of all rows from what their codes reconstruct."""
        hidden = self._through(codes, self.n_encoders, len(self.layers))
        hidden = torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1)
        decoder = torch.cat([self.decoder, self.decoder_bias.unsqueeze(1)], 1)
        squares = ((hidden.T @ hidden) * (decoder.T @ decoder)).sum()
        at_entries = sddmm(batch.pattern, hidden, decoder)
        return squares + torch.dot(batch.values - 2 * at_entries, batch.values)

    def _through(self, code: Tensor, start: int, stop: int) -> Tensor:
        for i in range(start, stop):
            code = torch.tanh(torch.addmm(self.biases[i], code, self.layers[i]))
        return code
