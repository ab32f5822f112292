"""Autoencoders of sparse rows: the forward computation, without the training.

With the activations g and f, a row r with side information s is encoded and decoded as

    (1)  code_1   = g(V' r + S' s + c_1),  code_i+1 = g(V_i+1' code_i + c_i+1)
    (2)  rating_j = f(W_j code_last + b_j)

A centered autoencoder subtracts the code of an empty row, without side information,
from each code. An empty row then has the code 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .batches import InputTransform, damped_means_without, keep_all
from .chunks import row_chunks
from .collectives import ALONE, Group, Share
from .sparse import Pattern, sddmm, spmm

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": torch.nn.functional.elu,
    "selu": torch.nn.functional.selu,
}


_OUTER_STD = 0.01
# Scale of the initial weights between hidden layers: the slope of a sigmoid is 1/4.
_GAINS = {"sigmoid": 4.0}


class OutputActivation:
    """Activation f in (2), which turns the last sums into ratings.

    A bounded activation is scaled to the range of the training ratings.

    Parameters
    ----------
    name : {"identity", "sigmoid", "tanh", "relu", "elu", "selu"}
        Name of the activation.

    low, high : float
        Range of the training ratings.
    """

    def __init__(self, name: str, low: float, high: float):
        self.function = ACTIVATIONS[name]
        self.is_identity = name == "identity"
        self.range = low, high
        self.inverse = {"sigmoid": torch.logit, "tanh": torch.atanh}.get(name)
        # Map the range of a bounded activation, (bottom, 1), to (low, high).
        self.shift, self.scale = 0.0, 1.0
        if self.inverse is not None:
            bottom = 0.0 if name == "sigmoid" else -1.0
            self.scale = (high - low) / (1.0 - bottom)
            self.shift = low - self.scale * bottom

    def __call__(self, sums: Tensor) -> Tensor:
        if self.inverse is None:
            return self.function(sums)
        return self.shift + self.scale * self.function(sums)

    def start(self, rating: float) -> float:
        """Initial value of a sum, at which f is near `rating` and not flat."""
        if self.inverse is None:
            return rating
        # Near the bounds the gradient vanishes. With equal ratings the scale is 0.
        low, high = self.range
        margin = 0.05 * (high - low)
        rating = min(max(rating, low + margin), high - margin)
        unit = (rating - self.shift) / self.scale if self.scale else 0.5
        return self.inverse(torch.tensor(unit)).item()


@dataclass
class AutoencoderWeights:
    """Weights of an `Autoencoder`, each in one piece and on the CPU.

    Attributes
    ----------
    encoder : list of Tensor
        Weights V of shape (n_visible, k_1), then weights of shape (k_i, k_i+1) for each
        further hidden layer.

    encoder_biases : list of Tensor of shape (k_i,)
        Biases of the hidden layers.

    decoder : Tensor of shape (n_visible, k_last)
        Weights W of the output.

    decoder_bias : Tensor of shape (n_visible,)
        Biases b of the output.

    side : Tensor of shape (n_side, k_1) or None
        Weights S of the side information of a row.
    """

    encoder: list[Tensor]
    encoder_biases: list[Tensor]
    decoder: Tensor
    decoder_bias: Tensor
    side: Tensor | None = None

    @classmethod
    def draw(
        cls,
        n_visible: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        decoder_bias: float,
        generator: torch.Generator,
        dtype: torch.dtype,
        n_side: int = 0,
        share: Share | None = None,
    ) -> AutoencoderWeights:
        """Draw initial weights.

        The outer layers are drawn from N(0, 0.01^2) as by the authors of AutoRec. The
        layers between are drawn such that they preserve the variance (Glorot and Bengio
        2010). The visible units may be a share of those of all ranks.
        """

        def normal(n_in, n_out, std):
            weights = torch.empty(n_in, n_out, dtype=dtype)
            return weights.normal_(0.0, std, generator=generator)

        def outer(n_out):
            def draw(n):
                return normal(n, n_out, _OUTER_STD)

            return draw(n_visible) if share is None else share.draw(draw)

        sizes = list(hidden_layer_sizes)
        # Glorot and Bengio: variance 2 / (n_in + n_out)
        gain = _GAINS.get(activation, 1.0)
        between = [
            normal(a, b, gain * (2 / (a + b)) ** 0.5)
            for a, b in itertools.pairwise(sizes)
        ]
        return cls(
            [outer(sizes[0]), *between],
            [torch.zeros(size, dtype=dtype) for size in sizes],
            outer(sizes[-1]),
            torch.full((n_visible,), decoder_bias, dtype=dtype),
            normal(n_side, sizes[0], _OUTER_STD) if n_side else None,
        )


class Autoencoder(torch.nn.Module):
    """Autoencoder of sparse rows that is evaluated at their entries only.

    Parameters
    ----------
    weights : AutoencoderWeights
        Initial weights, which determine the layer sizes.

    activation : str
        Activation g of the hidden layers, a key of `ACTIVATIONS`.

    out_activation : OutputActivation
        Activation f of the output.

    device : torch.device
        Device of the parameters and of the computation.

    centered : bool
        Whether codes are less the code of an empty row.

    entries : Group
        Ranks that have the visible units.
    """

    def __init__(
        self,
        weights: AutoencoderWeights,
        activation: str,
        out_activation: OutputActivation,
        device: torch.device,
        centered: bool = False,
        entries: Group = ALONE,
    ):
        super().__init__()
        self.centered, self.entries = centered, entries
        self.layers = list(range(len(weights.encoder)))
        self.activation = ACTIVATIONS[activation]
        self.out_activation = out_activation
        self.device = device

        def parameter(tensor):
            # A copy, so that the training does not change the caller's tensors.
            return torch.nn.Parameter(tensor.to(device, copy=True))

        self.encoder = torch.nn.ParameterList(map(parameter, weights.encoder))
        self.encoder_biases = torch.nn.ParameterList(
            map(parameter, weights.encoder_biases)
        )
        self.decoder = parameter(weights.decoder)
        self.decoder_bias = parameter(weights.decoder_bias)
        self.side = None if weights.side is None else parameter(weights.side)

    def use_outer(self, n: int) -> None:
        """Use only the first n hidden layers, and the last n - 1, which mirror them.

        The sizes of the hidden layers must read the same backward. If n is more than
        half of the number of layers, all layers are used.
        """
        n_layers = len(self.encoder)
        n_last = min(n - 1, n_layers - n)
        self.layers = [*range(n), *range(n_layers - n_last, n_layers)]

    def used(self) -> list[Tensor]:
        """Parameters of the layers in use, in the order of `parameters`."""
        side = [] if self.side is None else [self.side]
        encoder = [self.encoder[i] for i in self.layers]
        biases = [self.encoder_biases[i] for i in self.layers]
        return [self.decoder, self.decoder_bias, *side, *encoder, *biases]

    def penalized(self) -> list[Tensor]:
        """Parameters of the layers in use except the biases."""
        side = [] if self.side is None else [self.side]
        return [*(self.encoder[i] for i in self.layers), *side, self.decoder]

    def weights(self) -> AutoencoderWeights:
        """Copy of the current weights."""

        def copy(tensor):
            return tensor.detach().to("cpu", copy=True)

        return AutoencoderWeights(
            list(map(copy, self.encoder)),
            list(map(copy, self.encoder_biases)),
            copy(self.decoder),
            copy(self.decoder_bias),
            None if self.side is None else copy(self.side),
        )

    def encode(
        self,
        pattern: Pattern,
        values: Tensor,
        side: Tensor | None = None,
        drop: Callable[[Tensor], Tensor] = keep_all,
    ) -> Tensor:
        """Compute the codes (1) of sparse rows.

        Parameters
        ----------
        pattern : Pattern of shape (n_rows, n_visible)
            Positions of the entries.

        values : Tensor of shape (nnz,)
            Entries of the rows.

        side : Tensor of shape (n_rows, n_side) or None
            Side information of the rows, if the network has weights for it.

        drop : callable
            Dropout during training, applied to the units of every hidden layer.

        Returns
        -------
        codes : Tensor of shape (n_rows, k_last)
        """
        sums = spmm(pattern, values, self.encoder[0])  # V' r in (1)
        sums = self.entries.sum_forward(sums)
        if side is not None and self.side is not None:
            sums = torch.addmm(sums, side, self.side)  # S' s
        return self.entries.sum_backward(self.finish(sums, drop))

    def finish(
        self, sums: Tensor, drop: Callable[[Tensor], Tensor] = keep_all
    ) -> Tensor:
        """Compute codes (1) from the sums V' r + S' s of the first layer."""
        code = self._last_layer(sums, drop)
        if self.centered:
            code = code - self._last_layer(sums.new_zeros(1, sums.shape[1]), keep_all)
        return drop(code)

    def _last_layer(self, sums: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        """Units of the last hidden layer, before their dropout."""
        code = self.activation(sums + self.encoder_biases[0])
        for i in self.layers[1:]:
            sums = torch.addmm(self.encoder_biases[i], drop(code), self.encoder[i])
            code = self.activation(sums)
        return code

    def decode(self, pattern: Pattern, codes: Tensor) -> Tensor:
        """Reconstruct rows from their codes (2), at the entries of `pattern` only.

        Returns
        -------
        ratings : Tensor of shape (nnz,)
        """
        biases = self.decoder_bias.index_select(0, pattern.col)
        return self.out_activation(sddmm(pattern, codes, self.decoder) + biases)

    @torch.no_grad()
    def leave_one_out(
        self,
        pattern: Pattern,
        ratings: Tensor,
        transform: InputTransform,
        penalty: float | None = None,
    ) -> Tensor:
        """Reconstruct each rating from the other ratings of its row.

        Without rating j, the sums of the first layer are

            (3)  scale(n - 1) (V' r - V_j r_j)

        for the transformed ratings r and the scale of a row of n - 1 ratings. With a
        `penalty`, the network sees and adds the ratings less their row's damped mean,
        which changes with each rating that is left out,

            (4)  e = (sum_i r_i - r_j) / (n - 1 + penalty)

        and (3) is less ``scale(n - 1) e (V' 1 - V_j)``.

        Parameters
        ----------
        pattern : Pattern of shape (n_rows, n_visible)
            Positions of the ratings.

        ratings : Tensor of shape (nnz,)
            Ratings of the rows.

        transform : InputTransform
            Transform from ratings to the input of the network.

        penalty : float or None
            Penalty of a row's mean. None leaves the ratings as they are.

        Returns
        -------
        left_out : Tensor of shape (nnz,)
        """
        V, W = self.encoder[0], self.decoder
        inputs = transform.shift(ratings)
        sums = spmm(pattern, inputs, V)
        others = pattern.crow.diff() - 1
        scales = transform.scale(others, ratings.dtype)
        if penalty is not None:
            means = damped_means_without(pattern, ratings, penalty)  # (4)
            ones = spmm(pattern, torch.ones_like(ratings), V)
        left_out = torch.empty_like(ratings)
        for part in row_chunks(pattern.nnz, max(V.shape[1], W.shape[1])):
            # (3), one first layer for each rating; then (1) and (2)
            row, col = pattern.row[part], pattern.col[part]
            without = sums[row] - inputs[part].unsqueeze(1) * V[col]
            mean = torch.zeros_like(ratings[part])
            if penalty is not None:
                mean = means[part]
                without -= (mean / transform.unit).unsqueeze(1) * (ones[row] - V[col])
            codes = self.finish(without * scales[row].unsqueeze(1))
            logits = (codes * W[col]).sum(1) + self.decoder_bias[col]
            left_out[part] = self.out_activation(logits) + mean
        return left_out
