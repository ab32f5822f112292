"""scikit-learn's tools on the estimators, compared with loops by hand."""

import os
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import MODELS as ALL_MODELS
from helpers import fit, left_out, name_of, small, standardized
from scipy.stats import loguniform
from sklearn import config_context, metrics
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    ParameterGrid,
    ParameterSampler,
    RandomizedSearchCV,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)

from skrec import (
    AutoRecRegressor,
    BaselineRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    ConvMFRegressor,
    LLORMARegressor,
    PMFRegressor,
    RBMRegressor,
    SVDppRegressor,
)
from skrec.metrics import make_rating_scorer, neg_root_mean_squared_error_scorer
from skrec.model_selection import ratings_to_samples

RMSE = "neg_root_mean_squared_error"
FOLDS = KFold(3, shuffle=True, random_state=0)
MODELS = [small(AutoRecRegressor), small(BiasedMFRegressor)]


def biased(**params):
    """Return a factorization whose penalties are numbers."""
    return small(BiasedMFRegressor, **({"lambda_u": 1.0, "lambda_v": 1.0} | params))


pytestmark = [
    # A few iterations are enough to compare models.
    pytest.mark.filterwarnings("ignore:.* stopped at max_iter"),
    # Some splitters test on unseen users or items on purpose.
    pytest.mark.filterwarnings("ignore:.* have an unseen (user|item)"),
]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)


@pytest.fixture(scope="module")
def pairs(R):
    X, y = ratings_to_samples(R)
    order = np.random.default_rng(0).permutation(len(y))
    return X[order], y[order]


def neg_rmse(y, predicted):
    return -np.sqrt(np.mean((y - predicted) ** 2))


def scores_by_hand(model, X, y, splits, params=None, score=neg_rmse):
    """Score of each split, computed without scikit-learn."""
    scores = []
    for train, test in splits:
        fitted = clone(model).set_params(**(params or {})).fit(X[train], y[train])
        scores.append(score(y[test], fitted.predict(X[test])))
    return np.array(scores)


# Cross-validation


@each_model
@pytest.mark.parametrize(
    ("cv", "group"),
    [(FOLDS, None), (ShuffleSplit(2, test_size=0.2, random_state=0), None),
     (GroupKFold(3), "user"), (GroupKFold(3), "item"), (TimeSeriesSplit(3), None)],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_cross_val_score_of_pairs(model, pairs, cv, group):
    X, y = pairs
    groups = None if group is None else X[:, ["user", "item"].index(group)]
    found = cross_val_score(model, X, y, cv=cv, groups=groups, scoring=RMSE)
    expected = scores_by_hand(model, X, y, cv.split(X, groups=groups))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("side", ["user", "item"])
def test_unseen_users_or_items_are_predicted_by_means(pairs, side):
    X, y = pairs
    column = ["user", "item"].index(side)
    other = 1 - column
    cv = GroupKFold(4)
    found = cross_val_predict(biased(), X, y, cv=cv, groups=X[:, column])
    expected = np.empty(len(y))
    for train, test in cv.split(X, groups=X[:, column]):
        mean = y[train].mean()
        for i in test:
            rated = y[train][X[train, other] == X[i, other]]
            expected[i] = (rated.sum() + 5 * mean) / (len(rated) + 5)
    np.testing.assert_allclose(found, expected)


def test_time_series_split_trains_on_the_past_of_movielens():
    path = Path(os.environ.get("SKREC_DATA", "")) / "ml-100k" / "ratings.npz"
    if not path.is_file():
        pytest.skip("needs MovieLens 100K in the folder SKREC_DATA")
    with np.load(path, allow_pickle=False) as file:
        order = np.argsort(file["timestamp"], kind="stable")
        X = np.column_stack([file["user"], file["item"]])[order]
        y, time = file["rating"][order].astype(float), file["timestamp"][order]
    cv, model = TimeSeriesSplit(2), biased(lambda_u=10, lambda_v=10)
    assert all(time[train].max() <= time[test].min() for train, test in cv.split(X))
    found = cross_val_score(model, X, y, cv=cv, scoring=RMSE)
    np.testing.assert_allclose(
        found, scores_by_hand(model, X, y, cv.split(X)), rtol=1e-6
    )
    assert found.min() > neg_rmse(y, y.mean()) - 0.05


def test_kfold_over_users_scores_unseen_users(R):
    cv, model = KFold(4), biased()
    found = cross_val_score(model, R, cv=cv)
    train, test = next(cv.split(R))
    predicted = left_out(clone(model).fit(R[train]), R[test])
    expected = metrics.r2_score(R[test].data, predicted)
    assert found[0] == pytest.approx(expected, abs=1e-6)


def test_cross_val_predict(pairs, R):
    X, y = pairs
    model = biased()
    found, dense = cross_val_predict(model, X, y, cv=FOLDS), cross_val_predict(model, R)
    for train, test in FOLDS.split(X):
        expected = clone(model).fit(X[train], y[train]).predict(X[test])
        np.testing.assert_array_equal(found[test], expected)
    for train, test in KFold(5).split(R):
        expected = clone(model).fit(R[train]).predict(R[test])
        np.testing.assert_array_equal(dense[test], expected)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("neg_root_mean_squared_error", metrics.root_mean_squared_error),
        ("neg_mean_absolute_error", metrics.mean_absolute_error),
        ("neg_median_absolute_error", metrics.median_absolute_error),
        ("r2", metrics.r2_score),
        ("explained_variance", metrics.explained_variance_score),
    ],
)
def test_scoring_by_name(pairs, name, function):
    X, y = pairs
    sign = -1 if name.startswith("neg") else 1
    found = cross_validate(biased(), X, y, cv=FOLDS, scoring=[name])
    expected = scores_by_hand(biased(), X, y, FOLDS.split(X), score=function)
    np.testing.assert_allclose(found[f"test_{name}"], sign * expected, rtol=1e-6)


