"""Canonical bases of the factors of a factorization."""

from __future__ import annotations

import torch
from torch import Tensor

from .chunks import row_chunks
from .collectives import ALONE, Group
from .prior_means import NormalPrior
from .symmetric import Triangle
from .variational import Vectors


def canonical_bases(
    users: Vectors,
    items: Vectors,
    noise: float,
    negligible: float,
    group: Group = ALONE,
) -> tuple[Tensor, Tensor]:
    """Find bases in which the factors are uncorrelated, in descending order.

    Products of factors do not change. In the new bases both sides have the same,
    diagonal second moments. Their product is the mean square of a factor's part of a
    rating; the factors whose part is negligible relative to the noise variance are
    dropped.

    Parameters
    ----------
    users, items : Vectors
        Distributions of the vectors.

    noise : float
        Noise variance.

    negligible : float
        Mean square, relative to the noise variance, below which a factor is dropped. At
        least one factor is kept.

    group : Group
        Ranks that have the users.

    Returns
    -------
    to_users, to_items : Tensor of shape (n_kept + 1, k), in double precision
        Maps of the vectors, which leave the biases as they are.
    """
    sides = (users, group), (items, ALONE)
    A, B = (_second_moments(*side)[:-1, :-1] for side in sides)
    root = torch.linalg.cholesky(A)
    squares, basis = torch.linalg.eigh(root.T @ B @ root)
    # Eigenvectors differ in sign between processors.
    squares, basis = group.copy_first(squares), group.copy_first(basis)
    squares, basis = squares.flip(0), basis.flip(1)
    n_kept = max(1, int((squares > negligible * noise).sum()))
    scale = squares[:n_kept].clamp(min=torch.finfo(A.dtype).tiny) ** 0.25
    basis = basis[:, :n_kept]
    to_users = torch.linalg.solve_triangular(root.T, basis, upper=True) * scale
    to_items = root @ basis / scale
    return _with_bias(to_users.T), _with_bias(to_items.T)


def transform(
    vectors: Vectors, prior: NormalPrior, basis: Tensor
) -> tuple[Vectors, NormalPrior]:
    """Apply the linear map of `canonical_bases` to the vectors of a side."""
    old, new = (Triangle(n, vectors.mean.device) for n in reversed(basis.shape))
    basis = basis.to(vectors.mean)
    covariance = torch.cat(
        [
            new.pack(basis @ old.unpack(vectors.covariance[rows]) @ basis.T)
            for rows in row_chunks(len(vectors.mean), 2 * old.k**2)
        ]
    )
    moved = NormalPrior.of(
        basis @ prior.center,
        basis @ prior.covariance @ basis.T,
        prior.links @ basis.T,
    )
    # Variances of the new entries of links and weights
    squares = basis.square().T
    moved = moved._replace(
        link_precision=1 / (1 / prior.link_precision @ squares),
        weights=prior.weights @ basis.T,
        weight_precision=1 / (1 / prior.weight_precision @ squares),
    )
    return Vectors(vectors.mean @ basis.T, covariance), moved


def _second_moments(vectors: Vectors, rows: Group) -> Tensor:
    """Mean over all rows of the expected products of the entries of a vector."""
    mean, covariance = (t.double() for t in vectors)
    triangle = Triangle(mean.shape[1], mean.device)
    n = rows.total(len(mean))
    average = triangle.unpack(rows.sum(covariance.sum(0, keepdim=True)) / n)[0]
    return rows.sum(mean.T @ mean) / n + average


def _with_bias(basis: Tensor) -> Tensor:
    """Extend a map of factors to vectors whose bias it does not change."""
    return torch.block_diag(basis, basis.new_ones(1, 1))
