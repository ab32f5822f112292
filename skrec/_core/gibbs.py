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

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import variational
from .conjugate_gradients import Deflation, leading_eigenvectors, solve_columns
from .normal_rows import condition, parts, with_ones
from .sparse import sddmm, spmm

# Tolerance of the draws of links. RMSEs of FilmTrust, MovieLens latest-small, 100K and
# Douban (validation ratings) were the same, to 0.00004, as with a tenth of it.
_LINK_TOLERANCE = 1e-2
# Eigenvectors of F'F in (4) that are deflated: the draws of links took half the steps.
# With fewer ratings for each link and eigenvector, deflation cost more than it saved.
_N_DEFLATED, _LEAST_RATINGS = 16, 2

Rng = np.random.Generator | torch.Generator


class Rngs(NamedTuple):
    """Generators of draws; generators of PyTorch draws on their own device.

    Attributes
    ----------
    users : numpy.random.Generator or torch.Generator
        Generator for what belongs to the users of this rank.

    items : numpy.random.Generator or torch.Generator
        Generator for what all ranks have, in the same state on all of them. A single
        process has one generator for both.
    """

    users: Rng
    items: Rng


class Side:
    """Users or items: their vectors, the prior of these, and their ratings.

    Parameters
    ----------
    start : variational.Side
        Ratings, prior, and distributions whose means are the initial vectors. The
        vectors and the links are changed in place.

    noise : Tensor
        Noise variance.

    own, other : Generator
        Generators for what belongs to the rows of this side, and to those of the other
        side.
    """

    def __init__(self, start: variational.Side, noise: Tensor, own: Rng, other: Rng):
        self.pattern, self.transposed = start.pattern, start.transposed
        self.prior, self.coefficients = start.prior, start.coefficients
        self.features, self.layout = start.features, start.layout
        self.own, self.other = own, other
        self.ratings, self.weights = start.ratings, start.weights
        self.vectors = start.vectors.mean
        self.noise = noise
        dtype = self.vectors.dtype
        # Superfluous factors have tiny variances: inverses need double precision.
        covariance = self.prior.covariance.double()
        self.precision = torch.linalg.inv(covariance).to(dtype)
        if not len(self.prior.links):
            return
        self.link_values = self.coefficients.link_values
        # B and the penalty in (5)
        root = self.prior.link_precision.double().sqrt().unsqueeze(1)
        penalty, rotation = torch.linalg.eigh(root * covariance * root.T)
        basis = root * rotation * penalty.rsqrt()
        # Eigenvectors differ in sign between processors.
        penalty, basis = map(self.layout.group.copy_first, (penalty, basis))
        self.penalty, self.basis = penalty.to(dtype), basis.to(dtype)
        self.inverse = torch.linalg.inv(basis).to(dtype)
        # The diagonal of F'F + penalty, for the preconditioner
        square = spmm(self.transposed, None, self.link_values.square())
        square = self.layout.rows.sum(square)
        self.diagonal = self.penalty + square
        self.deflation = self._deflate(square[:, 0])

    def state(self) -> list[Tensor]:
        """All tensors that a sweep changes."""
        return [self.vectors, self.prior.links]

    def prior_means(self) -> Tensor:
        """Prior means of all rows, given the links."""
        return self.coefficients.means()

    def draw(self, others: Tensor) -> None:
        """Draw links and vectors from their posterior, given the other side."""
        if len(self.prior.links):
            self.prior.links.copy_(self.draw_links())
        means = self.prior_means()
        normal = _normal(self.vectors, self.own)
        biases, others = others[:, -1], with_ones(others)
        for rows, pattern, entries in parts(self.pattern, self.vectors.shape[1] ** 2):
            posterior = condition(
                pattern,
                self.ratings[entries] - biases.index_select(0, pattern.col),
                others,
                means[rows],
                self.precision,
                self._rating_precisions(entries),
                self.layout.entries,
            )
            self.vectors[rows] = posterior.draw(normal[rows])
        # Rounding differs between processors.
        self.vectors.copy_(self.layout.entries.copy_first(self.vectors))

    def _deflate(self, diagonal: Tensor) -> Deflation | None:
        """Deflation of F'F in (4), which has this diagonal, if it pays."""
        group, (n, n_others) = self.layout.group, self.pattern.shape
        m = min(_N_DEFLATED, self.layout.rows.total(n), n_others)
        n_ratings = group.total(self.pattern.nnz)
        # Vectors that are dealt out are not orthonormalized.
        is_dealt = self.layout.entries.size > 1
        if is_dealt or n_ratings <= _LEAST_RATINGS * m * n_others:
            return None
        found = leading_eigenvectors(self.times_square, diagonal, m)
        vectors, eigenvalues = map(group.copy_first, found)
        return Deflation(vectors, eigenvalues.unsqueeze(1) + self.penalty)

    def _rating_precisions(self, entries: slice) -> Tensor:
        if self.weights is None:
            return (1 / self.noise).expand(entries.stop - entries.start)
        return self.weights[entries] / self.noise

    def times_square(self, x: Tensor) -> Tensor:
        """Product of F'F in (4) with x."""
        moves = self.layout.entries.sum(spmm(self.pattern, None, x))
        image = self.link_values.square() * moves
        return self.layout.rows.sum(spmm(self.transposed, None, image))

    def draw_links(self) -> Tensor:
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
        targets += _normal(self.vectors, self.own)
        right = spmm(self.transposed, None, self.link_values * targets)
        right = self.layout.rows.sum(right)
        right += self.penalty.sqrt() * _normal(prior.links, self.other)
        start = prior.links @ self.basis
        solution = solve_columns(
            times,
            right,
            self.diagonal,
            start,
            tolerance=_LINK_TOLERANCE,
            group=self.layout.group,
            n_shared=0 if self.coefficients.n_shared else None,
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

    rngs : Rngs
        Generators of all draws.
    """

    def __init__(self, start: variational.Factorization, rngs: Rngs):
        self.noise_variance = float(start.noise)
        self.users = Side(start.users, start.noise, rngs.users, rngs.items)
        self.items = Side(start.items, start.noise, rngs.items, rngs.users)
        weights, total = self.users.weights, self.users.layout.group.total
        self.total_weight: float = total(
            len(start.users.ratings) if weights is None else float(weights.sum())
        )

    def state(self) -> list[Tensor]:
        """All tensors that a sweep changes."""
        return [*self.users.state(), *self.items.state()]

    def sweep(self) -> float:
        """Draw each part given the others; return the weighted mean squared error."""
        self.users.draw(self.items.vectors)
        self.items.draw(self.users.vectors)
        return self.error()

    def error(self) -> float:
        """Weighted mean squared error of the ratings."""
        users, items = self.users, self.items.vectors
        errors = sddmm(users.pattern, users.vectors, with_ones(items))
        torch.sub(users.ratings, errors, out=errors)
        errors -= items[:, -1].index_select(0, users.pattern.col)
        weighted = errors if users.weights is None else errors * users.weights
        total = users.layout.group.sum(torch.dot(weighted, errors))
        return float(total / self.total_weight)


def _normal(like: Tensor, rng: Rng) -> Tensor:
    """Standard normal numbers with the shape, dtype and device of a tensor."""
    if isinstance(rng, torch.Generator):
        return torch.empty_like(like).normal_(generator=rng)
    return torch.from_numpy(rng.standard_normal(tuple(like.shape))).to(like)