@each_model
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_parallel_jobs_give_the_same_scores(model, pairs, backend):
    X, y = pairs
    expected = scores_by_hand(model, X, y, FOLDS.split(X))
    with joblib.parallel_config(backend=backend):
        found = cross_val_score(model, X, y, cv=FOLDS, scoring=RMSE, n_jobs=2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def n_threads(_):
    return torch.get_num_threads()


def test_workers_share_the_cores():
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(n_threads)(i) for i in range(2))
    assert sum(found) <= max(2, joblib.cpu_count())


# Curves


@each_model
def test_learning_curve(model, pairs):
    X, y = pairs
    sizes, on_train, on_test = learning_curve(
        model, X, y, cv=FOLDS, train_sizes=[0.2, 1.0], scoring=RMSE
    )
    splits = list(FOLDS.split(X))
    assert sizes.tolist() == [int(0.2 * len(splits[0][0])), len(splits[0][0])]
    for i, size in enumerate(sizes):
        parts = [(train[:size], test) for train, test in splits]
        expected = scores_by_hand(model, X, y, parts)
        np.testing.assert_allclose(on_test[i], expected, rtol=1e-6)
        expected = scores_by_hand(model, X, y, [(train, train) for train, _ in parts])
        np.testing.assert_allclose(on_train[i], expected, rtol=1e-6)
    assert on_test[1].mean() > on_test[0].mean()


def test_validation_curve(pairs):
    X, y = pairs
    values = [0.1, 10.0, 1e4]
    on_train, on_test = validation_curve(
        small(PMFRegressor), X, y, param_name="lambda_v", param_range=values,
        cv=FOLDS, scoring=RMSE,
    )  # fmt: skip
    for found, value in zip(on_test, values, strict=True):
        expected = scores_by_hand(
            small(PMFRegressor), X, y, FOLDS.split(X), {"lambda_v": value}
        )
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    # A stronger penalty fits the training ratings less.
    assert (np.diff(on_train.mean(axis=1)) < 0).all()


# Searches

