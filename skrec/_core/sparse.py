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
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Columns and rows of the dense operand that SpMM and SDDMM process at a time on a CPU.
# The rows that are read repeatedly then stay in the cache of a core. Operands of few
# columns are not cut into rows, which would cost more than it saves.
_SPMM_WIDTH, _SDDMM_WIDTH = 64, 64
_N_ROWS, _MIN_WIDTH = 8192, 32

_first_tensor_lock = threading.Lock()


class Block(NamedTuple):
    """Consecutive columns of a sparse matrix.

    Attributes
    ----------
    columns : slice
        The columns.

    entries : slice
        Their entries in the order of `Blocks`.

    pattern : Pattern
        Their pattern, with as many rows as the matrix.
    """

    columns: slice
    entries: slice
    pattern: Pattern


class Blocks(NamedTuple):
    """Sparse matrix cut into blocks of columns.

    Attributes
    ----------
    order : Tensor of shape (nnz,) or None
        Indices of the entries, block after block. None means that they are in order.

    parts : list of Block
        All blocks, also those without entries.
    """

    order: Tensor | None
    parts: list[Block]


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

    @functools.cached_property
    def blocks(self) -> Blocks:
        """The matrix in blocks of at most `_N_ROWS` columns."""
        (n_rows, n_columns), nnz = self.shape, self.nnz
        if n_columns <= _N_ROWS:
            return Blocks(None, [Block(slice(0, n_columns), slice(0, nnz), self)])
        block = self.col // _N_ROWS
        # Entries stay in the order of their rows within a block.
        order = torch.argsort(block, stable=True).to(self.col.dtype)
        starts = torch.arange(0, n_columns, _N_ROWS).tolist()
        cells = block.long() * n_rows + self.row
        counts = torch.bincount(cells, minlength=len(starts) * n_rows)
        crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        col = (self.col % _N_ROWS).index_select(0, order)
        parts = []
        for i, start in enumerate(starts):
            bounds = crow[i * n_rows : (i + 1) * n_rows + 1]
            entries = slice(int(bounds[0]), int(bounds[-1]))
            columns = slice(start, min(start + _N_ROWS, n_columns))
            shape = n_rows, columns.stop - start
            pattern = Pattern(bounds - bounds[0], col[entries], shape)
            parts.append(Block(columns, entries, pattern))
        return Blocks(order, parts)

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
        return _sampled_products(pattern, left.detach(), right.detach())

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
    order, parts = _blocks(pattern, dense)
    if order is not None:
        values = values.index_select(0, order)
    panels = [
        functools.reduce(
            Tensor.add_,
            (
                torch.nn.functional.embedding_bag(
                    block.pattern.col,
                    panel[block.columns],
                    block.pattern.crow,
                    mode="sum",
                    per_sample_weights=values[block.entries],
                    include_last_offset=True,
                )
                for block in parts
            ),
        )
        for panel in _panels(dense, _SPMM_WIDTH)
    ]
    return panels[0] if len(panels) == 1 else torch.cat(panels, 1)


def _sampled_products(pattern, left, right):
    """SDDMM, a block of rows of `right` and some of their columns at a time."""
    order, parts = _blocks(pattern, right)
    values = left.new_zeros(pattern.nnz)
    sums = [block.pattern.with_values(values[block.entries]) for block in parts]
    panels = (_panels(factor, _SDDMM_WIDTH) for factor in (left, right))
    for a, b in zip(*panels, strict=True):
        for block, products in zip(parts, sums, strict=True):
            # Adds to `values`, which the products share
            torch.sparse.sampled_addmm(products, a, b[block.columns].T, out=products)
    if order is None:
        return values
    return torch.empty_like(values).index_copy_(0, order.long(), values)


def _blocks(pattern: Pattern, dense: Tensor) -> Blocks:
    """Blocks of a pattern for the product with a dense matrix."""
    if dense.device.type == "cpu" and dense.shape[1] >= _MIN_WIDTH:
        return pattern.blocks
    columns, entries = slice(0, pattern.shape[1]), slice(0, pattern.nnz)
    return Blocks(None, [Block(columns, entries, pattern)])


def _panels(dense: Tensor, width: int) -> Iterator[Tensor]:
    """Cut a matrix into contiguous panels of `width` columns, on a CPU."""
    if dense.device.type != "cpu":
        width = dense.shape[1]
    return (panel.contiguous() for panel in dense.split(width, 1))


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
