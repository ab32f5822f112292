"""Gibbs sampling of a factorization with normal priors that are sampled, too.

The vectors of a side (users or items) are normal around a mean, which implicit features
of a row may shift: each of the n_i items (or users) j that it has ratings with has a
vector of coefficients y_j, its link. With k-dimensional vectors and shape-rate gamma
distributions, the model is

    (1)  rating       ~  N(prediction, 1 / (weight * rating_precision))
    (2)  vector_i     ~  N(mean + sum_j y_j / sqrt(n_i), precision^-1)
    (3)  mean         ~  N(0, (strength * precision)^-1),  precision ~ Wishart(k, I)
    (4)  y_j          ~  N(0, link_precision^-1),  link_precision ~ Wishart(k, I)
    (5)  rating_precision  ~  Gamma(1, 1)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .conjugate_gradients import solve_columns
from .normal_rows import condition, implicit_values, parts, with_ones
from .sparse import sddmm, spmm

# The strength in (3): the precision of the mean, relative to that of the vectors.
_MEAN_STRENGTH = 2.0


class Side:
    """Users or items: their vectors, the prior of these, and their ratings.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_others)
        Positions of the ratings.

    ratings, weights : Tensor of shape (nnz,)
        Ratings and their weights.

    vectors : Tensor of shape (n_rows, k)
        Initial vectors. The last entry is a bias.

    implicit : bool
        Whether the mean of a vector depends on what the row has rated.
    """

    def __init__(self, pattern, ratings, weights, vectors, *, implicit):
        self.pattern, self.ratings, self.weights = pattern, ratings, weights
        self.vectors = vectors
        k = vectors.shape[1]
        self.mean = vectors.new_zeros(k)
        self.precision = torch.eye(k, dtype=vectors.dtype, device=vectors.device)
        self.links: Tensor | None = None
        self.link_precision = self.precision.clone()
        if implicit:
            self.links = vectors.new_zeros(pattern.shape[1], k)
            self.features = implicit_values(pattern, vectors.dtype)
            # The diagonal of F'F in (6), for the preconditioner
            self.diagonal = spmm(
                pattern.transposed,
                self.features[pattern.order].square(),
                vectors.new_ones(len(vectors), 1),
            )

    def state(self) -> list[Tensor]:
        """All tensors that a sweep changes."""
        links = [] if self.links is None else [self.links, self.link_precision]
        return [self.vectors, self.mean, self.precision, *links]

    def shifts(self) -> Tensor:
        """Shift of each row's prior mean by its implicit features, (n_rows, k)."""
        if self.links is None:
            return torch.zeros_like(self.vectors)
        return spmm(self.pattern, self.features, self.links)

    def draw_prior(self, rng) -> None:
        """Draw mean and precision, then the links and their precision."""
        mean, precision = draw_normal_wishart(self.vectors - self.shifts(), rng)
        self.mean.copy_(mean)
        self.precision.copy_(precision)
        if self.links is not None:
            self.links.copy_(self._draw_links(self.links, rng))
            # (4): the Wishart prior is conjugate: each y_j adds y_j y_j'.
            links = self.links.double()
            df = len(links) + links.shape[1]
            scatter = (links.T @ links).cpu().numpy()
            drawn = draw_wishart(df, np.eye(len(scatter)) + scatter, rng)
            self.link_precision.copy_(torch.from_numpy(drawn))

    def draw_vectors(self, others: Tensor, rating_precision: Tensor, rng) -> None:
        """Draw all vectors from their posterior, given those of the other side."""
        means = self.mean + self.shifts()
        normal = _normal(self.vectors, rng)
        biases, others = others[:, -1], with_ones(others)
        for rows, pattern, entries in parts(self.pattern, self.vectors.shape[1] ** 2):
            posterior = condition(
                pattern,
                self.ratings[entries] - biases.index_select(0, pattern.col),
                others,
                means[rows],
                self.precision,
                self.weights[entries] * rating_precision,
            )
            self.vectors[rows] = posterior.draw(normal[rows])

    def _draw_links(self, start: Tensor, rng) -> Tensor:
        """Draw the coefficients of the implicit features, by perturbed regression.

        With the features F, the deviations D of the vectors from their mean, the
        precision P of the vectors and the precision Q of the links, the posterior of
        the links Y is normal with the mean that solves

            (6)  F'F Y P + Y Q = F'D P

        The basis B with P = B B' and Q = B diag(penalty) B' turns (6) into a ridge
        regression for each column of Y B. With normal perturbations E and E' of the
        targets and the prior mean, its solution is a draw [1]_:

            (7)  F'F Y B + Y B diag(penalty) = F'(D B + E) + E' diag(penalty)^1/2

        .. [1] Jaak Simm et al. 2017. "Macau: Scalable Bayesian factorization with
           high-dimensional side information using MCMC". MLSP 2017.
           https://doi.org/10.1109/MLSP.2017.8168143
        """
        # B: P = root root', and root^-1 Q root'^-1 = rotation diag(penalty) rotation'
        root = torch.linalg.cholesky(self.precision)
        half = torch.linalg.solve_triangular(root, self.link_precision, upper=False)
        both = torch.linalg.solve_triangular(root, half.T, upper=False)
        penalty, rotation = torch.linalg.eigh((both + both.T) / 2)
        basis = root @ rotation
        # (7): one system for each column, with the targets D B + E
        targets = (self.vectors - self.mean) @ basis
        targets += _normal(self.vectors, rng)
        transposed, order = self.pattern.transposed, self.pattern.order
        features = self.features[order]

        def times(x):
            image = spmm(self.pattern, self.features, x)
            return spmm(transposed, features, image) + penalty * x

        right = spmm(transposed, features, targets)
        right += penalty.sqrt() * _normal(start, rng)
        solution = solve_columns(times, right, self.diagonal + penalty, start @ basis)
        # Y from the solution Y B = Y root rotation
        rotated = rotation @ solution.T
        return torch.linalg.solve_triangular(root.T, rotated, upper=True).T


