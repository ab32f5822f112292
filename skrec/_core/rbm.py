"""A restricted Boltzmann machine whose visible units are ratings, most of them missing.

A row (a user or an item) sees some of the visible units. Each of those is a softmax
over the levels that ratings have. The levels of unit i are the columns from
``i * n_levels`` on of a longer axis, on which the machine has ordinary sparse rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .sparse import Pattern, sddmm, spmm

# The standard deviation of the initial weights, as the paper has it.
_INITIAL_STD = 0.01


def at_levels(pattern: Pattern, levels: Tensor, n_levels: int) -> Pattern:
    """The entries at the level that each rating has."""
    shape = pattern.shape[0], pattern.shape[1] * n_levels
    return Pattern(pattern.crow, pattern.col.long() * n_levels + levels, shape)


def all_levels(pattern: Pattern, n_levels: int) -> Pattern:
    """The entries at all levels of each rating."""
    shape = pattern.shape[0], pattern.shape[1] * n_levels
    every = torch.arange(n_levels, device=pattern.col.device)
    col = pattern.col.long().unsqueeze(1) * n_levels + every
    return Pattern(pattern.crow.long() * n_levels, col.flatten(), shape)


class Cases:
    """Rows that a machine learns from.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_visible)
        Where there are ratings.

    levels : Tensor of shape (n_ratings,), dtype int64
        Which level each has.

    weights : Tensor of shape (n_ratings,) or None
        How much each counts. None means 1 each.

    n_levels : int
        The number of levels.

    dtype : torch.dtype
        The precision of the machine.
    """

    def __init__(self, pattern, levels, weights, n_levels, dtype):
        self.levels = levels
        self.seen = at_levels(pattern, levels, n_levels)
        self.every = all_levels(pattern, n_levels)
        self.ones = torch.ones(len(levels), dtype=dtype, device=levels.device)
        self.weights = self.ones if weights is None else weights
        sums = torch.zeros(pattern.shape[0], dtype=dtype, device=levels.device)
        sums.index_add_(0, pattern.row, self.weights)
        # What a row counts: the mean of its ratings' weights.
        self.row_weights = sums / pattern.crow.diff().clamp(min=1)
        # Where the chain of each row is, where chains persist.
        self.chain: Tensor | None = None


class Machine(torch.nn.Module):
    """The machine: p(h|v) and p(v|h), and the gradient that it learns by.

    Parameters
    ----------
    weights : Tensor of shape (n_visible * n_levels, n_hidden)
        W, level by level within each visible unit.

    visible_bias : Tensor of shape (n_visible, n_levels)
        b.

    hidden_bias : Tensor of shape (n_hidden,)
        c.
    """

    def __init__(self, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor):
        super().__init__()
        self.weights = torch.nn.Parameter(weights)
        self.visible_bias = torch.nn.Parameter(visible_bias)
        self.hidden_bias = torch.nn.Parameter(hidden_bias)

    @classmethod
    def draw(cls, log_rates: Tensor, n_hidden: int, generator: torch.Generator):
        """A machine that predicts the rates of the levels, but for small weights.

        Parameters
        ----------
        log_rates : Tensor of shape (n_visible, n_levels)
            The logarithms of the rates at which each visible unit has each level.

        n_hidden : int
            The number of hidden units.

        generator : torch.Generator
            On the CPU.
        """
        weights = log_rates.new_empty(log_rates.numel(), n_hidden)
        weights.normal_(0, _INITIAL_STD, generator=generator)
        return cls(weights, log_rates.clone(), log_rates.new_zeros(n_hidden))

    def hidden(self, pattern: Pattern, levels: Tensor) -> Tensor:
        """p(h|v) of shape (n_rows, n_hidden), given the level of each rating."""
        seen = at_levels(pattern, levels, self.visible_bias.shape[1])
        return self._hidden(seen, self.weights.new_ones(len(levels)))

    def _hidden(self, pattern: Pattern, values: Tensor) -> Tensor:
        """The same for rows on the axis of levels."""
        return torch.sigmoid(spmm(pattern, values, self.weights) + self.hidden_bias)

    def log_visible(self, every: Pattern, h: Tensor) -> Tensor:
        """Log of p(v|h), of shape (n_ratings, n_levels), at the ratings of `every`."""
        n_levels = self.visible_bias.shape[1]
        unit = every.col[::n_levels] // n_levels
        sums = sddmm(every, h, self.weights).view(-1, n_levels)
        return torch.log_softmax(sums + self.visible_bias[unit], 1)

    def leave_one_out(
        self, pattern: Pattern, levels: Tensor
    ) -> Callable[[slice], Tensor]:
        """Logits of the levels of each rating, given the others in its row.

        Without rating j, the sum that the hidden units see lacks its weights.

        Returns
        -------
        left_out : callable
            Takes a slice of the ratings; returns logits of shape (n, n_levels).
        """
        n_visible, n_levels = self.visible_bias.shape
        seen = at_levels(pattern, levels, n_levels)
        ones = self.weights.new_ones(len(levels))
        sums = spmm(seen, ones, self.weights) + self.hidden_bias
        W = self.weights.view(n_visible, n_levels, -1)

        def left_out(part):
            row, unit = pattern.row[part], pattern.col[part]
            h = torch.sigmoid(sums[row] - self.weights[seen.col[part]])
            return torch.einsum("nf,nlf->nl", h, W[unit]) + self.visible_bias[unit]

        return left_out

    @torch.no_grad()
    def contrast(
        self, cases: Cases, n_gibbs: int, persistent: bool, generator: torch.Generator
    ) -> float:
        """Set the gradients of contrastive divergence, summed over the rows.

        Parameters
        ----------
        cases : Cases
            The rows.

        n_gibbs : int
            Steps of Gibbs sampling.

        persistent : bool
            Whether the chain of each row goes on from where it has been.

        generator : torch.Generator
            On the device of the machine.

        Returns
        -------
        loss : float
            The weighted sum of -log p(v|h), for the h that was drawn given v.
        """
        seen, every = cases.seen, cases.every
        first = self._hidden(seen, cases.ones)
        h = _draw(first, generator)
        log_p = self.log_visible(every, h)
        own = log_p.gather(1, cases.levels.unsqueeze(1)).squeeze(1)
        loss = -float(torch.dot(own, cases.weights))
        if persistent and cases.chain is not None:
            log_p = self.log_visible(every, cases.chain)
        for step in range(n_gibbs):
            if step:
                log_p = self.log_visible(every, h)
            # Probabilities in place of a sample: the same expectation, less noise.
            p = log_p.exp()
            last = self._hidden(every, p.flatten())
            h = _draw(last, generator)
        if persistent:
            cases.chain = h
        weighted = p * cases.weights.unsqueeze(1)
        self.weights.grad = _statistics(every, weighted.flatten(), last)
        self.weights.grad -= _statistics(seen, cases.weights, first)
        grad = torch.zeros_like(self.visible_bias).view(-1)
        grad.index_add_(0, every.col, weighted.flatten())
        grad.index_add_(0, seen.col, cases.weights, alpha=-1)
        self.visible_bias.grad = grad.view_as(self.visible_bias)
        self.hidden_bias.grad = cases.row_weights @ (last - first)
        return loss


def _draw(p: Tensor, generator: torch.Generator) -> Tensor:
    """1 with probability p, else 0."""
    draws = torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device)
    return (draws < p).to(p.dtype)


def _statistics(pattern: Pattern, values: Tensor, h: Tensor) -> Tensor:
    """Sums of the products of visible and hidden units, of the shape of W."""
    return spmm(pattern.transposed, values[pattern.order.long()], h)
