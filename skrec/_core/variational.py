"""Variational Bayes for matrix factorization with biases.

User u has a vector (u, b) of factors and a bias, item i a vector (v, c). A rating is

    (1)  r = u' v + b + c + noise,  noise ~ N(0, tau / weight)

Both sides have normal priors whose means m, common covariance C and noise variance tau
are estimated from the ratings. The posterior is approximated by a product of normal
distributions of all vectors, which have full covariances. Given the items, and with
z = (v, 1), the optimal distribution of a user has

    (2)  S = (L + G / tau)^-1,             G = sum_i E[z z'],  L = C^-1
    (3)  mean = S (h / tau + L m),         h = sum_i (z (r - c) - Cov(z, c))

Expectations are over the items, and each term is multiplied by the weight of its
rating. An item is the mirror image. Then the evidence bound is maximized over C and
tau. All sums over ratings are SpMM.

What is known of a row may move its prior mean; see `prior_means`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .chunks import row_chunks
from .collectives import ALONE, WHOLE, Group, Layout, Share
from .normal_rows import parts, with_ones
from .prior_means import (
    CENTER_PRECISION,
    Coefficients,
    Features,
    NormalPrior,
    PriorNetwork,
    fit_precisions,
    solve_means,
)
from .sparse import Pattern, sddmm, spmm
from .symmetric import Triangle, inverse_of

# Initial standard deviation and variance of the factors
_INITIAL_STD, _INITIAL_VARIANCE = 0.3, 0.05
# Initial variance of the noise, relative to that of the ratings. With little noise at
# first, factors follow the ratings before the prior may shrink them to nothing.
_NOISE_VARIANCE = 0.2
# Smallest variance of the noise, relative to that of the ratings. Ratings without noise
# would need more than the working precision.
_SMALLEST_NOISE = 1e-5
# Prior of C: one pseudo-observation of this variance for each factor and for the bias.
# A handful of ratings then still have effects.
_PRIOR_FACTOR_VARIANCE, _PRIOR_BIAS_VARIANCE = 1e-3, 0.2
# Ratings are summed up in chunks of 2**20.
_CHUNK_WIDTH = 16


class Vectors(NamedTuple):
    """Normal distributions of the vectors of one side.

    Attributes
    ----------
    mean : Tensor of shape (n, k)
        Means. The last entry is the bias.

    covariance : Tensor of shape (n, k * (k + 1) / 2)
        Upper triangles of the covariances.
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def draw(
        cls,
        n: int,
        n_factors: int,
        dtype: torch.dtype,
        generator: torch.Generator,
        device: torch.device,
        share: Share | None = None,
    ) -> Vectors:
        """Draw initial distributions with a generator on the CPU. The biases are 0.

        The n vectors may be a share of those of all ranks.
        """

        def draw(n):
            mean = torch.zeros(n, n_factors + 1, dtype=dtype)
            mean[:, :-1].normal_(0, _INITIAL_STD, generator=generator)
            return mean

        mean = draw(n) if share is None else share.draw(draw)
        eye = torch.eye(n_factors + 1, dtype=dtype).unsqueeze(0)
        packed = Triangle(n_factors + 1, mean.device).pack(_INITIAL_VARIANCE * eye)
        return cls(mean.to(device), packed.repeat(n, 1).to(device))


