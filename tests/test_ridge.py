import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from skrec._core import chunks, ridge
from skrec._core.conjugate_gradients import improve_rows
from skrec._core.networks import OutputActivation
from skrec._core.ridge import positive_penalty, row_buckets, solve_rows
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
    # Where the link is flat, the rating has no influence on its sum.
    assert not found.left_out[indptr[1] :].any()


def test_gauss_newton_starts_at_zero_by_default(problem):
    indptr, indices, ratings, factors = problem
    found = solve_rows(indptr, indices, -ratings, factors, PENALTY, link=torch.relu)
    assert not found.intercept.any()  # the slope of the link is 0 there


def test_left_out_ratings_are_exact_if_the_link_is_linear(problem):
    """With a slope of 2, factors and intercept are half as large."""
    options = {"leave_one_out": True, "link": lambda sums: 2 * sums + 1}
    indptr, indices, ratings, factors = problem
    found = solve_rows(*problem, 4 * PENALTY, **options)
    expected = solve_rows(
        indptr, indices, ratings - 1, factors, PENALTY, leave_one_out=True
    )
    torch.testing.assert_close(found.coef, expected.coef / 2)
    torch.testing.assert_close(found.intercept, expected.intercept / 2)
    torch.testing.assert_close(found.left_out, expected.left_out + 1, equal_nan=True)


def test_gauss_newton_stops_once_the_objective_stays(problem):
    calls = []
    solve_rows(*problem, PENALTY, link=lambda sums: calls.append(sums) or 2 * sums)
    n_buckets = len(list(row_buckets(problem[0], K)))
    # The start; a step to the solution, and one that stays there: linearized and tried.
    assert len(calls) <= 5 * n_buckets


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_gauss_newton_does_not_depend_on_the_scale_of_the_ratings(problem, scale):
    indptr, indices, ratings, factors = problem
    found, expected = (
        solve_rows(
            indptr,
            indices,
            factor * ratings,
            factors,
            PENALTY * factor**2,
            link=lambda sums, factor=factor: factor * (1 + 4 * sums.sigmoid()),
        ).coef
        for factor in (scale, 1.0)
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("start", [3.0, -3.0])
def test_gauss_newton_halves_steps_that_raise_the_objective(rng, start):
    """Where the link is nearly flat, whole steps are too long."""
    link = OutputActivation("sigmoid", 1.0, 5.0)
    factors = torch.tensor(rng.standard_normal((40, 2)))
    indices = torch.tensor(rng.integers(0, 40, 32))
    ratings = torch.tensor(rng.integers(1, 6, 32).astype(float))
    rows = torch.tensor([0, 9, 20, 32]), indices, ratings, factors
    expected = solve_rows(*rows, PENALTY, link=link)
    found = solve_rows(*rows, PENALTY, link=link, start=start)
    torch.testing.assert_close(found.coef, expected.coef, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.intercept, expected.intercept, atol=1e-4, rtol=0)


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


def test_left_out_ratings_are_computed_on_demand(problem):
    assert solve_rows(*problem, PENALTY).left_out is None
    assert solve_rows(*problem, PENALTY, link=torch.tanh).left_out is None


@pytest.mark.parametrize("link", [None, torch.tanh])
def test_the_smaller_of_the_two_systems_is_solved(problem, link, monkeypatch):
    dual, primal = [], []

    def record(name, widths):
        solver = getattr(ridge, name)

        def solve(Z, *args):
            widths.append(Z.shape[1])
            return solver(Z, *args)

        monkeypatch.setattr(ridge, name, solve)

    record("_solve_dual", dual)
    record("_solve_primal", primal)
    _, indices, ratings, factors = problem
    of_size_k = torch.tensor([0, K]), indices[:K], ratings[:K], factors
    for rows in (problem, of_size_k):
        solve_rows(*rows, 0.5, link=link, leave_one_out=True)
    assert max(dual) == K
    assert min(primal) > K
    dual.clear()
    solve_rows(*of_size_k, 0.0, intercept=False)  # the dual system divides by 0
    assert not dual


def test_penalties_have_the_precision_of_the_factors(problem):
    as_tensor = torch.full((len(SIZES),), 0.1, dtype=torch.float64)
    found = [solve_rows(*problem, penalty).coef for penalty in (0.1, as_tensor)]
    assert torch.equal(*found)


def test_the_smallest_penalty_is_relative_to_the_longest_factor():
    factors = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert positive_penalty(0.0, factors) == pytest.approx(25e-8)
    assert positive_penalty(1e-6, factors) == 1e-6
    assert positive_penalty(0.0, 0 * factors) == torch.finfo(torch.float32).tiny


# Buckets of rows


def buckets_of(sizes, *args):
    indptr = torch.tensor(np.concatenate([[0], np.cumsum(sizes)]))
    return list(row_buckets(indptr, *args))


def test_a_bucket_has_rows_of_at_most_a_quarter_and_four_more_ratings():
    found = buckets_of([17, 10, 0, 16, 10], 1)
    assert [rows.tolist() for rows, *_ in found] == [[1, 4, 3], [0]]
    _, entries, mask = found[0]
    assert mask.sum(1).tolist() == [10, 10, 16]
    assert entries[1][mask[1]].tolist() == list(range(43, 53))
    assert not entries[~mask].any()


def test_rows_of_equal_size_stay_in_order():
    rows = torch.cat([rows for rows, *_ in buckets_of([3] * 1000, 1)])
    assert torch.equal(rows, torch.arange(1000))


def test_a_bucket_holds_no_more_numbers_than_a_chunk(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 200)
    # Rows of 8 ratings are held with a width of 14.
    sizes = [len(rows) for rows, *_ in buckets_of([8] * 10, 3)]
    assert sizes == [4, 4, 2]
    sizes = [len(rows) for rows, *_ in buckets_of([8] * 10, 3, lambda width: width)]
    assert sizes == [3, 3, 3, 1]


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


def test_an_intercept_is_solved_with_weights_and_a_prior(problem, general):
    found = solve_rows(*problem, **general)
    for i, _, (Z, r, c, penalty, prior) in general_rows_of(problem, general):
        A = np.column_stack([Z, np.ones(len(Z))])
        added = penalty * np.diag([1.0] * K + [0.0])
        right = A.T @ (c * r) + added @ np.append(prior, 0)
        expected = np.linalg.solve(A.T @ (A * c[:, None]) + added, right)
        np.testing.assert_allclose(found.coef[i], expected[:-1], atol=1e-9)
        np.testing.assert_allclose(found.intercept[i], expected[-1], atol=1e-9)


def test_without_penalty_a_row_needs_a_rating_for_each_unknown(problem):
    _, indices, ratings, factors = problem

    def solve(n, **options):
        indptr = torch.tensor([0, n, n])  # a row without ratings needs none
        return solve_rows(indptr, indices[:n], ratings[:n], factors, 0.0, **options)

    assert solve(K, intercept=False).coef.isfinite().all()
    assert solve(K + 1).coef.isfinite().all()
    with pytest.raises(
        ValueError, match=rf"row 0 .* \({K}\) than unknowns \({K + 1}\)"
    ):
        solve(K)


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
