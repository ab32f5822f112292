import numpy as np
import pytest
from helpers import Interrupt, standardized, to_ratings, without_one
from sklearn.metrics import r2_score

from skrec import LLORMARegressor
from skrec._factorization.alternation import Alternation


def make(**params):
    defaults = {
        "n_models": 4, "n_factors": 3, "lambda_u": 3.0, "lambda_v": 2.0,
        "bandwidth": 1.5, "local_penalty": 0.4, "random_state": 0,
        "device": "cpu",
    }  # fmt: skip
    return LLORMARegressor(**(defaults | params))


@pytest.fixture(scope="module")
def model(R):
    return make().fit(R)


def kernel(vectors, anchor, bandwidth):
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(anchor)
    angles = np.arccos(np.clip(vectors @ anchor / lengths, -1, 1))
    return np.where(angles < bandwidth, 1 - (angles / bandwidth) ** 2, 0)


def formula(model):
    """All predictions by the formula in the Notes."""
    preliminary = model.user_factors_ @ model.item_factors_.T
    preliminary += model.user_biases_[:, None] + model.item_biases_
    total, weight = np.zeros_like(preliminary), np.zeros_like(preliminary)
    local = model.local_user_factors_, model.local_item_factors_
    for U, V, a, b in zip(
        *local, model.user_kernels_, model.item_kernels_, strict=True
    ):
        near = np.outer(a, b)
        weight += near
        total += near * (U[:, :-1] @ V[:, :-1].T + U[:, -1:] + V[:, -1])
    sums = np.where(weight > 0, total / np.where(weight > 0, weight, 1), preliminary)
    return to_ratings(model, sums + model.intercept_)


def test_kernels_follow_from_the_angles_to_the_anchors(model):
    for t, (u, i) in enumerate(
        zip(model.anchor_users_, model.anchor_items_, strict=True)
    ):
        users = kernel(model.user_factors_, model.user_factors_[u], 1.5)
        items = kernel(model.item_factors_, model.item_factors_[i], 1.5)
        np.testing.assert_allclose(model.user_kernels_[t], users, atol=1e-3)
        np.testing.assert_allclose(model.item_kernels_[t], items, atol=1e-3)


def test_anchors_are_among_the_ratings(model, R):
    assert (R[model.anchor_users_, model.anchor_items_] > 0).all()


def test_predictions_are_weighted_means_of_local_models(model, R, pairs):
    X, _ = pairs
    expected = formula(model)
    np.testing.assert_allclose(model.predict(X), expected[X[:, 0], X[:, 1]], atol=1e-4)
    predictor = model._predictor()
    users = predictor.known_users(np.arange(R.shape[0]))
    everyone = predictor.predict_dense(users)
    np.testing.assert_allclose(everyone, expected, atol=1e-4)


def test_pairs_far_from_all_anchors_get_the_preliminary_model(R, pairs):
    model = make(bandwidth=0.3, n_models=1).fit(R)
    X, _ = pairs
    far = (model.user_kernels_[0][X[:, 0]] * model.item_kernels_[0][X[:, 1]]) == 0
    assert far.sum() > 100
    preliminary = model.user_factors_ @ model.item_factors_.T + model.intercept_
    preliminary += model.user_biases_[:, None] + model.item_biases_
    expected = to_ratings(model, preliminary[X[far, 0], X[far, 1]])
    np.testing.assert_allclose(model.predict(X[far]), expected, atol=1e-5)


def test_local_users_solve_weighted_ridge_regressions(R):
    """Vectors of users against numpy.linalg.solve, given those of items."""
    model = make(tol=1e-9, max_iter=3000, dtype="float64", n_models=2).fit(R)
    penalty = 0.4 * 3.0
    for t in range(2):
        for u in np.flatnonzero(model.user_kernels_[t] > 0)[:10]:
            row = R[[u]].tocsr()
            k = model.item_kernels_[t][row.indices]
            V = model.local_item_factors_[t][row.indices]
            Z = np.column_stack([V[:, :-1], np.ones(len(V))])
            targets = standardized(model, row.data) - V[:, -1]
            A = Z.T @ (k[:, None] * Z) + penalty * np.eye(4)
            expected = np.linalg.solve(A, Z.T @ (k * targets))
            found = model.local_user_factors_[t][u]
            np.testing.assert_allclose(found, expected, atol=5e-3)


def test_folding_in_recovers_converged_users(R, pairs):
    model = make(tol=1e-9, max_iter=3000, dtype="float64").fit(R)
    np.testing.assert_allclose(model.predict(R), formula(model), atol=0.02)
    np.testing.assert_allclose(model.transform(R), model.user_factors_, atol=1e-2)


@pytest.mark.parametrize("bandwidth", [0.8, 1.5, 3.0])
def test_the_score_of_a_matrix_leaves_each_rating_out(R, bandwidth):
    model = make(bandwidth=bandwidth, dtype="float64").fit(R)
    rows = R[:12].tocsr()
    predicted = [model.predict(others)[0, i] for others, i in without_one(rows)]
    left_out = model._predictor().predict_left_out(rows)
    np.testing.assert_allclose(left_out, predicted, atol=1e-5)
    assert model.score(rows) == pytest.approx(r2_score(rows.data, predicted))


def test_predictions_beat_item_means(pairs):
    X, y = pairs
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    model = make().fit(X[~is_test], y[~is_test])
    means = model.item_means_[np.searchsorted(model.items_, X[is_test, 1])]
    baseline = r2_score(y[is_test], means)
    assert model.score(X[is_test], y[is_test]) > baseline + 0.05


def test_early_stopping_keeps_the_best_number_of_models(pairs):
    model = make(n_models=30, early_stopping=True, tol=1e-3).fit(*pairs)
    scores = model.validation_scores_
    assert model.n_iter_ == len(scores) <= 30
    n_kept = int((model.user_kernels_ > 0).any(axis=1).sum())
    assert n_kept == int(np.argmax(scores))


def test_an_interrupt_between_models_keeps_earlier_models(R):
    model = make().set_callbacks(Interrupt(1))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 2
    np.testing.assert_array_equal((model.user_kernels_ > 0).any(1), [1, 0, 0, 0])
    assert np.isfinite(model.predict(R)).all()


def test_an_interrupt_within_a_model_keeps_earlier_models(R, monkeypatch):
    improve, calls = Alternation.improve, []

    def interrupted(self, side, others):
        calls.extend([None] if side is self.items else [])
        if len(calls) == 60 and side is self.items:
            raise KeyboardInterrupt
        improve(self, side, others)

    monkeypatch.setattr(Alternation, "improve", interrupted)
    model = make(tol=0.0, max_iter=20)
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 2
    assert (model.user_kernels_ > 0).any(1).sum() == 1
    assert np.isfinite(model.predict(R)).all()


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_models": 0}, "n_models"),
        ({"bandwidth": 0.0}, "bandwidth"),
        ({"local_penalty": 0.0}, "local_penalty"),
        ({"lambda_u": 0.0}, "lambda_u"),
        ({"lambda_v": -1.0}, "lambda_v"),
    ],
)
def test_bad_parameters_are_refused(R, params, match):
    with pytest.raises(ValueError, match=match):
        make().set_params(**params).fit(R)
