"""Products of sparse and dense matrices, with gradients.

Two kernels carry every model: SpMM, a sparse matrix times a dense one, and SDDMM, the
product of two dense matrices sampled at the entries of a sparse one. Their gradients
are the same two kernels again, so that a training step costs time and memory
proportional to the number of ratings.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

# Columns of a dense operand that are processed together. A panel of a weight matrix
# should stay in a core's second-level cache (2 MiB on current servers) while the rows
# of the sparse matrix pass by: twice as fast as the whole width at once.
_PANEL_BYTES = 2 * 2**20
_PANEL_WIDTHS = (128, 64, 32)

_first_tensor_lock = threading.Lock()


class Pattern:
    """Where a sparse matrix has entries, row by row; the values come separately.

    Parameters
    ----------
    crow : Tensor of shape (n_rows + 1,)
        Where each row begins in `col`, as in the CSR format.

    col : Tensor of shape (nnz,)
        The column of each entry, ascending within a row.

    shape : tuple of (int, int)
        The number of rows and columns.
    """

    def __init__(self, crow: Tensor, col: Tensor, shape: tuple[int, int]):
        # PyTorch's kernels are faster on 32-bit indices, where these suffice.
        index = torch.int32 if max(*shape, len(col)) < 2**31 else torch.int64
        self.crow = crow.to(index)
        self.col = col.to(index)
        self.shape = shape

    @property
    def nnz(self) -> int:
        return len(self.col)

    @functools.cached_property
    def row(self) -> Tensor:
        """The row of each entry, of shape (nnz,)."""
        rows = torch.arange(self.shape[0], dtype=self.col.dtype, device=self.col.device)
        return torch.repeat_interleave(rows, self.crow.diff(), output_size=self.nnz)

    @functools.cached_property
    def order(self) -> Tensor:
        """The entries in the order of the transposed pattern, of shape (nnz,)."""
        return torch.argsort(self.col, stable=True).to(self.col.dtype)

    @functools.cached_property
    def transposed(self) -> Pattern:
        """The pattern of the transposed matrix, whose values are those at `order`."""
        counts = torch.bincount(self.col, minlength=self.shape[1])
        crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Pattern(crow, self.row.index_select(0, self.order), self.shape[::-1])

    def rows(self, selection: Tensor) -> tuple[Pattern, Tensor]:
        """The pattern of some rows, and which entries of this one they have."""
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
        """A CSR tensor that has `values` at the entries of this pattern."""
        _silence_csr_warnings()
        return _csr_tensor(self.crow, self.col, values, self.shape)


def panel_widths(n_rows: int, n_columns: int, itemsize: int, device: torch.device):
    """Cut the columns of a dense operand into panels that fit the cache.

    Parameters
    ----------
    n_rows, n_columns : int
        The shape of the dense operand.

    itemsize : int
        Bytes of one number.

    device : torch.device
        Where the operand lies. On a GPU there is one panel.

    Returns
    -------
    widths : list of int
        The widths of the panels, which sum to `n_columns`.
    """
    if device.type != "cpu":
        return [n_columns]
    fitting = (w for w in _PANEL_WIDTHS if n_rows * w * itemsize <= _PANEL_BYTES)
    width = next(fitting, _PANEL_WIDTHS[-1])
    full, rest = divmod(n_columns, width)
    return [width] * full + [rest] * (rest > 0)


def spmm(pattern: Pattern, values: Tensor, dense: Tensor) -> Tensor:
    """Multiply a sparse matrix by a dense one.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_columns)
        Where the sparse matrix has entries.

    values : Tensor of shape (nnz,)
        The entries.

    dense : Tensor of shape (n_columns, k)
        The right factor.

    Returns
    -------
    product : Tensor of shape (n_rows, k)
    """
    return _SpMM.apply(pattern, values, dense)


def sddmm(pattern: Pattern, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Evaluate a product of dense matrices at the entries of a sparse one.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_columns)
        The entries that are wanted.

    left : sequence of Tensor of shape (n_rows, k_p)
        The panels, side by side, of the left factor.

    right : sequence of Tensor of shape (n_columns, k_p)
        The panels of the right factor.

    Returns
    -------
    values : Tensor of shape (nnz,)
        ``sum(l @ r.T for l, r in zip(left, right))`` at the entries of the pattern.
    """
    return _SDDMM.apply(pattern, *left, *right)


class _SpMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pattern, values, dense):
        ctx.pattern = pattern
        ctx.save_for_backward(values, dense)
        return pattern.with_values(values) @ dense

    @staticmethod
    def backward(ctx, grad):
        values, dense = ctx.saved_tensors
        pattern = ctx.pattern
        grad_values = grad_dense = None
        if ctx.needs_input_grad[1]:
            grad_values = sddmm(pattern, [grad], [dense])
        if ctx.needs_input_grad[2]:
            transposed_values = values.index_select(0, pattern.order)
            grad_dense = spmm(pattern.transposed, transposed_values, grad)
        return None, grad_values, grad_dense


class _SDDMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pattern, *factors):
        ctx.pattern = pattern
        ctx.save_for_backward(*factors)
        half = len(factors) // 2
        sums = pattern.with_values(factors[0].new_zeros(pattern.nnz))
        for left, right in zip(factors[:half], factors[half:], strict=True):
            sums = torch.sparse.sampled_addmm(sums, left, right.T)
        return sums.values()

    @staticmethod
    def backward(ctx, grad):
        pattern, factors = ctx.pattern, ctx.saved_tensors
        half = len(factors) // 2
        needs = ctx.needs_input_grad[1:]
        grads: list[Tensor | None] = [None] * len(factors)
        transposed_grad = grad.index_select(0, pattern.order)
        for i in range(half):
            if needs[i]:
                grads[i] = spmm(pattern, grad, factors[half + i])
            if needs[half + i]:
                grads[half + i] = spmm(pattern.transposed, transposed_grad, factors[i])
        return None, *grads


def _csr_tensor(crow, col, values, shape):
    return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=False)


@functools.cache
def _silence_csr_warnings():
    """Build one CSR tensor with warnings off.

    PyTorch says once per process that CSR tensors are in beta and that their indices
    are not checked. Both are known here, and neither is news to a user of skrec.
    """
    with _first_tensor_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zero = torch.zeros(1, dtype=torch.int32)
        _csr_tensor(torch.tensor([0, 1]), zero.long(), zero.float(), (1, 1))
