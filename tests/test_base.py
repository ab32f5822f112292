"""Behavior that all estimators share: fitting, stopping, warm starts, persistence."""

import pickle
import re

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import (
    MODELS,
    TEXT_CLASSES,
    Interrupt,
    StopAfter,
    fit,
    has_std,
    name_of,
    split,
)
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import r2_score, root_mean_squared_error

from skrec import (
    AutoRecRegressor,
    BaselineRegressor,
    BayesianMFRegressor,
    CDLRegressor,
    ConvMFRegressor,
    PMFRegressor,
    RBMRegressor,
    SVDppRegressor,
)
from skrec.text import SequenceVectorizer

ITERATIVE = [m for m in MODELS if "max_iter" in m.get_params()]
pytestmark = [
    # A few iterations are enough to compare models.
    pytest.mark.filterwarnings("ignore:.* stopped at max_iter"),
]


def each(models):
    return pytest.mark.parametrize("recommender", models, ids=name_of)


def having(*parameters):
    """Parametrize over the estimators that have some parameters."""
    return each([m for m in MODELS if set(parameters) <= set(m.get_params())])


def by_class(model, values):
    """Return the value of the first class in a dict that the model belongs to."""
    return next(value for cls, value in values.items() if isinstance(model, cls))


def outputs(model, R, pairs):
    """What the methods of a fitted model return."""
    X, y = pairs
    found = {
        "pairs": model.predict(X),
        "rows": model.predict(R),
        "factors of users": model.transform(X),
        "factors of rows": model.transform(R),
        "score of pairs": model.score(X, y),
        "score of rows": model.score(R),
        "recommendations": model.recommend(R[:3]).to_numpy(),
    }
    if has_std(model):
        found["std of pairs"] = model.predict(X, return_std=True)[1]
        found["std of rows"] = model.predict(R, return_std=True)[1]
    return found


def fitted_values(model):
    """All public fitted attributes that consist of numbers or strings."""
    plain = np.ndarray | list | tuple | dict | float | int | str
    return {
        name: value
        for name, value in vars(model).items()
        if name.endswith("_") and isinstance(value, plain)
    }


@pytest.fixture(scope="module", params=MODELS, ids=name_of)
def model(request, R):
    return fit(clone(request.param), R)


# Ratings


@each(MODELS)
def test_both_forms_give_the_same_model_bit_for_bit(recommender, R, pairs):
    X, y = pairs
    order = np.random.default_rng(0).permutation(len(y))
    a = fit(clone(recommender), R)
    b = fit(clone(recommender), X[order], y[order])
    np.testing.assert_equal(outputs(a, R, pairs), outputs(b, R, pairs))
    a, b = fitted_values(a), fitted_values(b)
    assert (a.pop("n_features_in_"), b.pop("n_features_in_")) == (50, 2)
    np.testing.assert_equal(a, b)


@each(MODELS)
def test_a_sparse_y_adds_ratings_to_a_matrix(recommender, R):
    joint = fit(clone(recommender), *split(R, np.arange(R.nnz) % 3 > 0))
    whole = fit(clone(recommender), R)
    np.testing.assert_equal(fitted_values(joint), fitted_values(whole))


@each(MODELS)
def test_ratings_with_weight_zero_are_ignored(recommender, pairs):
    X, y = pairs
    weights = np.ones(len(y))
    weights[::20] = 0
    # Half of the ratings of one item: its count must be that of the other half.
    is_popular = X[:, 1] == np.bincount(X[:, 1]).argmax()
    weights[np.flatnonzero(is_popular)[::2]] = 0
    kept = weights > 0
    weighted = fit(clone(recommender), X, y, sample_weight=weights)
    without = fit(clone(recommender), X[kept], y[kept])
    np.testing.assert_array_equal(weighted.items_, without.items_)
    np.testing.assert_allclose(weighted.predict(X), without.predict(X), atol=1e-4)


