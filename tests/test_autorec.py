import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from helpers import Interrupt, StopAfter
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    cross_val_score,
)

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


def test_an_interrupt_raises_and_leaves_a_model_that_predicts(R):
    model = make().set_callbacks(Interrupt(4))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 5
    expected = make().set_callbacks(StopAfter(4)).fit(R)
    np.testing.assert_array_equal(model.predict(R), expected.predict(R))


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
        ({"solver": "lbfgs", "dropout": 0.1}, "needs a deterministic loss"),
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
