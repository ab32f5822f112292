import numpy as np
import pytest
import torch

from skrec._core import conjugate_gradients
from skrec._core.conjugate_gradients import (
    Deflation,
    improve_rows,
    leading_eigenvectors,
    solve_columns,
)
from skrec._core.sparse import Pattern

PENALTIES = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)


@pytest.fixture
def square(rng):
    """Positive semidefinite matrix with four large eigenvalues."""
    basis = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    values = np.concatenate([[3000, 900, 300, 100], rng.uniform(0, 2, 56)])
    return torch.tensor(basis * values @ basis.T)


def test_leading_eigenvectors_are_those_of_the_dense_matrix(square):
    vectors, values = leading_eigenvectors(square.matmul, square.diagonal(), 4)
    expected = torch.linalg.eigvalsh(square)[-4:]
    torch.testing.assert_close(values, expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(4).double())
    images = square @ vectors
    assert (images - vectors * values).norm(dim=0).max() < 0.02 * values.min()


def test_as_many_eigenvectors_as_rows_are_a_basis(square):
    part = square[:6, :6]
    vectors, values = leading_eigenvectors(part.matmul, part.diagonal(), 6)
    torch.testing.assert_close(vectors * values @ vectors.T, part)


@pytest.mark.parametrize("m", [0, 4])
def test_deflation_changes_the_steps_and_not_the_solution(square, rng, m):
    right = torch.tensor(rng.standard_normal((60, 3)))
    shifted = square + PENALTIES.view(3, 1, 1) * torch.eye(60).double()
    expected = torch.linalg.solve(shifted, right.T).T
    steps = []

    def times(x):
        steps.append(x)
        return square @ x + PENALTIES * x

    deflation = None
    if m:
        vectors, values = leading_eigenvectors(square.matmul, square.diagonal(), m)
        deflation = Deflation(vectors, values.unsqueeze(1) + PENALTIES)
    diagonal = square.diagonal().unsqueeze(1) + PENALTIES
    start = torch.zeros_like(right)
    found = solve_columns(
        times, right, diagonal, start, tolerance=1e-8, deflation=deflation
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert len(steps) < 60 if m else len(steps) > 70


def test_the_steps_end_once_all_columns_are_solved():
    diagonal = torch.tensor([[1.0], [2.0], [5.0]])
    right, steps = torch.ones(3, 1), []

    def times(x):
        steps.append(x)
        return diagonal * x

    found = solve_columns(times, right, diagonal, torch.zeros(3, 1))
    torch.testing.assert_close(found, 1 / diagonal)
    assert len(steps) == 2  # at the start, and one that solves a diagonal system


@pytest.mark.parametrize("n_shared", [None, 0, 10])
def test_each_column_is_solved_to_its_own_tolerance(square, rng, n_shared):
    right = torch.tensor(rng.standard_normal((60, 2)) * [1.0, 1e-6])
    matrix = square + torch.eye(60).double()
    found = solve_columns(
        matrix.matmul,
        right,
        matrix.diagonal().unsqueeze(1).expand(-1, 2),
        torch.zeros_like(right),
        tolerance=1e-6,
        n_shared=n_shared,
    )
    errors = (matrix @ found - right).norm(dim=0)
    assert (errors <= 1e-6 * right.norm(dim=0)).all()


# The ridge regressions of `improve_rows`


@pytest.fixture
def full(rng):
    """All ratings of 7 rows, and correlated factors of 20 items, as arguments."""
    pattern = Pattern(20 * torch.arange(8), torch.arange(20).repeat(7), (7, 20))
    factors = rng.standard_normal((20, 4)) @ rng.standard_normal((4, 4))
    return {
        "pattern": pattern,
        "ratings": torch.tensor(rng.standard_normal(pattern.nnz)),
        "factors": torch.tensor(factors),
        "penalty": torch.ones(7, dtype=torch.float64),
        "start": torch.tensor(rng.standard_normal((7, 4))),
    }


@pytest.mark.parametrize("weight", [None, 3.0])
def test_rows_with_all_ratings_are_solved_in_one_step(full, weight, monkeypatch):
    """Their systems are diagonal in the basis of the preconditioner."""
    weights = None if weight is None else torch.full_like(full["ratings"], weight)
    products = []
    sddmm = conjugate_gradients.sddmm
    monkeypatch.setattr(
        conjugate_gradients,
        "sddmm",
        lambda *args: products.append(args) or sddmm(*args),
    )
    found = improve_rows(**full, weights=weights, tolerance=1e-8)
    Z, c = full["factors"], weight or 1.0
    A = c * Z.T @ Z + torch.eye(4).double()
    expected = torch.linalg.solve(A, c * Z.T @ full["ratings"].view(7, 20).T).T
    torch.testing.assert_close(found, expected)
    assert len(products) == 2  # at the start, and one step


def test_a_row_without_anything_to_explain_becomes_zero(full):
    full["ratings"][20:40] = 0
    found = improve_rows(**full)
    assert not found[1].any()
    assert found[[0, *range(2, 7)]].all()


def test_factors_that_overflow_give_a_result_that_is_not_finite(full):
    full["factors"] *= 1e200
    assert not improve_rows(**full).isfinite().all()
