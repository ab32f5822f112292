"""Behavior that all estimators share: predict, score, transform and recommend."""

import copy
import pickle
import threading
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from helpers import (
    MODELS,
    RECOMMENDERS,
    TEXT_CLASSES,
    TEXTS,
    fit,
    has_std,
    left_out,
    name_of,
    small,
    split,
    to_ratings,
    without_columns,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_score

from skrec import (
    AutoRecRegressor,
    BaselineRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    CTRRegressor,
    LLORMARegressor,
    PMFRegressor,
    RBMRegressor,
)
from skrec.datasets import make_ratings
from skrec.metrics import r2_scorer
from skrec.model_selection import ratings_to_samples
from skrec.text import ItemTexts

pytestmark = [
    # A few iterations are enough to compare models.
    pytest.mark.filterwarnings("ignore:.* stopped at max_iter"),
]
each_model = pytest.mark.parametrize("recommender", MODELS, ids=name_of)


@pytest.fixture(scope="module", params=MODELS, ids=name_of)
def model(request, R):
    return fit(clone(request.param), R)


@pytest.fixture(scope="module", params=MODELS, ids=name_of)
def model_with_cold_item(request, R):
    """A model that was fitted without ratings and texts of item 7."""
    texts = {item: text for item, text in TEXTS.items() if item != 7}
    return fit(clone(request.param), without_columns(R, [7]), item_texts=texts)


# Pairs


def test_pairs_are_predicted_from_factors_and_biases(model, pairs):
    if isinstance(model, RBMRegressor | LLORMARegressor):
        pytest.skip("predictions are not products of factors plus biases")
    X, _ = pairs
    u, i = X.T
    expected = (model.user_factors_[u] * model.item_factors_[i]).sum(axis=1)
    expected += model.user_biases_[u] + model.item_biases_[i] + model.intercept_
    np.testing.assert_allclose(model.predict(X), to_ratings(model, expected), atol=1e-5)


def test_pairs_may_come_in_any_order_and_repeatedly(model, pairs):
    X, _ = pairs
    whole = model.predict(X)
    order = np.random.default_rng(0).integers(len(X), size=len(X))
    np.testing.assert_allclose(model.predict(X[order]), whole[order], rtol=1e-6)
    np.testing.assert_allclose(model.predict(X[:1]), whole[:1], rtol=1e-6)
    many = np.tile(X[:6], (999, 1))  # more pairs than users times items
    np.testing.assert_allclose(model.predict(many), np.tile(whole[:6], 999), rtol=1e-6)


def test_unseen_users_and_items_get_means(model):
    found = model.predict([[10**6, 7], [3, 10**6], [10**6, 10**6]])
    expected = [model.item_means_[7], model.user_means_[3], model.global_mean_]
    np.testing.assert_allclose(found, expected)


def test_means_of_few_ratings_are_shrunk_toward_the_global_mean(model, R):
    is_model = isinstance(model, AutoRecRegressor | BaselineRegressor)
    is_model |= isinstance(model, RBMRegressor) and model.baseline
    if is_model or getattr(model, "_lambda_u", 1.0) is None:  # estimated penalties
        pytest.skip("means are predictions of the model")
    for means, axis in ((model.user_means_, 1), (model.item_means_, 0)):
        counts, sums = (R != 0).sum(axis=axis), R.sum(axis=axis)
        expected = (sums + 5 * R.data.mean()) / (counts + 5)
        np.testing.assert_allclose(means, expected)


# Rows


def test_rows_may_come_in_any_order_and_number(model, R):
    order = np.random.default_rng(0).permutation(80)
    for method in (model.predict, model.transform):
        whole = method(R)
        np.testing.assert_allclose(method(R[order]), whole[order], atol=1e-5)
        parts = [method(R[i : i + 7]) for i in range(0, 80, 7)]
        np.testing.assert_allclose(np.vstack(parts), whole, atol=1e-5)
    assert model.score(R[order]) == pytest.approx(model.score(R), abs=1e-6)


def test_rows_without_ratings_and_items_without_ratings_get_means(model_with_cold_item):
    model = model_with_cold_item
    rows = sp.csr_array(([5.0, 1.0, 4.0], ([1, 1, 2], [3, 7, 7])), shape=(3, 50))
    found = model.predict(rows)
    np.testing.assert_allclose(found[0], model.item_means_)
    means = [(r + 5 * model.global_mean_) / (n + 5) for r, n in ((6, 2), (4, 1))]
    assert found[1, 7] == pytest.approx(means[0])
    # A rating of an item without factors carries no information about the user.
    np.testing.assert_allclose(np.delete(found[2], 7), np.delete(model.item_means_, 7))
    assert found[2, 7] == pytest.approx(means[1])
    assert model.predict([[0, 7]]) == pytest.approx(model.user_means_[0])


@each_model
def test_clip_keeps_predictions_inside_the_training_range(recommender, R, pairs):
    X, _ = pairs
    clipped, free = (
        fit(clone(recommender).set_params(clip=clip), R) for clip in (True, False)
    )
    for data in (R, X):
        expected = free.predict(data).clip(1, 5)
        np.testing.assert_array_equal(clipped.predict(data), expected)
    # A plain RBM predicts means of ratings, which are inside the range anyway.
    if not isinstance(recommender, RBMRegressor) or recommender.baseline:
        assert free.predict(R).max() > 5


def test_dense_predictions_that_do_not_fit_in_memory_are_refused(model, R, monkeypatch):
    # 8 bytes for each result and 24 for temporary values.
    monkeypatch.setattr("skrec._prediction.available_memory", lambda: 80 * 50 * 32 - 1)
    with pytest.raises(ValueError, match=r"would take .* GiB .* call recommend\(X\)"):
        model.predict(R)
    model.predict(R[:79])


def test_dense_predictions_are_computed_in_chunks(model, R, monkeypatch):
    expected = model.predict(R)
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 4 * 7 * 50)
    np.testing.assert_allclose(model.predict(R), expected, rtol=1e-4)


