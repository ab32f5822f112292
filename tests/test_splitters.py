"""Splitters of pairs and of rows, and the comparison of models."""

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    cross_val_score,
    cross_validate,
)

from skrec import BaselineRegressor, BiasedMFRegressor
from skrec.features import Features
from skrec.metrics import neg_root_mean_squared_error_scorer
from skrec.model_selection import (
    ItemKFold,
    LeaveLastOut,
    RatingKFold,
    TimeSplit,
    UserKFold,
    evaluate,
    ratings_to_samples,
    split_rows,
)


@pytest.fixture(scope="module")
def pairs(R):
    return ratings_to_samples(R)


@pytest.fixture(scope="module")
def times(pairs):
    return np.random.default_rng(0).permutation(len(pairs[1]))


@pytest.mark.parametrize("splitter", [RatingKFold, UserKFold, ItemKFold])
def test_folds_are_a_partition(pairs, splitter):
    X, _ = pairs
    folds = list(splitter(4, random_state=0).split(X))
    held_out = np.concatenate([test for _, test in folds])
    np.testing.assert_array_equal(np.sort(held_out), np.arange(len(X)))
    for train, test in folds:
        assert len(np.intersect1d(train, test)) == 0
        assert len(train) + len(test) == len(X)
    # Strings in a frame, and the same seed, give the same folds.
    frame = pd.DataFrame(X).astype(str)
    for (_, a), (_, b) in zip(
        folds, splitter(4, random_state=0).split(frame), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    other = [test for _, test in splitter(4, random_state=1).split(X)]
    assert not np.array_equal(np.concatenate(other), held_out)


def test_each_user_has_a_share_in_each_fold(pairs):
    X, _ = pairs
    counts = np.bincount(X[:, 0])
    sizes = []
    for _, test in RatingKFold(4, random_state=0).split(X):
        held_out = np.bincount(X[test, 0], minlength=len(counts))
        assert (held_out >= counts // 4).all()
        assert (held_out <= -(-counts // 4)).all()
        sizes.append(len(test))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("splitter", "column"), [(UserKFold, 0), (ItemKFold, 1)])
def test_whole_users_or_items_are_held_out(pairs, splitter, column):
    X, _ = pairs
    for train, test in splitter(5, random_state=0).split(X):
        assert not np.isin(X[test, column], X[train, column]).any()


def test_the_last_ratings_of_each_user(pairs, times):
    X, _ = pairs
    [(train, test)] = LeaveLastOut(2).split(X, groups=times)
    for user in np.unique(X[:, 0]):
        own = np.flatnonzero(X[:, 0] == user)
        newest = own[np.argsort(times[own])][-2:] if len(own) > 2 else []
        assert set(newest) == set(own) & set(test)
    assert len(train) + len(test) == len(X)


@pytest.mark.parametrize("as_dates", [False, True])
def test_time_splits(pairs, times, as_dates):
    X, _ = pairs
    n, gap = len(X), 7
    given = pd.Timestamp(0) + pd.to_timedelta(times, "D") if as_dates else times
    gap = pd.Timedelta(7, "D") if as_dates else 7
    splitter = TimeSplit(2, test_size=0.2, gap=gap)
    assert splitter.get_n_splits() == 2
    splits = list(splitter.split(X, groups=given))
    bounds = round(0.6 * n), round(0.8 * n), n
    for (train, test), start, end in zip(splits, bounds, bounds[1:], strict=False):
        assert set(times[test]) == set(range(start, end))
        assert set(times[train]) == set(range(start - 7))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint32, np.uint64])
def test_differences_of_small_integers_do_not_wrap_around(dtype):
    X = np.column_stack([np.arange(20), np.zeros(20, int)])
    times = np.arange(20).astype(dtype)
    [(train, test)] = TimeSplit(test_size=0.5, gap=4).split(X, groups=times)
    assert (train.tolist(), len(test)) == (list(range(6)), 10)
    with pytest.raises(ValueError, match="Split 0 has 0 training"):
        list(TimeSplit(test_size=0.5, gap=100).split(X, groups=times))


def test_times_with_a_time_zone():
    X = np.column_stack([np.arange(4), np.zeros(4, int)])
    times = pd.date_range("2020", periods=4, tz="CET")
    [(train, _)] = TimeSplit(test_size=0.5).split(X, groups=times)
    assert train.tolist() == [0, 1]


def test_ratings_at_the_same_time_stay_together():
    X = np.column_stack([np.arange(10), np.zeros(10, int)])
    years = [2000] * 5 + [2001] * 5
    [(train, test)] = TimeSplit(test_size=0.2).split(X, groups=years)
    assert (train.tolist(), test.tolist()) == ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])


