import numpy as np
import pytest
import torch
from conftest import random_sparse

from skrec._core.sparse import Pattern, panel_widths, sddmm, spmm

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make_pattern(matrix):
    return Pattern(
        torch.tensor(matrix.indptr), torch.tensor(matrix.indices), matrix.shape
    )


@pytest.fixture
def matrix(rng):
    return random_sparse(rng, (7, 9), 0.3)


@pytest.fixture
def pattern(matrix):
    return make_pattern(matrix)


def dense(matrix, values):
    """The matrix of `pattern` and `values`, through plain indexing."""
    out = torch.zeros(matrix.shape, dtype=values.dtype)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    out[torch.as_tensor(rows), torch.as_tensor(matrix.indices).long()] = values
    return out


def test_transposed_pattern_is_that_of_scipy(matrix, pattern):
    expected = matrix.T.tocsr()
    np.testing.assert_array_equal(pattern.transposed.crow, expected.indptr)
    np.testing.assert_array_equal(pattern.transposed.col, expected.indices)
    np.testing.assert_array_equal(matrix.data[pattern.order], expected.data)
    assert pattern.transposed.shape == expected.shape


def test_row_names_the_row_of_each_entry(matrix, pattern):
    np.testing.assert_array_equal(pattern.row, matrix.tocoo().row)


def test_rows_selects_rows_in_the_order_asked_for(matrix, pattern):
    part, entries = pattern.rows(torch.tensor([5, 0, 2]))
    expected = matrix[[5, 0, 2]]
    np.testing.assert_array_equal(part.crow, expected.indptr)
    np.testing.assert_array_equal(part.col, expected.indices)
    np.testing.assert_array_equal(matrix.data[entries], expected.data)


def test_rows_may_select_nothing(pattern):
    part, entries = pattern.rows(torch.tensor([], dtype=torch.int64))
    assert part.shape == (0, 9)
    assert len(entries) == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tol"), [("float32", 1e-5), ("float64", 1e-12)])
def test_spmm_equals_the_dense_product(matrix, pattern, generator, dtype, tol, device):
    dtype = getattr(torch, dtype)
    values = torch.randn(pattern.nnz, generator=generator, dtype=dtype)
    B = torch.randn(9, 4, generator=generator, dtype=dtype)
    found = spmm(pattern.to(device), values.to(device), B.to(device)).cpu()
    torch.testing.assert_close(found, dense(matrix, values) @ B, atol=tol, rtol=tol)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("widths", [[5], [2, 3], [1, 1, 3]])
def test_sddmm_sums_its_panels(matrix, pattern, generator, widths, device):
    left = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    right = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    found = sddmm(
        pattern.to(device),
        [p.contiguous().to(device) for p in left.split(widths, 1)],
        [p.contiguous().to(device) for p in right.split(widths, 1)],
    )
    row, col = pattern.row.long(), pattern.col.long()
    torch.testing.assert_close(found.cpu(), (left @ right.T)[row, col])


def test_gradients_of_spmm(pattern, generator):
    values = torch.randn(pattern.nnz, generator=generator, dtype=torch.float64)
    B = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    arguments = (values.requires_grad_(), B.requires_grad_())
    function = lambda values, B: spmm(pattern, values, B)  # noqa: E731
    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


def test_gradients_of_sddmm(pattern, generator):
    factors = [
        torch.randn(n, k, generator=generator, dtype=torch.float64, requires_grad=True)
        for n, k in [(7, 2), (7, 3), (9, 2), (9, 3)]
    ]
    function = lambda a, b, c, d: sddmm(pattern, [a, b], [c, d])  # noqa: E731
    assert torch.autograd.gradcheck(function, factors)
    assert torch.autograd.gradgradcheck(function, factors)


@pytest.mark.parametrize("frozen", [0, 1, 2, 3])
def test_sddmm_leaves_alone_what_needs_no_gradient(pattern, generator, frozen):
    factors = [
        torch.randn(n, 2, generator=generator, requires_grad=True) for n in (7, 7, 9, 9)
    ]
    factors[frozen].requires_grad_(False)
    sddmm(pattern, factors[:2], factors[2:]).sum().backward()
    assert [f.grad is None for f in factors] == [i == frozen for i in range(4)]


def test_kernels_take_empty_rows_and_columns(generator):
    empty = Pattern(torch.tensor([0, 0, 1, 1]), torch.tensor([2]), (3, 4))
    B = torch.randn(4, 2, generator=generator)
    product = spmm(empty, torch.tensor([2.0]), B)
    torch.testing.assert_close(product, torch.stack([0 * B[2], 2 * B[2], 0 * B[2]]))
    assert empty.transposed.crow.tolist() == [0, 0, 0, 1, 1]


def test_indices_are_of_32_bits_where_these_suffice(pattern):
    assert pattern.crow.dtype == pattern.col.dtype == torch.int32
    assert pattern.transposed.col.dtype == torch.int32


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "widths"),
    [(1000, 500, [128, 128, 128, 116]), (6040, 100, [64, 36]), (50_000, 64, [32, 32])],
)
def test_panels_get_narrower_with_more_rows(n_rows, n_columns, widths):
    assert panel_widths(n_rows, n_columns, 4, torch.device("cpu")) == widths


def test_there_is_one_panel_on_a_gpu():
    assert panel_widths(6040, 500, 4, torch.device("cuda")) == [500]


def test_memory_is_proportional_to_the_entries(generator):
    # The dense product would take 400 GB.
    n = 10**5 * 3
    col = torch.arange(n)
    diagonal = Pattern(torch.arange(n + 1), col, (n, n))
    left = torch.randn(n, 2, generator=generator, requires_grad=True)
    values = sddmm(diagonal, [left], [left])
    spmm(diagonal, values, left).sum().backward()
    torch.testing.assert_close(values.detach(), left.detach().square().sum(1))