@each(MODELS)
def test_an_id_whose_only_rating_has_weight_zero_stays_known(recommender, pairs):
    X, y = np.vstack([pairs[0], [999, 0]]), np.append(pairs[1], 5.0)
    weights = np.append(np.ones(len(y) - 1), 0.0)
    model = fit(clone(recommender), X, y, sample_weight=weights)
    assert 999 in model.users_
    assert model.predict([[999, 0]]) == pytest.approx(model.item_means_[0])


@each(MODELS)
def test_a_weight_per_row_applies_to_each_rating_of_the_row(recommender, R):
    per_row = np.random.default_rng(0).uniform(0.5, 2, R.shape[0])
    per_rating = R.copy()
    per_rating.data = np.repeat(per_row, np.diff(R.indptr))
    a, b = (fit(clone(recommender), R, sample_weight=w) for w in (per_row, per_rating))
    np.testing.assert_equal(fitted_values(a), fitted_values(b))


@each(MODELS)
def test_a_large_weight_pulls_the_prediction_toward_its_rating(recommender, pairs):
    X, y = pairs
    heavy = np.ones(len(y))
    heavy[5] = 1e4
    errors = [
        abs(fit(clone(recommender), X, y, sample_weight=w).predict(X[[5]])[0] - y[5])
        for w in (None, heavy)
    ]
    limit = by_class(recommender, {AutoRecRegressor: 0.1, object: 0.02})
    assert errors[1] < min(errors[0], limit)


@each(MODELS)
def test_a_single_rating_can_be_fitted(recommender):
    model = clone(recommender)
    if isinstance(model, ConvMFRegressor):
        model.set_params(vectorizer=SequenceVectorizer(max_df=1.0))
    fit(model, [["ann", "up"]], [4.0], item_texts={"up": "a house flies"})
    assert model.predict([["ann", "up"], ["bob", "up"]]) == pytest.approx([4, 4])


@each(MODELS)
def test_equal_ratings_are_predicted_everywhere(recommender, R):
    R = R.copy()
    R.data[:] = 3
    model = fit(clone(recommender), R)
    np.testing.assert_allclose(model.predict(R), 3)
    assert model.predict([[10**6, 0]]) == pytest.approx(3)