def test_in_scikit_learn(pairs, times):
    X, y = pairs
    model = BaselineRegressor()
    scores = cross_val_score(model, X, y, cv=LeaveLastOut(), groups=times)
    assert scores.shape == (1,)
    search = GridSearchCV(model, {"lambda_u": [1.0, 5.0]}, cv=TimeSplit(2))
    assert search.fit(X, y, groups=times).n_splits_ == 2
    with config_context(enable_metadata_routing=True):
        routed = cross_validate(
            model, X, y, cv=LeaveLastOut(), params={"groups": times}
        )
    np.testing.assert_array_equal(routed["test_score"], scores)
    assert repr(TimeSplit(2)) == "TimeSplit(gap=0, n_splits=2, test_size=0.1)"


def test_split_rows(R):
    given, held_out = split_rows(R, 0.3, random_state=0)
    assert (given + held_out != R).nnz == 0
    counts = np.diff(R.tocsr().indptr)
    expected = np.minimum(np.round(0.3 * counts), np.maximum(counts - 1, 0))
    np.testing.assert_array_equal(np.diff(held_out.indptr), expected)
    again, _ = split_rows(R, 0.3, random_state=0)
    assert (again != given).nnz == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RatingKFold(1), ValueError, "n_splits must be an integer of"),
        (lambda: UserKFold(True), ValueError, "n_splits must be an integer"),
        (
            lambda: LeaveLastOut(0),
            ValueError,
            "n_last must be an integer of",
        ),
        (lambda: TimeSplit(5, test_size=0.2), ValueError, "must be between 0 and 1"),
        (lambda: split_rows(None, 1.5), ValueError, "test_size must be between 0 and"),
    ],
)
def test_bad_parameters(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("splitter", "groups", "error", "message"),
    [
        (UserKFold(5), None, ValueError, "X has 2 users, fewer than n_splits=5"),
        (ItemKFold(5), None, ValueError, "X has 2 items, fewer than n_splits=5"),
        (RatingKFold(5), None, ValueError, "X has 3 ratings, fewer than n_splits=5"),
        (LeaveLastOut(), None, ValueError, "needs the times .* as groups"),
        (LeaveLastOut(), [1, 2], ValueError, "groups has 2 times, but X has 3 ratings"),
        (LeaveLastOut(), ["a", "b", "c"], TypeError, "groups must be times"),
        (LeaveLastOut(), [1, np.nan, 2], ValueError, "groups has missing times"),
        (LeaveLastOut(2), [1, 2, 3], ValueError, "No user has more than n_last=2"),
        (TimeSplit(gap=9), [1, 2, 3], ValueError, "Split 0 has 0 training and 1"),
        (TimeSplit(gap=-1), [1, 2, 3], ValueError, "gap must be a number of at least"),
        (TimeSplit(), [1, 1, 1], ValueError, "take fewer splits"),
        (
            TimeSplit(gap=5),
            pd.date_range("2020", periods=3),
            TypeError,
            "gap must be a timedelta, got 5",
        ),
    ],
)
def test_bad_input(splitter, groups, error, message):
    with pytest.raises(error, match=message):
        list(splitter.split([[0, 0], [0, 1], [1, 1]], groups=groups))


