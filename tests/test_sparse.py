import numpy as np
import pytest
import torch
from helpers import random_sparse

from skrec._core.sparse import Pattern, _aligned, sddmm, spmm

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
    """The dense matrix of `pattern` and `values`."""
    out = torch.zeros(matrix.shape, dtype=values.dtype)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    out[torch.as_tensor(rows), torch.as_tensor(matrix.indices).long()] = values
    return out


def test_the_transposed_pattern_equals_scipy(matrix, pattern):
    expected = matrix.T.tocsr()
    np.testing.assert_array_equal(pattern.transposed.crow, expected.indptr)
    np.testing.assert_array_equal(pattern.transposed.col, expected.indices)
    np.testing.assert_array_equal(matrix.data[pattern.order], expected.data)
    assert pattern.transposed.shape == expected.shape


@pytest.mark.parametrize("length", [1, 4, 100])
def test_entries_are_sorted_in_parts_of_any_length(rng, monkeypatch, length):
    monkeypatch.setattr("skrec._core.sparse._SORT_LENGTH", length)
    matrix = random_sparse(rng, (20, 6), 0.5)
    order, transposed = make_pattern(matrix).transpose()
    expected = matrix.T.tocsr()
    np.testing.assert_array_equal(transposed.crow, expected.indptr)
    np.testing.assert_array_equal(transposed.col, expected.indices)
    np.testing.assert_array_equal(matrix.data[order], expected.data)
    assert order.dtype == transposed.col.dtype == torch.int32


def test_a_range_of_rows_shares_the_memory_of_the_pattern(matrix, pattern):
    _, part, entries = pattern.row_range(slice(2, 6))
    expected = matrix[2:6]
    np.testing.assert_array_equal(part.crow, expected.indptr)
    np.testing.assert_array_equal(part.col, expected.indices)
    np.testing.assert_array_equal(matrix.data[entries], expected.data)
    assert part.col.data_ptr() == pattern.col[entries].data_ptr()


@pytest.mark.parametrize("length", [1, 3, 7, 100])
def test_a_pattern_is_cut_into_all_its_rows_once(matrix, pattern, length):
    parts = pattern.cut(length)
    assert [p.rows.start for p in parts] == list(range(0, 7, length))
    assert parts[-1].rows.stop == 7
    assert all(p.pattern.shape[0] == p.rows.stop - p.rows.start for p in parts)
    found = np.concatenate([p.pattern.col for p in parts])
    np.testing.assert_array_equal(found, matrix.indices)
    assert pattern.cut(length) is parts


def test_values_of_rows_are_spread_over_their_entries(matrix, pattern):
    values = torch.arange(7.0)
    np.testing.assert_array_equal(pattern.spread(values), matrix.tocoo().row)


def test_row_contains_the_row_of_each_entry(matrix, pattern):
    np.testing.assert_array_equal(pattern.row, matrix.tocoo().row)


def test_rows_selects_rows_in_the_given_order(matrix, pattern):
    part, entries = pattern.rows(torch.tensor([5, 0, 2]))
    expected = matrix[[5, 0, 2]]
    np.testing.assert_array_equal(part.crow, expected.indptr)
    np.testing.assert_array_equal(part.col, expected.indices)
    np.testing.assert_array_equal(matrix.data[entries], expected.data)


def test_rows_may_select_nothing(pattern):
    part, entries = pattern.rows(torch.tensor([], dtype=torch.int64))
    assert part.shape == (0, 9)
    assert len(entries) == 0


@pytest.fixture(params=[2, 100])
def width(request, monkeypatch):
    """Number of columns per block: fewer and more than there are."""
    for name in ("_SPMM_WIDTH", "_SDDMM_WIDTH"):
        monkeypatch.setattr(f"skrec._core.sparse.{name}", request.param)
    monkeypatch.setattr("skrec._core.sparse._N_ROWS", request.param)
    monkeypatch.setattr("skrec._core.sparse._MIN_WIDTH", 1)


@pytest.mark.usefixtures("width")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tol"), [("float32", 1e-5), ("float64", 1e-12)])
def test_spmm_equals_the_dense_product(matrix, pattern, generator, dtype, tol, device):
    dtype = getattr(torch, dtype)
    values = torch.randn(pattern.nnz, generator=generator, dtype=dtype)
    B = torch.randn(9, 5, generator=generator, dtype=dtype)
    found = spmm(pattern.to(device), values.to(device), B.to(device)).cpu()
    torch.testing.assert_close(found, dense(matrix, values) @ B, atol=tol, rtol=tol)


@pytest.mark.usefixtures("width")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spmm_without_values_equals_that_with_ones(pattern, generator, dtype):
    B = torch.randn(9, 5, generator=generator, dtype=dtype)
    some, same = (B.clone().requires_grad_() for _ in range(2))
    found, expected = (
        spmm(pattern, None, some),
        spmm(pattern, torch.ones(pattern.nnz, dtype=dtype), same),
    )
    assert torch.equal(found, expected)
    for product in found, expected:
        product.square().sum().backward()
    assert torch.equal(some.grad, same.grad)