@each(MODELS)
def test_invalid_ratings_leave_a_fitted_model_unchanged(recommender, R, pairs):
    model = fit(clone(recommender), R)
    before = fitted_values(model)
    bad = R.copy()
    bad.data[0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit(model, bad)
    np.testing.assert_equal(fitted_values(model), before)


@having("early_stopping")
def test_early_stopping_needs_a_rating_to_train_on(recommender):
    model = clone(recommender).set_params(early_stopping=True)
    X, y = [["a", f"c{i}"] for i in range(8)], np.arange(8.0)
    texts = {f"c{i}": f"word{i} more{i}" for i in range(8)}
    for n in (1, 2):
        with pytest.raises(
            ValueError, match=f"leaves no rating to train on out of {n}"
        ):
            fit(model, X[:n], y[:n], item_texts=texts)
    fit(model, X, y, item_texts=texts)
    assert np.isfinite(model.validation_scores_).all()


# Random numbers and arguments

# Parameters with which an estimator draws random numbers in each epoch.
RANDOM = {
    AutoRecRegressor: {"input_dropout": 0.3, "dropout": 0.2, "batch_size": 10},
    RBMRegressor: {"batch_size": 16},
    ConvMFRegressor: {"dropout": 0.2, "word_dropout": 0.2, "batch_size": 16},
    CDLRegressor: {"input_dropout": 0.3, "batch_size": 16},
    object: {},
}


def with_random_numbers(recommender):
    return clone(recommender).set_params(**by_class(recommender, RANDOM))


@each(ITERATIVE)
def test_the_random_state_determines_the_model(recommender, R):
    a, b, other = (
        fit(with_random_numbers(recommender).set_params(random_state=seed), R)
        for seed in (0, 0, 1)
    )
    np.testing.assert_equal(fitted_values(a), fitted_values(b))
    assert abs(a.predict(R) - other.predict(R)).max() > 1e-3


@each(MODELS)
def test_fitting_does_not_touch_global_random_states(recommender, R):
    # The generator that NPY002 forbids is one of those that must not change.
    states = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    fit(with_random_numbers(recommender), R)
    assert torch.get_rng_state().equal(states[0])
    np.testing.assert_equal(np.random.get_state(), states[1])  # noqa: NPY002


@each(MODELS)
def test_no_method_changes_its_arguments(recommender, R, pairs):
    X, y = (array.copy() for array in pairs)
    given = R.copy()
    for array in (X, y, given.data, given.indices, given.indptr):
        array.flags.writeable = False
    fit(clone(recommender), X, y, sample_weight=y)
    model = fit(clone(recommender), given)
    before = pickle.dumps(vars(model))
    outputs(model, given, (X, y))
    model.score(given, given)
    assert pickle.dumps(vars(model)) == before
    np.testing.assert_array_equal(X, pairs[0])
    np.testing.assert_array_equal(y, pairs[1])
    assert (given != R).nnz == 0


@each(MODELS)
def test_a_second_fit_gives_the_same_model(recommender, R):
    model = fit(clone(recommender), R)
    expected = fitted_values(model)
    np.testing.assert_equal(fitted_values(fit(model, R)), expected)


CONTAINERS = [
    getattr(sp, f"{name}_{kind}")
    for name in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
    for kind in ("array", "matrix")
]


def assert_same_results(model, other, R):
    np.testing.assert_equal(fitted_values(model), fitted_values(other))
    for method in ("predict", "transform", "score"):
        expected = getattr(other, method)(R)
        np.testing.assert_array_equal(getattr(model, method)(R), expected)


@each(ITERATIVE)
@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix with .* is inefficient")
def test_every_container_and_dtype_gives_the_same_model(recommender, R):
    recommender = clone(recommender).set_params(max_iter=2)
    expected = fit(clone(recommender), R)
    for container in CONTAINERS:
        model = fit(clone(recommender), container(R))
        assert_same_results(model, expected, container(R))
    rounded = sp.csr_array((R.data.round(), R.indices, R.indptr), R.shape)
    expected = fit(clone(recommender), rounded)
    for dtype in (np.int8, np.uint16, np.int64, np.float32, np.longdouble):
        converted = rounded.astype(dtype)
        model = fit(clone(recommender), converted)
        assert_same_results(model, expected, converted)


@each(ITERATIVE)
def test_64_bit_and_unsorted_indices_give_the_same_model(recommender, R):
    recommender = clone(recommender).set_params(max_iter=2)
    expected = fit(clone(recommender), R)
    wide = R.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype("i8")
    unsorted = R[:, ::-1].tocsc().tocsr()[:, ::-1]
    assert not unsorted.has_sorted_indices
    for other in (wide, unsorted):
        assert_same_results(fit(clone(recommender), other), expected, other)


# Epochs


@each(ITERATIVE)
def test_an_interrupt_raises_and_leaves_a_model_that_predicts(recommender, R):
    model = clone(recommender).set_callbacks(Interrupt(1))
    with pytest.raises(KeyboardInterrupt):
        fit(model, R)
    assert model.n_iter_ == len(model.loss_curve_) == 2
    assert np.isfinite(model.predict(R)).all()
    assert np.isfinite(model.score(R))


@each(ITERATIVE)
def test_a_callback_can_stop_the_fit(recommender, R):
    assert fit(clone(recommender).set_callbacks(StopAfter(2)), R).n_iter_ == 2


class Scores:
    """A callback that scores the fitted model of each epoch."""

    def __init__(self, X, y):
        self.pairs, self.scores = (X, y), []

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "epoch":
            self.scores.append(fitted_estimator.score(*self.pairs))


@each(ITERATIVE)
def test_callbacks_get_a_model_that_predicts_in_every_epoch(recommender, pairs):
    callback = Scores(*pairs)
    model = fit(clone(recommender).set_callbacks(callback), *pairs)
    assert len(callback.scores) == model.n_iter_
    assert callback.scores[-1] == pytest.approx(model.score(*pairs))
    assert callback.scores[0] != pytest.approx(callback.scores[-1], abs=1e-6)


@each(MODELS)
def test_the_progress_bar_shows_the_fit(recommender, R, capsys):
    pytest.importorskip("rich", reason="progress bars need the extra `progress`")
    fit(clone(recommender).set_callbacks(ProgressBar()), R)
    assert f"{type(recommender).__name__} - fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("n_factor", "n_factors"),
        ("lamda_u", "lambda_u"),
        ("random_sate", "random_state"),
    ],
)
def test_an_unknown_parameter_is_refused_with_the_closest_name(wrong, right):
    message = f"PMFRegressor has no parameter '{wrong}'. Did you mean '{right}'"
    with pytest.raises(ValueError, match=re.escape(message)):
        PMFRegressor().set_params(tol=0.5, **{wrong: 1})