# Refusals


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        (sp.csr_array((2, 49)), ValueError, "X has 49 columns, but .* on 50"),
        ([[1, 2, 3]], ValueError, "X has 3 features, but user-item pairs have 2"),
        ([[-1, 2]], ValueError, "non-negative integers"),
        ([[0.5, 2]], ValueError, "non-negative integers"),
        ([["ann", "up"]], ValueError, "non-negative integers"),
    ],
)
def test_bad_input_to_predict_is_refused(model, X, error, match):
    with pytest.raises(error, match=match):
        model.predict(X)


@each_model
def test_an_unfitted_model_is_refused(recommender, R):
    for method in ("predict", "transform", "score", "recommend"):
        with pytest.raises(NotFittedError):
            getattr(clone(recommender), method)(R)


# Scores


def tolerance_of(model):
    """Accuracy of leaving one out; approximate if a row has no closed solution."""
    if not isinstance(model, RBMRegressor) or model.kind == "user":
        return 1e-6
    # With a baseline, levels of the other ratings follow from an effect of all.
    return 0.02 if model.baseline else 0.01


def test_score_of_a_matrix_leaves_each_rating_out(model, R):
    rows = R[:12].tolil()
    rows[2, :], rows[3, :] = 0, 0
    rows[3, 11] = 4  # a user with a single rating, and one without any
    rows = rows.tocsr()
    rows.eliminate_zeros()
    expected = r2_score(rows.data, left_out(model, rows))
    assert model.score(rows) == pytest.approx(expected, abs=tolerance_of(model))
    assert model.score(rows, rows) > expected + 0.005  # each rating predicts itself


