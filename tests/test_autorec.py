import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from helpers import Interrupt, StopAfter, left_out, without_columns
from scipy.special import logit
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.preprocessing import FunctionTransformer

from skrec import AutoRecRegressor, BaselineRegressor
from skrec._core.networks import AutoencoderWeights
from skrec._networks.autorec_trainer import AutoRecTrainer
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

KINDS = ["item", "user"]
# The objective of the paper, on the ratings as they are
PAPER = {"baseline": False, "normalize_y": False}
CONVERGED = {
    "solver": "lbfgs", "dtype": "float64", "alpha": 20.0, "max_iter": 2000,
    "tol": 1e-13, "n_iter_no_change": 50,
}  # fmt: skip


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
    model = make(kind, input_scaling=0.0, **PAPER).fit(R)
    (V,), (mu,) = model.encoder_coefs_, model.encoder_intercepts_
    rows = (R.T if kind == "item" else R).toarray()
    encoded = model.item_factors_ if kind == "item" else model.user_factors_
    np.testing.assert_allclose(encoded, sigmoid(rows @ V + mu), atol=1e-5)


def test_center_input_subtracts_the_global_mean(R):
    model = make("user", input_scaling=0.0, center_input=True, **PAPER).fit(R)
    rows = np.where(R.toarray() != 0, R.toarray() - R.data.mean(), 0)
    expected = sigmoid(rows @ model.encoder_coefs_[0] + model.encoder_intercepts_[0])
    np.testing.assert_allclose(model.user_factors_, expected, atol=1e-5)


def test_input_scaling_divides_rows_by_a_power_of_their_counts(R):
    model = make("user", input_scaling=0.5, **PAPER).fit(R)
    counts = np.diff(R.indptr)
    rows = R.toarray() / np.sqrt(counts / counts.mean())[:, np.newaxis]
    expected = sigmoid(rows @ model.encoder_coefs_[0] + model.encoder_intercepts_[0])
    np.testing.assert_allclose(model.user_factors_, expected, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_equals_the_formula_of_the_paper(R, weighted):
    weights = R.copy()
    weights.data = np.random.default_rng(0).uniform(0.5, 2, R.nnz)
    losses = []

    def record(m):
        error = (m.item_factors_ @ m.user_factors_.T + m.user_biases_).T - R
        squares = np.square(error)[R.toarray() != 0]
        w = weights.data if weighted else 1
        norms = sum((a**2).sum() for a in (m.encoder_coefs_[0], m.user_factors_))
        losses.append((w * squares).sum() + m.alpha / 2 * norms)

    model = make(max_iter=3, dtype="float64", **PAPER)
    model.set_callbacks(Recorder(record))
    model.fit(R, sample_weight=weights if weighted else None)
    np.testing.assert_allclose(model.loss_curve_, losses)


class Recorder:
    """Callback that calls a function with the model at the beginning of each epoch."""

    def __init__(self, record):
        self.record = record

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_end(self, estimator, context, *, fitted_estimator): ...

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator):
        if context.task_name == "epoch":
            self.record(fitted_estimator)


@pytest.mark.parametrize("baseline", [True, False])
def test_folding_in_recovers_converged_user_factors(R, baseline):
    model = make(baseline=baseline, **CONVERGED).fit(R)
    X, _ = ratings_to_samples(R)
    dense = model.predict(R)
    np.testing.assert_allclose(dense[X[:, 0], X[:, 1]], model.predict(X), atol=1e-3)


@pytest.mark.parametrize("baseline", [True, False])
def test_folding_in_a_user_gives_the_codes_of_the_fit(R, pairs, baseline):
    model = make("user", baseline=baseline, dtype="float64").fit(R)
    np.testing.assert_allclose(model.transform(R), model.user_factors_, atol=1e-10)
    X, _ = pairs
    found = model.predict(R)[X[:, 0], X[:, 1]]
    np.testing.assert_allclose(found, model.predict(X), atol=1e-10)


# Baseline


def standardized(R):
    """Ratings with mean 0 and standard deviation 1."""
    Z = R.copy()
    Z.data = (R.data - R.data.mean()) / R.data.std()
    return Z


def effects_of(R):
    """Damped effects and their penalties."""
    found = BaselineRegressor().fit(R)
    return (
        found.user_factors_[:, 0], found.item_biases_, found.lambda_u_, found.lambda_v_
    )  # fmt: skip


