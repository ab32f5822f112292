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
import itertools
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Columns and rows of the dense operand that SpMM and SDDMM process at a time on a CPU.
# The rows that are read repeatedly then stay in the cache of a core. Operands of few
# columns are not cut into rows, which would cost more than it saves.
_SPMM_WIDTH, _SDDMM_WIDTH = 64, 64
_N_ROWS, _MIN_WIDTH = 8192, 32
# Entries that are sorted at a time, so that what belongs to them stays in the cache
_SORT_LENGTH = 2**19

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


class Part(NamedTuple):
    """Consecutive rows of a sparse matrix.

    Attributes
    ----------
    rows : slice
        The rows.

    pattern : Pattern
        Their pattern.

    entries : slice
        Their entries in those of the matrix.
    """

    rows: slice
    pattern: Pattern
    entries: slice


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
        self._cuts: dict[int, list[Part]] = {}

    @property
    def nnz(self) -> int:
        return len(self.col)

    @functools.cached_property
    def row(self) -> Tensor:
        """Row of each entry, of shape (nnz,), which stays in memory."""
        return self._rows()

    def spread(self, values: Tensor) -> Tensor:
        """Value of its row for each entry, of shape (nnz,)."""
        return values.repeat_interleave(self.crow.diff(), output_size=self.nnz)

    def _rows(self) -> Tensor:
        n_rows, like = self.shape[0], self.col
        return self.spread(torch.arange(n_rows, dtype=like.dtype, device=like.device))

    @property
    def order(self) -> Tensor:
        """Indices of the entries in the order of `transposed`, of shape (nnz,)."""
        return self._transposition[0]

    @property
    def transposed(self) -> Pattern:
        """Pattern of the transposed matrix, whose values are ``values[order]``."""
        return self._transposition[1]

    @functools.cached_property
    def _transposition(self) -> tuple[Tensor, Pattern]:
        return self.transpose()

    @functools.cached_property
    def column_counts(self) -> Tensor:
        """Number of entries of each column."""
        return torch.bincount(self.col, minlength=self.shape[1])

    def transpose(self) -> tuple[Tensor, Pattern]:
        """Compute `order` and `transposed`, which then do not stay in memory."""
        (n_rows, n_columns), col = self.shape, self.col
        crow, rows = _offsets(self.column_counts, col.dtype), self._rows()
        order, row = _sort_by_key(
            lambda part: col[part], lambda part: rows[part], crow, self.nnz
        )
        return order, Pattern(crow, row, (n_columns, n_rows))

    @functools.cached_property
    def blocks(self) -> Blocks:
        """The matrix in blocks of at most `_N_ROWS` columns."""
        (n_rows, n_columns), nnz, col = self.shape, self.nnz, self.col
        if n_columns <= _N_ROWS:
            return Blocks(None, [Block(slice(0, n_columns), slice(0, nnz), self)])
        starts = range(0, n_columns, _N_ROWS)
        counts = [some.sum() for some in self.column_counts.split(_N_ROWS)]
        begins = _offsets(torch.stack(counts), col.dtype)
        # Entries stay in the order of their rows within a block.
        order, places = _sort_by_key(
            lambda part: col[part] // _N_ROWS,
            lambda part: col[part] % _N_ROWS,
            begins,
            nnz,
        )
        parts = []
        for start, (begin, end) in zip(
            starts, itertools.pairwise(begins.tolist()), strict=True
        ):
            columns = slice(start, min(start + _N_ROWS, n_columns))
            entries = slice(begin, end)
            # Number of the block's entries before each row
            crow = torch.searchsorted(order[entries], self.crow)
            shape = n_rows, columns.stop - start
            parts.append(Block(columns, entries, Pattern(crow, places[entries], shape)))
        return Blocks(order, parts)

    def cut(self, length: int) -> list[Part]:
        """Cut into ranges of at most `length` rows.

        The same length gives the same objects, so that they are cut into blocks once.
        """
        if length not in self._cuts:
            n_rows = self.shape[0]
            self._cuts[length] = [
                self.row_range(slice(start, min(start + length, n_rows)))
                for start in range(0, max(n_rows, 1), length)
            ]
        return self._cuts[length]

    def row_range(self, rows: slice) -> Part:
        """Consecutive rows, which share the memory of the entries."""
        crow = self.crow[rows.start : rows.stop + 1]
        start, stop = torch.stack([crow[0], crow[-1]]).tolist()  # a single copy
        shape = rows.stop - rows.start, self.shape[1]
        pattern = Pattern(crow - start, self.col[start:stop], shape)
        return Part(rows, pattern, slice(start, stop))

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
        col, values = self.col, values.contiguous()
        if values.device.type != "cpu":
            col, values = _aligned(col), _aligned(values)
        return _csr_tensor(self.crow, col, values, self.shape)


