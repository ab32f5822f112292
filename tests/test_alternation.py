import numpy as np
import pytest
import torch
from helpers import random_sparse

from skrec._core.sparse import Pattern
from skrec._factorization.alternation import Alternation
from skrec._factorization.priors import MeanPrior, Prior

K = 4
LAMBDA_U = 1.5


class FixedPrior(Prior):
    """Fixed means."""

    def __init__(self, means):
        self._means = means

    def means(self):
        return self._means


@pytest.fixture(params=[(False, False), (True, False), (True, True)])
def parts(request, rng):
    """An alternation and its arguments; with and without biases and weights."""
    has_biases, is_weighted = request.param
    R = random_sparse(rng, (12, 9), 0.4)
    weights = rng.uniform(0.2, 2, R.nnz) if is_weighted else np.ones(R.nnz)
    size = K + has_biases
    users, items, means = (rng.standard_normal((n, size)) for n in (12, 9, 9))
    lambda_v = rng.uniform(0.5, 3, 9)
    alternation = Alternation(
        Pattern(torch.tensor(R.indptr), torch.tensor(R.indices), R.shape),
        torch.tensor(R.data),
        torch.tensor(weights) if is_weighted else None,
        torch.tensor(users),
        torch.tensor(items),
        has_biases=has_biases,
        lambda_u=torch.full((12,), LAMBDA_U, dtype=torch.float64),
        lambda_v=torch.tensor(lambda_v),
        user_prior=Prior(),
        item_prior=FixedPrior(torch.tensor(means)),
    )
    W = R.copy()
    W.data = weights
    return alternation, R, W, lambda_v, means


def predict(alternation):
    U, V = alternation.users.vectors.numpy(), alternation.items.vectors.numpy()
    if not alternation.has_biases:
        return U @ V.T
    return U[:, :-1] @ V[:, :-1].T + U[:, -1:] + V[:, -1]


def test_the_objective_equals_the_dense_formula(parts):
    alternation, R, W, lambda_v, means = parts
    errors = W.toarray() * (R.toarray() - predict(alternation)) ** 2
    users, items = alternation.users.vectors.numpy(), alternation.items.vectors.numpy()
    expected = 0.5 * errors.sum() + LAMBDA_U / 2 * (users**2).sum()
    expected += 0.5 * (lambda_v[:, None] * (items - means) ** 2).sum()
    assert alternation.objective() == pytest.approx(expected)


def solve_row(others, ratings, weights, penalty, mean, has_biases):
    """Solve the normal equations of one vector."""
    if has_biases:
        ratings = ratings - others[:, -1]
        others = np.column_stack([others[:, :-1], np.ones(len(others))])
    A = others.T @ (weights[:, None] * others) + penalty * np.eye(others.shape[1])
    return np.linalg.solve(A, others.T @ (weights * ratings) + penalty * mean)


def test_a_half_step_solves_for_all_users(parts):
    alternation, R, W, *_ = parts
    items = alternation.items.vectors.numpy().copy()
    alternation.improve(alternation.users, alternation.items)
    for u in range(R.shape[0]):
        r, w = R[[u]], W[[u]]
        expected = solve_row(
            items[r.indices], r.data, w.data, LAMBDA_U, 0, alternation.has_biases
        )
        np.testing.assert_allclose(alternation.users.vectors[u], expected, atol=1e-4)


def test_a_half_step_solves_for_all_items(parts):
    alternation, R, W, lambda_v, means = parts
    users = alternation.users.vectors.numpy().copy()
    alternation.improve(alternation.items, alternation.users)
    for i in range(R.shape[1]):
        r, w = R[:, [i]].tocoo(), W[:, [i]].tocoo()
        expected = solve_row(
            users[r.row], r.data, w.data, lambda_v[i], means[i], alternation.has_biases
        )
        np.testing.assert_allclose(alternation.items.vectors[i], expected, atol=1e-4)


def test_no_half_step_raises_the_objective(parts):
    alternation, *_ = parts
    before = alternation.objective()
    for _ in range(30):
        users, items = alternation.users, alternation.items
        for sides in (users, items), (items, users):
            alternation.improve(*sides)
            after = alternation.objective()
            assert after <= before * (1 + 1e-12)
            before = after


def test_the_prior_is_fitted_to_the_items_in_each_sweep(parts):
    alternation, *_ = parts
    seen = []
    alternation.items.prior.fit = lambda vectors, weights: seen.append(vectors.clone())
    alternation.sweep()
    torch.testing.assert_close(seen, [alternation.items.vectors])


def test_the_mean_prior_is_the_mean_of_rated_items():
    vectors = torch.tensor([[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]])
    is_rated = torch.tensor([True, True, False])
    prior = MeanPrior(is_rated, 2, torch.float32)
    for weights, mean in [([1.0, 1.0, 1.0], [2.0, 4.0]), ([1.0, 3.0, 1.0], [2.5, 5.0]),
                          ([0.0, 0.0, 0.0], [2.0, 4.0])]:  # fmt: skip
        prior.fit(vectors, torch.tensor(weights))
        torch.testing.assert_close(prior.means(), torch.tensor([mean] * 3))
