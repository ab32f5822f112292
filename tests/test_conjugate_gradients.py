import numpy as np
import pytest
import torch

from skrec._core.conjugate_gradients import (
    Deflation,
    leading_eigenvectors,
    solve_columns,
)

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
