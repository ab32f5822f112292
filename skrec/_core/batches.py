"""Rows of ratings as inputs and targets of a network, whole or in batches."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .collectives import ALONE, Group
from .sparse import Pattern


class InputTransform(NamedTuple):
    """Transform from the ratings of a row to the input of a network.

    The input is ``(rating - center) / unit / (count / mean_count) ** exponent`` in a
    row with `count` ratings.

    Attributes
    ----------
    center : float
        Center, which is subtracted from each rating.

    mean_count : float
        Mean number of ratings in a row.

    exponent : float
        Exponent of a row's relative number of ratings.

    unit : float
        Unit of the centered ratings.
    """

    center: float = 0.0
    mean_count: float = 1.0
    exponent: float = 0.0
    unit: float = 1.0

    def __call__(
        self, pattern: Pattern, ratings: Tensor, entries: Group = ALONE
    ) -> Tensor:
        """Input for all ratings of some rows, of shape (nnz,), which ranks may have."""
        scales = self.scale(entries.sum(pattern.crow.diff()), ratings.dtype)
        return self.shift(ratings) * pattern.spread(scales)

    def shift(self, ratings: Tensor) -> Tensor:
        """Centered ratings in their unit."""
        return (ratings - self.center) / self.unit

    def scale(self, counts: Tensor, dtype: torch.dtype) -> Tensor:
        """Factor of the centered ratings in rows with `counts` ratings."""
        # The clamp is for rows that are empty after a rating is left out.
        relative = counts.clamp(min=1).to(dtype) / self.mean_count
        return relative.pow(-self.exponent)


class Rows(NamedTuple):
    """Sparse rows to be reconstructed.

    Attributes
    ----------
    pattern : Pattern of shape (n_rows, n_visible)
        Positions of the ratings.

    inputs : Tensor of shape (n_ratings,)
        Inputs of the network.

    targets : Tensor of shape (n_ratings,)
        Targets of the reconstruction.

    weights : Tensor of shape (n_ratings,) or None
        Weight of each squared error. None means 1 each.

    side : Tensor of shape (n_rows, n_side) or None
        Side information of each row, a further input.

    effects : Tensor of shape (n_rows,) or None
        Effect of each row, which its targets are less.
    """

    pattern: Pattern
    inputs: Tensor
    targets: Tensor
    weights: Tensor | None = None
    side: Tensor | None = None
    effects: Tensor | None = None

    def arrange(self, pattern: Pattern, order: Tensor) -> Rows:
        """The entries at `order`, with the positions `pattern`, without row values."""
        weights = self.weights
        return Rows(
            pattern,
            self.inputs.index_select(0, order),
            self.targets.index_select(0, order),
            None if weights is None else weights.index_select(0, order),
        )

    def select(self, selection: Tensor) -> Rows:
        """The selected rows."""
        rows = self.arrange(*self.pattern.rows(selection))
        return rows._replace(
            side=None if self.side is None else self.side[selection],
            effects=None if self.effects is None else self.effects[selection],
        )

    def to(self, device: torch.device) -> Rows:
        """The same rows on another device."""
        return Rows(
            self.pattern.to(device),
            self.inputs.to(device),
            self.targets.to(device),
            None if self.weights is None else self.weights.to(device),
            None if self.side is None else self.side.to(device),
            None if self.effects is None else self.effects.to(device),
        )

    def cut(
        self,
        batch_size: int | None,
        generator: torch.Generator,
        group: Group = ALONE,
    ) -> list[Rows]:
        """Cut into random batches of rows.

        The batches are drawn only once, so that each is transposed only once.

        Parameters
        ----------
        batch_size : int or None
            Number of rows in a batch of all ranks. None takes all rows in one batch.

        generator : torch.Generator
            Generator of the assignment of rows to batches, on the CPU.

        group : Group
            Ranks that have the rows. Each has a part of each batch.

        Returns
        -------
        batches : list of Rows
            Batches that have ratings.
        """
        n_rows, n_own = group.total(self.pattern.shape[0]), self.pattern.shape[0]
        if batch_size is None or batch_size >= n_rows:
            return [self]
        order = torch.randperm(n_own, generator=generator).to(self.inputs.device)
        if group.size == 1:
            parts = order.split(int(batch_size))
        else:
            parts = order.tensor_split(math.ceil(n_rows / batch_size))
        batches = [self.select(part) for part in parts]
        # A batch without ratings has no loss and no gradient.
        n_ratings = group.total(np.array([batch.pattern.nnz for batch in batches]))
        return [batch for batch, n in zip(batches, n_ratings, strict=True) if n]


def damped_means(pattern: Pattern, ratings: Tensor, penalty: float) -> Tensor:
    """Sum of each row's ratings divided by their number plus a penalty."""
    counts = pattern.crow.diff().to(ratings.dtype)
    sums = ratings.new_zeros(len(counts)).index_add(0, pattern.row, ratings)
    return sums / (counts + penalty)


def damped_means_without(pattern: Pattern, ratings: Tensor, penalty: float) -> Tensor:
    """Damped mean of the other ratings of the row, for each rating, of shape (nnz,)."""
    means = pattern.spread(damped_means(pattern, ratings, penalty))
    n = pattern.spread((pattern.crow.diff() - 1).to(ratings.dtype) + penalty)
    return (means * (n + 1) - ratings) / n


def drop(values: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Set random values to zero and scale up the others, so that the mean stays.

    Parameters
    ----------
    values : Tensor
        Values of any shape.

    rate : float
        Probability of becoming zero, in [0, 1).

    generator : torch.Generator
        Generator on the device of the values.

    Returns
    -------
    dropped : Tensor of the same shape
    """
    if rate == 0:
        return values
    draws = torch.rand(
        values.shape, generator=generator, device=values.device, dtype=values.dtype
    )
    # Inverted dropout: the expectation of each value stays.
    return values * (draws >= rate) / (1 - rate)


def keep_all(values: Tensor) -> Tensor:
    """Drop nothing."""
    return values
