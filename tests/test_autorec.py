import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.special import logit
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline

from skrec import AutoRecRegressor
from skrec.datasets import make_ratings
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


# Fitting


@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_give_the_same_model_bit_for_bit(R, pairs, kind):
    X, y = pairs
    shuffled = np.random.default_rng(0).permutation(len(y))
    models = [make(kind).fit(R), make(kind).fit(X[shuffled], y[shuffled])]
    for name in ("user_factors_", "item_factors_", "user_biases_", "loss_curve_"):
        a, b = (getattr(m, name) for m in models)
        np.testing.assert_array_equal(a, b)
    assert [m.n_features_in_ for m in models] == [R.shape[1], 2]
    np.testing.assert_array_equal(models[0].predict(X), models[1].predict(X))
    np.testing.assert_array_equal(models[0].predict(R), models[1].predict(R))


@pytest.mark.parametrize("kind", KINDS)
def test_the_factors_are_codes_and_decoder_rows(R, kind):
    model = make(kind, input_scaling=0.0).fit(R)
    (V,), (mu,) = model.encoder_coefs_, model.encoder_intercepts_
    rows = (R.T if kind == "item" else R).toarray()
    encoded = model.item_factors_ if kind == "item" else model.user_factors_
    np.testing.assert_allclose(encoded, sigmoid(rows @ V + mu), atol=1e-5)


def test_center_input_subtracts_the_global_mean(R):
    model = make("user", input_scaling=0.0, center_input=True).fit(R)
    rows = np.where(R.toarray() != 0, R.toarray() - R.data.mean(), 0)
    expected = sigmoid(rows @ model.encoder_coefs_[0] + model.encoder_intercepts_[0])
    np.testing.assert_allclose(model.user_factors_, expected, atol=1e-5)


