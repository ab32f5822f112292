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

The prior means are a common center or, with links, moved by the rated others:

    (4)  m = a + sum_j y_j / sqrt(n)

for n ratings. The center a and the links y are solved for with the vectors integrated
out: they minimize, up to their own penalty,

    (5)  sum_u m' P m / 2 - m' q,  P = L - L S L,  q = L S h / tau
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .chunks import row_chunks
from .conjugate_gradients import solve_columns
from .normal_rows import implicit_means, implicit_values, parts, with_ones
from .sparse import Pattern, sddmm, spmm
from .symmetric import Triangle

# Initial standard deviation and variance of the factors
_INITIAL_STD, _INITIAL_VARIANCE = 0.3, 0.05
# Initial variances in the prior of a factor and of a bias, and of the noise, relative
# to the variance of the ratings. With little noise at first, factors follow the ratings
# before the prior may shrink them to nothing.
_FACTOR_VARIANCE, _BIAS_VARIANCE, _NOISE_VARIANCE = 0.1, 0.2, 0.2
# Smallest variance of the noise, relative to that of the ratings. Ratings without noise
# would need more than the working precision.
_SMALLEST_NOISE = 1e-5
# Prior of C: one pseudo-observation of this variance for each factor and for the bias.
# A handful of ratings then still have effects.
_PRIOR_FACTOR_VARIANCE, _PRIOR_BIAS_VARIANCE = 1e-3, 0.2
# Precision of the prior of the center, initial precision of the links and its range
_CENTER_PRECISION, LINK_PRECISION = 0.1, 100.0
_LINK_PRECISIONS = 1.0, 1e5
# Tolerance of the conjugate gradients of the links
_TOLERANCE = 1e-2


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
    ) -> Vectors:
        """Draw initial distributions with a generator on the CPU. The biases are 0."""
        mean = torch.zeros(n, n_factors + 1, dtype=dtype)
        mean[:, :-1].normal_(0, _INITIAL_STD, generator=generator)
        eye = torch.eye(n_factors + 1, dtype=dtype).unsqueeze(0)
        packed = Triangle(n_factors + 1, mean.device).pack(_INITIAL_VARIANCE * eye)
        return cls(mean.to(device), packed.repeat(n, 1).to(device))


class NormalPrior(NamedTuple):
    """Normal prior of the vectors of one side.

    Attributes
    ----------
    center : Tensor of shape (k,)
        Mean without links.

    covariance : Tensor of shape (k, k)
        Covariance.

    links : Tensor of shape (n_others, k) or (0, k)
        Links y in (4); no rows if there are none.

    link_precision : Tensor of shape (k,)
        Precision of the entries of the links.
    """

    center: Tensor
    covariance: Tensor
    links: Tensor
    link_precision: Tensor

    @classmethod
    def start(
        cls, n_factors: int, n_links: int, dtype: torch.dtype, device: torch.device
    ) -> NormalPrior:
        """Initial prior for ratings of variance 1."""
        variances = torch.full(
            (n_factors + 1,), _FACTOR_VARIANCE, dtype=dtype, device=device
        )
        variances[-1] = _BIAS_VARIANCE
        return cls(
            torch.zeros_like(variances),
            torch.diag(variances),
            variances.new_zeros(n_links, n_factors + 1),
            torch.full_like(variances, LINK_PRECISION),
        )

    def means(self, pattern: Pattern) -> Tensor:
        """Prior means of rows with ratings at the entries of a pattern."""
        center = self.center.expand(pattern.shape[0], -1)
        if not len(self.links):
            return center
        # A row without ratings divides 0 by 0.
        return center + implicit_means(pattern, self.links).nan_to_num_(0.0)


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
        with_bias = covariance[:, is_constant]  # covariances with the bias, in order
        self.z_bias[:, :last] += with_bias[:, :last]
        squares = self.bias.square() + with_bias[:, last]
        self.linear = torch.cat([self.z, self.bias.unsqueeze(1)], 1)
        squares = squares.unsqueeze(1)
        self.quadratic = torch.cat([self.products, self.z_bias, squares], 1)

    def sums(
        self, pattern: Pattern, ratings: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the ratings of each row of the other side.

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
        linear = spmm(pattern, ratings * weights, self.linear)
        quadratic = spmm(pattern, weights, self.quadratic)
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
        weights: Tensor,
        precision: Tensor,
        noise: Tensor | float,
    ) -> Conditional:
        """Compute (2) for the rows of a pattern.

        Parameters
        ----------
        moments : Moments
            Moments of the other side.

        pattern : Pattern of shape (n, n_others)
            Positions of the ratings.

        ratings, weights : Tensor of shape (n_ratings,)
            Ratings and their weights.

        precision : Tensor of shape (k, k)
            Precision L of the prior.

        noise : Tensor or float
            Noise variance tau.
        """
        G, h, residual = moments.sums(pattern, ratings, weights)
        G = moments.triangle.unpack(G).to(precision.dtype)
        cholesky, info = torch.linalg.cholesky_ex(G / noise + precision)
        cholesky[info > 0] = torch.eye(len(precision)).to(cholesky)
        covariance = torch.cholesky_inverse(cholesky)
        covariance[info > 0] = torch.nan
        log_det = -2 * cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        return cls(covariance, log_det, h.to(precision.dtype), residual)