def test_the_effects_are_those_of_the_baseline(R):
    for Z, params in [(standardized(R), {}), (R, {"normalize_y": False})]:
        model = make(max_iter=1, **params).fit(R)
        users, items, *_ = effects_of(Z)
        np.testing.assert_allclose(model.user_effects_, users, atol=1e-6)
        np.testing.assert_allclose(model.item_effects_, items, atol=1e-6)
        assert model.intercept_ == pytest.approx(0 if Z is not R else R.data.mean())


@pytest.mark.parametrize("kind", KINDS)
def test_early_stopping_scores_ratings_not_residuals(R, pairs, kind):
    X, y = pairs
    model = make(kind, early_stopping=True, clip=False, max_iter=20).fit(R)
    is_held_out = np.random.RandomState(0).permutation(len(y)) < np.ceil(0.1 * len(y))
    found = r2_score(y[is_held_out], model.predict(X[is_held_out]))
    assert max(model.validation_scores_) == pytest.approx(found, abs=1e-5)


def test_without_baseline_there_are_no_effects(R):
    model = make(baseline=False, max_iter=1).fit(R)
    assert model.user_effects_ is None
    assert model.item_effects_ is None
    assert model.intercept_ == 0


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_those_of_residuals_less_that_of_an_empty_row(R, kind, normalize):
    model = make(kind, input_scaling=0.0, normalize_y=normalize).fit(R)
    users, items, *_ = effects_of(standardized(R) if normalize else R)
    left = standardized(R) if normalize else R.copy()
    left.data -= left.data.mean() + users[R.tocoo().row] + items[R.indices]
    if normalize:
        left.data = 3.5 + 0.9 * left.data / left.data.std()
    else:
        left.data += R.data.mean()
    rows = (left.T if kind == "item" else left).toarray()
    (V,), (mu,) = model.encoder_coefs_, model.encoder_intercepts_
    encoded = model.item_factors_ if kind == "item" else model.user_factors_
    expected = sigmoid(rows @ V + mu) - sigmoid(mu)
    np.testing.assert_allclose(encoded, expected, atol=1e-4)


def test_a_prediction_is_the_sum_of_effects_codes_and_the_global_mean(R, pairs):
    X, _ = pairs
    for kind in KINDS:
        model = make(kind, clip=False).fit(R)
        sums = model.user_factors_ @ model.item_factors_.T + model.intercept_
        sums = (sums + model.item_biases_) + model.user_biases_[:, np.newaxis]
        expected = R.data.mean() + R.data.std() * sums
        np.testing.assert_allclose(
            model.predict(X), expected[X[:, 0], X[:, 1]], rtol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_penalizes_the_effects_of_the_decoder(R, kind):
    Z = standardized(R)
    users, items, lambda_u, lambda_v = effects_of(Z)
    row, col = R.tocoo().row, R.indices
    losses = []

    def record(m):
        sums = m.user_factors_ @ m.item_factors_.T + m.item_biases_
        error = (sums + m.user_biases_[:, np.newaxis])[row, col] - Z.data
        unit = np.std(Z.data - users[row] - items[col]) / 0.9
        if kind == "item":
            decoder, effects, penalty = m.user_factors_, m.user_biases_, lambda_u
        else:
            decoder, effects, penalty = m.item_factors_, m.item_biases_, lambda_v
        loss = (error**2).sum() + m.alpha_ / 2 * (decoder**2).sum()
        loss += penalty * (effects**2).sum()
        losses.append(loss / unit**2 + m.alpha_ / 2 * (m.encoder_coefs_[0] ** 2).sum())

    model = make(kind, max_iter=3, dtype="float64").set_callbacks(Recorder(record))
    np.testing.assert_allclose(model.fit(R).loss_curve_, losses, rtol=1e-5)


def test_a_row_is_a_ridge_regression_with_the_penalty_of_the_effects(R):
    model = make(dtype="float64", clip=False).fit(R)
    lambda_u = effects_of(standardized(R))[2]
    found = model.predict(R[:20])
    for row in range(20):
        rated = R[[row]].indices
        z = (R[[row]].data - model.global_mean_) / model.rating_std_
        A = np.column_stack([model.item_factors_, np.ones(R.shape[1])])
        penalty = np.diag([model.alpha_ / 2] * 8 + [lambda_u])
        target = A[rated].T @ (z - model.item_effects_[rated])
        theta = np.linalg.solve(A[rated].T @ A[rated] + penalty, target)
        expected = model.item_effects_ + A @ theta
        expected = model.global_mean_ + model.rating_std_ * expected
        np.testing.assert_allclose(found[row], expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.* have an unseen")
def test_unseen_users_and_items_get_the_known_effect(R, pairs):
    model = make(max_iter=1).fit(*pairs)
    expected = BaselineRegressor().fit(*pairs)
    for X in ([[1000, 3]], [[2, 1000]], [[1000, 1000]]):
        assert model.predict(X) == pytest.approx(expected.predict(X), abs=1e-6)
    empty = R[:1] * 0
    empty.eliminate_zeros()
    np.testing.assert_allclose(model.predict(empty), expected.predict(empty), atol=1e-6)


def test_an_item_without_ratings_has_the_code_zero(R):
    model = make().fit(without_columns(R, [7]))
    assert not model.item_factors_[7].any()
    assert model.item_factors_[8].any()


@pytest.mark.parametrize("output", ["sigmoid", "relu"])
def test_the_baseline_needs_a_linear_output(R, output):
    with pytest.raises(ValueError, match="use baseline=False, or out_activation"):
        make(out_activation=output).fit(R)


# Scale of the ratings


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"baseline": False},
        {"center_input": True},
        {"baseline": False, "center_input": True},
        {"baseline": False, "out_activation": "sigmoid"},
        {"baseline": False, "out_activation": "elu"},
        {"early_stopping": True},
    ],
    ids=str,
)
def test_the_unit_of_the_ratings_has_no_effect(R, pairs, kind, params):
    X, _ = pairs
    other = R.copy()
    other.data = 7 + 20 * R.data
    a, b = (make(kind, max_iter=30, **params).fit(M) for M in (R, other))
    assert b.loss_curve_ == a.loss_curve_
    np.testing.assert_allclose(b.predict(X), 7 + 20 * a.predict(X))
    np.testing.assert_allclose(b.predict(other[:9]), 7 + 20 * a.predict(R[:9]))
    assert b.score(other[:9]) == pytest.approx(a.score(R[:9]))