class GibbsSampler:
    """State of a Markov chain, and the sweep that advances it.

    Parameters
    ----------
    pattern : Pattern of shape (n_users, n_items)
        Positions of the ratings.

    ratings : Tensor of shape (nnz,)
        Ratings, scaled to about mean 0 and variance 1.

    weights : Tensor of shape (nnz,) or None
        Precision of each rating, relative to `rating_precision`. None means 1 each.

    n_factors : int
        Number of latent factors: the entries of a vector except its bias.

    rng : numpy.random.Generator
        Generator of all draws.

    implicit : bool
        Whether the mean of a user depends on what the user has rated, and that of an
        item on who has rated it.
    """

    def __init__(self, pattern, ratings, weights, n_factors, rng, *, implicit):
        self.rng = rng
        weights = torch.ones_like(ratings) if weights is None else weights
        order, k = pattern.order, n_factors + 1
        users, items = (
            _normal(ratings.new_empty(n, k), rng) / k**0.5 for n in pattern.shape
        )
        self.users = Side(pattern, ratings, weights, users, implicit=implicit)
        transposed = pattern.transposed, ratings[order], weights[order]
        self.items = Side(*transposed, items, implicit=implicit)
        self.rating_precision = ratings.new_ones(())

    def state(self) -> list[Tensor]:
        """All tensors that a sweep changes."""
        return [self.rating_precision, *self.users.state(), *self.items.state()]

    def sweep(self) -> float:
        """Draw each part given the others; return the weighted mean squared error."""
        for side, others in (self.users, self.items), (self.items, self.users):
            side.draw_prior(self.rng)
            side.draw_vectors(others.vectors, self.rating_precision, self.rng)
        return self._draw_rating_precision()

    def _draw_rating_precision(self) -> float:
        users, items = self.users, self.items.vectors
        sums = sddmm(users.pattern, users.vectors, with_ones(items))
        errors = users.ratings - sums - items[:, -1].index_select(0, users.pattern.col)
        squares = float(torch.dot(errors * users.weights, errors))
        # (5): the gamma prior is conjugate; NumPy's default scale 1 is divided by rate.
        shape, rate = 1 + len(errors) / 2, 1 + squares / 2
        self.rating_precision.fill_(self.rng.gamma(shape) / rate)
        return squares / float(users.weights.sum())


def draw_normal_wishart(vectors: Tensor, rng) -> tuple[Tensor, Tensor]:
    """Draw mean and precision of a normal distribution from their posterior.

    With the prior (3), the empirical mean and the scatter matrix S of n vectors,

        (8)  precision ~ Wishart(n + k, (I + S + b n / (b + n) mean mean')^-1)
        (9)  drawn mean ~ N(n / (b + n) mean, ((b + n) precision)^-1)

    where b is the strength of the prior mean.

    Parameters
    ----------
    vectors : Tensor of shape (n, k)
        Vectors that come from the normal distribution.

    rng : numpy.random.Generator
        Generator of the draws.

    Returns
    -------
    mean, precision : Tensor of shape (k,) and (k, k), in double precision on the CPU
    """
    X = vectors.double().cpu().numpy()
    n, k = X.shape
    total = n + _MEAN_STRENGTH
    mean = X.mean(axis=0)
    scatter = (X - mean).T @ (X - mean)
    # (8): the last term is the distance of the empirical mean from the prior mean 0.
    scatter += _MEAN_STRENGTH * n / total * np.outer(mean, mean)
    precision = draw_wishart(n + k, np.eye(k) + scatter, rng)
    # (9): root'^-1 times standard normal numbers
    root = np.linalg.cholesky(total * precision)
    drawn = n * mean / total + np.linalg.solve(root.T, rng.standard_normal(k))
    return torch.from_numpy(drawn), torch.from_numpy(precision)


def draw_wishart(df: float, inverse_scale: np.ndarray, rng) -> np.ndarray:
    """Draw a Wishart matrix of shape (k, k) by Bartlett's decomposition.

    With ``inverse_scale = L L'`` and the Bartlett matrix T, it is L'^-1 T T' L^-1. T is
    lower triangular: standard normal below the diagonal, roots of chi-squared numbers
    with df, df - 1, ... degrees of freedom on it.
    """
    k = len(inverse_scale)
    bartlett = np.tril(rng.standard_normal((k, k)), -1)
    bartlett[np.diag_indices(k)] = np.sqrt(rng.chisquare(df - np.arange(k)))
    half = np.linalg.solve(np.linalg.cholesky(inverse_scale).T, bartlett)
    return half @ half.T


def _normal(like: Tensor, rng) -> Tensor:
    """Standard normal numbers with the shape, dtype and device of a tensor."""
    return torch.from_numpy(rng.standard_normal(tuple(like.shape))).to(like)