# Two values of a parameter that clearly differ, by class.
GRIDS = {
    AutoRecRegressor: {"alpha": [1.0, 1e5]},
    RBMRegressor: {"alpha": [1.0, 1e4]},
    BayesianMFRegressor: {"n_factors": [3, 1]},
    BiasedMFRegressor: {"n_factors": [3, 1]},
    ConvMFRegressor: {"n_factors": [3, 1]},
    LLORMARegressor: {"n_factors": [3, 1]},
    SVDppRegressor: {"n_factors": [3, 1]},
    BaselineRegressor: {"lambda_v": [5.0, 1e4]},
    object: {"lambda_u": [2.0, 1e4]},
}


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("form", ["matrix", "pairs"])
@pytest.mark.parametrize("model", ALL_MODELS, ids=name_of)
def test_grid_search_over_users_or_ratings(model, R, pairs, form, n_jobs):
    X, y = (R, None) if form == "matrix" else pairs
    grid = next(grid for cls, grid in GRIDS.items() if isinstance(model, cls))
    cv = KFold(2, shuffle=True, random_state=0)
    search = fit(GridSearchCV(model, grid, cv=cv, n_jobs=n_jobs), X, y)
    expected = np.empty((2, 2))
    for i, params in enumerate(ParameterGrid(grid)):
        for j, (train, test) in enumerate(cv.split(X)):
            parts = [(X[k], None if y is None else y[k]) for k in (train, test)]
            fitted = fit(clone(model).set_params(**params), *parts[0])
            expected[i, j] = fitted.score(*parts[1])
    found = [search.cv_results_[f"split{j}_test_score"] for j in range(2)]
    np.testing.assert_allclose(np.transpose(found), expected, rtol=1e-5)
    assert abs(expected[0] - expected[1]).min() > 1e-4
    assert search.best_index_ == expected.mean(axis=1).argmax()
    assert search.best_estimator_.recommend([0], n_items=3).shape == (3, 3)


GRID = {"lambda_u": [1.0, 1e4], "lambda_v": [1.0, 1e4]}


def assert_search_is_right(search, candidates, X, y):
    """Check the scores of all candidates, the best candidate and its refit."""
    expected = [
        scores_by_hand(biased(), X, y, FOLDS.split(X), params) for params in candidates
    ]
    assert list(search.cv_results_["params"]) == candidates
    for i in range(3):
        found = search.cv_results_[f"split{i}_test_score"]
        np.testing.assert_allclose(found, [scores[i] for scores in expected], rtol=1e-6)
    best = candidates[int(np.argmax([scores.mean() for scores in expected]))]
    assert search.best_params_ == best
    refit = biased(**best).fit(X, y)
    np.testing.assert_array_equal(search.predict(X), refit.predict(X))
    found = search.best_estimator_.recommend([0, 1], n_items=3)
    assert found.equals(refit.recommend([0, 1], n_items=3))


def test_grid_search(pairs):
    X, y = pairs
    search = GridSearchCV(biased(), GRID, cv=FOLDS, scoring=RMSE)
    assert_search_is_right(search.fit(X, y), list(ParameterGrid(GRID)), X, y)


def test_randomized_search(pairs):
    X, y = pairs
    spaces = {name: loguniform(0.1, 1e4) for name in GRID}
    search = RandomizedSearchCV(
        biased(), spaces, n_iter=4, cv=FOLDS, scoring=RMSE,
        random_state=0,
    ).fit(X, y)  # fmt: skip
    candidates = list(ParameterSampler(spaces, 4, random_state=0))
    assert_search_is_right(search, candidates, X, y)


