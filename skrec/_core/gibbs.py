"""Gibbs sampling of a factorization with normal priors.

The hyper-parameters are those of a variational factorization and stay fixed: the noise
variance, and for each side (users or items) the center and the covariance C of the
vectors, the weights W of their features x_i, and the diagonal precision Q of the links.
With the links y_j of the n_i items (or users) j that a row has ratings with, the model
is

    (1)  rating    ~  N(prediction, noise_variance / weight)
    (2)  vector_i  ~  N(center + sum_j y_j / sqrt(n_i) + W' x_i, C)
    (3)  y_j       ~  N(0, Q^-1)

A sweep draws the links and the vectors of each side, given everything else.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import variational
from .conjugate_gradients import Deflation, leading_eigenvectors, solve_columns
from .normal_rows import condition, implicit_values, parts, with_ones
from .sparse import sddmm, spmm

# Tolerance of the draws of links. RMSEs of FilmTrust, MovieLens latest-small, 100K and
# Douban (validation ratings) were the same, to 0.00004, as with a tenth of it.
_LINK_TOLERANCE = 1e-2
# Eigenvectors of F'F in (4) that are deflated: the draws of links took half the steps.
# With fewer ratings for each link and eigenvector, deflation cost more than it saved.
_N_DEFLATED, _LEAST_RATINGS = 16, 2

Rng = np.random.Generator | torch.Generator


class Side:
    """Users or items: their vectors, the prior of these, and their ratings.

    Parameters
    ----------
    start : variational.Side
        Ratings, prior, and distributions whose means are the initial vectors. The
        vectors and the links are changed in place.

    noise : Tensor
        Noise variance.
    """

    def __init__(self, start: variational.Side, noise: Tensor):
        self.pattern, self.transposed = start.pattern, start.transposed
        self.prior = start.prior
        self.features = start.features
        self.ratings, self.weights = start.ratings, start.weights
        self.vectors = start.vectors.mean
        self.noise = noise
        dtype = self.vectors.dtype
        # Superfluous factors have tiny variances: inverses need double precision.
        covariance = self.prior.covariance.double()
        self.precision = torch.linalg.inv(covariance).to(dtype)
        if not len(self.prior.links):
            return
        self.link_values = implicit_values(self.pattern, dtype)
        # B and the penalty in (5)
        root = self.prior.link_precision.double().sqrt().unsqueeze(1)
        penalty, rotation = torch.linalg.eigh(root * covariance * root.T)
        basis = root * rotation * penalty.rsqrt()
        self.penalty, self.basis = penalty.to(dtype), basis.to(dtype)
        self.inverse = torch.linalg.inv(basis).to(dtype)
        # The diagonal of F'F + penalty, for the preconditioner
        square = spmm(self.transposed, None, self.link_values.square())
        self.diagonal = self.penalty + square
        m = min(_N_DEFLATED, *self.pattern.shape)
        self.deflation: Deflation | None = None
        if self.pattern.nnz > _LEAST_RATINGS * m * len(square):
            found = leading_eigenvectors(self.times_square, square[:, 0], m)
            self.deflation = Deflation(found[0], found[1].unsqueeze(1) + self.penalty)

    def state(self) -> list[Tensor]:
        """All tensors that a sweep changes."""
        return [self.vectors, self.prior.links]

    def prior_means(self) -> Tensor:
        """Prior means of all rows, given the links."""
        return self.prior.means(self.pattern, self.features)

    def draw(self, others: Tensor, rng: Rng) -> None:
        """Draw links and vectors from their posterior, given the other side."""
        if len(self.prior.links):
            self.prior.links.copy_(self.draw_links(rng))
        means = self.prior_means()
        normal = _normal(self.vectors, rng)
        biases, others = others[:, -1], with_ones(others)
        for rows, pattern, entries in parts(self.pattern, self.vectors.shape[1] ** 2):
            posterior = condition(
                pattern,
                self.ratings[entries] - biases.index_select(0, pattern.col),
                others,
                means[rows],
                self.precision,
                self._rating_precisions(entries),
            )
            self.vectors[rows] = posterior.draw(normal[rows])

    def _rating_precisions(self, entries: slice) -> Tensor:
        if self.weights is None:
            return (1 / self.noise).expand(entries.stop - entries.start)
        return self.weights[entries] / self.noise

    def times_square(self, x: Tensor) -> Tensor:
        """Product of F'F in (4) with x."""
        image = self.link_values.square() * spmm(self.pattern, None, x)
        return spmm(self.transposed, None, image)

    def draw_links(self, rng: Rng) -> Tensor:
        """Draw the links, by perturbed regression.

        With the features F, the deviations D of the vectors from their center and the
        precision P = C^-1, the posterior of the links Y is normal with the mean that
        solves

            (4)  F'F Y P + Y Q = F'D P

        The basis B with P = B B' and Q = B diag(penalty) B' turns (4) into a ridge
        regression for each column of Y B. With normal perturbations E and E' of the
        targets and the prior mean, its solution is a draw [1]_:

            (5)  F'F Y B + Y B diag(penalty) = F'(D B + E) + E' diag(penalty)^1/2

        .. [1] Jaak Simm et al. 2017. "Macau: Scalable Bayesian factorization with
           high-dimensional side information using MCMC". MLSP 2017.
           https://doi.org/10.1109/MLSP.2017.8168143
        """
        prior = self.prior

        def times(x):
            return self.times_square(x) + self.penalty * x

        deviations = self.vectors - prior.center
        if self.features is not None:
            deviations -= self.features.means(prior.weights)
        targets = deviations @ self.basis
        targets += _normal(self.vectors, rng)
        right = spmm(self.transposed, None, self.link_values * targets)
        right += self.penalty.sqrt() * _normal(prior.links, rng)
        start = prior.links @ self.basis
        solution = solve_columns(
            times,
            right,
            self.diagonal,
            start,
            tolerance=_LINK_TOLERANCE,
            deflation=self.deflation,
        )
        return solution @ self.inverse