def test_an_unknown_parameter_is_refused_with_all_names_if_none_is_close():
    model = PMFRegressor()
    with pytest.raises(ValueError, match=r"no parameter 'xyz'.*'clip', 'device'"):
        model.set_params(tol=0.5, xyz=1)
    assert model.tol != 0.5


@each(MODELS)
def test_verbose_2_prints_each_iteration(recommender, R, capsys):
    model = fit(clone(recommender).set_params(verbose=2), R)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    name = re.escape(f"[{type(recommender).__name__}]")
    for epoch, (line, loss) in enumerate(zip(lines, model.loss_curve_, strict=True)):
        start = rf"{name} iteration +{epoch + 1} of \d+: objective "
        assert re.fullmatch(start + re.escape(f"{loss:.6g}") + r", \d+\.\d s", line)


@pytest.mark.parametrize("recommender", [PMFRegressor, AutoRecRegressor])
@pytest.mark.parametrize(
    ("max_iter", "expected"),
    [(7, [1, 2, 3, 4, 5, 6, 7]), (25, [1, 3, 6, 9, 12, 15, 18, 21, 24, 25])],
)
def test_verbose_prints_about_ten_lines(recommender, max_iter, expected, R, capsys):
    model = recommender(max_iter=max_iter, tol=0, verbose=True, random_state=0)
    assert model.fit(R).n_iter_ == max_iter
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[2]) for line in lines] == expected


@having("early_stopping")
def test_verbose_prints_the_validation_error_in_the_unit_of_the_ratings(
    recommender, R, capsys
):
    R = R.astype(float) * 20
    model = clone(recommender).set_params(verbose=2, early_stopping=True)
    scores = fit(model, R).validation_scores_
    found = re.findall(r"validation RMSE (\S+),", capsys.readouterr().out)
    assert len(found) == model.n_iter_
    # All lines have the same standard deviation of the held-out ratings.
    stds = [float(rmse) / np.sqrt(1 - s) for rmse, s in zip(found, scores, strict=True)]
    np.testing.assert_allclose(stds, stds[0], rtol=1e-4)
    assert 0.3 < stds[0] / R.data.std() < 2


@each(MODELS)
def test_nothing_is_printed_by_default(recommender, R, capsys):
    fit(clone(recommender), R)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


# Stopping

# Parameters with which an estimator overfits: the validation score rises, then falls.
OVERFITTING = {
    AutoRecRegressor: {
        "alpha": 0, "hidden_layer_sizes": 50, "learning_rate_init": 0.05,
        "learning_rate": "constant",
    },
    RBMRegressor: {
        "alpha": 0.0, "n_hidden": 6, "learning_rate_init": 0.1, "batch_size": 20,
        "learning_rate": "constant", "tol": 0.0,
    },
    SVDppRegressor: {"lambda_u": 0.1, "lambda_v": 0.1, "lambda_y": 0.1, "n_factors": 4},
    object: {"lambda_u": 0.1, "lambda_v": 0.1, "n_factors": 4},
}  # fmt: skip