def test_a_matrix_is_refused(R):
    with pytest.raises(TypeError, match="splits user-item pairs, but X is a matrix"):
        list(UserKFold().split(R))


def test_evaluate(pairs):
    X, y = pairs
    models = {"effects": BaselineRegressor(), "factors": BiasedMFRegressor(n_factors=3)}
    folds = RatingKFold(3, random_state=0)
    table = evaluate(models, X, y, cv=folds, k=3)
    assert table.index.tolist() == ["effects", "factors"]
    assert table.columns.tolist() == [
        *("RMSE", "MAE", "R2"),
        *("NDCG@3", "MAP@3", "precision@3", "recall@3", "hit rate@3"),
        *("coverage", "novelty", "fit seconds", "predict seconds"),
    ]
    assert table.notna().all(axis=None)
    scores = cross_val_score(
        models["effects"], X, y, cv=folds, scoring="neg_root_mean_squared_error"
    )
    assert table.loc["effects", "RMSE"] == pytest.approx(-scores.mean())
    each = evaluate(models, X, y, cv=folds, k=3, average=False)
    assert each.shape == (6, 12)
    np.testing.assert_allclose(-each.loc["effects", "RMSE"], scores)


def test_evaluate_on_a_matrix(R):
    folds = KFold(3, shuffle=True, random_state=0)
    table = evaluate([BaselineRegressor()], R, cv=folds)
    scores = cross_val_score(
        BaselineRegressor(), R, cv=folds, scoring=neg_root_mean_squared_error_scorer
    )
    assert table.loc["BaselineRegressor", "RMSE"] == pytest.approx(-scores.mean())
    assert 0 < table.loc["BaselineRegressor", "recall@10"] <= 1


@pytest.mark.parametrize("cv", [RatingKFold(3), KFold(3, shuffle=True), "iterator"])
def test_all_models_have_the_same_splits(pairs, cv):
    X, y = pairs
    cv = RatingKFold(3).split(X) if cv == "iterator" else cv
    models = {"a": BaselineRegressor(), "b": BaselineRegressor()}
    table = evaluate(models, X, y, cv=cv)
    assert table.loc["a", "RMSE"] == table.loc["b", "RMSE"]


def test_evaluate_with_nothing_to_recommend():
    X = np.array([[user, item] for user in range(12) for item in range(6)])
    y = np.random.default_rng(0).integers(1, 6, 72)
    table = evaluate([BaselineRegressor()], X, y, cv=ItemKFold(3, random_state=0))
    assert table["RMSE"].notna().all()
    assert (table["coverage"] == 0).all()
    assert table["novelty"].isna().all()


def test_evaluate_takes_no_second_matrix(R):
    with pytest.raises(TypeError, match="y must be None with a matrix"):
        evaluate([BaselineRegressor()], *split_rows(R, random_state=0))


def test_evaluate_passes_features(pairs):
    X, y = pairs
    columns = np.unique(X[:, 1])
    table = pd.DataFrame({"size": np.arange(len(columns)) % 5}, index=columns)
    found = evaluate(
        [BiasedMFRegressor(n_factors=2, random_state=0)],
        X,
        y,
        cv=ItemKFold(2, random_state=0),
        params={"item_features": Features(table)},
    )
    assert found.notna().all(axis=None)


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ([], ValueError, "models is empty"),
        ([BaselineRegressor()] * 2, ValueError, "several of type BaselineRegressor"),
        (BaselineRegressor(), TypeError, "models must be a mapping"),
        (dict.fromkeys([1, "1"], BaselineRegressor()), ValueError, "print alike"),
    ],
)
def test_bad_models(pairs, models, error, message):
    with pytest.raises(error, match=message):
        evaluate(models, *pairs)
