"""Predictions and recommendations, whichever estimator they come from."""

import copy
import pickle
import threading

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from helpers import RECOMMENDERS, TEXT_CLASSES, name_of, small
from sklearn.base import clone

from skrec import BiasedMFRegressor, CTRRegressor, PMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* stopped at max_iter"),
    pytest.mark.filterwarnings("ignore:There are no item_texts"),
]


@pytest.fixture(scope="module", params=RECOMMENDERS, ids=name_of)
def model(request, R):
    return clone(request.param).fit(R)


def test_user_factors_are_what_transform_returns(model, R):
    X, _ = ratings_to_samples(R)
    np.testing.assert_array_equal(model.transform(X), model.user_factors_[X[:, 0]])
    assert model.user_factors_.shape == (80, len(model.get_feature_names_out()))


def test_recommendations_are_ranked_by_unclipped_predictions(model, R):
    unclipped = copy.copy(model).set_params(clip=False)
    shown = model.recommend(range(80), 6)
    free = unclipped.recommend(range(80), 6)
    pd.testing.assert_frame_equal(shown[["user", "item"]], free[["user", "item"]])
    low, high = model.rating_range_
    expected = free["rating"].clip(low, high)
    pd.testing.assert_series_equal(shown["rating"], expected)


def test_equal_predictions_come_in_the_order_of_the_items():
    X = [[u, i] for u in "ab" for i in "cdefgh"]
    model = PMFRegressor(n_factors=1, random_state=0).fit(X, [3.0] * 12)
    # An unseen user gets the items of the highest means, which are all equal.
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
        (([0], 2.0), "n_items must be a positive integer, got 2.0"),
    ],
)
def test_bad_arguments_of_recommend_are_refused(R, arguments, match):
    with pytest.raises(ValueError, match=match):
        small(PMFRegressor).fit(R).recommend(*arguments)


def test_exclude_seen_must_be_a_boolean(R):
    with pytest.raises(ValueError, match="exclude_seen must be a boolean, got 'no'"):
        small(PMFRegressor).fit(R).recommend([0], exclude_seen="no")


def test_a_device_that_names_nothing_is_refused_by_predict(R):
    model = small(PMFRegressor).fit(R)
    with pytest.raises(ValueError, match="device='gpu' names no device"):
        model.set_params(device="gpu").predict(R)


def test_dense_predictions_are_computed_in_chunks(model, R, monkeypatch):
    expected = model.predict(R)
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 4 * 7 * 50)
    np.testing.assert_allclose(model.predict(R), expected, rtol=1e-4)


def test_the_memory_guard_counts_what_is_taken_while_computing(R, monkeypatch):
    model = small(PMFRegressor).fit(R)
    monkeypatch.setattr("skrec._prediction.available_memory", lambda: 80 * 50 * 20)
    with pytest.raises(ValueError, match=r"would take .* GiB .* call recommend\(X\)"):
        model.predict(R)
    model.predict(R[:40])


def test_a_replaced_attribute_counts_in_the_next_prediction(R):
    model, pairs = small(BiasedMFRegressor, clip=False).fit(R), [[0, 1], [2, 3]]
    before = model.predict(pairs)
    model.item_biases_ = model.item_biases_ + 1
    np.testing.assert_allclose(model.predict(pairs), before + 1, atol=1e-5)


def test_what_predicts_is_not_pickled(R):
    model = small(PMFRegressor).fit(R)
    size = len(pickle.dumps(model))
    model.predict(R)
    assert len(pickle.dumps(model)) == size
    assert copy.deepcopy(model)._predictors is not model._predictors


def test_predictions_during_refits_come_from_one_model(R):
    first, second = ratings_to_samples(R), ratings_to_samples(R[:30, :20])
    pairs = second[0]
    model = small(BiasedMFRegressor).fit(*first)
    allowed = [
        model.predict(pairs),
        small(BiasedMFRegressor).fit(*second).predict(pairs),
    ]
    wrong, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            found = model.predict(pairs)
            if not any(np.array_equal(found, a) for a in allowed):
                wrong.append(found)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            model.fit(*second)
            model.fit(*first)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_stored_zero_is_a_rating_in_text_biases():
    data = make_ratings(60, 40, random_state=0, levels=(0, 1, 2, 3, 4))
    C = data.R.tocoo()
    kept = C.col != 39  # known by its text alone
    R = sp.csr_array((C.data[kept], (C.row[kept], C.col[kept])), shape=C.shape)
    shifted = sp.csr_array((R.data + 1, R.indices, R.indptr), shape=R.shape)
    texts = dict(enumerate(data.item_texts))

    def predict(R):
        model = CTRRegressor(n_factors=3, max_iter=20, random_state=0, lda_max_iter=3)
        return model.fit(R, item_texts=texts).predict(R)

    np.testing.assert_allclose(predict(R), predict(shifted) - 1, atol=1e-3)


def test_every_estimator_with_texts_is_among_the_recommenders():
    assert {type(m) for m in RECOMMENDERS} >= set(TEXT_CLASSES)