@each([m for m in MODELS if {"early_stopping", "warm_start"} <= set(m.get_params())])
def test_early_stopping_keeps_the_best_state(recommender, R, pairs):
    params = by_class(recommender, OVERFITTING) | {"early_stopping": True}
    model = clone(recommender).set_params(**params, max_iter=100, n_iter_no_change=5)
    fit(model, *pairs)
    best = int(np.argmax(model.validation_scores_)) + 1
    assert len(model.validation_scores_) == len(model.loss_curve_) == model.n_iter_
    assert best < model.n_iter_ < 100
    assert model.n_iter_ - best >= 5
    shorter = clone(recommender).set_params(**params, max_iter=best)
    fit(shorter.set_params(n_iter_no_change=99), *pairs)
    np.testing.assert_array_equal(model.predict(R), shorter.predict(R))
    np.testing.assert_array_equal(model.transform(R), shorter.transform(R))


# The objectives of ConvMF and CDL need not settle: their networks take noisy steps.
@each([m for m in MODELS if "warm_start" in m.get_params()
       and not isinstance(m, ConvMFRegressor | CDLRegressor)])  # fmt: skip
def test_too_few_epochs_warn(recommender, R):
    model = clone(recommender).set_params(max_iter=2)
    if "learning_rate" in model.get_params():
        model.set_params(learning_rate="constant")
    with pytest.warns(
        ConvergenceWarning, match=r"stopped at max_iter=2 .*Raise max_iter or tol"
    ):
        fit(model, R)


# Parameters with which the loss overflows, a factor of the ratings, and the remedy.
DIVERGING = {
    AutoRecRegressor: (
        {"learning_rate_init": 1e30, "activation": "identity"}, 1,
        "Lower learning_rate",
    ),
    RBMRegressor: (
        {"learning_rate_init": 1e38, "alpha": 1e3}, 1, "Lower learning_rate",
    ),
    object: ({"normalize_y": False}, 1e30, "normalize_y=True"),
}  # fmt: skip


# Standardized ratings and estimated penalties keep the evidence bound finite.
@each([m for m in ITERATIVE if not isinstance(m, BayesianMFRegressor)
       and getattr(m, "lambda_u", 1.0) != "auto"])  # fmt: skip
def test_divergence_keeps_the_last_finite_state_and_warns(
    recommender, R, without_limits
):
    params, scale, remedy = by_class(recommender, DIVERGING)
    model = clone(recommender).set_params(**params)
    with pytest.warns(ConvergenceWarning, match=rf"diverged in epoch .*({remedy})"):
        fit(model, R * scale)
    assert np.isfinite(model.predict(R)).all()
    assert np.isfinite(model.score(R))


# Warm start


@having("warm_start")
def test_warm_start_continues_from_the_last_fit(recommender, R):
    model = fit(clone(recommender).set_params(warm_start=True), R)
    before = model.loss_curve_
    fit(model, R)
    # An evidence bound has a large constant part.
    decrease = 0.99 if has_std(model) else 0.9
    assert model.loss_curve_[0] < 1.02 * before[-1] < 1.02 * decrease * before[0]


@having("warm_start")
def test_warm_start_matches_users_and_items_by_id(recommender, pairs):
    X, y = pairs
    known = (X[:, 0] % 7 != 3) & (X[:, 1] % 7 != 3)
    model = clone(recommender).set_params(warm_start=True)
    fit(model, X[known] + 7, y[known])
    warm = fit(model.set_params(max_iter=1), X + 7, y)
    cold = fit(clone(recommender).set_params(max_iter=1), X + 7, y)
    assert len(warm.users_) == 80
    decrease = 0.99 if has_std(warm) else 0.95
    assert warm.loss_curve_[0] < decrease * cold.loss_curve_[0]


@having("warm_start")
def test_warm_start_with_new_ratings_only_is_refused(recommender, pairs):
    X, y = pairs
    model = fit(clone(recommender).set_params(warm_start=True), X, y)
    before = model.predict(X)
    for new, match in (
        ([[3, 1], [99, 2]], "79 of its 80 users are missing in X, for example 0"),
        ([[u, 1] for u in range(80)], "49 of its 50 items are missing in X"),
    ):
        if "items" in match and isinstance(recommender, TEXT_CLASSES):
            continue  # items with a text are not dropped
        with pytest.raises(ValueError, match=match):
            fit(model, new, np.arange(len(new)) % 5)
    np.testing.assert_array_equal(model.predict(X), before)


