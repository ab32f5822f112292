"""A restricted Boltzmann machine whose visible units are ratings, most of them missing.

A row (a user or an item) has ratings at some of the visible units. Each visible unit is
a softmax over the levels of ratings. Level l of unit i is ``i * n_levels + l`` on a
longer axis, on which the rows are ordinary sparse rows. With the weights W, the visible
biases b and the hidden biases c, the model and its gradient are

    (1)  p(h_f = 1 | v) = sigmoid(c_f + sum_i W_{i, v_i, f})
    (2)  p(v_i = l | h) = softmax_l(b_il + sum_f W_ilf h_f)
    (3)  d(-log p(v)) / dW = <v h'> in the model - <v h'> in the data

where i runs over the rated units of the row. Contrastive divergence replaces the model
in (3) by some steps of a Gibbs chain. A centered machine has h - center instead of h in
(2) and (3): with center 1/2, a row without ratings leaves the visible biases alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .sparse import Pattern, sddmm, spmm

# The standard deviation of the initial weights, as in the paper.
_INITIAL_STD = 0.01


def at_levels(pattern: Pattern, levels: Tensor, n_levels: int) -> Pattern:
    """Pattern on the axis of levels, with the level of each rating."""
    shape = pattern.shape[0], pattern.shape[1] * n_levels
    col = pattern.col if shape[1] < 2**31 else pattern.col.long()
    return Pattern(pattern.crow, (col * n_levels).add_(levels), shape)


class Cases:
    """Rows that a machine is trained on.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_visible)
        Positions of the ratings.

    levels : Tensor of shape (n_ratings,), of integers
        Level of each rating.

    weights : Tensor of shape (n_ratings,) or None
        Weight of each rating. None means 1 each.

    n_levels : int
        Number of levels.

    dtype : torch.dtype
        Data type of the machine.
    """

    def __init__(self, pattern, levels, weights, n_levels, dtype):
        self.pattern, self.levels, self.weights = pattern, levels, weights
        self.seen = at_levels(pattern, levels, n_levels)
        # The weight of a row is the mean weight of its ratings.
        counts = pattern.crow.diff()
        self.row_weights = (counts > 0).to(dtype)
        if weights is not None:
            rows = pattern.spread(torch.arange(len(counts), device=counts.device))
            sums = torch.zeros_like(self.row_weights).index_add_(0, rows, weights)
            self.row_weights = sums / counts.clamp(min=1)
        # The hidden units of each row's chain, if chains persist.
        self.chain: Tensor | None = None


class Machine(torch.nn.Module):
    """Restricted Boltzmann machine: p(h|v), p(v|h), and the training gradient.

    Parameters
    ----------
    weights : Tensor of shape (n_visible * n_levels, n_hidden)
        Weights W. The levels of a visible unit are consecutive rows.

    visible_bias : Tensor of shape (n_visible, n_levels)
        Biases b of the visible units.

    hidden_bias : Tensor of shape (n_hidden,)
        Biases c of the hidden units.

    center : float, default=0.0
        Value that is subtracted from the hidden units where they act on visible units.
    """

    def __init__(
        self,
        weights: Tensor,
        visible_bias: Tensor,
        hidden_bias: Tensor,
        center: float = 0.0,
    ):
        super().__init__()
        self.center = center
        self.weights = torch.nn.Parameter(weights)
        self.visible_bias = torch.nn.Parameter(visible_bias)
        self.hidden_bias = torch.nn.Parameter(hidden_bias)

    @property
    def n_levels(self) -> int:
        return self.visible_bias.shape[1]

    @classmethod
    def draw(
        cls,
        log_rates: Tensor,
        n_hidden: int,
        generator: torch.Generator,
        center: float = 0.0,
    ):
        """Draw a machine with small weights that predicts about the given rates.

        Parameters
        ----------
        log_rates : Tensor of shape (n_visible, n_levels)
            Logarithms of the relative frequencies of the levels of each visible unit.

        n_hidden : int
            Number of hidden units.

        generator : torch.Generator
            Generator of the weights, on the CPU.

        center : float, default=0.0
            Center of the hidden units.
        """
        weights = log_rates.new_empty(log_rates.numel(), n_hidden)
        weights.normal_(0, _INITIAL_STD, generator=generator)
        return cls(weights, log_rates.clone(), log_rates.new_zeros(n_hidden), center)

    def hidden(self, pattern: Pattern, levels: Tensor) -> Tensor:
        """Probabilities (1) of shape (n_rows, n_hidden), given each rating's level."""
        return self._hidden_given(at_levels(pattern, levels, self.n_levels))

    def _hidden_given(self, seen: Pattern) -> Tensor:
        """Probabilities (1) for rows on the axis of levels."""
        return torch.sigmoid(spmm(seen, None, self.weights) + self.hidden_bias)

    def _hidden_expected(self, pattern: Pattern, p: Tensor) -> Tensor:
        """Probabilities (1), given those of the levels at each rating."""
        sums: Tensor = self.hidden_bias
        for p_l, W_l in zip(p, self._by_level(self.weights), strict=True):
            sums = sums + spmm(pattern, p_l, W_l.contiguous())
        return torch.sigmoid(sums)

    def log_visible(self, pattern: Pattern, h: Tensor) -> Tensor:
        """Log of (2) at the ratings of `pattern`, of shape (n_levels, n_ratings)."""
        log_p = h.new_empty(self.n_levels, pattern.nnz)
        h = h - self.center
        # One level after the other: no pattern holds a rating several times.
        for out, W_l, b_l in zip(
            log_p, self._by_level(self.weights), self.visible_bias.T, strict=True
        ):
            torch.add(sddmm(pattern, h, W_l.contiguous()), b_l[pattern.col], out=out)
        return torch.log_softmax(log_p, 0)

    def _by_level(self, weights: Tensor) -> tuple[Tensor, ...]:
        """Views of the weights of each level, of shape (n_visible, n_hidden)."""
        return weights.view(-1, self.n_levels, weights.shape[1]).unbind(1)

    def leave_one_out(
        self, pattern: Pattern, levels: Tensor
    ) -> Callable[[slice], Tensor]:
        """Logits of the levels of each rating, given the other ratings of its row.

        Without a rating, the sum over i in (1) lacks the weights of its level.

        Returns
        -------
        left_out : callable
            Function that takes a slice of the ratings and returns logits of shape
            (n, n_levels).
        """
        seen = at_levels(pattern, levels, self.n_levels)
        sums = spmm(seen, None, self.weights) + self.hidden_bias
        W = self.weights.view(-1, self.n_levels, self.weights.shape[1])

        def left_out(part):
            row, unit = pattern.row[part], pattern.col[part]
            # (1) without the rating itself, then the logits of (2) at its unit
            h = torch.sigmoid(sums[row] - self.weights[seen.col[part]])
            sums_at_unit = torch.einsum("nf,nlf->nl", h - self.center, W[unit])
            return sums_at_unit + self.visible_bias[unit]

        return left_out

    @torch.no_grad()
    def contrast(
        self, cases: Cases, n_gibbs: int, persistent: bool, generator: torch.Generator
    ) -> Tensor:
        """Set the gradients of contrastive divergence, summed over the rows.

        Parameters that are not trained get no gradient.

        Parameters
        ----------
        cases : Cases
            Rows to learn from.

        n_gibbs : int
            Number of steps of Gibbs sampling.

        persistent : bool
            Whether the chain of each row continues from its last state.

        generator : torch.Generator
            Generator of the hidden units, on the device of the machine.

        Returns
        -------
        loss : Tensor of shape ()
            Weighted sum of -log p(v|h), for the h that was drawn given v.
        """
        # Positive phase: the hidden units given the data
        pattern, seen, weights = cases.pattern, cases.seen, cases.weights
        first = self._hidden_given(seen)
        h = _draw(first, generator)
        log_p = self.log_visible(pattern, h)
        own = log_p.gather(0, cases.levels.long().unsqueeze(0)).squeeze(0)
        loss = -(own.sum() if weights is None else torch.dot(own, weights))
        # Negative phase: the chain, which starts at the data or at its last state
        if persistent and cases.chain is not None:
            log_p = self.log_visible(pattern, cases.chain)
        for step in range(n_gibbs):
            if step:
                log_p = self.log_visible(pattern, h)
            # Probabilities instead of a sample have the same expectation and a smaller
            # variance.
            p = log_p.exp()
            last = self._hidden_expected(pattern, p)
            h = _draw(last, generator)
        if persistent:
            cases.chain = h
        # (3) for W, then the same differences for b and c
        if weights is None:
            weights = torch.ones_like(own)
        else:
            p = p * weights
        # The gradient is as large as W: the memory of the last one is used again.
        self.weights.grad = None
        self.weights.grad = spmm(
            seen.transposed, -weights.index_select(0, seen.order), first - self.center
        )
        last_centered = last - self.center
        for p_l, grad in zip(p, self._by_level(self.weights.grad), strict=True):
            p_l = p_l.index_select(0, pattern.order)
            grad += spmm(pattern.transposed, p_l, last_centered)
        if self.visible_bias.requires_grad:
            grad = torch.zeros_like(self.visible_bias)
            grad.view(-1).index_add_(0, seen.col, weights, alpha=-1)
            for p_l, grad_l in zip(p, grad.unbind(1), strict=True):
                grad_l.index_add_(0, pattern.col, p_l)
            self.visible_bias.grad = grad
        if self.hidden_bias.requires_grad:
            self.hidden_bias.grad = cases.row_weights @ (last - first)
        return loss


def _draw(p: Tensor, generator: torch.Generator) -> Tensor:
    """Draw 1 with probability p, else 0."""
    draws = torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device)
    return (draws < p).to(p.dtype)
