"""Topic proportions that explain the words of texts and are near given vectors.

A text has the words w with counts n_w, the topic proportions t and a vector v. With the
probabilities topic_w of word w in each topic,

    (1)  log_likelihood  = sum_w n_w log(t' topic_w)
    (2)  objective       = log_likelihood - penalty / 2 * ||v - t||^2
"""

from __future__ import annotations

import torch
from torch import Tensor

from .sparse import Pattern, sddmm, spmm

# Bisections of the interval of a multiplier; a float64 has 53 binary digits.
_MAX_BISECTIONS = 60


def log_likelihood(
    pattern: Pattern, counts: Tensor, proportions: Tensor, topics: Tensor
) -> Tensor:
    """Logarithm (1) of the probability of the words of each text.

    Parameters
    ----------
    pattern : Pattern of shape (n_texts, n_words)
        Words of each text.

    counts : Tensor of shape (nnz,)
        Number of occurrences of each word in each text.

    proportions : Tensor of shape (n_texts, k)
        Proportion of each topic in each text. Rows sum to 1.

    topics : Tensor of shape (n_words, k)
        Probability of each word in each topic. Columns sum to 1.

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
    """Improve proportions by a step of expectation maximization.

    The step does not decrease the objective (2) of any text. It maximizes (4) for the
    expected number of words from each topic,

        (3)  s_k = sum_w n_w t_k topic_wk / t' topic_w

    Parameters
    ----------
    pattern, counts, proportions, topics
        As for `log_likelihood`.

    vectors : Tensor of shape (n_texts, k)
        Vectors v, which the proportions are shrunk toward.

    penalty : Tensor of shape (n_texts,)
        Penalty on half the squared distance of the proportions from `vectors`.

    Returns
    -------
    proportions : Tensor of shape (n_texts, k)
    """
    ratios = counts / sddmm(pattern, proportions, topics)
    expected = proportions * spmm(pattern, ratios, topics)  # (3)
    return maximize_on_simplex(expected, vectors, penalty)


def maximize_on_simplex(counts: Tensor, vectors: Tensor, penalty: Tensor) -> Tensor:
    r"""Maximize a penalized multinomial log-likelihood over the simplex.

    The objective is (4). With the multiplier m of the constraint that t sums to 1, each
    t_k is the positive root of (5). It decreases in m, which is found by bisection.

        (4)  sum_k s_k log t_k - penalty / 2 * ||v - t||^2
        (5)  penalty * t_k^2 + (m - penalty * v_k) * t_k = s_k
        (6)  m = sum_k s_k - penalty * t'(t - v), the sum of (5) over k

    Parameters
    ----------
    counts : Tensor of shape (n, k)
        Counts s, not negative, and positive somewhere in each row.

    vectors : Tensor of shape (n, k)
        Vectors v.

    penalty : Tensor of shape (n,)
        Penalty, not negative.

    Returns
    -------
    maximizers : Tensor of shape (n, k)
        Points t.
    """
    penalty = penalty.unsqueeze(1)
    pulls = penalty * vectors

    def roots(multiplier):
        b = multiplier - pulls
        # (5): both forms are the same root; each is exact where the other one cancels.
        root = (b.square() + 4 * penalty * counts).sqrt()
        return torch.where(b > 0, 2 * counts / (b + root), (root - b) / (2 * penalty))

    # Bounds of (6): t't is between 0 and 1, t'v between the extremes of v.
    total = counts.sum(1, keepdim=True)
    low = total + pulls.amin(1, keepdim=True) - penalty
    high = total + pulls.amax(1, keepdim=True)
    for _ in range(_MAX_BISECTIONS):
        middle = (low + high) / 2
        is_low = roots(middle).sum(1, keepdim=True) > 1
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    maximizers = roots((low + high) / 2)
    return maximizers / maximizers.sum(1, keepdim=True)
