import numpy as np
import pytest
import torch

from skrec import BiasedMFRegressor
from skrec._core import chunks, half_steps
from skrec._core.conjugate_gradients import improve_rows
from skrec._core.half_steps import gram_is_faster, solve_by_gram, solve_half_step
from skrec._core.normal_rows import parts
from skrec._core.ridge import solve_rows
from skrec._core.sparse import Pattern
from skrec.datasets import make_ratings

K = 6
SIZES = [1, 2, 3, 5, 8, 20, 30, 0, 7]


@pytest.fixture
def pattern(rng):
    """Rows with fewer and more ratings than factors, and one without ratings."""
    indices = [np.sort(rng.choice(40, size, replace=False)) for size in SIZES]
    crow = torch.tensor(np.concatenate([[0], np.cumsum(SIZES)]))
    return Pattern(crow, torch.tensor(np.concatenate(indices)), (len(SIZES), 40))


@pytest.fixture
def problem(pattern, rng):
    """Arguments of the solvers, in double precision."""
    return {
        "ratings": torch.tensor(rng.standard_normal(pattern.nnz)),
        "factors": torch.tensor(rng.standard_normal((40, K))),
        "penalty": torch.tensor(rng.uniform(0.5, 3, len(SIZES))),
        "weights": torch.tensor(rng.uniform(0.2, 2, pattern.nnz)),
        "prior": torch.tensor(rng.standard_normal((len(SIZES), K))),
    }


def directly(pattern, problem):
    return solve_rows(pattern.crow, pattern.col, intercept=False, **problem).coef


@pytest.mark.parametrize("without", [[], ["weights"], ["prior"]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gram_solutions_equal_those_of_each_row(pattern, problem, dtype, without):
    for name in without:
        del problem[name]
    found = solve_by_gram(pattern, **{n: t.to(dtype) for n, t in problem.items()})
    assert found.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    expected = directly(pattern, problem)
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=0)


def test_rows_that_do_not_fit_in_memory_together_have_the_same_solutions(
    pattern, problem, monkeypatch
):
    whole = solve_by_gram(pattern, **problem)
    monkeypatch.setattr(chunks, "CHUNK", 2 * 2 * K**2)
    found = []

    def record(*args):
        found.extend(parts(*args))
        return found

    monkeypatch.setattr(half_steps, "parts", record)
    torch.testing.assert_close(solve_by_gram(pattern, **problem), whole)
    # Two matrices for each row, and two rows at a time
    assert [part.pattern.shape[0] for part in found] == [2, 2, 2, 2, 1]


def test_both_solvers_find_the_same_vectors(pattern, problem):
    start = torch.zeros(len(SIZES), K, dtype=torch.float64)
    iterative = improve_rows(pattern, start=start, tolerance=1e-10, **problem)
    torch.testing.assert_close(solve_by_gram(pattern, **problem), iterative)


def test_whole_fits_do_not_depend_on_the_solver(monkeypatch):
    R = make_ratings(120, 60, density=0.3, random_state=0).R
    model = BiasedMFRegressor(n_factors=4, lambda_u=3.0, lambda_v=3.0, random_state=0)
    by_gram = model.fit(R).predict(R)
    calls = []

    def count(*args, **kwargs):
        calls.append(args)
        return improve_rows(*args, **kwargs)

    monkeypatch.setattr(half_steps, "improve_rows", count)
    assert np.array_equal(model.fit(R).predict(R), by_gram)
    assert not calls
    monkeypatch.setattr(half_steps, "_MOST", 0)
    np.testing.assert_allclose(model.fit(R).predict(R), by_gram, atol=5e-3)
    assert calls


def test_a_row_without_ratings_and_penalty_is_zero(pattern, problem):
    empty = SIZES.index(0)
    problem["penalty"][empty] = 0
    assert not solve_by_gram(pattern, **problem)[empty].any()


def test_conjugate_gradients_solve_what_is_singular(pattern, problem):
    """A factor that no rating depends on, without penalty."""
    enough = torch.tensor([i for i, size in enumerate(SIZES) if size > K])
    part, entries = pattern.rows(enough)
    problem = {
        "ratings": problem["ratings"][entries],
        "factors": problem["factors"] * (torch.arange(K) > 0),
        "penalty": torch.zeros(len(enough), dtype=torch.float64),
    }
    assert solve_by_gram(part, **problem).isnan().all()
    start = torch.zeros(len(enough), K, dtype=torch.float64)
    found = solve_half_step(part, start=start, **problem)
    assert not found[:, 0].any()
    problem["factors"] = problem["factors"][:, 1:]
    torch.testing.assert_close(
        found[:, 1:], solve_by_gram(part, **problem), atol=1e-2, rtol=1e-2
    )


def test_many_ratings_and_few_factors_make_gram_matrices_faster():
    def ratings_per_row(n, n_rows=3):
        crow = n * torch.arange(n_rows + 1)
        return Pattern(crow, torch.arange(n).repeat(n_rows), (n_rows, n))

    assert gram_is_faster(ratings_per_row(166), 10)
    assert gram_is_faster(ratings_per_row(166), 30)
    assert not gram_is_faster(ratings_per_row(166), 40)
    assert not gram_is_faster(ratings_per_row(16), 30)
    assert gram_is_faster(ratings_per_row(4), 10)
    assert not gram_is_faster(ratings_per_row(100_000), 60)
    assert gram_is_faster(Pattern(torch.zeros(1), torch.zeros(0), (0, 5)), 10)
