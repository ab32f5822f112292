import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import random_sparse, standardized, to_ratings
from sklearn.metrics import root_mean_squared_error

from skrec import BiasedMFRegressor, SVDppRegressor
from skrec._core.sparse import Pattern
from skrec._factorization.priors import ImplicitPrior

LAMBDAS = {"lambda_u": 2.0, "lambda_v": 3.0, "lambda_y": 4.0}


def make(**params):
    return SVDppRegressor(
        **({"n_factors": 4, "random_state": 0} | LAMBDAS | params),
    )


@pytest.fixture(scope="module")
def model(R):
    return make().fit(R)


def indicators(R):
    """Rated items as rows of ones, divided by the square root of their number."""
    return (R.toarray() != 0) / np.sqrt(np.diff(R.indptr))[:, None]


def objective(model, R, users, items, links):
    """The objective by the formula in the Notes; vectors end in their bias."""
    own = users - indicators(R) @ links
    predicted = users[:, :-1] @ items[:, :-1].T + users[:, -1:] + items[:, -1]
    errors = (standardized(model, R.toarray()) - predicted)[R.toarray() != 0]
    squares = (
        (errors**2).sum(),
        LAMBDAS["lambda_u"] * (own**2).sum(),
        LAMBDAS["lambda_v"] * ((items - items.mean(axis=0)) ** 2).sum(),
        LAMBDAS["lambda_y"] * (links**2).sum(),
    )
    return sum(squares) / 2


def vectors(model):
    users = np.column_stack([model.user_factors_, model.user_biases_])
    items = np.column_stack([model.item_factors_, model.item_biases_])
    return users, items, model.item_links_


def test_the_fit_is_a_minimum_of_the_objective(R):
    model = make(dtype="float64", tol=1e-9, max_iter=5000).fit(R)
    parts = vectors(model)
    best = objective(model, R, *parts)
    assert model.loss_curve_[-1] == pytest.approx(best, rel=1e-6)
    rng = np.random.default_rng(0)
    for i in range(3):
        for _ in range(10):
            moved = [part.copy() for part in parts]
            moved[i] += 0.01 * rng.standard_normal(moved[i].shape)
            assert objective(model, R, *moved) > best


def test_no_iteration_raises_the_objective(R):
    losses = np.array(make(dtype="float64").fit(R).loss_curve_)
    assert (np.diff(losses) <= 1e-9 * losses[:-1]).all()


def test_pairs_are_predicted_by_the_formula(model, R, pairs):
    X, _ = pairs
    F = indicators(R)
    # The users' own vectors, without the links of rated items.
    own = np.column_stack([model.user_factors_, model.user_biases_])
    own = own - F @ model.item_links_
    expected = []
    for u, i in X:
        items = R[[u]].indices
        added = model.item_links_[items].sum(axis=0) / np.sqrt(len(items))
        whole = own[u] + added
        q = model.item_factors_[i]
        expected.append(
            model.intercept_ + whole[-1] + model.item_biases_[i] + q @ whole[:-1]
        )
    expected = to_ratings(model, np.array(expected))
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-4)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_links_solve_a_ridge_regression(rng, is_weighted):
    R = random_sparse(rng, (12, 7), 0.4)
    F, users = indicators(R), rng.standard_normal((12, 3))
    weights = rng.uniform(0.5, 2, 12) if is_weighted else np.full(12, 1.5)
    pattern = Pattern(torch.tensor(R.indptr), torch.tensor(R.indices), R.shape)
    prior = ImplicitPrior(pattern, torch.zeros(7, 3, dtype=torch.float64), 0.7)
    prior.fit(torch.tensor(users), torch.tensor(weights))
    A = F.T @ (weights[:, None] * F) + 0.7 * np.eye(7)
    expected = np.linalg.solve(A, F.T @ (weights[:, None] * users))
    np.testing.assert_allclose(prior.links, expected, atol=5e-3)
    np.testing.assert_allclose(prior.means(), F @ prior.links.numpy())
    assert prior.penalty() == pytest.approx(0.35 * (prior.links.numpy() ** 2).sum())


def test_users_without_ratings_have_no_links(rng):
    R = sp.csr_array(
        sp.block_diag([random_sparse(rng, (30, 20), 0.4), sp.csr_array((2, 3))])
    )
    model = make().fit(R)
    np.testing.assert_array_equal(model.item_links_[-3:], 0)
    np.testing.assert_array_equal(model.predict(R)[-1], model.item_means_)


def test_a_large_lambda_y_gives_biased_mf(R):
    params = {"n_factors": 4, "lambda_u": 2.0, "lambda_v": 3.0, "random_state": 0}
    plain = BiasedMFRegressor(**params, tol=1e-7, max_iter=2000).fit(R)
    model = make(lambda_y=1e9, tol=1e-7, max_iter=2000).fit(R)
    np.testing.assert_allclose(model.predict(R), plain.predict(R), atol=0.01)


def test_folding_in_recovers_converged_user_factors(R):
    model = make(dtype="float64", tol=1e-9, max_iter=5000).fit(R)
    np.testing.assert_allclose(model.transform(R), model.user_factors_, atol=2e-3)


def test_chunk_sizes_do_not_change_predictions(model, R, monkeypatch):
    before = model.predict(R), model.score(R)
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 7 * 25)
    np.testing.assert_allclose(model.predict(R), before[0], rtol=1e-5)
    assert model.score(R) == pytest.approx(before[1])


def test_links_use_which_items_were_rated():
    """Users like half of the items, and mostly rate items they like."""
    rng = np.random.default_rng(0)
    likes = np.repeat([0, 1], 150)[:, None] == np.repeat([0, 1], 30)
    mask = rng.random(likes.shape) < np.where(likes, 0.2, 0.03)
    row, col = mask.nonzero()
    X, y = np.column_stack([row, col]), likes[row, col] + 3 + rng.normal(0, 1, len(row))
    others = np.argwhere(~mask)  # mostly items that the users do not like
    errors = []
    for lambda_y in (1e9, 10.0):
        model = make(n_factors=2, lambda_u=20.0, lambda_y=lambda_y, max_iter=1000)
        predicted = model.fit(X, y).predict(others)
        errors.append(root_mean_squared_error(likes[~mask] + 3, predicted))
    assert errors[1] < 0.85 * errors[0]


def test_a_penalty_of_zero_still_predicts_short_rows(R):
    model = make(lambda_u=0, n_factors=1).fit(R)
    row = sp.csr_array(([4.0], ([0], [0])), shape=(1, R.shape[1]))
    assert np.isfinite(model.predict(row)).all()


@pytest.mark.parametrize(
    ("params", "match"),
    [({"lambda_y": 0}, "lambda_y"), ({"lambda_u": -1}, "lambda_u")],
)
def test_bad_parameters_are_refused(R, params, match):
    with pytest.raises(ValueError, match=match):
        make(**params).fit(R)