def spmm(pattern: Pattern, values: Tensor | None, dense: Tensor) -> Tensor:
    """Multiply a sparse matrix by a dense one.

    Parameters
    ----------
    pattern : Pattern of shape (n_rows, n_columns)
        Pattern of the sparse matrix.

    values : Tensor of shape (nnz,) or None
        Entries of the sparse matrix. None means that all are 1.

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
            values = None if values is None else values.detach()
            return _weighted_sums(pattern, values, dense.detach())
        if values is None:
            values = dense.new_ones(pattern.nnz)
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
            if values is not None:
                values = values.index_select(0, pattern.order)
            grad_dense = spmm(pattern.transposed, values, grad)
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
    if order is not None and values is not None:
        values = values.index_select(0, order)
    if values is not None:
        # Expanded ones take three times as long.
        values = values.contiguous()
    panels = [
        functools.reduce(
            Tensor.add_,
            (
                torch.nn.functional.embedding_bag(
                    block.pattern.col,
                    panel[block.columns],
                    block.pattern.crow,
                    mode="sum",
                    per_sample_weights=None
                    if values is None
                    else values[block.entries],
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
    if not len(values):  # which cuSPARSE may refuse
        return values
    sums = [block.pattern.with_values(values[block.entries]) for block in parts]
    panels = (_panels(factor, _SDDMM_WIDTH) for factor in (left, right))
    for a, b in zip(*panels, strict=True):
        for block, products in zip(parts, sums, strict=True):
            # Adds to `values`, which the products share
            torch.sparse.sampled_addmm(products, a, b[block.columns].T, out=products)
    if order is None:
        return values
    found = torch.empty_like(values)
    for block in parts:
        found[order[block.entries]] = values[block.entries]
    return found


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


def _sort_by_key(
    keys: Callable[[slice], Tensor],
    values: Callable[[slice], Tensor],
    begins: Tensor,
    n: int,
) -> tuple[Tensor, Tensor]:
    """Sort n values by integer keys, by counting; return the order and the values.

    `keys` and `values` return those of a range of entries. `begins` has the number of
    entries with smaller keys for each key, and n.
    """
    order, sorted_values = begins.new_empty(n), begins.new_empty(n)
    filled = begins[:-1].clone()  # where the next entry with each key belongs
    length = _SORT_LENGTH if begins.device.type == "cpu" else max(1, n)
    for start in range(0, n, length):
        part = slice(start, start + length)
        key, entry = torch.sort(keys(part), stable=True)
        counts = torch.bincount(key, minlength=len(filled))
        shift = filled - (counts.cumsum(0) - counts)
        place = torch.arange(len(key), device=begins.device)
        place += shift.index_select(0, key)
        order[place] = (entry + start).to(begins.dtype)
        sorted_values[place] = values(part).index_select(0, entry)
        filled += counts
    return order, sorted_values


def _offsets(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Cumulative sums, beginning with 0."""
    sums = torch.zeros(len(counts) + 1, dtype=dtype, device=counts.device)
    torch.cumsum(counts, 0, dtype=dtype, out=sums[1:])
    return sums


def _aligned(tensor: Tensor) -> Tensor:
    """Copy of a tensor if its memory does not begin at a multiple of 16 bytes.

    Some versions of cuSPARSE read four numbers at a time. Parts of tensors, such as the
    entries of some rows, may begin anywhere.
    """
    is_aligned = tensor.storage_offset() * tensor.element_size() % 16 == 0
    return tensor if is_aligned else tensor.clone()


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