def test_leaving_out_takes_items_without_ratings_into_account(model_with_cold_item, R):
    model, rows = model_with_cold_item, R[:12]
    assert (rows[:, [7]].data > 0).any()
    expected = r2_score(rows.data, left_out(model, rows))
    assert model.score(rows) == pytest.approx(expected, abs=tolerance_of(model))


def test_score_with_y_predicts_y_from_x(model, R):
    known, asked = split(R[:10], np.arange(R[:10].nnz) % 4 > 0)
    expected = r2_score(asked.data, model.predict(known)[asked.nonzero()])
    assert model.score(known, asked) == pytest.approx(expected, abs=1e-6)
    expected = r2_score(R.data, model.predict(R)[R.nonzero()])
    assert model.score(R, R) == pytest.approx(expected, abs=1e-6)


def test_score_takes_weights_in_every_form(model, R, pairs):
    X, y = pairs
    per_row = np.arange(R.shape[0]) % 3
    per_rating = R.copy()
    per_rating.data = np.repeat(per_row, np.diff(R.indptr)).astype(float)
    expected = model.score(R, sample_weight=per_rating)
    assert model.score(R, sample_weight=per_row) == expected
    assert expected != pytest.approx(model.score(R), abs=1e-4)
    weights = per_rating.data
    expected = r2_score(y, model.predict(X), sample_weight=weights)
    assert model.score(X, y, sample_weight=weights) == pytest.approx(expected)


# Factors


def test_transform_gives_the_factors_of_users(model, R, pairs):
    X, _ = pairs
    n_components = model.user_factors_.shape[1]
    assert model.transform(R).shape == (80, n_components)
    factors = model.user_factors_[X[:, 0]]
    np.testing.assert_array_equal(model.transform(X), factors)
    assert not model.transform([[10**6, 0]]).any()
    prefix = type(model).__name__.lower()
    names = [f"{prefix}{i}" for i in range(n_components)]
    assert model.get_feature_names_out().tolist() == names


@each_model
def test_fit_transform_ignores_y_with_a_matrix(recommender, R):
    params = {"item_texts": TEXTS} if isinstance(recommender, TEXT_CLASSES) else {}
    found = clone(recommender).fit_transform(R, np.zeros(R.shape[0]), **params)
    expected = fit(clone(recommender), R).transform(R)
    np.testing.assert_array_equal(found, expected)


# Recommendations


def test_recommend_returns_the_best_unseen_items(model, R):
    found = model.recommend(R[:5], n_items=4)
    assert list(found.columns) == ["user", "item", "rating"]
    assert found["user"].tolist() == np.repeat(range(5), 4).tolist()
    predicted = model.predict(R[:5])
    predicted[R[:5].nonzero()] = -np.inf
    for row, part in found.groupby("user"):
        best = np.sort(predicted[row])[::-1][:4]
        np.testing.assert_allclose(part["rating"], best, atol=1e-6)
        np.testing.assert_allclose(predicted[row, part["item"]], best, atol=1e-6)


@each_model
def test_recommend_takes_user_ids(recommender, pairs):
    X, y = pairs
    frame = pd.DataFrame({"user": X[:, 0], "film": [f"f{i:02}" for i in X[:, 1]]})
    texts = {f"f{i:02}": text for i, text in TEXTS.items()}
    model = fit(clone(recommender), frame, y, item_texts=texts)
    found = model.recommend([7, 10**6], n_items=3)
    assert found["user"].tolist() == [7, 7, 7, 10**6, 10**6, 10**6]
    assert not set(found["item"][:3]) & set(frame["film"][frame["user"] == 7])
    films = pd.DataFrame({"user": 7, "film": model.items_})
    unseen = ~films["film"].isin(frame["film"][frame["user"] == 7])
    best = np.sort(model.predict(films)[unseen])[::-1][:3]
    np.testing.assert_allclose(found["rating"][:3], best, atol=1e-6)
    best = model.items_[np.argsort(-model.item_means_, kind="stable")[:3]]
    assert found["item"][3:].tolist() == best.tolist()


