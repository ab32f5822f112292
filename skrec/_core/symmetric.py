"""Symmetric matrices: packed as the rows of their upper triangles, and inverted."""

from __future__ import annotations

import torch
from torch import Tensor


class Triangle:
    """Layout of symmetric k x k matrices as rows of their upper triangles.

    Parameters
    ----------
    k : int
        Number of rows and columns of a matrix.

    device : torch.device
        Device of the matrices.
    """

    def __init__(self, k: int, device: torch.device):
        self.k = k
        self.rows, self.columns = torch.triu_indices(k, k, device=device)
        self.entries = self.rows * k + self.columns
        place = torch.zeros(k, k, dtype=torch.long, device=device)
        place[self.rows, self.columns] = torch.arange(len(self.rows), device=device)
        # Positions of the last column of a matrix
        self.last = place[:, -1].clone()
        self.place = (torch.triu(place) + torch.triu(place, 1).T).flatten()

    def pack(self, matrices: Tensor) -> Tensor:
        """Upper triangles of matrices of shape (n, k, k)."""
        return matrices.flatten(1).index_select(1, self.entries)

    def unpack(self, packed: Tensor) -> Tensor:
        """Matrices of shape (n, k, k)."""
        return packed.index_select(1, self.place).view(-1, self.k, self.k)

    def outer(self, vectors: Tensor) -> Tensor:
        """Upper triangles of x x' for vectors x of shape (n, k)."""
        return vectors.index_select(1, self.rows) * vectors.index_select(
            1, self.columns
        )

    def counts(self, dtype: torch.dtype) -> Tensor:
        """How often an entry of a triangle occurs in the matrix: 1 or 2."""
        return 1 + (self.rows != self.columns).to(dtype)


def inverse_of(cholesky: Tensor) -> Tensor:
    """Inverses of matrices, given their lower Cholesky factors of shape (n, k, k)."""
    if cholesky.device.type == "cpu":
        return torch.cholesky_inverse(cholesky)
    # On a GPU, `cholesky_inverse` may take one matrix after the other.
    eye = torch.eye(cholesky.shape[-1], dtype=cholesky.dtype, device=cholesky.device)
    half = torch.linalg.solve_triangular(
        cholesky, eye.expand_as(cholesky).contiguous(), upper=False
    )
    return half.mT @ half