def test_halving_search_over_ratings(pairs):
    X, y = (array[:1200] for array in pairs)
    search = HalvingGridSearchCV(
        biased(), GRID, factor=2, cv=FOLDS, scoring=RMSE,
        min_resources=300, random_state=0,
    ).fit(X, y)  # fmt: skip
    assert search.n_resources_ == [300, 600, 1200]
    assert search.n_candidates_ == [4, 2, 1]
    rounds = pd.DataFrame(search.cv_results_).groupby("iter")
    for i, now in rounds:
        best = now.nlargest((len(now) + 1) // 2, "mean_test_score")["params"].tolist()
        if i < 2:
            following = rounds.get_group(i + 1)["params"].tolist()
            assert sorted(map(str, following)) == sorted(map(str, best))
    # The last round has all ratings; their order does not matter.
    last = now.iloc[-1]
    expected = scores_by_hand(biased(), X, y, FOLDS.split(X), last["params"])
    found = [last[f"split{i}_test_score"] for i in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert search.best_params_ == last["params"]


def test_halving_search_over_iterations_and_users(R):
    search = HalvingGridSearchCV(
        biased(), GRID, factor=2, cv=KFold(2), resource="max_iter",
        min_resources=2, max_resources=8, random_state=0,
        scoring=neg_root_mean_squared_error_scorer,
    ).fit(R)  # fmt: skip
    assert search.n_resources_ == [2, 4, 8]
    model = biased(**search.best_params_)
    assert search.best_params_["max_iter"] == 8
    predicted = left_out(model.fit(R[40:]), R[:40])
    found = search.cv_results_["split0_test_score"][-1]
    assert found == pytest.approx(neg_rmse(R[:40].data, predicted), abs=1e-6)


def test_nested_cross_validation(pairs):
    X, y = pairs
    grid, inner = {"lambda_u": [1.0, 30.0, 1e4]}, KFold(2)
    search = GridSearchCV(biased(), grid, cv=inner, scoring=RMSE)
    found = cross_val_score(search, X, y, cv=FOLDS, scoring=RMSE)
    expected = []
    for train, test in FOLDS.split(X):
        means = [
            scores_by_hand(
                biased(), X[train], y[train], inner.split(train), params
            ).mean()
            for params in ParameterGrid(grid)
        ]
        best = ParameterGrid(grid)[int(np.argmax(means))]
        expected += [*scores_by_hand(
            biased(), X, y, [(train, test)], best
        )]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_search_over_users_predicts_the_ratings_in_y(R):
    """With a matrix, y has the ratings of the users in the test fold to predict."""
    is_asked = np.arange(R.nnz) % 4 == 0
    given, asked = R.copy(), R.copy()
    given.data, asked.data = (
        np.where(is_asked, 0, R.data),
        np.where(is_asked, R.data, 0),
    )
    given.eliminate_zeros()
    asked.eliminate_zeros()
    search = GridSearchCV(
        biased(), {"lambda_u": [1.0, 1e4]}, cv=KFold(2),
        scoring=neg_root_mean_squared_error_scorer,
    ).fit(given, asked)  # fmt: skip
    dense = biased().fit(R[40:]).predict(given[:40])
    expected = neg_rmse(asked[:40].data, dense[asked[:40].nonzero()])
    found = search.cv_results_["split0_test_score"][0]
    assert found == pytest.approx(expected, abs=1e-6)
    assert search.best_params_ == {"lambda_u": 1.0}


# Callbacks


@each_model
def test_scoring_monitor_scores_every_epoch(model, pairs):
    monitor = ScoringMonitor(scoring="r2")
    fitted = clone(model).set_callbacks(monitor).fit(*pairs)
    log = monitor.get_logs(select="most_recent").data_as_pandas
    scores = log.loc[log["task_name"] == "epoch", "r2"]
    assert len(scores) == fitted.n_iter_
    assert scores.iloc[-1] == pytest.approx(fitted.score(*pairs))


@each_model
@pytest.mark.parametrize("search", [GridSearchCV, HalvingGridSearchCV])
def test_the_progress_bar_shows_fits_within_a_search(model, R, capsys, search):
    pytest.importorskip("rich", reason="progress bars need the extra `progress`")
    grid = search(model, {"max_iter": [2, 3]}, cv=2)
    grid.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(R)
    out = capsys.readouterr().out
    assert search.__name__ in out
    assert f"{type(model).__name__} - fit" in out


# Weights


def test_weights_go_to_fit_and_score_of_a_search(pairs):
    X, y = pairs
    weights = np.random.default_rng(0).uniform(0.1, 3, len(y))
    search = GridSearchCV(biased(), {"n_factors": [2]}, cv=FOLDS, scoring=RMSE).fit(
        X, y, sample_weight=weights
    )
    train, test = next(FOLDS.split(X))
    model = biased()
    model.fit(X[train], y[train], sample_weight=weights[train])
    squares = (y[test] - model.predict(X[test])) ** 2
    expected = -np.sqrt(np.average(squares, weights=weights[test]))
    assert search.cv_results_["split0_test_score"][0] == pytest.approx(expected)
    refit = model.fit(X, y, sample_weight=weights).predict(X)
    np.testing.assert_array_equal(search.predict(X), refit)


def test_weights_go_to_fit_and_score_with_routing(pairs):
    X, y = pairs
    weights = np.random.default_rng(0).uniform(0.1, 3, len(y))
    with config_context(enable_metadata_routing=True):
        model = biased().set_fit_request(sample_weight=True)
        scorer = make_rating_scorer(root_mean_squared_error, greater_is_better=False)
        found = cross_val_score(
            model, X, y, cv=FOLDS, params={"sample_weight": weights},
            scoring=scorer.set_score_request(sample_weight=True),
        )  # fmt: skip
    for score, (train, test) in zip(found, FOLDS.split(X), strict=True):
        model.fit(X[train], y[train], sample_weight=weights[train])
        squares = (y[test] - model.predict(X[test])) ** 2
        expected = -np.sqrt(np.average(squares, weights=weights[test]))
        assert score == pytest.approx(expected)


def test_weights_of_users_go_through_a_search_on_a_matrix(R):
    weights = np.random.default_rng(0).uniform(0.1, 3, R.shape[0])
    search = GridSearchCV(biased(), {"n_factors": [2]}, cv=KFold(2))
    search.fit(R, sample_weight=weights)
    # A user's weight applies to each of the user's ratings, in fit and in score.
    by_rating = R.copy()
    by_rating.data = np.repeat(weights, np.diff(R.indptr))
    model = biased().fit(R[40:], sample_weight=by_rating[40:])
    predicted = left_out(model, R[:40])
    expected = metrics.r2_score(
        R[:40].data, predicted, sample_weight=by_rating[:40].data
    )
    found = search.cv_results_["split0_test_score"][0]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("cls", [PMFRegressor, BiasedMFRegressor])
def test_weights_equal_repetition_in_factorizations(pairs, cls):
    """Each item solves a ridge regression with ratings repeated by their weights."""
    X, y = pairs
    times = np.random.default_rng(0).integers(0, 4, len(y))
    model = small(
        cls, lambda_u=1.0, lambda_v=1.0, dtype="float64", max_iter=1000, tol=1e-9
    ).fit(X, y, sample_weight=times)
    X, y = np.repeat(X, times, axis=0), np.repeat(y, times)
    assert model.global_mean_ == pytest.approx(y.mean())
    biased = cls is BiasedMFRegressor
    vectors, mean_item = model.item_factors_, 0.0
    if biased:
        vectors = np.column_stack([vectors, model.item_biases_])
        mean_item = vectors.mean(axis=0)
    for item in range(5):
        users = X[X[:, 1] == item, 0]
        ratings = standardized(model, y[X[:, 1] == item])
        target = ratings - model.user_biases_[users]
        Z = model.user_factors_[users]
        if biased:
            Z = np.column_stack([Z, np.ones(len(Z))])
        expected = np.linalg.solve(
            Z.T @ Z + model.lambda_v * np.eye(Z.shape[1]),
            Z.T @ target + model.lambda_v * mean_item,
        )
        np.testing.assert_allclose(vectors[item], expected, atol=1e-3)
        rated = y[X[:, 1] == item]
        mean = (rated.sum() + 5 * y.mean()) / (len(rated) + 5)
        assert model.item_means_[item] == pytest.approx(mean)