def test_recommend_ends_where_a_user_has_seen_everything(model):
    everything = sp.csr_array(np.full((1, 50), 3.0))
    everything.data[0] = 4
    assert len(model.recommend(everything)) == 0
    assert len(model.recommend(everything, n_items=60, exclude_seen=False)) == 50


def test_no_rows_get_no_recommendations(model, R):
    found = model.recommend(R[:0])
    assert found.columns.tolist() == ["user", "item", "rating"]
    assert len(found) == 0


def test_recommendations_are_ranked_by_unclipped_predictions(model, R):
    unclipped = copy.copy(model).set_params(clip=False)
    shown = model.recommend(range(80), 6)
    free = unclipped.recommend(range(80), 6)
    pd.testing.assert_frame_equal(shown[["user", "item"]], free[["user", "item"]])
    low, high = model.rating_range_
    expected = free["rating"].clip(low, high)
    pd.testing.assert_series_equal(shown["rating"], expected)


def test_ties_are_ranked_in_the_order_of_the_items():
    X = [[u, i] for u in "ab" for i in "cdefgh"]
    model = PMFRegressor(n_factors=1, random_state=0).fit(X, [3.0] * 12)
    # An unseen user gets the items with the highest means, which are all equal.
    for n_items in range(1, 7):
        found = model.recommend(["x"], n_items)["item"].tolist()
        assert found == list("cdefgh")[:n_items]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([-1],), "non-negative integers"),
        (([0.5],), "non-negative integers"),
        (([0], True), "n_items must be a positive integer, got True"),
        (([0], 0), "n_items must be a positive integer, got 0"),
        (([0], -1), "n_items must be a positive integer, got -1"),
        (([0], 2.0), "n_items must be a positive integer, got 2.0"),
        (([0], "many"), "n_items must be a positive integer, got 'many'"),
    ],
)
def test_bad_arguments_of_recommend_are_refused(R, arguments, match):
    with pytest.raises(ValueError, match=match):
        small(PMFRegressor).fit(R).recommend(*arguments)


def test_exclude_seen_must_be_a_boolean(R):
    with pytest.raises(ValueError, match="exclude_seen must be a boolean, got 'no'"):
        small(PMFRegressor).fit(R).recommend([0], exclude_seen="no")


def test_recommendations_are_computed_in_chunks(model, R, monkeypatch):
    whole = model.recommend(R, n_items=3)
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 4 * 120)
    pd.testing.assert_frame_equal(model.recommend(R, n_items=3), whole, rtol=1e-5)


# Snapshots of the fitted attributes


def test_a_device_that_names_nothing_is_refused_by_predict(R):
    model = small(PMFRegressor).fit(R)
    with pytest.raises(ValueError, match="device='gpu' names no device"):
        model.set_params(device="gpu").predict(R)


def test_a_replaced_attribute_takes_effect_in_the_next_prediction(R):
    model, pairs = small(BiasedMFRegressor, clip=False).fit(R), [[0, 1], [2, 3]]
    before = model.predict(pairs)
    model.item_biases_ = model.item_biases_ + 1
    after = before + model.rating_std_
    np.testing.assert_allclose(model.predict(pairs), after, atol=1e-5)


def test_the_predictor_is_not_pickled(R):
    model = small(PMFRegressor).fit(R)
    size = len(pickle.dumps(model))
    model.predict(R)
    assert len(pickle.dumps(model)) == size
    assert copy.deepcopy(model)._predictors is not model._predictors


