import numpy as np
import pytest
from helpers import left_out
from sklearn.metrics import r2_score

from skrec import BaselineRegressor
from skrec.model_selection import ratings_to_samples


def effects(R, weights, lambda_u, lambda_v):
    """Effects by the dense normal equations."""
    W = R.copy()
    W.data = weights
    W, values = W.toarray(), R.toarray()
    mean = np.average(R.data, weights=weights)
    n_users = len(W)
    A = np.block([[np.diag(W.sum(1) + lambda_u), W],
                  [W.T, np.diag(W.sum(0) + lambda_v)]])  # fmt: skip
    residual = W * (values - mean)
    solution = np.linalg.solve(A, np.r_[residual.sum(1), residual.sum(0)])
    return mean, solution[:n_users], solution[n_users:]


@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_effects_solve_the_normal_equations(R, rng, is_weighted):
    weights = rng.uniform(0.5, 2, R.nnz) if is_weighted else np.ones(R.nnz)
    W = R.copy()
    W.data = weights
    model = BaselineRegressor(lambda_u=2.0, lambda_v=7.0)
    model.fit(R, sample_weight=W if is_weighted else None)
    mean, users, items = effects(R, weights, 2.0, 7.0)
    assert model.intercept_ == pytest.approx(mean)
    np.testing.assert_allclose(model.user_factors_[:, 0], users, atol=1e-10)
    np.testing.assert_allclose(model.item_biases_, items, atol=1e-10)


def test_a_prediction_is_the_mean_plus_both_effects(R, pairs):
    X, _ = pairs
    model = BaselineRegressor(lambda_u=5.0, lambda_v=5.0, clip=False).fit(*pairs)
    mean, users, items = effects(R, np.ones(R.nnz), 5.0, 5.0)
    expected = mean + users[X[:, 0]] + items[X[:, 1]]
    np.testing.assert_allclose(model.predict(X), expected)


def test_unseen_users_and_items_get_the_known_effect(R, pairs):
    model = BaselineRegressor(lambda_u=5.0, lambda_v=5.0, clip=False).fit(*pairs)
    mean, users, items = effects(R, np.ones(R.nnz), 5.0, 5.0)
    found = model.predict([[1000, 3], [2, 1000], [1000, 1000]])
    np.testing.assert_allclose(found, [mean + items[3], mean + users[2], mean])


def test_the_objective_equals_the_notes(R):
    model = BaselineRegressor(lambda_u=2.0, lambda_v=3.0, clip=False).fit(R)
    errors = R.data - model.predict(ratings_to_samples(R)[0])
    users, items = model.user_factors_, model.item_biases_
    expected = (errors @ errors + 2 * (users**2).sum() + 3 * (items**2).sum()) / 2
    assert model.loss_curve_ == [pytest.approx(expected)]


def test_the_score_of_a_matrix_leaves_each_rating_out(R):
    model = BaselineRegressor().fit(R)
    rows = R[:10]
    expected = r2_score(rows.data, left_out(model, rows))
    assert model.score(rows) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["lambda_u", "lambda_v"])
def test_penalties_are_positive(R, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        BaselineRegressor(**{name: 0.0}).fit(R)


def random_effects(rng, std_u, std_v, noise):
    """Ratings of 300 users and 200 items with normal effects."""
    users, items = rng.normal(0, std_u, 300), rng.normal(0, std_v, 200)
    row, col = np.nonzero(rng.random((300, 200)) < 0.2)
    y = 3 + users[row] + items[col] + rng.normal(0, noise, len(row))
    return np.column_stack([row, col]), y


@pytest.mark.parametrize(("std_u", "std_v", "noise"), [(0.5, 0.4, 1), (1, 0.1, 0.5)])
def test_automatic_penalties_are_ratios_of_variances(rng, std_u, std_v, noise):
    model = BaselineRegressor().fit(*random_effects(rng, std_u, std_v, noise))
    assert model.lambda_u_ == pytest.approx((noise / std_u) ** 2, rel=0.25)
    assert model.lambda_v_ == pytest.approx((noise / std_v) ** 2, rel=0.4)


def test_a_given_penalty_stays_beside_an_automatic_one(rng):
    X, y = random_effects(rng, 0.5, 0.4, 1)
    both, one = BaselineRegressor(), BaselineRegressor(lambda_u=3)
    assert one.fit(X, y).lambda_u_ == 3
    assert one.lambda_v_ == both.fit(X, y).lambda_v_


def test_automatic_penalties_follow_the_weights(rng):
    """A rating of weight 2 counts like two equal users' ratings of weight 1."""
    X, y = random_effects(rng, 0.5, 0.4, 1)
    once = BaselineRegressor().fit(X, y)
    scaled = BaselineRegressor().fit(X, y, sample_weight=np.full(len(y), 2.0))
    # The noise of weight 1 has twice the variance, so that the penalty doubles.
    assert scaled.lambda_u_ == pytest.approx(2 * once.lambda_u_, rel=1e-3)
    np.testing.assert_allclose(scaled.predict(X), once.predict(X), rtol=1e-4)


@pytest.mark.parametrize(("a", "b"), [(0.01, 0), (1, 1000), (20, -50), (1e4, 3)])
def test_predictions_follow_an_affine_change_of_the_ratings(rng, a, b):
    X, y = random_effects(rng, 0.5, 0.4, 1)
    expected = a * BaselineRegressor().fit(X, y).predict(X) + b
    found = BaselineRegressor().fit(X, a * y + b).predict(X)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * a)


@pytest.mark.parametrize("y", [[4, 4, 4, 4], [1, 5, 1, 5]])
def test_few_ratings_have_finite_automatic_penalties(y):
    X = [["ann", "up"], ["ann", "alien"], ["bob", "up"], ["eve", "heat"]]
    model = BaselineRegressor().fit(X, y)
    assert 0 < model.lambda_u_ < np.inf
    assert np.isfinite(model.predict(X)).all()
