"""Gibbs sampling of a factorization with normal priors that are sampled, too.

The vectors of a side, of users or items, are normal around a mean, which implicit
features of a row may move. Mean and precision have a normal-Wishart prior, the
precision of the implicit features' coefficients a Wishart prior, and the precision of
the ratings' noise a gamma prior.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .conjugate_gradients import solve_columns
from .normal_rows import condition, implicit_values, parts, with_ones
from .sparse import sddmm, spmm

# The precision of a prior mean, relative to that of the vectors.
_MEAN_STRENGTH = 2.0


class Side:
    """Users or items: their vectors, what these are drawn to, and their ratings.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_others)
        Who has rated what.

    ratings, weights : Tensor of shape (nnz,)
        The ratings and their weights.

    vectors : Tensor of shape (n_rows, k)
        The initial vectors. The last entry is a bias.

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
            self.diagonal = spmm(
                pattern.transposed,
                self.features[pattern.order].square(),
                vectors.new_ones(len(vectors), 1),
            )

    def state(self) -> list[Tensor]:
        """All that changes."""
        links = [] if self.links is None else [self.links, self.link_precision]
        return [self.vectors, self.mean, self.precision, *links]

    def shifts(self) -> Tensor:
        """By how much the mean of each row is moved, of shape (n_rows, k)."""
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
            links = self.links.double()
            df = len(links) + links.shape[1]
            scatter = (links.T @ links).cpu().numpy()
            drawn = draw_wishart(df, np.eye(len(scatter)) + scatter, rng)
            self.link_precision.copy_(torch.from_numpy(drawn))

    def draw_vectors(self, others: Tensor, noise: Tensor, rng) -> None:
        """Draw all vectors, given those of the other side."""
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
                self.weights[entries] * noise,
            )
            self.vectors[rows] = posterior.draw(normal[rows])

    def _draw_links(self, start: Tensor, rng) -> Tensor:
        """Draw the coefficients of the implicit features, by injecting noise.

        With the features F, the deviations D of the vectors from their mean and the
        precisions P of the vectors and Q of the links, they are normal with the mean
        that solves ``F'F Y P + Y Q = F'D P``. In the basis where P is the identity and
        Q diagonal, that is a ridge regression for each column. Its solution for
        targets with noise, and for a noisy prior mean, is a draw [1]_.

        .. [1] Jaak Simm et al. 2017. "Macau: Scalable Bayesian factorization with
           high-dimensional side information using MCMC". MLSP 2017.
           https://doi.org/10.1109/MLSP.2017.8168143
        """
        root = torch.linalg.cholesky(self.precision)
        half = torch.linalg.solve_triangular(root, self.link_precision, upper=False)
        both = torch.linalg.solve_triangular(root, half.T, upper=False)
        penalty, rotation = torch.linalg.eigh((both + both.T) / 2)
        basis = root @ rotation
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
        # solution = links @ root @ rotation
        rotated = rotation @ solution.T
        return torch.linalg.solve_triangular(root.T, rotated, upper=True).T


class GibbsSampler:
    """The state of a chain, and the sweep that moves it.

    Parameters
    ----------
    pattern : Pattern of shape (n_users, n_items)
        Where there are ratings.

    ratings : Tensor of shape (nnz,)
        The ratings, of about mean 0 and variance 1.

    weights : Tensor of shape (nnz,) or None
        The precision of each rating, relative to the noise. None means 1 each.

    n_factors : int
        The entries of a vector, beside its bias.

    rng : numpy.random.Generator
        Where all draws come from.

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
        turned = pattern.transposed, ratings[order], weights[order]
        self.items = Side(*turned, items, implicit=implicit)
        self.noise = ratings.new_ones(())

    def state(self) -> list[Tensor]:
        """All that a sweep changes."""
        return [self.noise, *self.users.state(), *self.items.state()]

    def sweep(self) -> float:
        """Draw each part given the others; return the mean squared error."""
        for side, others in (self.users, self.items), (self.items, self.users):
            side.draw_prior(self.rng)
            side.draw_vectors(others.vectors, self.noise, self.rng)
        return self._draw_noise()

    def _draw_noise(self) -> float:
        users, items = self.users, self.items.vectors
        sums = sddmm(users.pattern, users.vectors, with_ones(items))
        errors = users.ratings - sums - items[:, -1].index_select(0, users.pattern.col)
        squares = float(torch.dot(errors * users.weights, errors))
        # The gamma prior has shape and rate 1.
        shape, rate = 1 + len(errors) / 2, 1 + squares / 2
        self.noise.fill_(self.rng.gamma(shape) / rate)
        return squares / float(users.weights.sum())


def draw_normal_wishart(vectors: Tensor, rng) -> tuple[Tensor, Tensor]:
    """Draw mean and precision of the normal distribution that vectors come from.

    Parameters
    ----------
    vectors : Tensor of shape (n, k)
        The vectors.

    rng : numpy.random.Generator
        Where the draws come from.

    Returns
    -------
    mean, precision : Tensor of shape (k,) and (k, k), in double precision on the CPU
    """
    X = vectors.double().cpu().numpy()
    n, k = X.shape
    strength = n + _MEAN_STRENGTH
    mean = X.mean(axis=0)
    scatter = (X - mean).T @ (X - mean)
    scatter += _MEAN_STRENGTH * n / strength * np.outer(mean, mean)
    precision = draw_wishart(n + k, np.eye(k) + scatter, rng)
    root = np.linalg.cholesky(strength * precision)
    drawn = n * mean / strength + np.linalg.solve(root.T, rng.standard_normal(k))
    return torch.from_numpy(drawn), torch.from_numpy(precision)


def draw_wishart(df: float, inverse_scale: np.ndarray, rng) -> np.ndarray:
    """Draw a Wishart matrix of shape (k, k) by Bartlett's decomposition."""
    k = len(inverse_scale)
    bartlett = np.tril(rng.standard_normal((k, k)), -1)
    bartlett[np.diag_indices(k)] = np.sqrt(rng.chisquare(df - np.arange(k)))
    half = np.linalg.solve(np.linalg.cholesky(inverse_scale).T, bartlett)
    return half @ half.T


def _normal(like: Tensor, rng) -> Tensor:
    """Standard normal numbers of the shape, type and device of a tensor."""
    return torch.from_numpy(rng.standard_normal(tuple(like.shape))).to(like)