@pytest.mark.parametrize(
    "estimator",
    [m for m in RECOMMENDERS if getattr(m, "kind", "item") == "item"],
    ids=name_of,
)
def test_predictions_during_refits_come_from_one_model(estimator, R):
    first, second = ratings_to_samples(R), ratings_to_samples(R[:30, :20])
    pairs, user = second[0], [0]
    texts = {}
    if isinstance(estimator, TEXT_CLASSES):
        texts["item_texts"] = ItemTexts(TEXTS)

    def results():
        answers = [model.predict(pairs), model.recommend(user, 3)["rating"].to_numpy()]
        if has_std(model):
            answers += [np.stack(model.predict(pairs, return_std=True))]
        return answers

    model, allowed = clone(estimator), []
    for samples in (second, first):
        model.fit(*samples, **texts)
        allowed.append(results())
    wrong, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            for found, *known in zip(results(), *allowed, strict=True):
                if not any(np.array_equal(found, a) for a in known):
                    wrong.append(found)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            model.fit(*second, **texts)
            model.fit(*first, **texts)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_stored_zero_is_a_rating_in_text_biases():
    data = make_ratings(60, 40, random_state=0, levels=(0, 1, 2, 3, 4))
    C = data.R.tocoo()
    kept = C.col != 39  # an item that has only a text
    R = sp.csr_array((C.data[kept], (C.row[kept], C.col[kept])), shape=C.shape)
    shifted = sp.csr_array((R.data + 1, R.indices, R.indptr), shape=R.shape)
    texts = dict(enumerate(data.item_texts))

    def predict(R):
        model = CTRRegressor(n_factors=3, max_iter=20, random_state=0, lda_max_iter=3)
        return model.fit(R, item_texts=texts).predict(R)

    np.testing.assert_allclose(predict(R), predict(shifted) - 1, atol=1e-3)


def test_every_estimator_with_texts_is_among_the_recommenders():
    assert {type(m) for m in RECOMMENDERS} >= set(TEXT_CLASSES)


# Mostly unseen users or items


@pytest.fixture(scope="module")
def baseline():
    users, items = np.divmod(np.arange(400), 20)
    return BaselineRegressor().fit(np.column_stack([users, items]), users % 5 + 1)


@pytest.mark.parametrize(("side", "column"), [("user", 0), ("item", 1)])
def test_mostly_unseen_users_or_items_cause_a_warning(baseline, side, column):
    X = np.ones((100, 2), dtype=int)
    X[:50, column] = 10**6
    baseline.predict(X)  # half of the pairs
    X[50, column] = 10**6
    baseline.predict(X[1:])  # few pairs
    match = f"51 of 100 pairs have an unseen {side}, .* for example 1000000. .*"
    with pytest.warns(UserWarning, match=f"{match}KFold.5, shuffle=True") as caught:
        baseline.predict(X)
    assert [warning.filename for warning in caught] == [__file__]
    y = np.arange(100.0)
    for score in (baseline.score, partial(r2_scorer, baseline)):
        with pytest.warns(UserWarning, match=match) as caught:
            score(X, y)
        assert len(caught) == 1


def test_the_example_of_an_unseen_id_is_shown_as_it_was_given():
    model = BaselineRegressor().fit([["ann", "Up"], ["bob", "Up"]], [1, 2])
    with pytest.warns(UserWarning, match="unseen user, .* for example ' ann'"):
        model.predict([[" ann", "Up"]] * 100)


def test_standard_deviations_do_not_repeat_the_warning():
    X = [["ann", "Up"], ["ann", "Alien"], ["bob", "Up"]]
    model = BayesianMFRegressor(n_factors=1, max_iter=3, burn_in=1, random_state=0)
    model.fit(X, [1, 2, 3])
    with pytest.warns(UserWarning, match="unseen user") as caught:
        model.predict([["eve", "Up"]] * 100, return_std=True)
    assert len(caught) == 1


def test_a_fold_of_sorted_pairs_causes_a_warning():
    R = make_ratings(60, 40, density=0.3, random_state=0).R
    X, y = ratings_to_samples(R)
    with pytest.warns(UserWarning, match="shuffled splitter"):
        cross_val_score(BaselineRegressor(), X, y, cv=3)
    folds = KFold(3, shuffle=True, random_state=0)
    assert np.isfinite(cross_val_score(BaselineRegressor(), X, y, cv=folds)).all()
