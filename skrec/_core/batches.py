"""Rows of ratings as the input and the target of a network, whole or in batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .sparse import Pattern


class Rows(NamedTuple):
    """Sparse rows to be reconstructed.

    Attributes
    ----------
    pattern : Pattern of shape (n_rows, n_visible)
        Where there are ratings.

    inputs : Tensor of shape (n_ratings,)
        What the network is fed.

    targets : Tensor of shape (n_ratings,)
        What it should return.

    weights : Tensor of shape (n_ratings,) or None
        How much each error counts.
    """

    pattern: Pattern
    inputs: Tensor
    targets: Tensor
    weights: Tensor | None = None

    def arrange(self, pattern: Pattern, order: Tensor) -> Rows:
        """The entries at `order`, which stand in `pattern`."""
        weights = None if self.weights is None else self.weights[order]
        return Rows(pattern, self.inputs[order], self.targets[order], weights)

    def to(self, device: torch.device) -> Rows:
        """The same on another device."""
        return Rows(
            self.pattern.to(device),
            self.inputs.to(device),
            self.targets.to(device),
            None if self.weights is None else self.weights.to(device),
        )

    def cut(self, batch_size: int | None, generator: torch.Generator) -> list[Rows]:
        """Cut into batches of rows, drawn once, so that each is transposed only once.

        Parameters
        ----------
        batch_size : int or None
            Rows in a batch; None takes all in one.

        generator : torch.Generator
            Draws which rows come together. On the CPU.

        Returns
        -------
        batches : list of Rows
            Those that have ratings.
        """
        n_rows = self.pattern.shape[0]
        if batch_size is None or batch_size >= n_rows:
            return [self]
        order = torch.randperm(n_rows, generator=generator).to(self.inputs.device)
        parts = map(self.pattern.rows, order.split(batch_size))
        return [self.arrange(*part) for part in parts if part[0].nnz]


def scale_rows(values: Tensor, counts: Tensor, mean: float, exponent: float) -> Tensor:
    """Divide entries by a power of how many their row has, relative to the mean.

    Parameters
    ----------
    values : Tensor of shape (n, ...)
        The entries.

    counts : Tensor of shape (n,)
        The number of entries in the row of each.

    mean : float
        The mean number of entries in a row.

    exponent : float
        The power. 0 returns the values as they are.

    Returns
    -------
    scaled : Tensor of shape (n, ...)
    """
    if exponent == 0:
        return values
    scale = (counts.to(values.dtype).clamp(min=1) / mean).pow(-exponent)
    return values * scale.view(-1, *[1] * (values.dim() - 1))


def drop(values: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Set a part of the values to zero and scale up the rest, so that the mean stays.

    Parameters
    ----------
    values : Tensor
        Of any shape.

    rate : float
        The probability of becoming zero, in [0, 1).

    generator : torch.Generator
        On the device of the values.

    Returns
    -------
    dropped : Tensor of the same shape
    """
    if rate == 0:
        return values
    draws = torch.rand(
        values.shape, generator=generator, device=values.device, dtype=values.dtype
    )
    return values * (draws >= rate) / (1 - rate)