class Moments:
    """Moments of the vectors of one side, as needed by the sums over ratings.

    Parameters
    ----------
    vectors : Vectors
        Distributions of the vectors.
    """

    def __init__(self, vectors: Vectors):
        mean, covariance = vectors
        self.triangle = t = Triangle(mean.shape[1], mean.device)
        last = t.k - 1
        self.bias = mean[:, last]
        self.z = with_ones(mean)
        # E[z z']: the covariance of an entry of z with its last entry, 1, is 0.
        is_constant = t.columns == last
        self.products = t.outer(self.z)
        self.products += covariance.masked_fill(is_constant, 0)
        # E[z c], whose last entry is E[c], and E[c^2]
        self.z_bias = self.z * self.bias.unsqueeze(1)
        # Covariances with the bias: the last column of the upper triangle, in order
        with_bias = covariance.index_select(1, t.last)
        self.z_bias[:, :last] += with_bias[:, :last]
        squares = self.bias.square() + with_bias[:, last]
        self.linear = torch.cat([self.z, self.bias.unsqueeze(1)], 1)
        squares = squares.unsqueeze(1)
        self.quadratic = torch.cat([self.products, self.z_bias, squares], 1)

    def sums(
        self,
        pattern: Pattern,
        ratings: Tensor,
        weights: Tensor | None,
        entries: Group = ALONE,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the ratings of each row of the other side, which ranks may have.

        `weights` are None if all are 1.

        Returns
        -------
        G : Tensor of shape (n_rows, k * (k + 1) / 2)
            Upper triangles of G in (2).

        h : Tensor of shape (n_rows, k)
            Vectors h in (3).

        residual : Tensor of shape (n_rows,)
            Weighted sums of E[(r - c)^2], without the term r^2.
        """
        k = self.triangle.k
        weighted = ratings if weights is None else ratings * weights
        linear = entries.sum(spmm(pattern, weighted, self.linear))
        quadratic = entries.sum(spmm(pattern, weights, self.quadratic))
        n = self.products.shape[1]
        h = linear[:, :k] - quadratic[:, n : n + k]
        return quadratic[:, :n], h, quadratic[:, -1] - 2 * linear[:, -1]


class Conditional(NamedTuple):
    """Distributions of the vectors of rows, given those of the other side.

    Attributes
    ----------
    covariance : Tensor of shape (n, k, k)
        Covariances S in (2), NaN where the matrix to invert is not positive definite.

    log_det : Tensor of shape (n,)
        Logarithms of the determinants of S.

    h : Tensor of shape (n, k)
        Vectors h in (3).

    residual : Tensor of shape (n,)
        See `Moments.sums`.
    """

    covariance: Tensor
    log_det: Tensor
    h: Tensor
    residual: Tensor

    @classmethod
    def of(
        cls,
        moments: Moments,
        pattern: Pattern,
        ratings: Tensor,
        weights: Tensor | None,
        precision: Tensor,
        noise: Tensor | float,
        entries: Group = ALONE,
    ) -> Conditional:
        """Compute (2) for the rows of a pattern.

        Parameters
        ----------
        moments : Moments
            Moments of the other side.

        pattern : Pattern of shape (n, n_others)
            Positions of the ratings.

        ratings : Tensor of shape (n_ratings,)
            Ratings.

        weights : Tensor of shape (n_ratings,) or None
            Weights of the ratings. None means 1 each.

        precision : Tensor of shape (k, k)
            Precision L of the prior.

        noise : Tensor or float
            Noise variance tau.

        entries : Group
            Ranks that have the ratings of each row.
        """
        G, h, residual = moments.sums(pattern, ratings, weights, entries)
        G = moments.triangle.unpack(G).to(precision.dtype)
        cholesky, info = torch.linalg.cholesky_ex(G / noise + precision)
        is_bad = info > 0
        cholesky.diagonal(dim1=1, dim2=2).masked_fill_(is_bad.unsqueeze(1), 1)
        covariance = inverse_of(cholesky)
        covariance.masked_fill_(is_bad.view(-1, 1, 1), torch.nan)
        log_det = -2 * cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        return cls(covariance, log_det, h.to(precision.dtype), residual)


class Side:
    """Users or items: their ratings, the distributions of their vectors, their prior.

    Parameters
    ----------
    pattern : Pattern of shape (n, n_others)
        Positions of the ratings.

    transposed : Pattern of shape (n_others, n)
        The transposed pattern.

    ratings : Tensor of shape (n_ratings,)
        Ratings.

    weights : Tensor of shape (n_ratings,) or None
        Weights of the ratings. None means 1 each.

    vectors : Vectors
        Initial distributions, changed in place.

    prior : NormalPrior
        Initial prior, changed in place.

    features : Features of n rows or None
        What is known of the rows.

    layout : Layout
        How rows and ratings are dealt out to ranks.

    total : float
        Weighted sum of the squares of all ratings.
    """

    def __init__(
        self,
        pattern: Pattern,
        transposed: Pattern,
        ratings: Tensor,
        weights: Tensor | None,
        vectors: Vectors,
        prior: NormalPrior,
        features: Features | None = None,
        layout: Layout = WHOLE,
        *,
        total: float,
    ):
        self.pattern, self.transposed = pattern, transposed
        self.ratings, self.weights = ratings, weights
        self.vectors, self.prior, self.features = vectors, prior, features
        self.layout = layout
        self.coefficients = Coefficients(prior, pattern, transposed, features, layout)
        self.network: PriorNetwork | None = None
        self.is_rated = self.coefficients.counts > 0
        self.triangle = Triangle(vectors.mean.shape[1], vectors.mean.device)
        # Positions of the rated rows, in all rows and in each chunk of `improve`: a
        # mask would be waited for at each use on a GPU.
        self.rated = self.is_rated.nonzero().squeeze(1)
        self.rated_in = [self.is_rated[c].nonzero().squeeze(1) for c in self._chunks(4)]
        self.n_rated = layout.rows.total(len(self.rated))
        self.total = total
        # This side's terms of the evidence bound; see `_evidence`.
        self.evidence = torch.zeros((), dtype=torch.float64)

    def improve(self, others: Side, noise: Tensor) -> Tensor:
        """Maximize the evidence bound over this side; return the sum of squared errors.

        The noise variance is the current one. The squared errors are expectations.
        """
        t, prior, n = self.triangle, self.prior, self.n_rated
        # Unlike `inv`, `inv_ex` does not wait for a GPU to refuse a singular matrix,
        # which makes the loss not finite.
        L = torch.linalg.inv_ex(prior.covariance).inverse
        mean, covariance = self.vectors
        h = torch.empty_like(mean)
        sums = torch.zeros(2, dtype=torch.float64, device=h.device)
        log_det, residual = sums
        moments = Moments(others.vectors)
        for (rows, part, entries), rated in zip(
            parts(self.pattern, 4 * t.k**2), self.rated_in, strict=True
        ):
            ratings, weights = self.ratings[entries], _at(self.weights, entries)
            found = Conditional.of(
                moments, part, ratings, weights, L, noise, self.layout.entries
            )
            covariance[rows], h[rows] = t.pack(found.covariance), found.h
            log_det += found.log_det.index_select(0, rated).double().sum()
            residual += found.residual.double().sum()
        over_rows = self.layout.rows.sum
        log_det, residual = over_rows(sums)
        self._fit_means(L, h / noise)
        deviation = (mean - self.prior_means()).index_select(0, self.rated)
        total = t.unpack(self._rated_sum(covariance))[0]
        # By (2) and (3), G mean = h + tau L (m - mean) and G S = tau (I - L S).
        errors = residual + self.total - over_rows((mean * h).double().sum())
        inner = mean.index_select(0, self.rated) @ L * deviation
        inner = over_rows(inner.double().sum())
        errors -= noise * (inner - n * t.k + (L * total).double().sum())
        scatter = over_rows(deviation.T @ deviation) + total
        scatter.diagonal().add_(_PRIOR_FACTOR_VARIANCE)
        scatter[-1, -1] += _PRIOR_BIAS_VARIANCE - _PRIOR_FACTOR_VARIANCE
        prior.covariance.copy_(scatter / (n + 1))
        self.evidence = self._evidence(log_det)
        if prior.has_inputs:
            fit_precisions(self.coefficients, self.variances)
        return errors

    def prior_means(self) -> Tensor:
        """Prior means of all rows."""
        means = self.coefficients.means()
        return means if self.network is None else means + self.network.means()

    def _fit_means(self, L: Tensor, h: Tensor) -> None:
        """Solve for prior means with the vectors integrated out, then for the means.

        `h` are the vectors h of all rows, divided by the noise variance.
        """
        t, prior, mean = self.triangle, self.prior, self.vectors.mean
        S = self.vectors.covariance
        for rows in self._chunks(2):
            mean[rows] = (t.unpack(S[rows]) @ h[rows].unsqueeze(-1)).squeeze(-1)
        q = torch.where(self.is_rated.unsqueeze(1), mean, 0) @ L
        if prior.has_inputs or self.network is not None:
            network = self.network
            self.variances = solve_means(self.coefficients, L, S, q, network)
        else:
            # The sum of P over all rows, and its product with the common mean
            total = t.unpack(self._rated_sum(S))[0]
            P = self.n_rated * L - L @ total @ L
            P.diagonal().add_(CENTER_PRECISION)
            target = self.layout.rows.sum(q.sum(0))
            prior.center.copy_(torch.linalg.solve_ex(P, target).result)
        shift = self.prior_means() @ L
        for rows in self._chunks(2):
            mean[rows] += (t.unpack(S[rows]) @ shift[rows].unsqueeze(-1)).squeeze(-1)

    def _evidence(self, log_det: Tensor) -> Tensor:
        """Terms of the evidence bound that belong to this side, at the optimal C."""
        prior, n, k = self.prior, self.n_rated, self.triangle.k
        terms = 0.5 * (log_det + n * k - (n + 1) * k)
        terms -= 0.5 * (n + 1) * torch.logdet(prior.covariance).double()
        squares = self.coefficients.stack().square()
        penalty = self.coefficients.penalties() * squares
        terms -= 0.5 * self.coefficients.total(penalty.double())
        return terms if self.network is None else terms - self.network.penalty()

    def _rated_sum(self, covariances: Tensor) -> Tensor:
        """Sum over the rated rows."""
        rated = covariances.index_select(0, self.rated)
        return self.layout.rows.sum(rated.sum(0, keepdim=True))

    def _chunks(self, n_matrices: int) -> list[slice]:
        """Ranges of rows for which so many matrices each fit in memory."""
        return row_chunks(len(self.vectors.mean), n_matrices * self.triangle.k**2)


class Factorization:
    """Variational factorization of a rating matrix.

    Parameters
    ----------
    pattern : Pattern of shape (n_users, n_items)
        Positions of the ratings.

    ratings : Tensor of shape (n_ratings,)
        Ratings minus their mean.

    weights : Tensor of shape (n_ratings,) or None
        Weights of the ratings. None means 1 each.

    users, items : Vectors
        Initial distributions, changed in place.

    user_prior, item_prior : NormalPrior
        Initial priors, changed in place.

    user_features, item_features : Features or None
        What is known of users and items.

    group : Group
        Ranks that have the users.
    """

    def __init__(
        self,
        pattern: Pattern,
        ratings: Tensor,
        weights: Tensor | None,
        users: Vectors,
        items: Vectors,
        user_prior: NormalPrior,
        item_prior: NormalPrior,
        user_features: Features | None = None,
        item_features: Features | None = None,
        group: Group = ALONE,
    ):
        order, transposed = pattern.transpose()
        total = group.total(squares_of(ratings, weights))
        self.users = Side(
            pattern,
            transposed,
            ratings,
            weights,
            users,
            user_prior,
            user_features,
            Layout(rows=group),
            total=total,
        )
        self.items = Side(
            transposed,
            pattern,
            ratings.index_select(0, order),
            _at(weights, order),
            items,
            item_prior,
            item_features,
            Layout(entries=group),
            total=total,
        )
        self.n_ratings = group.total(len(ratings))
        variance = total / self.n_ratings or 1.0  # if all ratings are equal
        self.noise = ratings.new_full((), _NOISE_VARIANCE * variance)
        self.smallest_noise = _SMALLEST_NOISE * variance
        log_weights = 0.0
        if weights is not None:
            log_weights = float(weights.log().double().sum())
        self.log_weights = group.total(log_weights)

    def parameters(self) -> list[Tensor]:
        """All tensors that a sweep changes."""
        sides = self.users, self.items
        return [
            *(t for side in sides for t in (*side.vectors, *side.prior)),
            self.noise,
        ]

    def sweep(self) -> float:
        """Improve users and items; return the negative evidence bound."""
        self.improve(self.users, self.items)
        self.improve(self.items, self.users)
        return self.loss()

    def improve(self, side: Side, others: Side) -> None:
        """Maximize the evidence bound over one side and the noise variance."""
        errors = side.improve(others, self.noise)
        self.noise.copy_((errors / self.n_ratings).clamp(min=self.smallest_noise))

    def loss(self) -> float:
        """Negative evidence bound at the optimal noise variance."""
        n = self.n_ratings
        fit = 0.5 * n * (1 + math.log(2 * math.pi) + self.noise.double().log())
        evidence = self.users.evidence + self.items.evidence + 0.5 * self.log_weights
        return float(fit - evidence)

    def predict(self, pattern: Pattern) -> Tensor:
        """Expected ratings at the entries of a pattern, minus the mean."""
        users, items = self.users.vectors.mean, self.items.vectors.mean
        biases = items[:, -1].index_select(0, pattern.col)
        return sddmm(pattern, users, with_ones(items)) + biases


def squares_of(ratings: Tensor, weights: Tensor | None) -> float:
    """Sum of the weighted squares, in double precision."""
    total = 0.0
    for part in row_chunks(len(ratings), _CHUNK_WIDTH):
        squares = ratings[part].square()
        if weights is not None:
            squares = weights[part] * squares
        total += float(squares.double().sum())
    return total


def _at(weights: Tensor | None, entries: slice | Tensor) -> Tensor | None:
    return None if weights is None else weights[entries]


def fold_in(
    moments: Moments,
    prior: NormalPrior,
    noise: float,
    pattern: Pattern,
    ratings: Tensor,
    weights: Tensor,
) -> Tensor:
    """Compute the expected vectors (3) of new users.

    Parameters
    ----------
    moments : Moments
        Moments of the items.

    prior : NormalPrior
        Prior of the users, in double precision.

    noise : float
        Noise variance.

    pattern : Pattern of shape (n_rows, n_items)
        Positions of the ratings.

    ratings, weights : Tensor of shape (nnz,)
        Ratings minus their mean, and their weights.

    Returns
    -------
    vectors : Tensor of shape (n_rows, k), in double precision
    """
    L, dtype = torch.linalg.inv(prior.covariance), moments.z.dtype
    ratings, weights = ratings.to(dtype), weights.to(dtype)
    found = []
    for _, part, entries in parts(pattern, 4 * moments.triangle.k**2):
        given = Conditional.of(
            moments, part, ratings[entries], weights[entries], L, noise
        )
        target = given.h / noise + prior.means(part) @ L
        found.append((given.covariance @ target.unsqueeze(-1)).squeeze(-1))
    return torch.cat(found)


def leave_out(
    moments: Moments,
    prior: NormalPrior,
    noise: float | Tensor,
    pattern: Pattern,
    ratings: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute what the other ratings of its row tell about each rating of new users.

    Without a rating, the sums G and h in (2) and (3) lose its term, and so does the sum
    of the links in (4). Since the term of a rating has full rank, each rating is a
    system of its own.

    Parameters
    ----------
    moments : Moments
        Moments of the items.

    prior : NormalPrior
        Prior of the users, in double precision.

    noise : float or Tensor of shape (nnz,)
        Noise variance of the other ratings, which may depend on the one that is left
        out.

    pattern : Pattern of shape (n_rows, n_items)
        Positions of the ratings.

    ratings, weights : Tensor of shape (nnz,)
        Ratings minus their mean, and their weights, in double precision.

    Returns
    -------
    vectors : Tensor of shape (nnz, k)
        Expected vectors of the users without each rating; arbitrary in a row with one
        rating.

    predicted : Tensor of shape (nnz,)
        Their predictions of the ratings, minus the mean.
    """
    t, dtype = moments.triangle, ratings.dtype
    L = torch.linalg.inv(prior.covariance)
    G, h, _ = moments.sums(
        pattern, ratings.to(moments.z.dtype), weights.to(moments.z.dtype)
    )
    counts = pattern.crow.diff().unsqueeze(1).to(dtype)
    means = prior.means(pattern)
    # Sum of the links, for the division by the root of one rating less
    links = (means - prior.center) * counts.sqrt()
    fewer = (counts - 1).clamp(min=1).rsqrt()
    noises = torch.as_tensor(noise, dtype=dtype, device=ratings.device)
    noises = noises.expand(pattern.nnz).unsqueeze(1)
    vectors, predicted = ratings.new_empty(pattern.nnz, t.k), torch.empty_like(ratings)
    for part in row_chunks(pattern.nnz, 3 * t.k**2):
        row, col = pattern.row[part], pattern.col[part]
        weight, tau = weights[part].unsqueeze(1), noises[part]
        others = G[row].to(dtype) - weight * moments.products[col]
        A = t.unpack(others / tau) + L
        z = moments.z[col].to(dtype)
        own = weight * (z * ratings[part].unsqueeze(1) - moments.z_bias[col])
        mean = means[row]
        if len(prior.links):
            mean = prior.center + (links[row] - prior.links[col]) * fewer[row]
        target = (h[row] - own) / tau + mean @ L
        vectors[part] = torch.linalg.solve(A, target.unsqueeze(-1)).squeeze(-1)
        predicted[part] = (z * vectors[part]).sum(1) + moments.bias[col]
    return vectors, predicted
