"""Products of sparse and dense matrices, with gradients.

All models use two kernels: SpMM, a sparse matrix S times a dense one, and SDDMM, the
product of two dense matrices sampled at the entries of a sparse one. With a gradient G,
dense for SpMM and sparse for SDDMM, their gradients are the same two kernels:

    (1)  C = S B              dS = (G B')_entries     dB = S' G
    (2)  S = (A B')_entries   dA = G B                dB = G' A

A training step therefore costs time and memory proportional to the number of ratings.
"""

from __future__ import annotations

import functools
import threading
import warnings

import torch
from torch import Tensor

# Columns of the dense operands that SpMM and SDDMM process at a time on a CPU. The rows
# that are read repeatedly then stay in the cache of a core.
_SPMM_WIDTH, _SDDMM_WIDTH = 64, 128

_first_tensor_lock = threading.Lock()


class Pattern:
    """Sparsity pattern: the positions of a sparse matrix's entries, without values.

    Parameters
    ----------
    crow : Tensor of shape (n_rows + 1,)
        Beginning of each row in `col`, as in the CSR format.

    col : Tensor of shape (nnz,)
        Column of each entry, ascending within a row.

    shape : tuple of (int, int)
        Number of rows and columns.
    """

    def __init__(self, crow: Tensor, col: Tensor, shape: tuple[int, int]):
        # PyTorch's kernels are faster with 32-bit indices.
        index = torch.int32 if max(*shape, len(col)) < 2**31 else torch.int64
        self.crow = crow.to(index)
        self.col = col.to(index)
        self.shape = shape

    @property
    def nnz(self) -> int:
        return len(self.col)

    @functools.cached_property
    def row(self) -> Tensor:
        """Row of each entry, of shape (nnz,)."""
        rows = torch.arange(self.shape[0], dtype=self.col.dtype, device=self.col.device)
        return torch.repeat_interleave(rows, self.crow.diff(), output_size=self.nnz)

    @functools.cached_property
    def order(self) -> Tensor:
        """Indices of the entries in the order of `transposed`, of shape (nnz,)."""
        return torch.argsort(self.col, stable=True).to(self.col.dtype)

    @functools.cached_property
    def transposed(self) -> Pattern:
        """Pattern of the transposed matrix, whose values are ``values[order]``."""
        counts = torch.bincount(self.col, minlength=self.shape[1])
        crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Pattern(crow, self.row.index_select(0, self.order), self.shape[::-1])

    def rows(self, selection: Tensor) -> tuple[Pattern, Tensor]:
        """Pattern of the selected rows, and the indices of their entries in `self`."""
        counts = self.crow.diff()[selection].long()
        crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        starts = self.crow[selection].long() - crow[:-1]
        entries = torch.repeat_interleave(starts, counts) + torch.arange(
            int(crow[-1]), device=self.col.device
        )
        shape = len(selection), self.shape[1]
        return Pattern(crow, self.col[entries], shape), entries

    def to(self, device: torch.device) -> Pattern:
        """The same pattern on another device."""
        return Pattern(self.crow.to(device), self.col.to(device), self.shape)

    def with_values(self, values: Tensor) -> Tensor:
        """CSR tensor with `values` at the entries of this pattern."""
        _silence_csr_warnings()
        # cuSPARSE reads the memory of the values as if they were contiguous.
        return _csr_tensor(self.crow, self.col, values.contiguous(), self.shape)


def spmm(pattern: Pattern, values: Tensor, dense: Tensor) -> Tensor:
    """Multiply a sparse matrix by a dense one.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_columns)
        Pattern of the sparse matrix.

    values : Tensor of shape (nnz,)
        Entries of the sparse matrix.

    dense : Tensor of shape (n_columns, k)
        Right factor.

    Returns
    -------
    product : Tensor of shape (n_rows, k)
    """
    return _SpMM.apply(pattern, values, dense)


def sddmm(pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
    """Evaluate a product of dense matrices at the entries of a sparse one.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_columns)
        Positions of the entries to compute.

    left : Tensor of shape (n_rows, k)
        Left factor.

    right : Tensor of shape (n_columns, k)
        Right factor, transposed.

    Returns
    -------
    values : Tensor of shape (nnz,)
        ``left @ right.T`` at the entries of the pattern.
    """
    return _SDDMM.apply(pattern, left, right)


class _SpMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pattern, values, dense):
        ctx.pattern = pattern
        ctx.save_for_backward(values, dense)
        if dense.device.type == "cpu" and dense.dtype == torch.float32:
            return _weighted_sums(pattern, values.detach(), dense.detach())
        return pattern.with_values(values) @ dense

    @staticmethod
    def backward(ctx, grad):
        values, dense = ctx.saved_tensors
        pattern = ctx.pattern
        grad_values = grad_dense = None
        if ctx.needs_input_grad[1]:
            grad_values = sddmm(pattern, grad, dense)  # dS in (1)
        if ctx.needs_input_grad[2]:
            # dB in (1)
            transposed_values = values.index_select(0, pattern.order)
            grad_dense = spmm(pattern.transposed, transposed_values, grad)
        return None, grad_values, grad_dense


class _SDDMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pattern, left, right):
        ctx.pattern = pattern
        ctx.save_for_backward(left, right)
        width = _SDDMM_WIDTH if left.device.type == "cpu" else left.shape[1]
        sums = pattern.with_values(left.new_zeros(pattern.nnz))
        for a, b in zip(left.split(width, 1), right.split(width, 1), strict=True):
            sums = torch.sparse.sampled_addmm(sums, a, b.T)
        return sums.values()

    @staticmethod
    def backward(ctx, grad):
        left, right = ctx.saved_tensors
        pattern = ctx.pattern
        grad_left = grad_right = None
        if ctx.needs_input_grad[1]:
            grad_left = spmm(pattern, grad, right)  # dA in (2)
        if ctx.needs_input_grad[2]:
            # dB in (2)
            transposed_grad = grad.index_select(0, pattern.order)
            grad_right = spmm(pattern.transposed, transposed_grad, left)
        return None, grad_left, grad_right


def _weighted_sums(pattern, values, dense):
    """SpMM as weighted sums of rows, for which PyTorch has a kernel twice as fast."""
    parts = [
        torch.nn.functional.embedding_bag(
            pattern.col,
            panel,
            pattern.crow,
            mode="sum",
            per_sample_weights=values,
            include_last_offset=True,
        )
        for panel in dense.split(_SPMM_WIDTH, 1)
    ]
    return torch.cat(parts, 1)


def _csr_tensor(crow, col, values, shape):
    return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=False)


@functools.cache
def _silence_csr_warnings():
    """Build one CSR tensor while warnings are ignored.

    PyTorch warns once per process that CSR tensors are in beta and that their indices
    are not checked. Users of skrec cannot act on either warning.
    """
    with _first_tensor_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zero = torch.zeros(1, dtype=torch.int32)
        _csr_tensor(torch.tensor([0, 1]), zero.long(), zero.float(), (1, 1))