class GibbsSampler:
    """State of a Markov chain, and the sweep that advances it.

    Parameters
    ----------
    start : variational.Factorization
        Fitted factorization, whose means and links are the initial state. They are
        changed in place.

    rng : numpy.random.Generator or torch.Generator
        Generator of all draws; a generator of PyTorch draws on its own device.
    """

    def __init__(self, start: variational.Factorization, rng: Rng):
        self.rng = rng
        self.noise_variance = float(start.noise)
        self.users = Side(start.users, start.noise)
        self.items = Side(start.items, start.noise)

    def state(self) -> list[Tensor]:
        """All tensors that a sweep changes."""
        return [*self.users.state(), *self.items.state()]

    def sweep(self) -> float:
        """Draw each part given the others; return the weighted mean squared error."""
        self.users.draw(self.items.vectors, self.rng)
        self.items.draw(self.users.vectors, self.rng)
        return self.error()

    def error(self) -> float:
        """Weighted mean squared error of the ratings."""
        users, items = self.users, self.items.vectors
        errors = sddmm(users.pattern, users.vectors, with_ones(items))
        torch.sub(users.ratings, errors, out=errors)
        errors -= items[:, -1].index_select(0, users.pattern.col)
        if users.weights is None:
            return float(torch.dot(errors, errors) / len(errors))
        return float(torch.dot(errors * users.weights, errors) / users.weights.sum())


def _normal(like: Tensor, rng: Rng) -> Tensor:
    """Standard normal numbers with the shape, dtype and device of a tensor."""
    if isinstance(rng, torch.Generator):
        return torch.empty_like(like).normal_(generator=rng)
    return torch.from_numpy(rng.standard_normal(tuple(like.shape))).to(like)