def test_ratings_without_normalization_are_used_as_they_are(R):
    other = R.copy()
    other.data = 20 * R.data
    a, b = (make(normalize_y=False, max_iter=1).fit(M) for M in (R, other))
    assert b.loss_curve_[0] > 100 * a.loss_curve_[0]


@pytest.mark.parametrize("weight", [None, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_auto_grows_with_the_number_of_ratings_of_a_row(R, kind, weight):
    weights = None if weight is None else np.full(R.shape[0], weight)
    model = make(kind, alpha="auto", max_iter=1).fit(R, sample_weight=weights)
    n_rows = R.shape[1] if kind == "item" else R.shape[0]
    assert model.alpha_ == pytest.approx(20 * np.sqrt(R.nnz / n_rows) * (weight or 1))


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_warm_start_continues_in_another_unit(R, kind, baseline):
    model = make(kind, baseline=baseline, warm_start=True, dtype="float64").fit(R)
    other = R.copy()
    other.data = 7 + 20 * R.data
    last = model.loss_curve_[-1]
    assert model.fit(other).loss_curve_[0] == pytest.approx(last, rel=0.01)


def test_a_warm_start_refuses_another_baseline(R):
    model = make(max_iter=1, warm_start=True).fit(R)
    with pytest.raises(ValueError, match="another baseline"):
        model.set_params(baseline=False).fit(R)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "params",
    [
        {"activation": "tanh"},
        {"activation": "relu", "out_activation": "sigmoid", "baseline": False},
        {"activation": "elu", "out_activation": "tanh", "baseline": False},
        {"activation": "selu", "out_activation": "elu", "baseline": False},
        {"activation": "identity", "out_activation": "selu", "baseline": False},
        {"out_activation": "relu", "baseline": False},
        {"baseline": False},
        {"normalize_y": False},
        PAPER,
        {"hidden_layer_sizes": 8},
        {"hidden_layer_sizes": [16, 8, 16], "activation": "elu"},
        {"hidden_layer_sizes": [8, 6, 6, 8], "pretraining": True},
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
        params = {"out_activation": output, "baseline": output == "identity"}
        model = make(max_iter=3, **params).fit(R)
        assert (model.predict(R) == 3).all()


def test_an_interrupt_between_epochs_keeps_the_state_of_a_fit_that_ends_there(R):
    model = make().set_callbacks(Interrupt(4))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 5
    expected = make().set_callbacks(StopAfter(5)).fit(R)
    np.testing.assert_array_equal(model.predict(R), expected.predict(R))


# Pre-training


DEEP = {"hidden_layer_sizes": (8, 4, 8), "pretraining": True}


def outer_of(weights):
    """Return the first hidden layer and the output of a deep network."""
    first = weights.encoder[:1], weights.encoder_biases[:1]
    return AutoencoderWeights(*first, weights.decoder, weights.decoder_bias)


def start_of(model, R, monkeypatch):
    """Return the weights from which the counted epochs of a fit start."""
    found = []

    def record(trainer, epoch, keep):
        trainer.descent.step = lambda *args: found.append(trainer.network.weights())
        step(trainer, epoch, keep)
        raise KeyboardInterrupt

    step = AutoRecTrainer.step
    with monkeypatch.context() as patch:
        patch.setattr(AutoRecTrainer, "step", record)
        with pytest.raises(KeyboardInterrupt):
            model.fit(R)
    return found[0]


@pytest.mark.parametrize("kind", KINDS)
def test_pretraining_starts_from_a_fit_of_the_outer_layers(R, kind, monkeypatch):
    plain = {"max_iter": 5, "dtype": "float64", **PAPER}
    deep = make(kind, **plain, **DEEP)
    start = start_of(deep, R, monkeypatch)
    initial = start_of(deep.set_params(pretraining=False), R, monkeypatch)
    # A fit with the initial weights of the outer layers
    monkeypatch.setattr(AutoencoderWeights, "draw", lambda *args: outer_of(initial))
    shallow = make(kind, **plain).fit(R)
    W = shallow.user_factors_ if kind == "item" else shallow.item_factors_
    np.testing.assert_allclose(start.encoder[0], shallow.encoder_coefs_[0], rtol=1e-9)
    np.testing.assert_allclose(start.decoder, W, rtol=1e-9)
    for layer in (1, 2):
        np.testing.assert_array_equal(start.encoder[layer], initial.encoder[layer])


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"hidden_layer_sizes": ()}, "positive integer or a sequence of them"),
        ({"hidden_layer_sizes": (5, 0)}, "positive integer or a sequence of them"),
        ({"hidden_layer_sizes": (5.5,)}, "positive integer or a sequence of them"),
        ({"hidden_layer_sizes": (5, 4), "pretraining": True}, "read the same backward"),
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


def test_pretraining_is_reproducible_and_its_epochs_are_not_counted(R):
    models = [make(max_iter=20, batch_size=16, **DEEP).fit(R) for _ in range(2)]
    np.testing.assert_array_equal(*[model.predict(R) for model in models])
    assert models[0].n_iter_ == len(models[0].loss_curve_) == 20


def test_pretraining_has_no_effect_on_one_hidden_layer(R):
    models = [make(max_iter=5, pretraining=p).fit(R) for p in (False, True)]
    np.testing.assert_array_equal(*[model.predict(R) for model in models])


def test_a_warm_start_continues_without_pretraining(R):
    model = make(warm_start=True, learning_rate="constant", tol=0.01, **DEEP).fit(R)
    last = model.loss_curve_[-1]
    assert model.fit(R).loss_curve_[0] == pytest.approx(last, rel=0.01)


def test_each_stage_of_the_pretraining_stops_early(R, monkeypatch):
    used = []

    def validate(trainer):
        used.append(list(trainer.network.layers))
        return 0.0

    monkeypatch.setattr(AutoRecTrainer, "validate", validate)
    sizes = {"hidden_layer_sizes": (8, 4, 4, 8), "pretraining": True}
    model = make(early_stopping=True, n_iter_no_change=1, **sizes).fit(R)
    assert used == [stage for stage in ([0], [0, 1, 3], [0, 1, 2, 3]) for _ in "12"]
    assert model.n_iter_ == 2


def test_an_interrupt_of_the_pretraining_leaves_the_model_unchanged(R, monkeypatch):
    model = make(max_iter=5, **DEEP).fit(R)
    before = model.predict(R)

    def interrupted(trainer, rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(AutoRecTrainer, "_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(R[:60])
    np.testing.assert_array_equal(model.predict(R), before)


def test_pretraining_uses_texts_weights_and_a_seed_of_each_fit(dataset):
    R, texts = dataset.R, dataset.item_texts
    weights = np.linspace(0.5, 2, R.shape[0])
    params = {"max_iter": 5, "dropout": 0.1, "input_dropout": 0.2, **DEEP}
    fits = [
        make(**params).fit(R, sample_weight=w, item_texts=t)
        for w, t in [(None, texts), (weights, texts), (weights, texts), (None, None)]
    ]
    assert np.abs(fits[0].text_coefs_ - fits[1].text_coefs_).max() > 1e-4
    np.testing.assert_array_equal(fits[1].text_coefs_, fits[2].text_coefs_)
    assert fits[3].text_coefs_ is None


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
@pytest.mark.parametrize("baseline", [True, False])
def test_score_of_a_matrix_leaves_each_rating_out(R, kind, sizes, center, baseline):
    R = R.tolil()
    R[2, :], R[3, :] = 0, 0
    R[3, 11] = 4  # a user with a single rating, and one without any
    R = R.tocsr()
    R.eliminate_zeros()
    model = make(
        kind,
        baseline=baseline,
        hidden_layer_sizes=sizes,
        center_input=center,
        dtype="float64",
    ).fit(R[20:])
    expected = left_out(model, R[:20])
    assert model.score(R[:20]) == pytest.approx(r2_score(R[:20].data, expected))


def test_leaving_out_under_a_nonlinear_output_is_close(R):
    params = {"out_activation": "sigmoid", "baseline": False, "dtype": "float64"}
    model = make(**params).fit(R[20:])
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
    model = make(hidden_layer_sizes=(50,), alpha=20.0, n_text_components=10)
    without = model.fit(X[train], y[train]).predict(X[test])
    with_texts = model.fit(X[train], y[train], item_texts=texts).predict(X[test])
    errors = [root_mean_squared_error(y[test], p) for p in (with_texts, without)]
    assert errors[0] < errors[1] - 0.1


@pytest.mark.parametrize("batch_size", [None, 16])
def test_texts_predict_the_level_of_cold_start_items(rng, batch_size):
    """Also with a baseline, which subtracts the level of items with ratings."""
    is_good = rng.random(120) < 0.5
    words = np.where(
        is_good[:, np.newaxis], ["great", "fun", "joy"], ["bad", "dull", "sad"]
    )
    texts = {i: " ".join(rng.choice(w, 2, replace=False)) for i, w in enumerate(words)}
    X = np.argwhere(rng.random((60, 120)) < 0.3)
    y = np.where(is_good, 4.5, 1.5)[X[:, 1]] + rng.normal(0, 0.3, len(X))
    known = X[:, 1] < 100
    model = make(
        hidden_layer_sizes=50, alpha=1.0, n_text_components=4, batch_size=batch_size
    )
    model.fit(X[known], y[known], item_texts=texts)
    error = root_mean_squared_error(y[~known], model.predict(X[~known]))
    assert error < 0.5


def test_reduced_texts_are_an_additional_input(dataset):
    texts = list(dataset.item_texts)
    texts[3] = None
    model = make(input_scaling=0.0, n_text_components=7, **PAPER)
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
    assert make(n_text_components=3).fit(R).loss_curve_ == model.loss_curve_


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


@pytest.fixture(scope="module")
def features(dataset):
    """Features of items and of users: factors with errors, and a category."""
    rng = np.random.default_rng(0)
    tables = {}
    for kind in ("item", "user"):
        factors = dataset[f"{kind}_factors"]
        table = pd.DataFrame(factors + rng.normal(0, 0.1, factors.shape))
        level = dataset[f"{kind}_biases"] > 0
        tables[kind] = table.assign(level=np.where(level, "high", "low"))
    return tables


@pytest.mark.filterwarnings("ignore:.* have an unseen (item|user)")
@pytest.mark.parametrize("kind", ["item", "user"])
def test_features_predict_ratings_of_rows_without_ratings(dataset, features, kind):
    X, y = ratings_to_samples(dataset.R)
    groups = X[:, 1 if kind == "item" else 0]
    train, test = next(GroupKFold(4).split(X, groups=groups))
    model = make(kind, hidden_layer_sizes=(50,), max_iter=100, alpha=20.0)
    without = model.fit(X[train], y[train]).predict(X[test])
    model.fit(X[train], y[train], **{f"{kind}_features": features[kind]})
    errors = [
        root_mean_squared_error(y[test], p) for p in (model.predict(X[test]), without)
    ]
    assert errors[0] < 0.9 * errors[1]
    assert len(getattr(model, f"{kind}s_")) == len(features[kind])


@pytest.mark.parametrize("kind", ["item", "user"])
def test_features_are_an_additional_input(dataset, features, kind):
    """The attributes explain the codes, also of rows without ratings."""
    R = dataset.R.tolil()
    R[:5], R[:, :5] = 0, 0
    R = sp.csr_array(R)
    R.eliminate_zeros()
    table = features[kind]
    model = make(kind, dtype="float64", **PAPER | {"input_scaling": 0.0})
    model.fit(R, **{f"{kind}_features": table})
    encoded = getattr(model, f"{kind}_encoder_").transform(table)
    (V,), (mu,) = model.encoder_coefs_, model.encoder_intercepts_
    weights = getattr(model, f"{kind}_feature_weights_")
    side = (encoded - getattr(model, f"{kind}_feature_center_")) @ weights
    inputs = R.T if kind == "item" else R
    codes = 1 / (1 + np.exp(-(inputs @ V + side + mu)))
    np.testing.assert_allclose(getattr(model, f"{kind}_factors_"), codes)
    assert np.ptp(codes[:5], axis=0).min() > 0
    other = "user" if kind == "item" else "item"
    assert getattr(model, f"{other}_encoder_") is None


def test_texts_and_features_are_separate_inputs(dataset, features):
    """Items may have both, either or none."""
    X, y = ratings_to_samples(dataset.R)
    rated = X[:, 1] < 120
    texts = {j: dataset.item_texts[j] for j in range(10, 130)}
    table = features["item"].iloc[40:140]
    model = make(n_text_components=7)
    model.fit(X[rated], y[rated], item_texts=texts, item_features=table)
    assert model.text_coefs_.shape == (7, 8)
    n_columns = len(model.item_feature_names_)
    assert model.item_feature_weights_.shape == (n_columns, 8)
    np.testing.assert_array_equal(model.items_, np.arange(140))
    pairs = np.column_stack([np.zeros(20, int), np.arange(120, 140)])
    assert len(np.unique(model.predict(pairs))) == 20


def test_both_forms_of_ratings_with_features_agree(dataset, features):
    X, y = ratings_to_samples(dataset.R)
    table = features["item"]
    shuffled = table.sample(frac=1, random_state=0)
    model = make(max_iter=5)
    of_matrix = model.fit(dataset.R, item_features=table).predict(X)
    of_pairs = model.fit(X, y, item_features=shuffled).predict(X)
    np.testing.assert_array_equal(of_pairs, of_matrix)


@pytest.mark.parametrize("kind", ["item", "user"])
def test_features_work_with_batches_several_layers_and_warm_starts(
    dataset, features, kind
):
    params = {"batch_size": 16, "hidden_layer_sizes": (6, 5), "max_iter": 5}
    model = make(kind, warm_start=True, early_stopping=True, **params)
    for _ in range(2):
        model.fit(dataset.R, **{f"{kind}_features": features[kind]})
    assert np.isfinite(model.predict(dataset.R)).all()
    assert np.isfinite(model.score(dataset.R))


def test_sparse_and_dense_features_agree(dataset, monkeypatch):
    rng = np.random.default_rng(0)
    table = sp.csr_array(np.where(rng.random((150, 9)) < 0.2, 1.0, 0.0))
    encoder = FunctionTransformer(accept_sparse=True)
    model = make(dtype="float64", item_encoder=encoder, max_iter=5)
    dense = model.fit(dataset.R, item_features=table).predict(dataset.R)
    monkeypatch.setattr("skrec._data.side_information._LARGE", 0)
    monkeypatch.setattr("skrec._data.side_information._DENSITY", 1)
    sparse = model.fit(dataset.R, item_features=table).predict(dataset.R)
    np.testing.assert_allclose(sparse, dense)


def test_features_of_what_is_not_encoded_are_refused(dataset, features):
    with pytest.raises(ValueError, match="item_features go with kind='item', which"):
        make("user").fit(dataset.R, item_features=features["item"])
    with pytest.raises(ValueError, match="user_features go with kind='user', which"):
        make("item").fit(dataset.R, user_features=features["user"])
