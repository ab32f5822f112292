"""Normal distributions of many rows, given ratings of what they share.

Row i has ratings r of some items, whose vectors are the rows z_j of a matrix. Its own
vector w has a normal prior of mean m_i and a precision matrix P that all rows share,
and each rating has noise of precision c_j around z_j' w, so that w given the ratings is
normal, too:

    precision A_i = P + sum_j c_j z_j z_j',    mean A_i^-1 (P m_i + sum_j c_j r_j z_j)

The mean is the ridge regression of the ratings with the penalty (w - m)' P (w - m).
The matrices A of all rows are one SpMM, of the ratings' pattern with the products of
the entries of each z. With an implicit prior, m_i = m + sum_j y_j / sqrt(n_i) depends
on which n_i items the row has rated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .sparse import Pattern, sddmm, spmm

# Numbers that are at hand at once, as in the matrices A.
_CHUNK = 2**24


class Posterior(NamedTuple):
    """The normal distribution of each row's vector.

    Attributes
    ----------
    mean : Tensor of shape (n_rows, k)
        The means. NaN where A is singular to working precision.

    cholesky : Tensor of shape (n_rows, k, k)
        The lower Cholesky factor of each A.
    """

    mean: Tensor
    cholesky: Tensor

    def draw(self, normal: Tensor) -> Tensor:
        """Turn standard normal numbers of shape (n_rows, k) into vectors."""
        upper = self.cholesky.mT
        noise = torch.linalg.solve_triangular(upper, normal.unsqueeze(-1), upper=True)
        return self.mean + noise.squeeze(-1)


def with_ones(vectors: Tensor) -> Tensor:
    """The factors, with 1 in the place of the bias: what the other side's meet."""
    return torch.cat([vectors[:, :-1], torch.ones_like(vectors[:, -1:])], 1)


def parts(
    pattern: Pattern, width: int
) -> Iterator[tuple[slice, Pattern, Tensor | slice]]:
    """Cut into parts for which `width` numbers a row fit in memory.

    Each is a range of rows, their pattern, and which entries they have.
    """
    n_rows, size = pattern.shape[0], max(1, _CHUNK // width)
    if n_rows <= size:
        yield slice(0, n_rows), pattern, slice(None)
        return
    for start in range(0, n_rows, size):
        end = min(start + size, n_rows)
        selection = torch.arange(start, end, device=pattern.col.device)
        yield slice(start, end), *pattern.rows(selection)


def condition(
    pattern: Pattern,
    ratings: Tensor,
    vectors: Tensor,
    prior: Tensor,
    precision: Tensor,
    noise: Tensor,
) -> Posterior:
    """Find the distribution of each row's vector, given its ratings.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_items)
        Which items each row rates.

    ratings : Tensor of shape (nnz,)
        The ratings r.

    vectors : Tensor of shape (n_items, k)
        The vectors z of the items.

    prior : Tensor of shape (n_rows, k)
        The prior means m.

    precision : Tensor of shape (k, k)
        The prior precision P.

    noise : Tensor of shape (nnz,)
        The precision c of each rating.

    Returns
    -------
    posterior : Posterior
    """
    k = vectors.shape[1]
    a, b = torch.triu_indices(k, k, device=vectors.device)
    place = torch.zeros(k, k, dtype=torch.long, device=vectors.device)
    place[a, b] = place[b, a] = torch.arange(len(a), device=vectors.device)
    sums = spmm(pattern, noise, vectors[:, a] * vectors[:, b])
    A = sums[:, place.flatten()].view(-1, k, k) + precision
    target = spmm(pattern, noise * ratings, vectors) + prior @ precision
    cholesky, info = torch.linalg.cholesky_ex(A)
    mean = torch.cholesky_solve(target.unsqueeze(-1), cholesky).squeeze(-1)
    mean[info > 0] = torch.nan
    return Posterior(mean, cholesky)


def implicit_means(pattern: Pattern, links: Tensor) -> Tensor:
    """The sums of the y of each row's items over the root of how many there are.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_items)
        Which items each row rates.

    links : Tensor of shape (n_items, k)
        The y of the items.

    Returns
    -------
    means : Tensor of shape (n_rows, k)
    """
    return spmm(pattern, implicit_values(pattern, links.dtype), links)


def implicit_values(pattern: Pattern, dtype: torch.dtype) -> Tensor:
    """One over the root of the number of entries in its row, for each entry."""
    return pattern.crow.diff().to(dtype).rsqrt().index_select(0, pattern.row)


def leave_out(
    pattern: Pattern,
    ratings: Tensor,
    vectors: Tensor,
    prior: Tensor,
    precision: Tensor,
    noise: Tensor,
    links: Tensor | None = None,
) -> Tensor:
    """Predict each rating from the others in its row.

    The hat value of rating j is h = c_j z_j' A^-1 z_j, and without it A^-1 z_j becomes
    A^-1 z_j / (1 - h). An implicit prior mean of n items moves by the sum of all y,
    times ``1 / sqrt(n - 1) - 1 / sqrt(n)``, less ``y_j / sqrt(n - 1)``.

    Parameters
    ----------
    pattern, ratings, vectors, prior, precision, noise
        As for `condition`.

    links : Tensor of shape (n_items, k) or None
        The y that the prior means contain; a left-out rating leaves these, too.

    Returns
    -------
    predicted : Tensor of shape (nnz,)
        Where a row has no other rating: with links anything, else z_j' m.
    """
    mean, cholesky = condition(pattern, ratings, vectors, prior, precision, noise)
    inverse = torch.cholesky_inverse(cholesky)
    hats = noise * sddmm(pattern, inverse.flatten(1), _outer(vectors, vectors))
    predicted = sddmm(pattern, mean, vectors)
    if links is not None:
        counts = pattern.crow.diff().unsqueeze(1).to(vectors.dtype)
        fewer = (counts - 1).clamp(min=1).rsqrt()
        sums = implicit_means(pattern, links) * (fewer * counts.sqrt() - 1)
        shrinkage = inverse @ precision
        moved = (shrinkage @ sums.unsqueeze(-1)).squeeze(-1)
        predicted += sddmm(pattern, moved, vectors) - sddmm(
            pattern,
            (shrinkage * fewer.unsqueeze(-1)).flatten(1),
            _outer(vectors, links),
        )
    kept = (1 - hats).clamp(min=torch.finfo(hats.dtype).eps)
    return (predicted - hats * ratings) / kept


def _outer(a, b):
    """All products of an entry of a and one of b, row by row."""
    return (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1)