@pytest.mark.usefixtures("width")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tol"), [("float32", 1e-5), ("float64", 1e-12)])
def test_sddmm_equals_the_dense_product(pattern, generator, dtype, tol, device):
    dtype = getattr(torch, dtype)
    left = torch.randn(7, 5, generator=generator, dtype=dtype)
    right = torch.randn(9, 5, generator=generator, dtype=dtype)
    found = sddmm(pattern.to(device), left.to(device), right.to(device)).cpu()
    row, col = pattern.row.long(), pattern.col.long()
    expected = (left @ right.T)[row, col]
    torch.testing.assert_close(found, expected, atol=tol, rtol=tol)


def test_gradients_of_spmm(pattern, generator):
    values = torch.randn(pattern.nnz, generator=generator, dtype=torch.float64)
    B = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    arguments = (values.requires_grad_(), B.requires_grad_())
    function = lambda values, B: spmm(pattern, values, B)  # noqa: E731
    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


def test_gradients_of_sddmm(pattern, generator):
    factors = [
        torch.randn(n, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        for n in (7, 9)
    ]
    function = lambda left, right: sddmm(pattern, left, right)  # noqa: E731
    assert torch.autograd.gradcheck(function, factors)
    assert torch.autograd.gradgradcheck(function, factors)


def test_gradients_agree_in_both_precisions(pattern, generator):
    values = torch.randn(pattern.nnz, generator=generator, dtype=torch.float64)
    B = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    grads = []
    for dtype in (torch.float32, torch.float64):
        leaves = [t.to(dtype).requires_grad_() for t in (values, B)]
        product = spmm(pattern, *leaves)
        sddmm(pattern, product, leaves[1]).square().sum().backward()
        grads.append([leaf.grad.double() for leaf in leaves])
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frozen", [0, 1])
def test_sddmm_computes_only_required_gradients(pattern, generator, frozen):
    factors = [
        torch.randn(n, 2, generator=generator, requires_grad=True) for n in (7, 9)
    ]
    factors[frozen].requires_grad_(False)
    sddmm(pattern, *factors).sum().backward()
    assert [f.grad is None for f in factors] == [i == frozen for i in range(2)]


def test_kernels_take_empty_rows_and_columns(generator):
    empty = Pattern(torch.tensor([0, 0, 1, 1]), torch.tensor([2]), (3, 4))
    B = torch.randn(4, 2, generator=generator)
    product = spmm(empty, torch.tensor([2.0]), B)
    torch.testing.assert_close(product, torch.stack([0 * B[2], 2 * B[2], 0 * B[2]]))
    assert empty.transposed.crow.tolist() == [0, 0, 0, 1, 1]


def test_indices_have_32_bits_if_these_suffice(pattern):
    assert pattern.crow.dtype == pattern.col.dtype == torch.int32
    assert pattern.transposed.col.dtype == torch.int32


@pytest.mark.parametrize("side", ["rows", "columns", "entries"])
def test_indices_have_64_bits_if_there_are_more(side):
    for n, dtype in [(2**31 - 1, torch.int32), (2**31, torch.int64)]:
        shape = {"rows": (n, 1), "columns": (1, n)}.get(side, (1, 1))
        n_entries = n if side == "entries" else 1
        crow = torch.zeros(2, dtype=torch.int64, device="meta")  # without memory
        col = torch.zeros(n_entries, dtype=torch.int64, device="meta")
        pattern = Pattern(crow, col, shape)
        assert pattern.crow.dtype == pattern.col.dtype == dtype


@pytest.mark.parametrize(("dtype", "step"), [(torch.float32, 4), (torch.float64, 2)])
def test_memory_is_copied_unless_it_begins_at_a_multiple_of_16_bytes(dtype, step):
    numbers = torch.arange(20, dtype=dtype)
    for start in range(9):
        part = numbers[start:]
        assert (_aligned(part) is part) == (start % step == 0)
        assert torch.equal(_aligned(part), part)


def test_memory_is_proportional_to_the_entries(generator):
    # The dense product would take 400 GB.
    n = 10**5 * 3
    col = torch.arange(n)
    diagonal = Pattern(torch.arange(n + 1), col, (n, n))
    left = torch.randn(n, 2, generator=generator, requires_grad=True)
    values = sddmm(diagonal, left, left)
    spmm(diagonal, values, left).sum().backward()
    torch.testing.assert_close(values.detach(), left.detach().square().sum(1))


def test_values_of_csr_tensors_are_contiguous(rng):
    R = random_sparse(rng, (6, 5), 0.5)
    pattern = Pattern(torch.tensor(R.indptr), torch.tensor(R.indices), R.shape)
    strided = torch.arange(2.0 * R.nnz)[::2]
    assert not strided.is_contiguous()
    # cuSPARSE reads the memory of the values as if they were.
    found = pattern.with_values(strided).values()
    assert found.is_contiguous()
    torch.testing.assert_close(found, strided)


def test_expanded_values_reach_the_kernel_contiguous(monkeypatch, pattern):
    # It is three times as slow with others.
    given = []
    kernel = torch.nn.functional.embedding_bag

    def recording(*args, per_sample_weights, **options):
        given.append(per_sample_weights.is_contiguous())
        return kernel(*args, per_sample_weights=per_sample_weights, **options)

    monkeypatch.setattr(torch.nn.functional, "embedding_bag", recording)
    spmm(pattern, torch.tensor(2.0).expand(pattern.nnz), torch.ones(9, 3))
    assert given == [True]
