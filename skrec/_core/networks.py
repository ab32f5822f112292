"""The networks: what is computed from the weights, not how the weights are found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .batches import InputTransform, keep_all
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
# Layers between are drawn so much wider where the activation is so much flatter.
_GAINS = {"sigmoid": 4.0}
# Numbers that leaving one out holds at once.
_CHUNK = 2**24


class OutputActivation:
    """f, which turns the last sums into ratings.

    A bounded activation maps onto the range of the training ratings.

    Parameters
    ----------
    name : {"identity", "sigmoid", "tanh", "relu", "elu", "selu"}
        The activation.

    low, high : float
        The range of the training ratings.
    """

    def __init__(self, name: str, low: float, high: float):
        self.function = ACTIVATIONS[name]
        self.is_identity = name == "identity"
        self.inverse = {"sigmoid": torch.logit, "tanh": torch.atanh}.get(name)
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
        """A sum at which f is near `rating` and not flat, to start from."""
        if self.inverse is None:
            return rating
        unit = (rating - self.shift) / self.scale if self.scale else 0.5
        return self.inverse(torch.tensor(unit).clamp(0.05, 0.95)).item()


@dataclass
class AutoencoderWeights:
    """The weights of an `Autoencoder`, each in one piece and on the CPU.

    Attributes
    ----------
    encoder : list of Tensor
        V of shape (n_visible, k_1), then one of shape (k_i, k_i+1) for each further
        hidden layer.

    encoder_biases : list of Tensor of shape (k_i,)
        The biases of the hidden layers.

    decoder : Tensor of shape (n_visible, k_last)
        W.

    decoder_bias : Tensor of shape (n_visible,)
        b.

    side : Tensor of shape (n_side, k_1) or None
        What side information of a row is multiplied by.
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
    ) -> AutoencoderWeights:
        """Draw initial weights.

        The outer layers are drawn from N(0, 0.01^2) as by the authors of AutoRec, and
        the layers between such that they keep the variance (Glorot and Bengio 2010).
        """

        def normal(n_in, n_out, std):
            weights = torch.empty(n_in, n_out, dtype=dtype)
            return weights.normal_(0.0, std, generator=generator)

        sizes = list(hidden_layer_sizes)
        gain = _GAINS.get(activation, 1.0)
        between = [
            normal(a, b, gain * (2 / (a + b)) ** 0.5)
            for a, b in itertools.pairwise(sizes)
        ]
        return cls(
            [normal(n_visible, sizes[0], _OUTER_STD), *between],
            [torch.zeros(size, dtype=dtype) for size in sizes],
            normal(n_visible, sizes[-1], _OUTER_STD),
            torch.full((n_visible,), decoder_bias, dtype=dtype),
            normal(n_side, sizes[0], _OUTER_STD) if n_side else None,
        )


class Autoencoder(torch.nn.Module):
    """An autoencoder of sparse rows that is evaluated at their entries only.

    Parameters
    ----------
    weights : AutoencoderWeights
        The initial weights, which decide the sizes.

    activation : str
        g, the activation of the hidden layers, a key of `ACTIVATIONS`.

    out_activation : OutputActivation
        f, the activation of the output.

    device : torch.device
        Where to compute.
    """

    def __init__(
        self,
        weights: AutoencoderWeights,
        activation: str,
        out_activation: OutputActivation,
        device: torch.device,
    ):
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.out_activation = out_activation
        self.device = device

        def parameter(tensor):
            return torch.nn.Parameter(tensor.to(device, copy=True))

        self.encoder = torch.nn.ParameterList(map(parameter, weights.encoder))
        self.encoder_biases = torch.nn.ParameterList(
            map(parameter, weights.encoder_biases)
        )
        self.decoder = parameter(weights.decoder)
        self.decoder_bias = parameter(weights.decoder_bias)
        self.side = None if weights.side is None else parameter(weights.side)

    def penalised(self) -> list[Tensor]:
        """All parameters but the biases."""
        side = [] if self.side is None else [self.side]
        return [*self.encoder, *side, self.decoder]

    def weights(self) -> AutoencoderWeights:
        """A copy of the present weights."""

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
        """Compute the codes of sparse rows.

        Parameters
        ----------
        pattern : Pattern of shape (n_rows, n_visible)
            Where the rows have entries.

        values : Tensor of shape (nnz,)
            The entries.

        side : Tensor of shape (n_rows, n_side) or None
            Side information of the rows, where the network has weights for it.

        drop : callable
            Applied to the units of every hidden layer: dropout, while training.

        Returns
        -------
        codes : Tensor of shape (n_rows, k_last)
        """
        sums = spmm(pattern, values, self.encoder[0])
        if side is not None and self.side is not None:
            sums = torch.addmm(sums, side, self.side)
        return self.finish(sums, drop)

    def finish(
        self, sums: Tensor, drop: Callable[[Tensor], Tensor] = keep_all
    ) -> Tensor:
        """Compute codes from the sums V r of the first layer."""
        bias, *biases = self.encoder_biases
        code = drop(self.activation(sums + bias))
        for weight, bias in zip(self.encoder[1:], biases, strict=True):
            code = drop(self.activation(torch.addmm(bias, code, weight)))
        return code

    def decode(self, pattern: Pattern, codes: Tensor) -> Tensor:
        """Reconstruct rows from their codes, at the entries of `pattern` only.

        Returns
        -------
        ratings : Tensor of shape (nnz,)
        """
        biases = self.decoder_bias.index_select(0, pattern.col)
        return self.out_activation(sddmm(pattern, codes, self.decoder) + biases)

    @torch.no_grad()
    def leave_one_out(
        self, pattern: Pattern, ratings: Tensor, transform: InputTransform
    ) -> Tensor:
        """Reconstruct each rating from the others in its row.

        Without rating j, the sums V r of the first layer lack V_j r_j, and the row has
        one rating less to be scaled by.

        Parameters
        ----------
        pattern : Pattern of shape (n_rows, n_visible)
            Where the rows have ratings.

        ratings : Tensor of shape (nnz,)
            The ratings.

        transform : InputTransform
            How they become the input.

        Returns
        -------
        left_out : Tensor of shape (nnz,)
        """
        V, W = self.encoder[0], self.decoder
        inputs = ratings - transform.center
        sums = spmm(pattern, inputs, V)
        scales = transform.scale(pattern.crow.diff() - 1).to(ratings.dtype)
        left_out = torch.empty_like(ratings)
        entries = torch.arange(pattern.nnz, device=ratings.device)
        for part in entries.split(max(1, _CHUNK // max(V.shape[1], W.shape[1]))):
            row, col = pattern.row[part], pattern.col[part]
            without = sums[row] - inputs[part].unsqueeze(1) * V[col]
            codes = self.finish(without * scales[row].unsqueeze(1))
            logits = (codes * W[col]).sum(1) + self.decoder_bias[col]
            left_out[part] = self.out_activation(logits)
        return left_out
