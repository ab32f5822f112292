"""Topic proportions that explain the words of texts and are near given vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from .sparse import Pattern, sddmm, spmm

# Halvings of the interval of a multiplier: as many as a float64 has digits.
_MAX_BISECTIONS = 60


def log_likelihood(
    pattern: Pattern, counts: Tensor, proportions: Tensor, topics: Tensor
) -> Tensor:
    """The logarithm of the probability of the words of each text.

    Parameters
    ----------
    pattern : Pattern of shape (n_texts, n_words)
        Which words the texts have.

    counts : Tensor of shape (nnz,)
        How often.

    proportions : Tensor of shape (n_texts, k)
        The part of each topic in each text. Rows sum to 1.

    topics : Tensor of shape (n_words, k)
        The probability of each word in each topic. Columns sum to 1.

    Returns
    -------
    log_likelihood : Tensor of shape (n_texts,)
    """
    values = counts * sddmm(pattern, proportions, topics).log()
    sums = values.new_zeros(pattern.shape[0])
    return sums.index_add_(0, pattern.row, values)


def improve_proportions(
    pattern: Pattern,
    counts: Tensor,
    proportions: Tensor,
    topics: Tensor,
    vectors: Tensor,
    penalty: Tensor,
) -> Tensor:
    """Improve proportions by a step of expectation maximisation.

    What does not fall is ``log_likelihood - penalty / 2 * ||vectors - proportions||^2``
    of each text.

    Parameters
    ----------
    pattern, counts, proportions, topics
        As for `log_likelihood`.

    vectors : Tensor of shape (n_texts, k)
        What the proportions are to be near.

    penalty : Tensor of shape (n_texts,)
        How much the squared distance counts.

    Returns
    -------
    proportions : Tensor of shape (n_texts, k)
    """
    ratios = counts / sddmm(pattern, proportions, topics)
    expected = proportions * spmm(pattern, ratios, topics)
    return maximise_on_simplex(expected, vectors, penalty)


def maximise_on_simplex(counts: Tensor, vectors: Tensor, penalty: Tensor) -> Tensor:
    r"""Maximise ``sum_k s_k log t_k - penalty / 2 * ||v - t||^2`` over the simplex.

    With the multiplier m of the constraint that t sums to 1, each t_k is the positive
    root of ``penalty * t_k^2 + (m - penalty * v_k) * t_k = s_k``. It falls with m,
    which is found by bisection.

    Parameters
    ----------
    counts : Tensor of shape (n, k)
        s, not negative, and positive somewhere in each row.

    vectors : Tensor of shape (n, k)
        v.

    penalty : Tensor of shape (n,)
        Not negative.

    Returns
    -------
    maximisers : Tensor of shape (n, k)
        t.
    """
    penalty = penalty.unsqueeze(1)
    pulls = penalty * vectors

    def roots(multiplier):
        b = multiplier - pulls
        root = (b.square() + 4 * penalty * counts).sqrt()
        # Both forms are the same number; each is exact where the other cancels.
        return torch.where(b > 0, 2 * counts / (b + root), (root - b) / (2 * penalty))

    # m = sum s - penalty * t'(t - v), where t't is between 0 and 1.
    total = counts.sum(1, keepdim=True)
    low = total + pulls.amin(1, keepdim=True) - penalty
    high = total + pulls.amax(1, keepdim=True)
    for _ in range(_MAX_BISECTIONS):
        middle = (low + high) / 2
        is_low = roots(middle).sum(1, keepdim=True) > 1
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    maximisers = roots((low + high) / 2)
    return maximisers / maximisers.sum(1, keepdim=True)
