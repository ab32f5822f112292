"""Matrix factorizations, and what those with texts share with them."""

import numpy as np
import pytest
from helpers import TEXT_CLASSES, fit, to_ratings
from helpers import make_factorization as make
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score

from skrec import BiasedMFRegressor, PMFRegressor
from skrec._factorization.alternation import Alternation

CLASSES = [PMFRegressor, BiasedMFRegressor, *TEXT_CLASSES]


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


def formula(model):
    """All predictions by the formula in the Notes."""
    sums = model.user_factors_ @ model.item_factors_.T + model.intercept_
    sums += model.user_biases_[:, None] + model.item_biases_
    return to_ratings(model, sums)


@pytest.mark.parametrize(
    "params",
    [{}, {"normalize_y": False}, {"normalize_y": False, "fit_intercept": False}],
)
def test_folding_in_recovers_converged_user_factors(R, params):
    model = BiasedMFRegressor(
        n_factors=3, lambda_u=5, lambda_v=5, tol=1e-6, max_iter=10_000,
        dtype="float64", random_state=0, **params,
    ).fit(R)  # fmt: skip
    np.testing.assert_allclose(model.predict(R), formula(model), atol=1e-3)
    np.testing.assert_allclose(model.transform(R), model.user_factors_, atol=1e-3)


def test_predictions_beat_item_means(cls, R, pairs):
    X, y = pairs
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    model = fit(make(cls), X[~is_test], y[~is_test])
    means = np.append(model.item_means_, model.global_mean_)
    places = np.searchsorted(model.items_, X[is_test, 1])
    baseline = r2_score(y[is_test], means[places])
    assert r2_score(y[is_test], model.predict(X[is_test])) > baseline + 0.05


@pytest.mark.parametrize("name", ["lambda_u", "lambda_v"])
def test_a_penalty_of_zero_needs_enough_ratings(cls, pairs, name):
    X, y = pairs
    side = 0 if name == "lambda_u" else 1
    keep = (X[:, side] != 0) | (np.cumsum(X[:, side] == 0) <= 2)
    with pytest.raises(ValueError, match=rf"{name}=0 needs at least .* one of \d: use"):
        fit(make(cls, **{name: 0}), X[keep], y[keep])


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"lambda_u": -1}, "lambda_u"),
        ({"lambda_v": -1.0}, "lambda_v"),
        ({"fit_intercept": 2}, "fit_intercept"),
        ({"normalize_y": "no"}, "normalize_y"),
    ],
)
def test_bad_parameters_are_refused(cls, R, params, match):
    with pytest.raises(ValueError, match=match):
        fit(make(cls, **params), R)


def test_cross_validation_over_users_scores_unseen_users(R):
    scores = cross_val_score(make(BiasedMFRegressor), R, cv=4)
    assert scores.min() > 0.1


@pytest.mark.filterwarnings("ignore:.* stopped at max_iter")
def test_an_interrupt_within_an_iteration_keeps_the_last_one(cls, R, monkeypatch):
    plain = fit(make(cls, max_iter=3, n_iter_no_change=99, tol=1e9), R)
    improve, calls = Alternation.improve, []

    def interrupted(self, side, others):
        calls.extend([None] if side is self.items else [])
        if len(calls) == 4 and side is self.items:
            raise KeyboardInterrupt
        improve(self, side, others)

    monkeypatch.setattr(Alternation, "improve", interrupted)
    model = make(cls)
    with pytest.raises(KeyboardInterrupt):
        fit(model, R)
    assert model.n_iter_ == 3
    np.testing.assert_array_equal(model.item_factors_, plain.item_factors_)


def test_a_penalty_of_zero_still_predicts_short_rows(R):
    model = make(BiasedMFRegressor, lambda_u=0, n_factors=1).fit(R)
    row = R[[0]].tolil()
    row[:, 1:] = 0
    row[0, 0] = 4
    row = row.tocsr()
    row.eliminate_zeros()
    assert np.isfinite(model.predict(row)).all()
