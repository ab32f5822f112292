"""What all factorizations share, those with texts among them."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
from helpers import Interrupt
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from skrec import (
    BiasedMFRegressor,
    CDLRegressor,
    ConvMFRegressor,
    CTRRegressor,
    PMFRegressor,
)
from skrec._factorization.alternation import Alternation
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples
from skrec.text import ItemTexts, SequenceVectorizer

N_FACTORS = 4
SMALL_NETWORKS = {
    ConvMFRegressor: {
        "embedding_dim": 8, "n_filters": 6, "hidden_dim": 8, "window_sizes": (2, 3),
        "lambda_w": 0.1, "tol": 0.01,
    },
    CDLRegressor: {"hidden_layer_sizes": (8,), "lambda_w": 0.1, "tol": 0.01},
    CTRRegressor: {"tol": 1e-3},
}  # fmt: skip
TEXT_CLASSES = tuple(SMALL_NETWORKS)
CLASSES = [PMFRegressor, BiasedMFRegressor, *TEXT_CLASSES]


@pytest.fixture(scope="module")
def texts():
    return ItemTexts(make_ratings(80, 50, density=0.3, random_state=0).item_texts)


@pytest.fixture(scope="module")
def texts_of_pairs(texts):
    return ItemTexts(dict(enumerate(texts.texts)))


@pytest.fixture(scope="module")
def pairs(R):
    return ratings_to_samples(R)


def make(cls, **params):
    network = SMALL_NETWORKS.get(cls, {})
    defaults = {"n_factors": N_FACTORS, "lambda_u": 2.0, "lambda_v": 3.0}
    return cls(**(defaults | network | {"random_state": 0} | params))


@pytest.fixture
def fit(texts, texts_of_pairs):
    """Fit a model to either form, with texts where it reads them."""

    def fit(model, X, y=None, ignore=False, **params):
        if isinstance(model, TEXT_CLASSES):
            params["item_texts"] = texts if y is None else texts_of_pairs
        with warnings.catch_warnings():
            if ignore:
                warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(X, y, **params)

    return fit


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture
def model(cls, R, fit):
    return fit(make(cls), R)


def formula(model):
    """All predictions, as the Notes write them."""
    sums = model.user_factors_ @ model.item_factors_.T + model.intercept_
    sums += model.user_biases_[:, None] + model.item_biases_
    return np.clip(sums, *model.rating_range_)


def test_both_forms_give_the_same_model_bit_for_bit(cls, R, pairs, fit):
    a, b = fit(make(cls), R), fit(make(cls), *pairs)
    for name in ("user_factors_", "item_factors_", "item_biases_", "loss_curve_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.predict(pairs[0]), b.predict(pairs[0]))
    np.testing.assert_array_equal(a.predict(R), b.predict(R))


def test_pairs_are_predicted_from_factors_and_biases(model, pairs):
    X, _ = pairs
    expected = formula(model)[X[:, 0], X[:, 1]]
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-5)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_converged_user_is_found_again_by_folding_in(R, fit_intercept):
    model = BiasedMFRegressor(
        n_factors=3, lambda_u=5, lambda_v=5, fit_intercept=fit_intercept,
        tol=1e-8, max_iter=10_000, dtype="float64", random_state=0,
    ).fit(R)  # fmt: skip
    np.testing.assert_allclose(model.predict(R), formula(model), atol=1e-3)
    np.testing.assert_allclose(model.transform(R), model.user_factors_, atol=1e-3)


def test_the_score_of_a_matrix_leaves_each_rating_out(model, R):
    rows = R[:12]
    predicted = []
    for u, i in zip(*rows.nonzero(), strict=True):
        row = rows[[u]].tolil()
        row[0, i] = 0
        others = row.tocsr()
        others.eliminate_zeros()
        predicted.append(model.predict(others)[0, i])
    expected = r2_score(rows.data, predicted)
    assert model.score(rows) == pytest.approx(expected, abs=1e-6)


def test_predictions_beat_the_means_of_items(cls, R, pairs, fit):
    X, y = pairs
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    model = fit(make(cls), X[~is_test], y[~is_test])
    means = np.append(model.item_means_, model.global_mean_)
    places = np.searchsorted(model.items_, X[is_test, 1])
    baseline = r2_score(y[is_test], means[places])
    assert r2_score(y[is_test], model.predict(X[is_test])) > baseline + 0.05


def test_weight_zero_equals_absence(cls, pairs, fit):
    X, y = pairs
    is_popular = X[:, 1] == np.bincount(X[:, 1]).argmax()
    weights = np.where(is_popular & (np.arange(len(y)) % 2 == 0), 0.0, 1.0)
    a = fit(make(cls), X, y, sample_weight=weights)
    b = fit(make(cls), X[weights > 0], y[weights > 0])
    np.testing.assert_array_equal(a.items_, b.items_)
    np.testing.assert_allclose(a.predict(X), b.predict(X), atol=1e-3)


def test_a_large_weight_draws_the_prediction_to_its_rating(cls, pairs, fit):
    X, y = pairs
    weights = np.ones(len(y))
    weights[5] = 1e4
    plain, weighted = (
        abs(fit(make(cls), X, y, sample_weight=w).predict(X[[5]])[0] - y[5])
        for w in (None, weights)
    )
    assert weighted < min(plain, 0.02)


def test_the_same_random_state_gives_the_same_bits(cls, R, fit):
    a, b = (fit(make(cls), R) for _ in range(2))
    np.testing.assert_array_equal(a.item_factors_, b.item_factors_)


@pytest.mark.filterwarnings("ignore:.*stopped at max_iter")
def test_early_stopping_keeps_the_best_state(cls, pairs, fit):
    X, y = pairs
    params = {"lambda_u": 0.1, "lambda_v": 0.1, "early_stopping": True}
    model = fit(make(cls, **params, n_iter_no_change=5), X, y)
    best = int(np.argmax(model.validation_scores_)) + 1
    assert best < model.n_iter_ == len(model.validation_scores_)
    expected = fit(make(cls, **params, max_iter=best, n_iter_no_change=99), X, y)
    np.testing.assert_array_equal(model.item_factors_, expected.item_factors_)


def test_warm_start_goes_on_where_the_last_fit_ended(cls, R, fit):
    model = fit(make(cls, warm_start=True), R)
    before = model.loss_curve_[-1]
    fit(model, R)
    assert model.loss_curve_[0] < before * 1.05
    assert model.n_iter_ < 20


@pytest.mark.filterwarnings("ignore:.*stopped at max_iter")
def test_warm_start_matches_users_and_items_by_id(cls, pairs, fit):
    X, y = pairs
    known = (X[:, 0] % 7 != 3) & (X[:, 1] % 7 != 3)
    params = {"max_iter": 1, "tol": 1e9}
    losses = []
    for warm_start in (True, False):
        model = fit(make(cls, warm_start=warm_start), X[known], y[known])
        model.set_params(**params)
        losses += fit(model, X, y).loss_curve_
    assert losses[0] < 0.9 * losses[1]


def test_warm_start_refuses_another_number_of_factors(cls, R, fit):
    model = fit(make(cls, warm_start=True), R)
    with pytest.raises(ValueError, match="use warm_start=False"):
        fit(model.set_params(n_factors=N_FACTORS + 1), R)


def test_an_interrupt_raises_and_leaves_a_model_that_predicts(cls, R, fit):
    model = make(cls).set_callbacks(Interrupt(1))
    with pytest.raises(KeyboardInterrupt):
        fit(model, R)
    assert model.n_iter_ == 2
    assert np.isfinite(model.predict(R)).all()


def test_too_few_iterations_warn(R):
    with pytest.warns(ConvergenceWarning, match="max_iter=1 before"):
        make(PMFRegressor, max_iter=1).fit(R)


def test_verbose_prints_each_iteration(cls, R, fit, capsys):
    model = fit(make(cls, verbose=True), R)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert lines[0].startswith(f"[{cls.__name__}] epoch 1: loss")


@pytest.mark.parametrize("name", ["lambda_u", "lambda_v"])
def test_a_penalty_of_zero_needs_enough_ratings(cls, pairs, fit, name):
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
        ({"n_factors": 0}, "n_factors"),
        ({"fit_intercept": 2}, "fit_intercept"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_bad_parameters_are_refused(cls, R, fit, params, match):
    with pytest.raises(ValueError, match=match):
        fit(make(cls, **params), R)


@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_a_model_comes_back_as_it_was(model, R, pairs, tmp_path, how):
    if how == "pickle":
        copy = pickle.loads(pickle.dumps(model))
    else:
        joblib.dump(model, tmp_path / "model.joblib")
        copy = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    np.testing.assert_array_equal(copy.predict(R), model.predict(R))
    np.testing.assert_array_equal(copy.predict(pairs[0]), model.predict(pairs[0]))
    assert copy.score(R) == model.score(R)


def test_clone_keeps_the_parameters(cls):
    model = make(cls, lambda_u=7.0)
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("form", ["matrix", "pairs"])
def test_grid_search(cls, R, pairs, texts, texts_of_pairs, form, n_jobs):
    search = GridSearchCV(
        make(cls), {"lambda_u": [2.0, 1e4]}, cv=KFold(2, shuffle=True, random_state=0),
        n_jobs=n_jobs,
    )  # fmt: skip
    params = {}
    if cls in TEXT_CLASSES:
        params["item_texts"] = texts if form == "matrix" else texts_of_pairs
    search.fit(*((R,) if form == "matrix" else pairs), **params)
    assert search.best_params_ == {"lambda_u": 2.0}
    assert search.best_estimator_.recommend([0], n_items=3).shape == (3, 3)


def test_cross_validation_over_users_scores_unseen_users(R):
    scores = cross_val_score(make(BiasedMFRegressor), R, cv=4)
    assert scores.min() > 0.1


def test_a_single_rating_can_be_fitted(cls):
    model, params = make(cls), {}
    if cls in TEXT_CLASSES:
        model.set_params(vectorizer=CountVectorizer())
        if cls is ConvMFRegressor:
            model.set_params(vectorizer=SequenceVectorizer(max_df=1.0))
        params = {"item_texts": {"up": "a house flies"}}
    model.fit([["ann", "up"]], [4.0], **params)
    assert model.predict([["ann", "up"], ["bob", "up"]]) == pytest.approx([4.0, 4.0])


def test_an_interrupt_within_an_iteration_keeps_the_last_one(cls, R, fit, monkeypatch):
    plain = fit(make(cls, max_iter=3, n_iter_no_change=99, tol=1e9), R, ignore=True)
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


def test_divergence_keeps_the_last_finite_state(cls, R, fit):
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 1: .*dtype|smaller"):
        model = fit(make(cls), R * 1e30)
    assert np.isfinite(model.predict(R)).all()


def test_early_stopping_works_with_few_ratings(cls):
    X = [["a", f"c{i}"] for i in range(8)]
    params = {}
    if cls in TEXT_CLASSES:
        params = {"item_texts": {f"c{i}": f"word{i} more{i}" for i in range(8)}}
    model = make(cls, early_stopping=True).fit(X, range(8), **params)
    assert np.isfinite(model.validation_scores_).all()
    with pytest.raises(ValueError, match="leaves no rating to train on out of 2"):
        make(PMFRegressor, early_stopping=True).fit(X[:2], [1, 2])


def test_a_penalty_of_zero_still_predicts_short_rows(R):
    model = make(BiasedMFRegressor, lambda_u=0, n_factors=1).fit(R)
    row = R[[0]].tolil()
    row[:, 1:] = 0
    row[0, 0] = 4
    row = row.tocsr()
    row.eliminate_zeros()
    assert np.isfinite(model.predict(row)).all()


def test_no_rows_get_no_recommendations(model, R):
    found = model.recommend(R[:0])
    assert found.columns.tolist() == ["user", "item", "rating"]
    assert len(found) == 0


def test_changed_parameters_wait_for_the_next_fit(model, R):
    before = model.predict(R)
    model.set_params(lambda_u=1e-3, n_factors=2)
    np.testing.assert_array_equal(model.predict(R), before)


@pytest.mark.gpu
def test_a_gpu_fits_what_the_cpu_fits(cls, R, pairs, fit):
    X, y = pairs
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    errors = []
    for device in ("cpu", "cuda"):
        model = fit(make(cls, device=device), X[~is_test], y[~is_test])
        assert model.device_ == device
        errors.append(root_mean_squared_error(y[is_test], model.predict(X[is_test])))
        assert np.isfinite(model.score(R))
    assert errors[0] == pytest.approx(errors[1], abs=0.02)