class Side:
    """Users or items: their ratings, the distributions of their vectors, their prior.

    Parameters
    ----------
    pattern : Pattern of shape (n, n_others)
        Positions of the ratings.

    ratings, weights : Tensor of shape (n_ratings,)
        Ratings and their weights.

    vectors : Vectors
        Initial distributions, changed in place.

    prior : NormalPrior
        Initial prior, changed in place.
    """

    def __init__(
        self,
        pattern: Pattern,
        ratings: Tensor,
        weights: Tensor,
        vectors: Vectors,
        prior: NormalPrior,
    ):
        self.pattern, self.ratings, self.weights = pattern, ratings, weights
        self.vectors, self.prior = vectors, prior
        self.is_rated = pattern.crow.diff() > 0
        self.n_rated = int(self.is_rated.sum())
        self.triangle = Triangle(vectors.mean.shape[1], vectors.mean.device)
        self.total = float((weights * ratings.square()).double().sum())
        # This side's terms of the evidence bound; see `_evidence`.
        self.evidence = torch.zeros((), dtype=torch.float64)

    def improve(self, others: Side, noise: Tensor) -> Tensor:
        """Maximize the evidence bound over this side; return the sum of squared errors.

        The noise variance is the current one. The squared errors are expectations.
        """
        t, prior, n = self.triangle, self.prior, self.n_rated
        L = torch.linalg.inv(prior.covariance)
        mean, covariance = self.vectors
        h = torch.empty_like(mean)
        log_det, residual = torch.zeros(2, dtype=torch.float64, device=h.device)
        moments = Moments(others.vectors)
        for rows, part, entries in parts(self.pattern, 4 * t.k**2):
            ratings, weights = self.ratings[entries], self.weights[entries]
            found = Conditional.of(moments, part, ratings, weights, L, noise)
            covariance[rows], h[rows] = t.pack(found.covariance), found.h
            log_det += found.log_det[self.is_rated[rows]].double().sum()
            residual += found.residual.double().sum()
        self._fit_means(L, h / noise)
        prior_mean = prior.means(self.pattern)
        deviation = (mean - prior_mean)[self.is_rated]
        total = t.unpack(covariance[self.is_rated].sum(0, keepdim=True))[0]
        # By (2) and (3), G mean = h + tau L (m - mean) and G S = tau (I - L S).
        errors = residual + self.total - (mean * h).double().sum()
        inner = (mean[self.is_rated] @ L * deviation).double().sum()
        errors -= noise * (inner - n * t.k + (L * total).double().sum())
        scatter = deviation.T @ deviation + total
        scatter.diagonal().add_(_PRIOR_FACTOR_VARIANCE)
        scatter[-1, -1] += _PRIOR_BIAS_VARIANCE - _PRIOR_FACTOR_VARIANCE
        prior.covariance.copy_(scatter / (n + 1))
        self.evidence = self._evidence(log_det)
        self._fit_link_precision()
        return errors

    def _fit_means(self, L: Tensor, h: Tensor) -> None:
        """Solve for prior means with the vectors integrated out, then for the means.

        `h` are the vectors h of all rows, divided by the noise variance.
        """
        t, prior, mean = self.triangle, self.prior, self.vectors.mean
        S = self.vectors.covariance
        for rows in self._chunks():
            mean[rows] = (t.unpack(S[rows]) @ h[rows].unsqueeze(-1)).squeeze(-1)
        rated = self.is_rated.unsqueeze(1)
        q = torch.where(rated, mean, 0) @ L
        if len(prior.links):
            self._fit_links(L, q)
        else:
            # The sum of P over all rows, and its product with the common mean
            total = t.unpack(S[self.is_rated].sum(0, keepdim=True))[0]
            P = self.n_rated * L - L @ total @ L
            P.diagonal().add_(_CENTER_PRECISION)
            prior.center.copy_(torch.linalg.solve(P, q.sum(0)))
        shift = prior.means(self.pattern) @ L
        for rows in self._chunks():
            mean[rows] += (t.unpack(S[rows]) @ shift[rows].unsqueeze(-1)).squeeze(-1)

    def _fit_links(self, L: Tensor, q: Tensor) -> None:
        """Solve (5) for the center and the links by conjugate gradients."""
        t, prior, pattern = self.triangle, self.prior, self.pattern
        transposed = pattern.transposed
        values = implicit_values(pattern, L.dtype)
        back = values[pattern.order]
        S = t.unpack(self.vectors.covariance)
        # (L - L S L) x, of rows with ratings; without them it is 0, since S = L^-1.
        rated = self.is_rated.unsqueeze(1)

        def gather(x):
            """Apply the transposed map from center and links to the prior means."""
            return torch.cat([x.sum(0, keepdim=True), spmm(transposed, back, x)])

        def times(x):
            x = x.view(-1, t.k)
            means = (x[0] + spmm(pattern, values, x[1:])) @ L
            image = means - (S @ means.unsqueeze(-1)).squeeze(-1) @ L
            return (gather(torch.where(rated, image, 0)) + ridge * x).view(-1, 1)

        ridge = torch.cat(
            [
                torch.full_like(prior.links[:1], _CENTER_PRECISION),
                prior.link_precision.expand_as(prior.links),
            ]
        )
        start = torch.cat([prior.center.unsqueeze(0), prior.links])
        # Diagonals of all P
        diagonal = L.diagonal() - torch.einsum("ab,nbc,ca->na", L, S, L)
        diagonal = torch.where(rated, diagonal, 0)
        self.diagonal = ridge + torch.cat(
            [diagonal.sum(0, keepdim=True), spmm(transposed, back.square(), diagonal)]
        )
        found = solve_columns(
            times,
            gather(q).view(-1, 1),
            self.diagonal.view(-1, 1),
            start.view(-1, 1),
            tolerance=_TOLERANCE,
        ).view(-1, t.k)
        prior.center.copy_(found[0])
        prior.links.copy_(found[1:])

    def _fit_link_precision(self) -> None:
        """Estimate the links' precision; the diagonal of (5) gives their variances."""
        prior = self.prior
        if len(prior.links):
            squares = prior.links.square() + 1 / self.diagonal[1:]
            precision = len(prior.links) / squares.sum(0)
            prior.link_precision.copy_(precision.clamp(*_LINK_PRECISIONS))

    def _evidence(self, log_det: Tensor) -> Tensor:
        """Terms of the evidence bound that belong to this side, at the optimal C."""
        prior, n, k = self.prior, self.n_rated, self.triangle.k
        terms = 0.5 * (log_det + n * k - (n + 1) * k)
        terms -= 0.5 * (n + 1) * torch.logdet(prior.covariance).double()
        terms -= 0.5 * _CENTER_PRECISION * prior.center.square().double().sum()
        penalty = prior.link_precision * prior.links.square()
        return terms - 0.5 * penalty.double().sum()

    def _chunks(self) -> list[slice]:
        return row_chunks(len(self.vectors.mean), 2 * self.triangle.k**2)


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
    ):
        weights = torch.ones_like(ratings) if weights is None else weights
        order = pattern.order
        self.users = Side(pattern, ratings, weights, users, user_prior)
        self.items = Side(
            pattern.transposed, ratings[order], weights[order], items, item_prior
        )
        self.n_ratings = len(ratings)
        variance = (weights * ratings.square()).mean()
        variance = torch.where(variance > 0, variance, 1.0)  # if all ratings are equal
        self.noise = _NOISE_VARIANCE * variance
        self.smallest_noise = _SMALLEST_NOISE * float(variance)
        self.log_weights = float(weights.log().double().sum())

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
