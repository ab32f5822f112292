import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from skrec._core.networks import OutputActivation
from skrec._core.ridge import solve_rows

K = 6
PENALTY = 2.0
SIZES = [1, 2, 3, 5, 8, 20, 30, 0, 7]


@pytest.fixture
def problem(rng):
    """Rows with fewer and with more ratings than factors, and one without any."""
    factors = torch.tensor(rng.standard_normal((40, K)))
    indices = [np.sort(rng.choice(40, size, replace=False)) for size in SIZES]
    indptr = np.concatenate([[0], np.cumsum(SIZES)])
    ratings = rng.integers(1, 6, indptr[-1]).astype(float)
    return (
        torch.tensor(indptr),
        torch.tensor(np.concatenate(indices)),
        torch.tensor(ratings),
        factors,
    )


def solve_one(Z, r):
    """Ridge regression with an unpenalised intercept, by the normal equations."""
    A = np.column_stack([Z, np.ones(len(Z))])
    penalty = np.diag([PENALTY] * K + [0.0])
    return np.linalg.solve(A.T @ A + penalty, A.T @ r)


def rows_of(problem):
    indptr, indices, ratings, factors = (t.numpy() for t in problem)
    for i, size in enumerate(SIZES):
        if size:
            part = slice(indptr[i], indptr[i + 1])
            yield i, part, factors[indices[part]], ratings[part]


def test_solutions_equal_the_normal_equations(problem):
    found = solve_rows(*problem, PENALTY)
    for i, _, Z, r in rows_of(problem):
        expected = solve_one(Z, r)
        np.testing.assert_allclose(found.coef[i], expected[:-1], atol=1e-10)
        np.testing.assert_allclose(found.intercept[i], expected[-1], atol=1e-10)


def test_a_row_without_ratings_has_zero_factors(problem):
    found = solve_rows(*problem, PENALTY)
    assert not found.coef[SIZES.index(0)].any()
    assert found.intercept[SIZES.index(0)] == 0


def test_left_out_ratings_equal_refitting_without_them(problem):
    found = solve_rows(*problem, PENALTY, leave_one_out=True).left_out.numpy()
    for _, part, Z, r in rows_of(problem):
        for j in range(len(r)):
            others = np.arange(len(r)) != j
            if not others.any():
                assert np.isnan(found[part][j])
                continue
            theta = solve_one(Z[others], r[others])
            expected = Z[j] @ theta[:-1] + theta[-1]
            np.testing.assert_allclose(found[part][j], expected, atol=1e-9)


def test_left_out_ratings_do_not_depend_on_the_rating_itself(problem):
    indptr, indices, ratings, factors = problem
    before = solve_rows(*problem, PENALTY, leave_one_out=True).left_out
    changed = ratings.clone()
    changed[10] += 100
    after = solve_rows(
        indptr, indices, changed, factors, PENALTY, leave_one_out=True
    ).left_out
    torch.testing.assert_close(after[10], before[10])


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "elu", "selu", "relu"])
def test_gauss_newton_finds_the_minimum(problem, name):
    link = OutputActivation(name, 1.0, 5.0)
    found = solve_rows(*problem, PENALTY, link=link, start=link.start(3.0))
    for i, _, Z, r in rows_of(problem):
        Z, r = torch.tensor(Z), torch.tensor(r)

        def objective(theta, Z=Z, r=r):
            theta = torch.tensor(theta, requires_grad=True)
            error = r - link(Z @ theta[:-1] + theta[-1])
            loss = error.square().sum() + PENALTY * theta[:-1].square().sum()
            loss.backward()
            return loss.item(), theta.grad.numpy()

        start = np.append(np.zeros(K), link.start(3.0))
        best = minimize(objective, start, jac=True, method="BFGS").fun
        mine = objective(np.append(found.coef[i], found.intercept[i]))[0]
        assert mine <= best + 1e-5 * max(1, best)


def test_approximate_left_out_ratings_are_close_to_refitting(problem):
    link = OutputActivation("sigmoid", 1.0, 5.0)
    options = {"link": link, "start": link.start(3.0)}
    indptr, indices, ratings, factors = problem
    found = solve_rows(*problem, PENALTY, leave_one_out=True, **options).left_out
    fitted = solve_rows(*problem, PENALTY, **options)
    i = SIZES.index(30)
    part = slice(indptr[i], indptr[i + 1])
    naive, refitted = [], []
    for j in range(int(indptr[i]), int(indptr[i + 1])):
        keep = torch.arange(int(indptr[i]), int(indptr[i + 1]))
        keep = keep[keep != j]
        without = solve_rows(
            torch.tensor([0, len(keep)]),
            indices[keep],
            ratings[keep],
            factors,
            PENALTY,
            **options,
        )
        z = factors[indices[j]]
        refitted.append(link(z @ without.coef[0] + without.intercept[0]))
        naive.append(link(z @ fitted.coef[i] + fitted.intercept[i]))
    refitted, naive = torch.stack(refitted), torch.stack(naive)
    error = (found[part] - refitted).abs().mean()
    assert error < 0.2 * (naive - refitted).abs().mean()


def test_a_relu_that_is_dead_everywhere_stays_finite(problem):
    indptr, indices, ratings, factors = problem
    found = solve_rows(
        indptr,
        indices,
        -ratings,
        factors,
        PENALTY,
        link=torch.relu,
        start=-1.0,
        leave_one_out=True,
    )
    assert found.coef.isfinite().all()
    assert found.left_out[indptr[1] :].isfinite().all()


def test_rows_of_very_different_sizes_do_not_share_a_bucket(rng):
    sizes = [1] * 50 + [300]
    indptr = torch.tensor(np.concatenate([[0], np.cumsum(sizes)]))
    indices = torch.tensor(np.concatenate([[0] * 50, np.arange(300)]))
    factors = torch.tensor(rng.standard_normal((300, 3)))
    ratings = torch.tensor(rng.standard_normal(350))
    found = solve_rows(indptr, indices, ratings, factors, PENALTY)
    A = np.column_stack([factors, np.ones(300)])
    expected = np.linalg.solve(
        A.T @ A + np.diag([PENALTY] * 3 + [0]), A.T @ ratings[50:].numpy()
    )
    np.testing.assert_allclose(found.coef[-1], expected[:-1], atol=1e-10)
    np.testing.assert_allclose(found.intercept[:50], ratings[:50], atol=1e-10)


def test_a_singular_problem_is_refused():
    factors = torch.full((3, 2), 1e200, dtype=torch.float64)
    arguments = torch.tensor([0, 3]), torch.arange(3), torch.ones(3).double(), factors
    with pytest.raises(ValueError, match="singular to working precision"):
        solve_rows(*arguments, 1.0)
