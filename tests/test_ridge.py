import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from skrec._core.conjugate_gradients import improve_rows
from skrec._core.networks import OutputActivation
from skrec._core.ridge import solve_rows
from skrec._core.sparse import Pattern

K = 6
PENALTY = 2.0
SIZES = [1, 2, 3, 5, 8, 20, 30, 0, 7]


@pytest.fixture
def problem(rng):
    """Rows with fewer and more ratings than factors, and one without ratings."""
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
    """Ridge regression with an unpenalized intercept, by the normal equations."""
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


def test_a_dead_relu_stays_finite(problem):
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


# Weights, priors and penalties of rows, and no intercept


@pytest.fixture
def general(problem, rng):
    """Additional arguments of factorizations: weights, priors, penalties of rows."""
    n_rows = len(SIZES)
    return {
        "penalty": torch.tensor(rng.uniform(0.5, 3, n_rows)),
        "weights": torch.tensor(rng.uniform(0.2, 2, len(problem[2]))),
        "prior": torch.tensor(rng.standard_normal((n_rows, K))),
    }


def solve_general(Z, r, c, penalty, prior):
    A = Z.T @ (Z * c[:, None]) + penalty * np.eye(K)
    return np.linalg.solve(A, Z.T @ (c * r) + penalty * prior)


def general_rows_of(problem, general):
    penalty, weights, prior = (t.numpy() for t in general.values())
    for i, part, Z, r in rows_of(problem):
        yield i, part, (Z, r, weights[part], penalty[i], prior[i])


def to_pattern(problem):
    indptr, indices, *_ = problem
    return Pattern(indptr, indices, (len(SIZES), len(problem[3])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_general_solutions_equal_the_normal_equations(problem, general, dtype):
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    indptr, indices, *floats = problem
    floats = [t.to(dtype) for t in floats]
    options = {name: t.to(dtype) for name, t in general.items()}
    found = solve_rows(indptr, indices, *floats, **options, intercept=False)
    assert found.coef.dtype == dtype
    assert not found.intercept.any()
    for i, _, row in general_rows_of(problem, general):
        np.testing.assert_allclose(found.coef[i], solve_general(*row), atol=tolerance)
    empty = SIZES.index(0)
    torch.testing.assert_close(found.coef[empty], options["prior"][empty])


def test_general_ratings_left_out_equal_refitting_without_them(problem, general):
    found = solve_rows(*problem, **general, intercept=False, leave_one_out=True)
    for _, part, (Z, r, c, penalty, prior) in general_rows_of(problem, general):
        for j in range(len(r)):
            others = np.arange(len(r)) != j
            if others.any():
                w = solve_general(Z[others], r[others], c[others], penalty, prior)
                np.testing.assert_allclose(found.left_out[part][j], Z[j] @ w, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conjugate_gradients_converge_to_the_direct_solution(problem, general, dtype):
    _, _, ratings, factors = problem
    direct = solve_rows(*problem, **general, intercept=False).coef
    found = improve_rows(
        to_pattern(problem),
        ratings.to(dtype),
        factors.to(dtype),
        start=torch.zeros_like(direct).to(dtype),
        **{name: t.to(dtype) for name, t in general.items()},
    )
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), direct, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-8])
def test_conjugate_gradients_never_raise_the_objective(problem, general, tolerance):
    """Even if the start is already the solution."""
    _, _, ratings, factors = problem
    weights, prior = general["weights"].numpy(), general["prior"].numpy()
    solution = solve_rows(*problem, **general, intercept=False).coef
    for start in (solution, solution + 0.1, torch.zeros_like(solution)):
        found = improve_rows(
            to_pattern(problem), ratings, factors, start=start, tolerance=tolerance,
            **general,
        )  # fmt: skip
        for i, part, Z, r in rows_of(problem):

            def objective(w, i=i, part=part, Z=Z, r=r):
                errors = weights[part] @ (r - Z @ w) ** 2
                return errors + general["penalty"][i] * ((w - prior[i]) ** 2).sum()

            before, after = (objective(x[i].numpy()) for x in (start, found))
            assert after <= before * (1 + 1e-12)


def test_enough_ratings_need_no_penalty(problem):
    indptr, indices, ratings, factors = problem
    row = SIZES.index(20)
    part = slice(int(indptr[row]), int(indptr[row + 1]))
    one = (torch.tensor([0, 20]), indices[part], ratings[part], factors)
    found = solve_rows(*one, 0.0, intercept=False).coef[0]
    Z, r = factors[indices[part]].numpy(), ratings[part].numpy()
    np.testing.assert_allclose(found, np.linalg.lstsq(Z, r)[0], atol=1e-9)


def test_too_few_ratings_without_penalty_are_refused(problem):
    with pytest.raises(ValueError, match=r"row 0 .* \(1\) than unknowns \(6\)"):
        solve_rows(*problem, 0.0, intercept=False)


def test_a_converged_row_takes_no_further_steps(rng):
    """Further steps would consist of rounding errors and could grow without bounds."""
    factors = torch.tensor(rng.standard_normal((40, 12)))
    pattern = Pattern(torch.tensor([0, 40, 80]), torch.arange(80) % 40, (2, 40))
    ratings = torch.tensor(rng.standard_normal(80))
    penalty = torch.ones(2, dtype=torch.float64)
    zeros = torch.zeros(2, 12, dtype=torch.float64)
    solved = improve_rows(pattern, ratings, factors, penalty, zeros, tolerance=1e-9)
    start = torch.stack([zeros[0], 0.9999 * solved[1]])
    found = improve_rows(pattern, ratings, factors, penalty, start, tolerance=0.1)
    torch.testing.assert_close(found[1], start[1], rtol=0, atol=1e-12)
    assert abs(found[0] - solved[0]).max() < 0.1 * abs(solved[0]).max()
