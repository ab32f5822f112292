"""Prior means of the vectors of one side, from what is known of its rows.

The prior mean of a row is a common center, moved by the n others that it has ratings
of, and by its features x:

    (1)  m = a + sum_j y_j / sqrt(n) + W' x

A network may be another part of it. The center a, the links y and the weights W are
solved for with the vectors integrated out. With the prior precision L = C^-1, the
covariance S of a row and its vector h, see `variational`, they minimize, up to their
own penalty,

    (2)  sum_rows m' P m / 2 - m' q,  P = L - L S L,  q = L S h / tau

Rows without ratings have P = 0 and drop out. The entries of the links, and of the
weights of each block of features, have normal priors. Their precisions are estimated,
one for each block and each entry of a vector, so that a block that says nothing gets
weights near 0.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .collectives import WHOLE, Layout
from .conjugate_gradients import solve_columns
from .normal_rows import implicit_means, implicit_values
from .sparse import Pattern, spmm
from .symmetric import Triangle

# Initial variances in the prior of a factor and of a bias, relative to the variance of
# the ratings
_FACTOR_VARIANCE, _BIAS_VARIANCE = 0.1, 0.2
# Precision of the prior of the center; of links and weights, the initial one and range
CENTER_PRECISION, INITIAL_PRECISION = 0.1, 100.0
_PRECISIONS = 1.0, 1e5
# Tolerance of the conjugate gradients
_TOLERANCE = 1e-2


class Features:
    """Features of the rows of one side, in centered blocks of columns.

    Parameters
    ----------
    values : Tensor of shape (n, p) or tuple of Pattern and Tensor of shape (nnz,)
        Features, before centering; dense or sparse.

    center : Tensor of shape (p,)
        Centers of the columns.

    block : Tensor of shape (p,)
        Index of the block of each column.

    is_known : Tensor of shape (n,), dtype bool
        Mask of the rows that have features. The others have those of the center.
    """

    def __init__(
        self,
        values: Tensor | tuple[Pattern, Tensor],
        center: Tensor,
        block: Tensor,
        is_known: Tensor,
    ):
        self.values, self.center, self.block = values, center, block
        self.is_known = is_known.to(center.dtype).unsqueeze(1)
        self.n_blocks = int(block.max()) + 1
        self.block_sizes = torch.bincount(block).to(center.dtype).unsqueeze(1)

    def means(self, weights: Tensor) -> Tensor:
        """Products with weights of shape (p, k)."""
        if isinstance(self.values, tuple):
            products = spmm(*self.values, weights)
        else:
            products = self.values @ weights
        return self.is_known * (products - self.center @ weights)

    def dense(self) -> Tensor:
        """Centered features, of shape (n, p)."""
        values = self.values
        if isinstance(values, tuple):
            pattern, entries = values
            values = entries.new_zeros(pattern.shape)
            values[pattern.row, pattern.col] = entries
        return self.is_known * (values - self.center)

    def gather(self, x: Tensor) -> Tensor:
        """Products of the transposed features with x of shape (n, k)."""
        x = self.is_known * x
        return self._transposed(x, 1) - torch.outer(self.center, x.sum(0))

    def gather_squares(self, x: Tensor) -> Tensor:
        """The same with the squares of the centered features."""
        x = self.is_known * x
        center = self.center.unsqueeze(1)
        squares = self._transposed(x, 2) - 2 * center * self._transposed(x, 1)
        return squares + center.square() * x.sum(0)

    def precisions(self, squares: Tensor) -> Tensor:
        """Precisions of the weights of each block, given their expected squares."""
        sums = squares.new_zeros(self.n_blocks, squares.shape[1])
        sums.index_add_(0, self.block, squares)
        return (self.block_sizes / sums).clamp(*_PRECISIONS)

    def _transposed(self, x: Tensor, power: int) -> Tensor:
        if isinstance(self.values, tuple):
            pattern, values = self.values
            return spmm(pattern.transposed, values[pattern.order] ** power, x)
        return (self.values**power).T @ x


class NormalPrior(NamedTuple):
    """Normal prior of the vectors of one side.

    Attributes
    ----------
    center : Tensor of shape (k,)
        Mean without links and features.

    covariance : Tensor of shape (k, k)
        Covariance.

    links : Tensor of shape (n_others, k) or (0, k)
        Links y in (1); no rows if there are none.

    link_precision : Tensor of shape (k,)
        Precision of the entries of the links.

    weights : Tensor of shape (p, k) or (0, k)
        Weights W in (1).

    weight_precision : Tensor of shape (n_blocks, k) or (0, k)
        Precision of the entries of the weights of each block.
    """

    center: Tensor
    covariance: Tensor
    links: Tensor
    link_precision: Tensor
    weights: Tensor
    weight_precision: Tensor

    @classmethod
    def of(cls, center: Tensor, covariance: Tensor, links: Tensor) -> NormalPrior:
        """Prior without features."""
        precision = torch.full_like(center, INITIAL_PRECISION)
        none = center.new_zeros(0, len(center))
        return cls(center, covariance, links, precision, none, none.clone())

    @classmethod
    def start(
        cls,
        n_factors: int,
        n_links: int,
        dtype: torch.dtype,
        device: torch.device,
        features: Features | None = None,
    ) -> NormalPrior:
        """Initial prior for ratings of variance 1."""
        variances = torch.full(
            (n_factors + 1,), _FACTOR_VARIANCE, dtype=dtype, device=device
        )
        variances[-1] = _BIAS_VARIANCE
        links = variances.new_zeros(n_links, len(variances))
        prior = cls.of(torch.zeros_like(variances), torch.diag(variances), links)
        if features is None:
            return prior
        shape = features.n_blocks, len(variances)
        return prior._replace(
            weights=variances.new_zeros(len(features.block), len(variances)),
            weight_precision=variances.new_full(shape, INITIAL_PRECISION),
        )

    @property
    def has_inputs(self) -> bool:
        """Whether the means of rows differ."""
        return len(self.links) + len(self.weights) > 0

    def means(
        self,
        pattern: Pattern,
        features: Features | None = None,
    ) -> Tensor:
        """Prior means (1) of rows, whose ratings are all on this rank.

        Parameters
        ----------
        pattern : Pattern of shape (n, n_others)
            Positions of their ratings.

        features : Features of n rows or None
            Features; without them, the rows have those of the center.

        Returns
        -------
        means : Tensor of shape (n, k)
        """
        means = self.center.expand(pattern.shape[0], -1)
        if len(self.links):
            means = means + implicit_means(pattern, self.links)
        if features is not None:
            means = means + features.means(self.weights)
        return means


class PriorNetwork(Protocol):
    """Part of the prior means of all rows that is trained by gradient descent."""

    def means(self) -> Tensor:
        """Return the part of the prior means, of shape (n, k)."""

    def descend(
        self, L: Tensor, covariances: Tensor, q: Tensor, others: Tensor
    ) -> None:
        """Descend the objective (2).

        Parameters
        ----------
        L, covariances, q : Tensor
            As for `solve_means`.

        others : Tensor of shape (n, k)
            The other part of the prior means.
        """

    def penalty(self) -> Tensor | float:
        """Return the penalty on the parameters of the network, a scalar."""


class Coefficients:
    """Linear map from center, links and weights, stacked, to the prior means of rows.

    Parameters
    ----------
    prior : NormalPrior
        Prior with the present coefficients.

    pattern : Pattern of shape (n, n_others)
        Positions of the ratings.

    transposed : Pattern of shape (n_others, n)
        The transposed pattern.

    features : Features of n rows or None
        Features of the rows.

    layout : Layout
        How rows and entries are dealt out to ranks. Links to others that are dealt out
        are with the others.
    """

    def __init__(
        self,
        prior: NormalPrior,
        pattern: Pattern,
        transposed: Pattern,
        features: Features | None,
        layout: Layout = WHOLE,
    ):
        self.prior, self.pattern, self.features = prior, pattern, features
        self.transposed, self.layout = transposed, layout
        self.sizes = [1, len(prior.links), len(prior.weights)]
        # Number of ratings of each row, and factor of its links
        self.counts = layout.entries.sum(pattern.crow.diff())
        self.link_values = implicit_values(self.counts, prior.center.dtype)

    def stack(self) -> Tensor:
        """Present coefficients."""
        prior = self.prior
        return torch.cat([prior.center.unsqueeze(0), prior.links, prior.weights])

    def store(self, coefficients: Tensor) -> None:
        """Replace the coefficients."""
        center, links, weights = coefficients.split(self.sizes)
        self.prior.center.copy_(center[0])
        self.prior.links.copy_(links)
        self.prior.weights.copy_(weights)

    def penalties(self) -> Tensor:
        """Precision of each coefficient."""
        prior = self.prior
        rows = [
            torch.full_like(prior.center, CENTER_PRECISION).unsqueeze(0),
            prior.link_precision.expand_as(prior.links),
        ]
        if self.features is not None:
            rows.append(prior.weight_precision[self.features.block])
        return torch.cat(rows)

    def means(self, coefficients: Tensor | None = None) -> Tensor:
        """Prior means, by default for the present coefficients."""
        if coefficients is None:
            coefficients = self.stack()
        center, links, weights = coefficients.split(self.sizes)
        means = center.expand(self.pattern.shape[0], -1)
        if len(links):
            moves = self.layout.entries.sum(spmm(self.pattern, None, links))
            means = means + self.link_values * moves
        if self.features is not None:
            means = means + self.features.means(weights)
        return means

    def gather(self, x: Tensor, *, squares: bool = False) -> Tensor:
        """Apply the transposed map, or that of the squared inputs."""
        rows = [x.sum(0, keepdim=True)]
        if self.sizes[1]:
            factor = self.link_values.square() if squares else self.link_values
            rows.append(spmm(self.transposed, None, factor * x))
        if self.features is not None:
            gather = self.features.gather_squares if squares else self.features.gather
            rows.append(gather(x))
        return self.layout.rows.sum(torch.cat(rows))

    @property
    def n_shared(self) -> int | None:
        """Number of the first coefficients that all ranks have, if not all."""
        is_whole = self.layout.entries.size == 1 or not self.sizes[1]
        return None if is_whole else 1

    def total(self, x: Tensor) -> Tensor:
        """Sum of a value of each coefficient, of shape (n, k)."""
        if self.n_shared is None:
            return x.sum()
        return x[: self.n_shared].sum() + self.layout.entries.sum(
            x[self.n_shared :].sum()
        )


def solve_means(
    coefficients: Coefficients,
    L: Tensor,
    covariances: Tensor,
    q: Tensor,
    network: PriorNetwork | None = None,
) -> Tensor:
    """Minimize (2) over center, links and weights, in place, by conjugate gradients.

    Parameters
    ----------
    coefficients : Coefficients
        Coefficients of n rows, whose present values are the start.

    L : Tensor of shape (k, k)
        Prior precision.

    covariances : Tensor of shape (n, k * (k + 1) / 2)
        Upper triangles of the covariances S of the rows.

    q : Tensor of shape (n, k)
        Vectors q in (2), 0 in rows without ratings.

    network : PriorNetwork or None
        Further part of the prior means. Once the others are solved for, it descends.

    Returns
    -------
    variances : Tensor
        Approximate posterior variance of each coefficient, from the diagonal of (2).
    """
    k = len(L)
    S = Triangle(k, L.device).unpack(covariances)
    penalties = coefficients.penalties()
    # P is 0 in rows without ratings.
    rated = (coefficients.counts > 0).unsqueeze(1)

    def precision_times(means):
        """Products P m of all rows."""
        means = means @ L
        image = means - (S @ means.unsqueeze(-1)).squeeze(-1) @ L
        return torch.where(rated, image, 0)

    def times(x):
        x = x.view(-1, k)
        image = coefficients.gather(precision_times(coefficients.means(x)))
        return (image + penalties * x).view(-1, 1)

    diagonal = L.diagonal() - torch.einsum("ab,nbc,ca->na", L, S, L)
    diagonal = torch.where(rated, diagonal, 0)
    diagonal = penalties + coefficients.gather(diagonal, squares=True)
    target = q if network is None else q - precision_times(network.means())
    found = solve_columns(
        times,
        coefficients.gather(target).view(-1, 1),
        diagonal.view(-1, 1),
        coefficients.stack().view(-1, 1),
        tolerance=_TOLERANCE,
        group=coefficients.layout.group,
        n_shared=None if coefficients.n_shared is None else coefficients.n_shared * k,
    )
    found = found.view(-1, k)
    coefficients.store(found)
    if network is not None:
        network.descend(L, covariances, q, coefficients.means(found))
    return 1 / diagonal


def fit_precisions(coefficients: Coefficients, variances: Tensor) -> None:
    """Estimate the precisions of links and weights, in place.

    The arguments are those of `solve_means` and its result.
    """
    prior, features = coefficients.prior, coefficients.features
    squares = coefficients.stack().square() + variances
    _, links, weights = squares.split(coefficients.sizes)
    if len(links):
        entries = coefficients.layout.entries
        precision = entries.total(len(links)) / entries.sum(links.sum(0))
        prior.link_precision.copy_(precision.clamp(*_PRECISIONS))
    if features is not None:
        prior.weight_precision.copy_(features.precisions(weights))