@having("warm_start")
def test_warm_start_refuses_other_numbers_of_factors(recommender, R):
    change = by_class(
        recommender,
        {
            AutoRecRegressor: {"hidden_layer_sizes": (9,)},
            RBMRegressor: {"n_hidden": 9},
            object: {"n_factors": 9},
        },
    )
    model = fit(clone(recommender).set_params(warm_start=True), R)
    with pytest.raises(ValueError, match="warm_start=True cannot continue"):
        fit(model.set_params(**change), R)


# Parameters


@having("batch_size")
def test_a_batch_size_may_be_a_numpy_integer(recommender, R):
    a, b = (
        fit(clone(recommender).set_params(batch_size=size), R)
        for size in (16, np.int64(16))
    )
    np.testing.assert_array_equal(a.predict(R), b.predict(R))


@each(MODELS)
def test_bad_parameters_are_refused(recommender, R):
    bad = {
        "dtype": "float16",
        "max_iter": 0,
        "validation_fraction": 1.0,
        "n_factors": 0,
    }
    for name in sorted(set(bad) & set(recommender.get_params())):
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            fit(clone(recommender).set_params(**{name: bad[name]}), R)
    with pytest.raises(ValueError, match="device='abacus' names no device"):
        fit(clone(recommender).set_params(device="abacus"), R)


@each(MODELS)
def test_clone_and_repr_keep_the_parameters(recommender):
    model = clone(recommender).set_params(clip=False, random_state=7)
    if "hidden_layer_sizes" in model.get_params():
        model.set_params(hidden_layer_sizes=[7])
    a, b = clone(model).get_params(deep=False), model.get_params(deep=False)
    a.pop("vectorizer", None), b.pop("vectorizer", None)
    assert a == b
    assert repr(clone(model)) == repr(model)
    assert "clip=False" in repr(model)


@each(MODELS)
def test_partial_fit_is_not_offered(recommender):
    assert not hasattr(recommender, "partial_fit")


# Parameters that must not change the predictions of a fitted model.
CHANGES = {
    BaselineRegressor: {"lambda_u": 50.0},
    AutoRecRegressor: {
        "alpha": 1e3, "activation": "relu", "out_activation": "tanh",
        "input_scaling": 0.0, "center_input": True,
    },
    BayesianMFRegressor: {"n_factors": 1, "burn_in": 2},
    RBMRegressor: {"n_hidden": 3, "alpha": 1e3},
    object: {"lambda_u": 1e-3, "lambda_v": 50.0, "n_factors": 3},
}  # fmt: skip


@each(MODELS)
def test_changed_parameters_take_effect_in_the_next_fit(recommender, R, pairs):
    model = fit(clone(recommender), R)
    before = outputs(model, R, pairs)
    model.set_params(**by_class(model, CHANGES))
    if "kind" in model.get_params():
        model.set_params(kind={"item": "user", "user": "item"}[model.kind])
    if isinstance(model, BayesianMFRegressor):
        model.set_params(implicit=not model.implicit)
    np.testing.assert_equal(outputs(model, R, pairs), before)


# Persistence


@pytest.mark.parametrize("how", ["pickle", "joblib", "mmap"])
def test_a_saved_model_gives_the_same_results(model, R, pairs, tmp_path, how):
    path = tmp_path / "model.pkl"
    if how == "pickle":
        path.write_bytes(pickle.dumps(model))
        loaded = pickle.loads(path.read_bytes())
    else:
        joblib.dump(model, path)
        loaded = joblib.load(path, mmap_mode="r" if how == "mmap" else None)
    np.testing.assert_equal(outputs(loaded, R, pairs), outputs(model, R, pairs))


