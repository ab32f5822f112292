"""Rows of ratings as the input and the target of a network, whole or in batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .sparse import Pattern


class InputTransform(NamedTuple):
    """How the ratings of a row become the input of a network.

    Attributes
    ----------
    center : float
        What is subtracted from each rating.

    mean_count : float
        The mean number of ratings in a row.

    exponent : float
        The power of a row's number of ratings, relative to the mean number, that its
        input is divided by.
    """

    center: float = 0.0
    mean_count: float = 1.0
    exponent: float = 0.0

    def __call__(self, pattern: Pattern, ratings: Tensor) -> Tensor:
        """The input for all ratings of some rows, of shape (nnz,)."""
        counts = pattern.crow.diff().index_select(0, pattern.row)
        return (ratings - self.center) * self.scale(counts).to(ratings.dtype)

    def scale(self, counts: Tensor) -> Tensor:
        """What the ratings in rows of `counts` ratings are multiplied by."""
        return (counts.clamp(min=1) / self.mean_count).pow(-self.exponent)


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

    side : Tensor of shape (n_rows, n_side) or None
        Side information of each row, a further input.
    """

    pattern: Pattern
    inputs: Tensor
    targets: Tensor
    weights: Tensor | None = None
    side: Tensor | None = None

    def arrange(self, pattern: Pattern, order: Tensor) -> Rows:
        """The entries at `order`, which stand in `pattern`, without side."""
        weights = None if self.weights is None else self.weights[order]
        return Rows(pattern, self.inputs[order], self.targets[order], weights)

    def select(self, selection: Tensor) -> Rows:
        """Some rows."""
        rows = self.arrange(*self.pattern.rows(selection))
        return rows._replace(side=None if self.side is None else self.side[selection])

    def to(self, device: torch.device) -> Rows:
        """The same on another device."""
        return Rows(
            self.pattern.to(device),
            self.inputs.to(device),
            self.targets.to(device),
            None if self.weights is None else self.weights.to(device),
            None if self.side is None else self.side.to(device),
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
        batches = map(self.select, order.split(batch_size))
        return [batch for batch in batches if batch.pattern.nnz]


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


def keep_all(values: Tensor) -> Tensor:
    """Drop nothing."""
    return values
