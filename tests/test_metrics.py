import pickle
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import left_out
from sklearn import config_context
from sklearn.metrics import (
    mean_absolute_error,
    mean_pinball_loss,
    r2_score,
    root_mean_squared_error,
)
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from skrec import BiasedMFRegressor
from skrec.metrics import (
    make_rating_scorer,
    neg_mean_absolute_error_scorer,
    neg_root_mean_squared_error_scorer,
    r2_scorer,
)
from skrec.model_selection import ratings_to_samples

SCORERS = [
    (neg_root_mean_squared_error_scorer, root_mean_squared_error, -1),
    (neg_mean_absolute_error_scorer, mean_absolute_error, -1),
    (r2_scorer, r2_score, 1),
    (
        make_rating_scorer(mean_pinball_loss, greater_is_better=False, alpha=0.2),
        lambda *args, **kwargs: mean_pinball_loss(*args, alpha=0.2, **kwargs),
        -1,
    ),
]
each_scorer = pytest.mark.parametrize(
    ("scorer", "function", "sign"), SCORERS, ids=["rmse", "mae", "r2", "pinball"]
)


@pytest.fixture(scope="module")
def model(R):
    return BiasedMFRegressor(n_factors=3, random_state=0, dtype="float64").fit(R[20:])


@pytest.fixture(scope="module")
def rows(R):
    """Unseen users with many ratings each."""
    return R[:12]


def halves(rows):
    """The ratings of rows in two matrices."""
    coo, is_first = rows.tocoo(), np.arange(rows.nnz) % 3 > 0
    return (
        sp.csr_array((coo.data[m], (coo.row[m], coo.col[m])), shape=coo.shape)
        for m in (is_first, ~is_first)
    )


@each_scorer
@pytest.mark.parametrize("weighted", [False, True])
def test_pairs_are_scored_as_scikit_learn_does(
    model, rows, scorer, function, sign, weighted
):
    X, y = ratings_to_samples(rows)
    weights = {"sample_weight": np.arange(len(y)) % 3} if weighted else {}
    expected = sign * function(y, model.predict(X), **weights)
    assert scorer(model, X, y, **weights) == expected


@each_scorer
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_scored_by_leaving_each_rating_out(
    model, rows, scorer, function, sign, weighted
):
    per_row, weights, expected = np.arange(12) % 3, {}, {}
    if weighted:
        weights = {"sample_weight": per_row}
        expected = {"sample_weight": np.repeat(per_row, np.diff(rows.indptr))}
    found = scorer(model, rows, **weights)
    score = sign * function(rows.data, left_out(model, rows), **expected)
    assert found == pytest.approx(score, abs=1e-6)


@each_scorer
def test_a_matrix_y_is_predicted_from_x(model, rows, scorer, function, sign):
    given, asked = halves(rows)
    expected = sign * function(asked.data, model.predict(given)[asked.nonzero()])
    assert scorer(model, given, asked) == pytest.approx(expected, abs=1e-6)


def test_r2_is_the_score_of_the_estimator(model, rows):
    given, asked = halves(rows)
    X, y = ratings_to_samples(rows)
    for args in [(rows,), (given, asked), (X, y)]:
        assert r2_scorer(model, *args) == model.score(*args)


def test_a_pipeline_and_a_search_are_scored_by_their_recommender(R, rows):
    pipeline = make_pipeline(MaxAbsScaler(), BiasedMFRegressor(random_state=0))
    search = GridSearchCV(
        pipeline, {"biasedmfregressor__n_factors": [3]}, cv=2,
        scoring=neg_root_mean_squared_error_scorer,
    ).fit(R[20:])  # fmt: skip
    scaled = pipeline.set_params(biasedmfregressor__n_factors=3).fit(R[20:])[0]
    expected = neg_root_mean_squared_error_scorer(pipeline[-1], scaled.transform(rows))
    for estimator in (pipeline, make_pipeline(pipeline), search):
        assert neg_root_mean_squared_error_scorer(estimator, rows) == expected
    assert -1 < expected < 0


def test_several_scorers_at_once(R):
    scoring = {"rmse": neg_root_mean_squared_error_scorer, "r2": r2_scorer}
    model = BiasedMFRegressor(n_factors=3, random_state=0)
    found = cross_validate(model, R, cv=2, scoring=scoring)
    for name, scorer in scoring.items():
        expected = scorer(model.fit(R[40:]), R[:40])
        assert found[f"test_{name}"][0] == pytest.approx(expected)


def test_requested_weights_are_routed(R):
    weights = np.arange(R.shape[0]) % 3 + 0.0
    with config_context(enable_metadata_routing=True):
        model = BiasedMFRegressor(n_factors=3, random_state=0)
        model.set_fit_request(sample_weight=True)
        scorer = make_rating_scorer(r2_score).set_score_request(sample_weight=True)
        found = cross_validate(
            model, R, cv=2, scoring=scorer, params={"sample_weight": weights}
        )
    model.fit(R[40:], sample_weight=weights[40:])
    expected = model.score(R[:40], sample_weight=weights[:40])
    assert found["test_score"][0] == pytest.approx(expected)
    assert expected != pytest.approx(model.score(R[:40]), abs=1e-4)


def test_a_scorer_can_be_pickled_and_has_a_repr(model, rows):
    scorer = pickle.loads(pickle.dumps(neg_mean_absolute_error_scorer))
    assert scorer(model, rows) == neg_mean_absolute_error_scorer(model, rows)
    assert repr(scorer).startswith("make_rating_scorer(mean_absolute_error, greater")


def test_other_estimators_are_refused_on_a_matrix(rows):
    with pytest.raises(TypeError, match="got MaxAbsScaler: score the predicted"):
        r2_scorer(MaxAbsScaler(), rows)


@pytest.mark.parametrize("scoring", ["neg_root_mean_squared_error", "r2"])
def test_scorers_of_scikit_learn_refuse_a_matrix_without_y(R, scoring):
    # scikit-learn raises this before it asks the estimator anything; see the guide.
    model = BiasedMFRegressor(n_factors=3, random_state=0)
    run = partial(cross_validate, model, R, cv=2, scoring=scoring)
    with pytest.raises(TypeError, match=r"missing 1 required .*'y_true'"):
        run(error_score="raise")
    with pytest.warns(UserWarning, match="Scoring failed"):
        assert np.isnan(run()["test_score"]).all()
