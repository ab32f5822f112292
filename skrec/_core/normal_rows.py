"""Normal posterior distributions of many rows, given ratings of shared items.

Row i has ratings r of some items, whose vectors are the rows z_j of a matrix. The
vector w of the row has a normal prior with mean m_i and a precision matrix P that all
rows share. Each rating has an error of precision c_j around z_j' w. The posterior of w
is normal, with

    (1)  precision  A_i = P + sum_j c_j z_j z_j'
    (2)  mean       A_i^-1 (P m_i + sum_j c_j r_j z_j)

The mean is the ridge regression of the ratings with the penalty (w - m)' P (w - m).
The matrices A of all rows are one SpMM, of the ratings' pattern with the products of
the entries of each z. With an implicit prior, the mean depends on which n_i items the
row has rated,

    (3)  m_i = m + sum_j y_j / sqrt(n_i)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .chunks import chunk_length
from .collectives import ALONE, Group
from .sparse import Part, Pattern, sddmm, spmm
from .symmetric import Triangle, inverse_of


class Posterior(NamedTuple):
    """Posterior distribution of each row's vector.

    Attributes
    ----------
    mean : Tensor of shape (n_rows, k)
        Means (2), NaN where A is singular to working precision.

    cholesky : Tensor of shape (n_rows, k, k)
        Lower Cholesky factor of each A.
    """

    mean: Tensor
    cholesky: Tensor

    def draw(self, normal: Tensor) -> Tensor:
        """Turn standard normal numbers of shape (n_rows, k) into vectors."""
        # L'^-1 times standard normal numbers has the covariance (L L')^-1 = A^-1.
        upper = self.cholesky.mT
        moves = torch.linalg.solve_triangular(upper, normal.unsqueeze(-1), upper=True)
        return self.mean + moves.squeeze(-1)


def with_ones(vectors: Tensor) -> Tensor:
    """Vectors with 1 in place of the bias (last entry): features of the other side."""
    return torch.cat([vectors[:, :-1], torch.ones_like(vectors[:, -1:])], 1)


def parts(pattern: Pattern, width: int) -> list[Part]:
    """Cut a pattern into ranges of rows that fit in memory.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_items)
        Items rated by each row.

    width : int
        Numbers that are held in memory for each row.

    Returns
    -------
    parts : list of Part
        Ranges of rows with their patterns and entries.
    """
    length = chunk_length(width)
    if length >= pattern.shape[0]:
        return [Part(slice(0, pattern.shape[0]), pattern, slice(0, pattern.nnz))]
    return pattern.cut(length)


def condition(
    pattern: Pattern,
    ratings: Tensor,
    vectors: Tensor,
    prior: Tensor,
    prior_precision: Tensor,
    rating_precisions: Tensor,
    entries: Group = ALONE,
) -> Posterior:
    """Compute the posterior (1), (2) of each row's vector, given its ratings.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_items)
        Items rated by each row.

    ratings : Tensor of shape (nnz,)
        Ratings r.

    vectors : Tensor of shape (n_items, k)
        Vectors z of the items.

    prior : Tensor of shape (n_rows, k)
        Prior means m.

    prior_precision : Tensor of shape (k, k)
        Prior precision P.

    rating_precisions : Tensor of shape (nnz,)
        Precision c of each rating.

    entries : Group
        Ranks that have the ratings of each row.

    Returns
    -------
    posterior : Posterior
    """
    # z z' is symmetric: the SpMM sums its upper triangle.
    triangle = Triangle(vectors.shape[1], vectors.device)
    sums = entries.sum(spmm(pattern, rating_precisions, triangle.outer(vectors)))
    A = triangle.unpack(sums) + prior_precision  # (1)
    # The vector in parentheses in (2)
    target = entries.sum(spmm(pattern, rating_precisions * ratings, vectors))
    target += prior @ prior_precision
    cholesky, info = torch.linalg.cholesky_ex(A)
    mean = torch.cholesky_solve(target.unsqueeze(-1), cholesky).squeeze(-1)  # (2)
    mean[info > 0] = torch.nan
    return Posterior(mean, cholesky)


def implicit_means(pattern: Pattern, links: Tensor) -> Tensor:
    """The sums over j in (3), by which each row's items move its prior mean.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_items)
        Items rated by each row.

    links : Tensor of shape (n_items, k)
        Vectors y of the items.

    Returns
    -------
    means : Tensor of shape (n_rows, k)
    """
    return implicit_values(pattern.crow.diff(), links.dtype) * spmm(
        pattern, None, links
    )


def implicit_values(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 1 / sqrt(n) for rows with n entries, 0 without, of shape (n_rows, 1)."""
    counts = counts.to(dtype).unsqueeze(1)
    return torch.where(counts > 0, counts.rsqrt(), 0)


def leave_out(
    pattern: Pattern,
    ratings: Tensor,
    vectors: Tensor,
    prior: Tensor,
    prior_precision: Tensor,
    rating_precisions: Tensor,
    links: Tensor | None = None,
) -> Tensor:
    """Predict each rating from the other ratings of its row.

    Rating j has the hat value (4). Without the rating, A^-1 z_j becomes (5), by the
    Sherman-Morrison formula. The prediction of rating j becomes (6).

        (4)  h_j = c_j z_j' A^-1 z_j
        (5)  A^-1 z_j / (1 - h_j)
        (6)  (z_j' (mean + A^-1 P d_j) - h_j r_j) / (1 - h_j)

    Here d_j is the change of an implicit prior mean (3) of n items, 0 without links:

        (7)  d_j = (1 / sqrt(n - 1) - 1 / sqrt(n)) sum_i y_i - y_j / sqrt(n - 1)

    Parameters
    ----------
    pattern, ratings, vectors, prior, prior_precision, rating_precisions
        As for `condition`.

    links : Tensor of shape (n_items, k) or None
        Vectors y that the prior means contain. A left-out rating is removed from these
        sums, too.

    Returns
    -------
    predicted : Tensor of shape (nnz,)
        Predictions. In a row with one rating: z_j' m without links, undefined with
        links.
    """
    mean, cholesky = condition(
        pattern, ratings, vectors, prior, prior_precision, rating_precisions
    )
    # (4), as the SDDMM of the flattened A^-1 and z_j z_j'
    inverse = inverse_of(cholesky)
    hats = rating_precisions * sddmm(
        pattern, inverse.flatten(1), _outer(vectors, vectors)
    )
    predicted = sddmm(pattern, mean, vectors)
    if links is not None:
        # (7): `moved` is A^-1 P times the first term, which all ratings of a row share.
        counts = pattern.crow.diff().unsqueeze(1).to(vectors.dtype)
        fewer = (counts - 1).clamp(min=1).rsqrt()
        sums = implicit_means(pattern, links) * (fewer * counts.sqrt() - 1)
        shrinkage = inverse @ prior_precision
        moved = (shrinkage @ sums.unsqueeze(-1)).squeeze(-1)
        predicted += sddmm(pattern, moved, vectors) - sddmm(
            pattern,
            (shrinkage * fewer.unsqueeze(-1)).flatten(1),
            _outer(vectors, links),
        )
    kept = (1 - hats).clamp(min=torch.finfo(hats.dtype).eps)
    return (predicted - hats * ratings) / kept  # (6)


def _outer(a, b):
    """Outer product of each row of a and the same row of b, flattened."""
    return (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1)