def test_input_scaling_divides_rows_by_a_power_of_their_counts(R):
    model = make("user", input_scaling=0.5).fit(R)
    counts = np.diff(R.indptr)
    rows = R.toarray() / np.sqrt(counts / counts.mean())[:, np.newaxis]
    expected = sigmoid(rows @ model.encoder_coefs_[0] + model.encoder_intercepts_[0])
    np.testing.assert_allclose(model.user_factors_, expected, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_that_of_the_paper(R, weighted):
    weights = R.copy()
    weights.data = np.random.default_rng(0).uniform(0.5, 2, R.nnz)
    losses = []

    class Recorder:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_end(self, estimator, context, *, fitted_estimator): ...

        def on_fit_task_begin(self, estimator, context, *, fitted_estimator):
            m = fitted_estimator
            if context.task_name != "epoch":
                return
            error = (m.item_factors_ @ m.user_factors_.T + m.user_biases_).T - R
            squares = np.square(error)[R.toarray() != 0]
            w = weights.data if weighted else 1
            norms = sum((a**2).sum() for a in (m.encoder_coefs_[0], m.user_factors_))
            losses.append((w * squares).sum() + m.alpha / 2 * norms)

    model = make(max_iter=3, dtype="float64").set_callbacks(Recorder())
    model.fit(R, sample_weight=weights if weighted else None)
    np.testing.assert_allclose(model.loss_curve_, losses)


def test_a_converged_user_is_found_again_by_folding_in(R):
    params = {"alpha": 20.0, "max_iter": 2000, "tol": 1e-13, "n_iter_no_change": 50}
    model = make(solver="lbfgs", dtype="float64", **params).fit(R)
    X, _ = ratings_to_samples(R)
    dense = model.predict(R)
    np.testing.assert_allclose(dense[X[:, 0], X[:, 1]], model.predict(X), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "params",
    [
        {"activation": "tanh"},
        {"activation": "relu", "out_activation": "sigmoid"},
        {"activation": "elu", "out_activation": "tanh"},
        {"activation": "selu", "out_activation": "elu"},
        {"activation": "identity", "out_activation": "selu"},
        {"out_activation": "relu"},
        {"hidden_layer_sizes": 8},
        {"hidden_layer_sizes": [16, 8, 16], "activation": "elu"},
        {"hidden_layer_sizes": 300},
        {"solver": "rprop", "tol": 0.01},
        {"solver": "lbfgs", "tol": 0.01},
        {"batch_size": 16},
        {"batch_size": 10**6},
        {"input_dropout": 0.3, "dropout": 0.3},
        {"learning_rate": "cosine"},
        {"alpha": 0},
        {"dtype": "float64"},
    ],
    ids=str,
)
def test_every_setting_learns_more_than_the_items_means(R, kind, params):
    params = {"max_iter": 200, "learning_rate_init": 0.01} | params
    model = make(kind, **params).fit(R)
    X, y = ratings_to_samples(R)
    predicted = model.predict(X)
    assert predicted.dtype == np.float64
    means = model.item_means_[X[:, 1]]
    assert np.mean((predicted - y) ** 2) < 0.95 * np.mean((means - y) ** 2)
    assert np.isfinite(model.predict(R)).all()
    assert np.isfinite(model.score(R))
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_ratings_of_one_value_only(R):
    R = R.copy()
    R.data[:] = 3
    for output in ("identity", "sigmoid"):
        model = make(out_activation=output, max_iter=3).fit(R)
        assert (model.predict(R) == 3).all()


def test_a_single_rating_can_be_fitted():
    model = make(max_iter=2).fit([["ann", "up"]], [4.0])
    assert model.predict([["ann", "up"], ["bob", "up"]]) == pytest.approx([4, 4])


@pytest.mark.parametrize("kind", KINDS)
def test_weight_zero_equals_absence(R, pairs, kind):
    X, y = pairs
    weight = np.ones(len(y))
    weight[::20] = 0
    kept = weight > 0
    weighted = make(kind).fit(X, y, sample_weight=weight)
    without = make(kind).fit(X[kept], y[kept])
    np.testing.assert_array_equal(weighted.predict(X), without.predict(X))


def test_an_id_whose_only_rating_has_no_weight_stays_known(pairs):
    X, y = pairs
    X, y = np.vstack([X, [999, 0]]), np.append(y, 5.0)
    weight = np.append(np.ones(len(y) - 1), 0.0)
    model = make().fit(X, y, sample_weight=weight)
    assert 999 in model.users_
    assert model.predict([[999, 0]]) == model.item_means_[0]


def test_weights_of_rows_are_weights_of_their_ratings(R):
    per_row = np.random.default_rng(0).uniform(0.5, 2, R.shape[0])
    per_rating = R.copy()
    per_rating.data = np.repeat(per_row, np.diff(R.indptr))
    models = [make().fit(R, sample_weight=w) for w in (per_row, per_rating)]
    np.testing.assert_array_equal(models[0].item_factors_, models[1].item_factors_)


def test_y_beside_a_matrix_is_trained_on_too(R):
    is_first = np.arange(R.nnz) % 3 > 0
    coo = R.tocoo()
    first, second = (
        sp.csr_array((coo.data[m], (coo.row[m], coo.col[m])), shape=R.shape)
        for m in (is_first, ~is_first)
    )
    joint, whole = make().fit(first, second), make().fit(R)
    np.testing.assert_array_equal(joint.item_factors_, whole.item_factors_)


# Reproducibility


def test_the_same_random_state_gives_the_same_bits(R):
    params = {"input_dropout": 0.3, "dropout": 0.2, "batch_size": 10}
    a, b, c = (make(random_state=s, **params).fit(R) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.item_factors_, b.item_factors_)
    assert (a.item_factors_ != c.item_factors_).any()


def test_fitting_leaves_the_global_generators_alone(R):
    states = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    make(max_iter=2, input_dropout=0.5).fit(R)
    assert torch.get_rng_state().equal(states[0])
    now = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(now[1], states[1][1])


def test_fitting_leaves_its_arguments_alone(R, pairs):
    X, y = pairs
    copies = R.copy(), X.copy(), y.copy()
    make(max_iter=2).fit(R)
    make(max_iter=2).fit(X, y)
    for array, copy in zip((R.data, X, y), (copies[0].data, *copies[1:]), strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_fits_what_the_cpu_fits(R, kind):
    cpu, gpu = (make(kind, device=d, max_iter=60).fit(R) for d in ("cpu", "cuda"))
    X, y = ratings_to_samples(R)
    a, b = (np.sqrt(np.mean((m.predict(X) - y) ** 2)) for m in (cpu, gpu))
    assert abs(a - b) < 0.002
    assert gpu.device_ == "cuda"
    gpu.set_params(device="cpu")
    np.testing.assert_allclose(
        gpu.predict(R), gpu.set_params(device="cuda").predict(R), atol=1e-4
    )


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
    monkeypatch.setattr("skrec._prediction.available_memory", lambda: 80 * 50 * 8 - 1)
    with pytest.raises(ValueError, match=r"would take .* GiB .* call recommend\(X\)"):
        model.predict(R)
    model.predict(R[:79])


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        (sp.csr_array((2, 49)), ValueError, "X has 49 columns, but the model knows 50"),
        ([[1, 2, 3]], ValueError, "X has 3 features, but user-item pairs have 2"),
        ([[-1, 2]], ValueError, "non-negative integers are allowed"),
        ([[0.5, 2]], ValueError, "non-negative integers are allowed"),
        ([["ann", "up"]], ValueError, "non-negative integers are allowed"),
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


# Stopping


def test_early_stopping_holds_out_ratings_and_keeps_the_best_state(R):
    params = {"alpha": 0, "hidden_layer_sizes": 50, "learning_rate_init": 0.05}
    model = make(
        early_stopping=True, max_iter=300, learning_rate="constant", **params
    ).fit(R)
    assert model.n_iter_ < 300
    assert len(model.validation_scores_) == len(model.loss_curve_) == model.n_iter_
    best = int(np.argmax(model.validation_scores_))
    assert model.n_iter_ - 1 - best >= model.n_iter_no_change
    shorter = make(
        early_stopping=True, max_iter=best + 1, learning_rate="constant", **params
    )
    with pytest.warns(ConvergenceWarning, match="Raise max_iter or tol"):
        shorter.fit(R)
    np.testing.assert_array_equal(shorter.user_factors_, model.user_factors_)


def test_early_stopping_needs_a_rating_to_train_on():
    with pytest.raises(ValueError, match="leaves no rating to train on"):
        make(early_stopping=True).fit([[0, 0]], [1.0])


def test_a_constant_rate_that_has_not_settled_warns(R):
    with pytest.warns(ConvergenceWarning, match="stopped at max_iter=2"):
        make(learning_rate="constant", max_iter=2).fit(R)


def test_divergence_keeps_the_last_finite_state_and_warns(R):
    model = make(learning_rate_init=1e30, activation="identity")
    with pytest.warns(ConvergenceWarning, match=r"diverged .* Lower learning_rate"):
        model.fit(R)
    assert np.isfinite(model.predict(R)).all()
    assert np.isfinite(model.score(R))


class Interrupt:
    """A callback that interrupts in an epoch, as a user would."""

    def __init__(self, epoch, error=KeyboardInterrupt):
        self.epoch, self.error = epoch, error

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == self.epoch:
            raise self.error


def test_an_interrupt_raises_and_leaves_a_model_that_predicts(R):
    model = make().set_callbacks(Interrupt(4))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 5
    expected = make().set_callbacks(StopAfter(4)).fit(R)
    np.testing.assert_array_equal(model.predict(R), expected.predict(R))


class StopAfter(Interrupt):
    """A callback that ends the training after some epochs."""

    def on_fit_task_end(self, estimator, context):
        return context.task_name == "epoch" and context.task_id == self.epoch - 1


def test_a_callback_can_stop_the_fit(R):
    assert make().set_callbacks(StopAfter(3)).fit(R).n_iter_ == 3


def test_bad_input_leaves_a_fitted_model_as_it_was(R):
    model = make(max_iter=3).fit(R)
    before = model.predict(R)
    bad = R.copy()
    bad.data[0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.fit(bad)
    with pytest.raises(ValueError, match="alpha"):
        clone(model).set_params(alpha=-1.0).fit(R)
    np.testing.assert_array_equal(model.predict(R), before)


# Warm start


@pytest.mark.parametrize("kind", KINDS)
def test_warm_start_continues_where_the_last_fit_ended(R, kind):
    model = make(kind, warm_start=True, max_iter=10).fit(R)
    before = model.loss_curve_
    model.fit(R)
    assert model.loss_curve_[0] < before[-1]


def test_warm_start_takes_over_known_users_and_draws_new_ones(pairs):
    X, y = pairs
    old = X[:, 0] < 60
    model = make(warm_start=True, max_iter=20).fit(X[old], y[old])
    loss = model.loss_curve_[-1] / old.sum()
    model.fit(X, y)
    cold = make(max_iter=20).fit(X, y)
    assert len(model.users_) == 80
    assert loss < model.loss_curve_[0] / len(y) < cold.loss_curve_[0] / len(y)


def test_warm_start_refuses_other_layers(R):
    model = make(warm_start=True, max_iter=2).fit(R)
    with pytest.raises(ValueError, match=r"warm_start=True cannot continue"):
        model.set_params(hidden_layer_sizes=(9,)).fit(R)


# Parameters


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"hidden_layer_sizes": ()}, "positive integer or a sequence of them"),
        ({"hidden_layer_sizes": (5, 0)}, "positive integer or a sequence of them"),
        ({"hidden_layer_sizes": (5.5,)}, "positive integer or a sequence of them"),
        ({"solver": "lbfgs", "batch_size": 5}, "needs all ratings in each step"),
        ({"solver": "rprop", "batch_size": 5}, "needs all ratings in each step"),
        ({"solver": "lbfgs", "dropout": 0.1}, "needs a loss without chance"),
        ({"kind": "movie"}, "'kind' parameter"),
        ({"alpha": -1.0}, "'alpha' parameter"),
        ({"device": "abacus"}, "names no device"),
        ({"dtype": "float16"}, "'dtype' parameter"),
        ({"validation_fraction": 1.0}, "'validation_fraction' parameter"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(R, params, match):
    with pytest.raises(ValueError, match=match):
        make(**params).fit(R)


def test_clone_and_repr_keep_the_parameters():
    model = make(hidden_layer_sizes=[7], alpha=3.0)
    assert clone(model).get_params() == model.get_params()
    assert "alpha=3.0" in repr(model)


def test_partial_fit_is_not_offered():
    assert not hasattr(AutoRecRegressor, "partial_fit")


# Persistence


@pytest.mark.parametrize("how", ["pickle", "joblib", "mmap"])
def test_a_model_comes_back_as_it_was(model, R, pairs, tmp_path, how):
    path = tmp_path / "model.pkl"
    if how == "pickle":
        path.write_bytes(pickle.dumps(model))
        loaded = pickle.loads(path.read_bytes())
    else:
        joblib.dump(model, path)
        loaded = joblib.load(path, mmap_mode="r" if how == "mmap" else None)
    X, y = pairs
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(loaded.predict(R), model.predict(R))
    assert loaded.score(R) == model.score(R)
    assert loaded.score(X, y) == model.score(X, y)
    pd.testing.assert_frame_equal(loaded.recommend(R[:3]), model.recommend(R[:3]))


def test_a_fitted_model_holds_no_tensors(model):
    def arrays(value):
        if isinstance(value, list | tuple):
            return [a for v in value for a in arrays(v)]
        return [value]

    assert not any(
        isinstance(a, torch.Tensor) for a in arrays(list(vars(model).values()))
    )


def test_a_model_of_another_device_predicts_here(model, R, monkeypatch):
    copy = pickle.loads(pickle.dumps(model)).set_params(device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    np.testing.assert_array_equal(copy.predict(R), model.predict(R))


# Reports


def test_verbose_prints_each_epoch(R, capsys):
    make(verbose=True, max_iter=3, early_stopping=True).fit(R)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("[AutoRecRegressor] epoch 1: loss ")
    assert "validation R2" in lines[0]


def test_nothing_is_printed_by_default(R, capsys):
    make(max_iter=3).fit(R)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_the_progress_bar_shows_epochs(R, capsys):
    make(max_iter=3).set_callbacks(ProgressBar()).fit(R)
    assert "AutoRecRegressor - fit" in capsys.readouterr().out


@pytest.mark.parametrize("search", [GridSearchCV, HalvingGridSearchCV])
def test_the_progress_bar_works_through_a_search(R, capsys, search):
    grid = search(make(max_iter=3), {"alpha": [1.0, 10.0]}, cv=2)
    grid.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(R)
    out = capsys.readouterr().out
    assert search.__name__ in out
    assert "AutoRecRegressor - fit" in out


def test_callbacks_see_a_model_that_predicts_in_every_epoch(R, pairs):
    X, y = pairs
    monitor = ScoringMonitor(scoring="r2")
    model = make(max_iter=5).set_callbacks(monitor).fit(X, y)
    log = monitor.get_logs(select="most_recent").data_as_pandas
    scores = log.loc[log["task_name"] == "epoch", "r2"]
    assert len(scores) == 5
    assert scores.iloc[-1] == pytest.approx(model.score(X, y))


# Model selection


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_over_users(R, n_jobs):
    grid = {"alpha": [5.0, 1e5], "hidden_layer_sizes": [(8,), (4,)]}
    search = GridSearchCV(make(), grid, cv=KFold(3), n_jobs=n_jobs).fit(R)
    assert search.best_params_["alpha"] == 5.0
    assert search.best_estimator_.recommend(R[:2]).shape == (20, 3)
    expected = make(**search.best_params_).fit(R[27:]).score(R[:27])
    best = search.cv_results_["split0_test_score"][search.best_index_]
    assert best == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_over_ratings(pairs, n_jobs):
    X, y = pairs
    search = GridSearchCV(
        make(),
        {"alpha": [5.0, 1e5]},
        cv=KFold(3, shuffle=True, random_state=0),
        scoring="neg_root_mean_squared_error",
        n_jobs=n_jobs,
    ).fit(X, y)
    assert search.best_params_["alpha"] == 5.0
    split = next(search.cv.split(X))
    error = make().fit(X[split[0]], y[split[0]]).predict(X[split[1]]) - y[split[1]]
    assert -search.cv_results_["split0_test_score"][0] == pytest.approx(
        np.sqrt(np.mean(error**2)), abs=1e-6
    )


def n_threads(_):
    return torch.get_num_threads()


def test_workers_share_the_cores():
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(n_threads)(i) for i in range(2))
    assert sum(found) <= max(2, joblib.cpu_count())


def test_cross_validation_on_movielens_beats_the_items_means(movielens_100k):
    X, y = movielens_100k
    model = make(hidden_layer_sizes=(50,), alpha=100.0, max_iter=40)
    scores = cross_val_score(
        model,
        X,
        y,
        cv=KFold(2, shuffle=True, random_state=0),
        scoring="neg_root_mean_squared_error",
    )
    assert scores.mean() > -0.95  # the items' means: about -1.03


# Texts


@pytest.fixture(scope="module")
def dataset():
    """Ratings of which much can be told from the texts of the items."""
    return make_ratings(
        200, 150, density=0.15, n_factors=2, noise=0.2, text_words=60, random_state=0
    )


def test_texts_tell_ratings_of_items_that_nobody_has_rated(dataset):
    X, y = ratings_to_samples(dataset.R)
    train, test = next(GroupKFold(4).split(X, groups=X[:, 1]))
    texts = dict(enumerate(dataset.item_texts))
    model = make(hidden_layer_sizes=(50,), alpha=20.0, text_components=10)
    without = model.fit(X[train], y[train]).predict(X[test])
    with_texts = model.fit(X[train], y[train], item_texts=texts).predict(X[test])
    errors = [root_mean_squared_error(y[test], p) for p in (with_texts, without)]
    assert errors[0] < errors[1] - 0.1


def test_texts_are_a_further_input(dataset):
    texts = list(dataset.item_texts)
    texts[3] = None
    model = make(input_scaling=0.0, text_components=7)
    model.fit(dataset.R, item_texts=texts)
    (V,), (mu,) = model.encoder_coefs_, model.encoder_intercepts_
    assert model.text_coefs_.shape == (7, 8)
    side = np.linalg.lstsq(
        model.text_coefs_.T,
        (logit(model.item_factors_.astype(float)) - dataset.R.T @ V - mu).T,
    )[0].T
    np.testing.assert_allclose(side[3], 0, atol=1e-3)
    assert np.square(side).mean() == pytest.approx(149 / 150, abs=0.01)


def test_without_texts_the_model_is_the_plain_one(R):
    model = make().fit(R)
    assert model.text_coefs_ is None
    assert make(text_components=3).fit(R).loss_curve_ == model.loss_curve_


def test_texts_go_through_batches_and_layers(dataset):
    model = make(batch_size=16, hidden_layer_sizes=(6, 5), max_iter=5, warm_start=True)
    model.fit(dataset.R, item_texts=dataset.item_texts)
    model.fit(dataset.R, item_texts=dataset.item_texts)
    assert np.isfinite(model.predict(dataset.R)).all()


@pytest.mark.parametrize(
    ("kind", "item_texts", "match"),
    [
        ("user", ["a"] * 50, "kind='item'"),
        ("item", ["a"] * 49, "49 texts, but X has 50 columns"),
        ("item", ["the"] * 50, "no words to learn from"),
    ],
)
def test_bad_texts_are_refused(R, kind, item_texts, match):
    with pytest.raises(ValueError, match=match):
        make(kind).fit(R, item_texts=item_texts)
