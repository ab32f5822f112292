"""Topics of texts, and proportions that explain words and are near given vectors.

A text has the words w with counts n_w, the topic proportions t and a vector v. With the
probabilities topic_w of word w in each topic,

    (1)  log_likelihood  = sum_w n_w log(t' topic_w)
    (2)  objective       = log_likelihood - penalty / 2 * ||v - t||^2

Topics are those of latent Dirichlet allocation by variational Bayes [1]_. Proportions
and topics have Dirichlet distributions, whose parameters are the prior, one number,
plus the expected numbers of words.

.. [1] David M. Blei, Andrew Y. Ng and Michael I. Jordan. 2003. "Latent Dirichlet
   Allocation". Journal of Machine Learning Research 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .sparse import Pattern, sddmm, spmm

# Newton steps to a multiplier, and the error of the sum of proportions that ends them,
# in units of the last place. Less than 10 steps are usual.
_MAX_NEWTON_STEPS, _LAST_PLACES = 60, 16
# Steps for each text, from equal proportions, between two updates of the topics. On
# validation ratings of MovieLens latest-small, CTR was not more accurate with 10 or 20
# steps, and less accurate if the steps began at the last proportions.
_N_STEPS = 5
# Inference for a text ends after this mean change of its numbers of words, or of steps,
# as in scikit-learn.
_TOLERANCE, _MAX_STEPS = 1e-3, 100


def fit_topics(
    pattern: Pattern, counts: Tensor, topics: Tensor, prior: float, max_iter: int
) -> Tensor:
    """Fit topics to texts.

    Parameters
    ----------
    pattern : Pattern of shape (n_texts, n_words)
        Words of each text.

    counts : Tensor of shape (nnz,)
        Number of occurrences of each word in each text.

    topics : Tensor of shape (n_words, k)
        Initial parameters of the topics.

    prior : float
        Prior of the proportions and of the topics.

    max_iter : int
        Number of updates of the topics.

    Returns
    -------
    topics : Tensor of shape (n_words, k)
        Parameters of the topics.
    """
    transposed, order = pattern.transposed, pattern.order
    for _ in range(max_iter):
        words = expected(topics, 0)
        numbers = topics.new_ones(pattern.shape[0], topics.shape[1])
        for _ in range(_N_STEPS):
            numbers = _step(pattern, counts, words, prior, numbers)
        proportions = expected(numbers, 1)
        ratios = _ratios(pattern, counts, proportions, words).index_select(0, order)
        topics = prior + words * spmm(transposed, ratios, proportions)
    return topics


def infer_proportions(
    pattern: Pattern, counts: Tensor, words: Tensor, prior: float
) -> Tensor:
    """Infer the topic proportions of texts.

    Parameters
    ----------
    pattern, counts, prior
        As for `fit_topics`.

    words : Tensor of shape (n_words, k)
        Geometric means of the probability of each word in each topic; see `expected`.

    Returns
    -------
    proportions : Tensor of shape (n_texts, k)
        Expected proportions. Rows sum to 1.
    """
    numbers = words.new_ones(pattern.shape[0], words.shape[1])
    texts = torch.arange(pattern.shape[0], device=words.device)
    for _ in range(_MAX_STEPS):
        found = _step(pattern, counts, words, prior, numbers[texts])
        is_open = (found - numbers[texts]).abs().mean(1) >= _TOLERANCE
        numbers[texts] = found
        # Each text ends on its own: texts of a few words would drift for long.
        if not is_open.all():
            rest = is_open.nonzero().squeeze(1)
            if not len(rest):
                break
            (pattern, entries), texts = pattern.rows(rest), texts[rest]
            counts = counts[entries]
    return numbers / numbers.sum(1, keepdim=True)


def expected(parameters: Tensor, dim: int) -> Tensor:
    """Geometric means of the numbers that have Dirichlet distributions along `dim`."""
    total = parameters.sum(dim, keepdim=True)
    return (torch.digamma(parameters) - torch.digamma(total)).exp()


def _step(pattern, counts, words, prior, numbers):
    """Parameters of the proportions: the prior plus the expected numbers of words."""
    proportions = expected(numbers, 1)
    ratios = _ratios(pattern, counts, proportions, words)
    return prior + proportions * spmm(pattern, ratios, words)


def _ratios(pattern, counts, proportions, words):
    """Ratios of counts to the sums over topics, which may underflow to 0."""
    return counts / (sddmm(pattern, proportions, words) + torch.finfo(torch.double).eps)


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
    t_k is the positive root of (5). It is convex and decreases in m, so that Newton
    steps from below, by (7), increase m and do not pass the solution.

        (4)  sum_k s_k log t_k - penalty / 2 * ||v - t||^2
        (5)  penalty * t_k^2 + (m - penalty * v_k) * t_k = s_k
        (6)  m = sum_k s_k - penalty * t'(t - v), the sum of (5) over k
        (7)  dt_k / dm = -t_k / sqrt(b_k^2 + 4 penalty s_k),  b_k = m - penalty v_k

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
        t = torch.where(b > 0, 2 * counts / (b + root), (root - b) / (2 * penalty))
        return t, root

    # Lower bound of (6): t't is at most 1, and t'v at least the smallest entry of v.
    multiplier = counts.sum(1, keepdim=True) + pulls.amin(1, keepdim=True) - penalty
    accuracy = _LAST_PLACES * torch.finfo(counts.dtype).eps
    for _ in range(_MAX_NEWTON_STEPS):
        t, root = roots(multiplier)
        excess = t.sum(1, keepdim=True) - 1
        if bool((excess <= accuracy).all()):
            break
        slope = torch.where(t > 0, t / root, 0).sum(1, keepdim=True)  # (7)
        multiplier = multiplier + excess.clamp(min=0) / slope
    return t / t.sum(1, keepdim=True)