def test_a_fitted_model_holds_no_tensors(model):
    def values(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            return [v for part in value for v in values(part)]
        return [value]

    assert not any(isinstance(v, torch.Tensor) for v in values(vars(model)))


def test_a_model_from_a_missing_device_predicts_on_the_cpu(
    model, R, pairs, monkeypatch
):
    expected = outputs(model, R, pairs)
    copy = pickle.loads(pickle.dumps(model)).set_params(device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    np.testing.assert_equal(outputs(copy, R, pairs), expected)


# GPU


@pytest.mark.gpu
@each(MODELS)
def test_a_gpu_fits_what_the_cpu_fits(recommender, R, pairs):
    X, y = pairs
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    errors = []
    for device in ("cpu", "cuda"):
        model = clone(recommender).set_params(device=device)
        fit(model, X[~is_test], y[~is_test])
        assert model.device_ == device
        errors.append(root_mean_squared_error(y[is_test], model.predict(X[is_test])))
        assert all(np.isfinite(v).all() for v in outputs(model, R, pairs).values())
    tolerance = by_class(recommender, {RBMRegressor: 0.05, object: 0.02})
    assert errors[0] == pytest.approx(errors[1], abs=tolerance)
    on_gpu, on_cpu = (model.set_params(device=d).predict(R) for d in ("cuda", "cpu"))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-3)


# Own methods of the common base


@pytest.fixture(scope="module")
def baseline(R):
    return BaselineRegressor().fit(R)


def test_scores_are_weighted(R, pairs, rng, baseline):
    X, y = pairs
    weights = rng.random(len(y))
    model = BaselineRegressor().fit(X, y)
    expected = r2_score(y, model.predict(X), sample_weight=weights)
    assert model.score(X, y, weights) == pytest.approx(expected)
    assert model.score(X, y, weights) != model.score(X, y)


def test_fitting_and_transforming_at_once_is_the_same(R, pairs):
    X, y = pairs
    for rows, given in [((X, y), X), ((R, None), R), ((R, R), R)]:
        model = PMFRegressor(n_factors=2, max_iter=3, random_state=0)
        found = model.fit_transform(*rows, sample_weight=None)
        np.testing.assert_array_equal(found, model.transform(given))
        again = clone(model).fit(given, y if given is X else None)
        np.testing.assert_array_equal(found, again.transform(given))
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight'"):
        model.fit_transform(X, y, weight=1)


def test_tags_name_the_forms_of_ratings(baseline):
    tags = baseline.__sklearn_tags__()
    inputs = tags.input_tags
    assert inputs.sparse is inputs.string is inputs.categorical is True
    assert tags.transformer_tags.preserves_dtype == []


def test_pickles_of_other_versions_warn_or_are_refused(baseline, pairs):
    state = baseline.__getstate__()
    for version, named in [("0.0.1", "0.0.1"), (None, "of an unknown version")]:
        old = state | {"_skrec_version": version}
        if version is None:
            del old["_skrec_version"]
        model = BaselineRegressor()
        message = rf"^BaselineRegressor was saved by skrec {named}, but skrec "
        with pytest.warns(UserWarning, match=message):
            model.__setstate__(old)
        X, _ = pairs
        np.testing.assert_array_equal(model.predict(X), baseline.predict(X))
        del old["clip"], old["dtype"]
        message = (
            rf"^BaselineRegressor was saved .* {named}, in which \['clip', 'dtype'"
        )
        with pytest.raises(ValueError, match=message):
            BaselineRegressor().__setstate__(old)
    BaselineRegressor().__setstate__(state)


def test_one_predictor_serves_all_calls(baseline):
    assert baseline._predictor() is baseline._predictor()
    with pytest.raises(NotFittedError, match="BaselineRegressor"):
        BaselineRegressor()._predictor()


@pytest.mark.parametrize("n_items", [True, np.True_, 0, 1.0])
def test_a_number_of_items_is_a_positive_integer(baseline, n_items):
    message = f"^n_items must be a positive integer, got {re.escape(repr(n_items))}"
    with pytest.raises(ValueError, match=message):
        baseline.recommend([0], n_items)
    assert len(baseline.recommend([0], np.int64(1), exclude_seen=np.False_)) == 1
    with pytest.raises(ValueError, match=r"^exclude_seen must be a boolean, got 1\."):
        baseline.recommend([0], exclude_seen=1)
