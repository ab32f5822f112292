import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline

from skrec import AutoRecRegressor
from skrec.model_selection import ratings_to_samples

KINDS = ["item", "user"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make(kind="item", **params):
    """A model that is fitted in a moment and, by default, has no dropout."""
    defaults = {
        "hidden_layer_sizes": (8,),
        "alpha": 5.0,
        "learning_rate_init": 0.02,
        "max_iter": 100,
        "input_dropout": 0.0,
        "random_state": 0,
    }
    return AutoRecRegressor(kind=kind, **(defaults | params))


@pytest.fixture(scope="module")
def pairs(R):
    return ratings_to_samples(R)


@pytest.fixture(scope="module", params=KINDS)
def model(request, R):
    return make(request.param, device="cpu").fit(R)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Prediction


def test_pairs_are_predicted_from_factors_and_biases(model, pairs):
    X, _ = pairs
    u, i = X.T
    expected = (
        (model.user_factors_[u] * model.item_factors_[i]).sum(1)
        + model.user_biases_[u]
        + model.item_biases_[i]
    )
    low, high = model.rating_range_
    np.testing.assert_allclose(model.predict(X), expected.clip(low, high), atol=1e-5)


def test_pairs_may_come_in_any_order_and_repeatedly(model, pairs):
    X, _ = pairs
    order = np.random.default_rng(0).integers(len(X), size=len(X))
    np.testing.assert_array_equal(model.predict(X[order]), model.predict(X)[order])
    np.testing.assert_array_equal(model.predict(X[:1]), model.predict(X)[:1])


def test_more_pairs_than_users_and_items_have(pairs):
    X, y = (array[:6] for array in pairs)
    model = make(max_iter=3).fit(X, y)
    np.testing.assert_array_equal(
        model.predict(np.tile(X, (99, 1))), np.tile(model.predict(X), 99)
    )


def test_rows_are_predicted_independently_of_each_other(model, R):
    whole = model.predict(R)
    np.testing.assert_allclose(model.predict(R[::-1]), whole[::-1], atol=1e-5)
    np.testing.assert_allclose(model.predict(R[3:4]), whole[3:4], atol=1e-5)


def test_dense_and_sparse_evaluation_agree(model, R):
    dense = model.predict(R)
    expected = r2_score(R.data, dense[R.nonzero()])
    assert model.score(R, R) == pytest.approx(expected, abs=1e-6)


def test_clip_keeps_predictions_inside_the_training_range(R):
    for clip in (True, False):
        model = make(clip=clip, alpha=0, max_iter=100).fit(R)
        predicted = model.predict(R)
        inside = predicted.min() >= 1 and predicted.max() <= 5
        assert inside == clip


def test_unseen_users_and_items_get_means(model):
    known_user, known_item, mean = 3, 7, model.global_mean_
    found = model.predict([[10**6, known_item], [known_user, 10**6], [10**6, 10**6]])
    expected = [model.item_means_[known_item], model.user_means_[known_user], mean]
    np.testing.assert_allclose(found, expected)


def test_means_of_few_ratings_are_drawn_to_the_global_mean(model, R):
    counts, sums = np.diff(R.indptr), R.sum(axis=1)
    expected = (sums + 5 * R.data.mean()) / (counts + 5)
    np.testing.assert_allclose(model.user_means_, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_rows_and_unrated_items_get_means(R, kind):
    R = R.copy().tolil()
    R[:, 7] = 0
    R = R.tocsr()
    R.eliminate_zeros()
    model = make(kind).fit(R)
    rows = sp.csr_array(([5.0, 1.0, 4.0], ([1, 1, 2], [3, 7, 7])), shape=(3, 50))
    found = model.predict(rows)
    np.testing.assert_allclose(found[0], model.item_means_)
    means = [(r + 5 * model.global_mean_) / (n + 5) for r, n in ((6, 2), (4, 1))]
    assert found[1, 7] == pytest.approx(means[0])
    # A row that has rated unrated items only tells the factors nothing.
    np.testing.assert_allclose(np.delete(found[2], 7), np.delete(model.item_means_, 7))
    assert found[2, 7] == pytest.approx(means[1])
    assert model.predict([[0, 7]]) == pytest.approx(model.user_means_[0])


def test_predictions_that_do_not_fit_in_memory_are_refused(model, R, monkeypatch):
    monkeypatch.setattr("skrec._prediction.available_memory", lambda: 80 * 50 * 32 - 1)
    with pytest.raises(ValueError, match=r"would take .* GiB .* call recommend\(X\)"):
        model.predict(R)
    model.predict(R[:79])


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


@pytest.mark.parametrize("kind", KINDS)
def test_changed_parameters_wait_for_the_next_fit(R, kind):
    model = make(kind, max_iter=5).fit(R)
    before = model.predict(R), model.score(R)
    model.set_params(alpha=1e3, activation="relu", out_activation="tanh")
    np.testing.assert_array_equal(model.predict(R), before[0])
    assert model.score(R) == before[1]


def test_an_unfitted_model_says_so(R):
    for method in ("predict", "transform", "score", "recommend"):
        with pytest.raises(NotFittedError):
            getattr(make(), method)(R)


# Leave-one-out


def brute_force_left_out(model, R):
    """Predict each rating of R after taking it out of its row."""
    predicted = []
    for row in range(R.shape[0]):
        start, end = R.indptr[row : row + 2]
        for j in range(start, end):
            keep = np.arange(start, end) != j
            rest = sp.csr_array(
                (
                    R.data[start:end][keep],
                    R.indices[start:end][keep],
                    [0, keep.sum()],
                ),
                shape=(1, R.shape[1]),
            )
            predicted.append(model.predict(rest)[0, R.indices[j]])
    return np.array(predicted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("sizes", [(8,), (40,), (6, 4)])
def test_score_of_a_matrix_leaves_each_rating_out(R, kind, sizes, center):
    R = R.tolil()
    R[2, :], R[3, :] = 0, 0
    R[3, 11] = 4  # a user with a single rating, and one without any
    R = R.tocsr()
    R.eliminate_zeros()
    model = make(
        kind, hidden_layer_sizes=sizes, center_input=center, dtype="float64"
    ).fit(R[20:])
    expected = brute_force_left_out(model, R[:20])
    assert model.score(R[:20]) == pytest.approx(r2_score(R[:20].data, expected))


def test_leaving_out_takes_unrated_items_into_account(R):
    training = R.tolil()
    training[:, 5] = 0
    training = training.tocsr()
    training.eliminate_zeros()
    model = make(dtype="float64").fit(training)
    expected = brute_force_left_out(model, R[:15])
    assert model.score(R[:15]) == pytest.approx(r2_score(R[:15].data, expected))


def test_leaving_out_under_a_nonlinear_output_is_close(R):
    model = make(out_activation="sigmoid", dtype="float64").fit(R[20:])
    expected = r2_score(R[:20].data, brute_force_left_out(model, R[:20]))
    with_itself = model.score(R[:20], R[:20])
    assert abs(model.score(R[:20]) - expected) < 0.15 * (with_itself - expected)


def test_score_of_a_matrix_with_y_predicts_y_from_x(model, R):
    coo = R[:10].tocoo()
    hidden = np.arange(coo.nnz) % 4 == 0
    known, asked = (
        sp.csr_array((coo.data[m], (coo.row[m], coo.col[m])), shape=coo.shape)
        for m in (~hidden, hidden)
    )
    expected = r2_score(asked.data, model.predict(known)[asked.nonzero()])
    assert model.score(known, asked) == pytest.approx(expected, abs=1e-6)


def test_score_takes_weights_in_every_form(model, R, pairs):
    X, y = pairs
    per_row = np.arange(R.shape[0]) % 3
    per_rating = R.copy()
    per_rating.data = np.repeat(per_row, np.diff(R.indptr)).astype(float)
    assert model.score(R, sample_weight=per_row) == model.score(
        R, sample_weight=per_rating
    )
    weights = per_rating.data
    expected = r2_score(y, model.predict(X), sample_weight=weights)
    assert model.score(X, y, sample_weight=weights) == pytest.approx(expected)


# Transform and recommend


def test_transform_gives_the_users_factors(model, R, pairs):
    X, _ = pairs
    factors = model.transform(R)
    assert factors.shape == (80, 8)
    np.testing.assert_array_equal(model.transform(X), model.user_factors_[X[:, 0]])
    assert not model.transform([[10**6, 0]]).any()
    assert list(model.get_feature_names_out()[:2]) == [
        "autorecregressor0",
        "autorecregressor1",
    ]


def test_fit_transform_ignores_y_beside_a_matrix(R):
    y = np.zeros(R.shape[0])
    found = make().fit_transform(R, y)
    np.testing.assert_array_equal(found, make().fit(R).transform(R))


def test_codes_are_features_of_a_later_step(R):
    from sklearn.linear_model import LogisticRegression

    y = (R.sum(axis=1) / np.diff(R.indptr) > 3.5).astype(int)
    pipeline = make_pipeline(
        make("user").set_output(transform="pandas"), LogisticRegression()
    )
    assert pipeline.fit(R, y).score(R, y) > 0.7
    assert pipeline[-1].feature_names_in_[0] == "autorecregressor0"


def test_recommend_returns_the_best_unseen_items(model, R):
    found = model.recommend(R[:5], n_items=4)
    assert list(found.columns) == ["user", "item", "rating"]
    predicted = model.predict(R[:5])
    predicted[R[:5].nonzero()] = -np.inf
    for row, part in found.groupby("user"):
        best = np.sort(predicted[row])[::-1][:4]
        np.testing.assert_allclose(part["rating"], best, atol=1e-6)
        np.testing.assert_allclose(predicted[row, part["item"]], best, atol=1e-6)


def test_recommend_takes_user_ids(R, pairs):
    X, y = pairs
    frame = pd.DataFrame({"user": X[:, 0], "film": [f"f{i:02}" for i in X[:, 1]]})
    model = make().fit(frame, y)
    found = model.recommend([7, 10**6], n_items=3)
    assert found["user"].tolist() == [7, 7, 7, 10**6, 10**6, 10**6]
    assert not set(found["item"][:3]) & set(frame["film"][frame["user"] == 7])
    best = model.items_[np.argsort(-model.item_means_, kind="stable")[:3]]
    assert found["item"][3:].tolist() == best.tolist()


def test_recommend_ends_where_a_user_has_seen_everything(model):
    everything = sp.csr_array(np.full((1, 50), 3.0))
    everything.data[0] = 4
    assert len(model.recommend(everything)) == 0
    assert len(model.recommend(everything, n_items=60, exclude_seen=False)) == 50


def test_recommend_works_in_slices(model, R, monkeypatch):
    whole = model.recommend(R, n_items=3)
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 4 * 120)
    pd.testing.assert_frame_equal(model.recommend(R, n_items=3), whole, rtol=1e-5)


@pytest.mark.parametrize("n_items", [0, -1, 2.5, "many"])
def test_recommend_refuses_a_bad_number(model, R, n_items):
    with pytest.raises(ValueError, match="n_items must be a positive integer"):
        model.recommend(R, n_items=n_items)
