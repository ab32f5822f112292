import numpy as np
import pytest
from helpers import Interrupt, StopAfter, left_out
from scipy.special import logit
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import GroupKFold, KFold, cross_val_score

from skrec import AutoRecRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

KINDS = ["item", "user"]


def make(kind="item", **params):
    """Return a model that fits in tenths of a second, by default without dropout."""
    defaults = {
        "hidden_layer_sizes": (8,),
        "alpha": 5.0,
        "learning_rate_init": 0.02,
        "max_iter": 100,
        "input_dropout": 0.0,
        "random_state": 0,
    }
    return AutoRecRegressor(kind=kind, **(defaults | params))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Fitting


@pytest.mark.parametrize("kind", KINDS)
def test_factors_are_codes_and_decoder_rows(R, kind):
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
def test_the_loss_equals_the_formula_of_the_paper(R, weighted):
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


def test_folding_in_recovers_converged_user_factors(R):
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
def test_every_setting_learns_more_than_item_means(R, kind, params):
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


def test_equal_ratings_are_predicted_exactly(R):
    R = R.copy()
    R.data[:] = 3
    for output in ("identity", "sigmoid"):
        model = make(out_activation=output, max_iter=3).fit(R)
        assert (model.predict(R) == 3).all()


def test_an_interrupt_keeps_the_state_before_the_last_step(R):
    model = make().set_callbacks(Interrupt(4))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 5
    expected = make().set_callbacks(StopAfter(4)).fit(R)
    np.testing.assert_array_equal(model.predict(R), expected.predict(R))


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
    ],
    ids=str,
)
def test_bad_parameters_are_refused(R, params, match):
    with pytest.raises(ValueError, match=match):
        make(**params).fit(R)


def test_cross_validation_on_movielens_beats_item_means(movielens_100k):
    X, y = movielens_100k
    model = make(hidden_layer_sizes=(50,), alpha=100.0, max_iter=40)
    scores = cross_val_score(
        model,
        X,
        y,
        cv=KFold(2, shuffle=True, random_state=0),
        scoring="neg_root_mean_squared_error",
    )
    assert scores.mean() > -0.95  # item means: about -1.03


# Leave-one-out


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
    expected = left_out(model, R[:20])
    assert model.score(R[:20]) == pytest.approx(r2_score(R[:20].data, expected))


def test_leaving_out_under_a_nonlinear_output_is_close(R):
    model = make(out_activation="sigmoid", dtype="float64").fit(R[20:])
    expected = r2_score(R[:20].data, left_out(model, R[:20]))
    with_itself = model.score(R[:20], R[:20])
    assert abs(model.score(R[:20]) - expected) < 0.15 * (with_itself - expected)


# Texts


@pytest.fixture(scope="module")
def dataset():
    """Ratings that texts of items predict well."""
    return make_ratings(
        200, 150, density=0.15, n_factors=2, noise=0.2, text_words=60, random_state=0
    )


@pytest.mark.filterwarnings("ignore:.* have an unseen item")
def test_texts_predict_ratings_of_cold_start_items(dataset):
    X, y = ratings_to_samples(dataset.R)
    train, test = next(GroupKFold(4).split(X, groups=X[:, 1]))
    texts = dict(enumerate(dataset.item_texts))
    model = make(hidden_layer_sizes=(50,), alpha=20.0, text_components=10)
    without = model.fit(X[train], y[train]).predict(X[test])
    with_texts = model.fit(X[train], y[train], item_texts=texts).predict(X[test])
    errors = [root_mean_squared_error(y[test], p) for p in (with_texts, without)]
    assert errors[0] < errors[1] - 0.1


def test_reduced_texts_are_an_additional_input(dataset):
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


def test_without_texts_text_components_has_no_effect(R):
    model = make().fit(R)
    assert model.text_coefs_ is None
    assert make(text_components=3).fit(R).loss_curve_ == model.loss_curve_


def test_texts_work_with_batches_and_several_layers(dataset):
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
