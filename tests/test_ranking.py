"""Metrics of recommended lists, by their definitions and by scikit-learn's."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LinearRegression
from sklearn.metrics import ndcg_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from skrec import BaselineRegressor, BiasedMFRegressor
from skrec.metrics import (
    coverage,
    hit_rate_at_k,
    make_ranking_scorer,
    map_at_k,
    ndcg_at_k,
    novelty,
    precision_at_k,
    rank_rated,
    recall_at_k,
)
from skrec.model_selection import RatingKFold, ratings_to_samples, split_rows

METRICS = [precision_at_k, recall_at_k, hit_rate_at_k, ndcg_at_k, map_at_k]
each_metric = pytest.mark.parametrize("metric", METRICS)


def brute_force(metric, relevant, listed, k):
    """Compute a metric of one user by its definition."""
    hits = [item in relevant for item in listed[:k]]
    precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
    best = sum(1 / np.log2(i + 2) for i in range(min(k, len(relevant))))
    return {
        precision_at_k: sum(hits) / k,
        recall_at_k: sum(hits) / len(relevant),
        hit_rate_at_k: float(any(hits)),
        ndcg_at_k: sum(1 / np.log2(i + 2) for i, hit in enumerate(hits) if hit) / best,
        map_at_k: sum(precisions) / min(k, len(relevant)),
    }[metric]


@pytest.fixture(scope="module")
def held_out():
    """Random held-out ratings and lists, in shuffled order, of 30 users."""
    rng = np.random.default_rng(0)
    cells = rng.permutation(30 * 20)[:200]
    X = np.column_stack(np.divmod(cells, 20))
    y = rng.integers(1, 6, 200).astype(float)
    lists = pd.DataFrame(
        [
            (user, item)
            for user in rng.permutation(33)  # some without held-out ratings
            for item in rng.permutation(25)[: rng.integers(1, 9)]
        ],
        columns=["user", "item"],
    )
    return X, y, lists


@each_metric
@pytest.mark.parametrize("k", [1, 4, 30])
def test_definitions(held_out, metric, k):
    X, y, lists = held_out
    expected = []
    for user in range(30):
        relevant = set(X[(X[:, 0] == user) & (y >= 4), 1])
        if relevant:
            listed = lists.loc[lists["user"] == user, "item"].tolist()
            expected.append(brute_force(metric, relevant, listed, k))
    found = metric(X, y, lists, k=k, threshold=4)
    assert found == pytest.approx(np.mean(expected))


@each_metric
def test_ids_and_forms(held_out, metric):
    """Names of users and items do not matter, and neither does the form."""
    X, y, lists = held_out
    expected = metric(X, y, lists, k=5)
    names = pd.DataFrame(X, columns=["user", "item"]).astype(str)
    assert metric(names, y, lists.astype(str), k=5) == expected
    matrix = sp.csr_array((y, (X[:, 0], X[:, 1])), shape=(30, 20))
    assert metric(matrix, None, lists, k=5) == expected
    shuffled = np.random.default_rng(0).permutation(len(y))
    assert metric(X[shuffled], y[shuffled], lists, k=5) == expected


def test_ndcg_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    y = rng.integers(1, 6, (8, 12)).astype(float)
    predicted = rng.normal(size=y.shape)
    R = sp.csr_array(y)
    lists = rank_rated(ratings_to_samples(R)[0], predicted.ravel())
    found = ndcg_at_k(R, None, lists, k=5, threshold=4)
    assert found == pytest.approx(ndcg_score(y >= 4, predicted, k=5))


@each_metric
def test_a_perfect_list(metric):
    X, y = [["ann", "Up"], ["ann", "Heat"], ["bob", "Up"], ["bob", "Alien"]], [5, 1] * 2
    assert metric(X, y, rank_rated(X, y), k=1) == 1


@each_metric
def test_users_without_a_list_count(metric):
    X, y = [["ann", "Up"], ["bob", "Up"]], [5, 5]
    lists = pd.DataFrame({"user": ["ann"], "item": ["Up"]})
    assert metric(X, y, lists, k=1) == 0.5
    assert metric(X, y, lists.iloc[:0], k=1) == 0


def test_coverage_and_novelty():
    lists = pd.DataFrame({"user": [0, 0, 1, 1], "item": [7, 8, 7, 9]})
    assert coverage(lists, range(10)) == 0.3
    X = [[user, 7] for user in range(8)] + [[0, 8], [1, 8]]
    # 7 has been rated by all 8 users, 8 by two of them, 9 by nobody.
    assert novelty(lists, X) == pytest.approx((0 + 2 + 0 + 3) / 4)
    R = sp.csr_array((np.ones(10), np.transpose(X)), shape=(8, 10))
    assert novelty(lists, R) == novelty(lists, X)


@pytest.mark.parametrize("candidates", ["all", "rated"])
def test_scorers(R, candidates):
    """A scorer gives the value of its metric, in both forms and inside a search."""
    X, y = ratings_to_samples(R)
    [(train, test), *_] = RatingKFold(3, random_state=0).split(X)
    model = BiasedMFRegressor(random_state=0).fit(X[train], y[train])
    scorer = make_ranking_scorer(recall_at_k, k=3, candidates=candidates)
    if candidates == "all":
        lists = model.recommend(np.unique(X[test, 0]), 3)
    else:
        lists = rank_rated(X[test], model.predict(X[test]))
    expected = recall_at_k(X[test], y[test], lists, k=3)
    assert scorer(model, X[test], y[test]) == expected > 0
    assert pickle.loads(pickle.dumps(scorer))(model, X[test], y[test]) == expected
    folds = RatingKFold(2, random_state=0)
    search = GridSearchCV(model, {"n_factors": [1, 2]}, scoring=scorer, cv=folds)
    search.fit(X[train], y[train])
    assert scorer(search, X[test], y[test]) > 0

    given, rest = split_rows(R, 0.3, random_state=0)
    on_rows = scorer(BiasedMFRegressor(random_state=0).fit(given), given, rest)
    assert 0 < on_rows < 1
    pipeline = make_pipeline(MaxAbsScaler(), BaselineRegressor()).fit(given)
    assert scorer(pipeline, given, rest) > 0
    assert "recall_at_k, k=3" in repr(scorer)


def test_a_ranking_scorer_in_cross_validation(R):
    X, y = ratings_to_samples(R)
    scores = cross_val_score(
        BaselineRegressor(),
        X,
        y,
        scoring=make_ranking_scorer(candidates="rated"),
        cv=RatingKFold(3, random_state=0),
    )
    assert (scores > 0.5).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be a positive integer, got 0"),
        ({"k": True}, ValueError, "k must be a positive integer, got True"),
        ({"k": 2.0}, ValueError, r"k must be a positive integer, got 2\.0"),
        ({"threshold": 6}, ValueError, "at least threshold=6: the largest is 5"),
        ({"threshold": "4"}, TypeError, "threshold must be a number or None, got '4'"),
        (
            {"recommended": [[0, 1]]},
            TypeError,
            "with the columns .* got list",
        ),
        (
            {"recommended": pd.DataFrame({"user": [0], "movie": [1]})},
            TypeError,
            r"got columns \['user', 'movie'\]",
        ),
        (
            {"recommended": pd.DataFrame({"user": [0, 0], "item": [1, 1]})},
            ValueError,
            "item 1 of user 0 more than once",
        ),
        (
            {"recommended": pd.DataFrame({"user": ["a"], "item": [1]})},
            TypeError,
            "user",
        ),
        ({"X": [[0, 1, 2]]}, ValueError, "X has 3 features"),
        ({"y": [np.nan]}, ValueError, "NaN"),
    ],
)
@each_metric
def test_bad_arguments(metric, change, error, message):
    lists = pd.DataFrame({"user": [0], "item": [1]})
    arguments = {"X": [[0, 1]], "y": [5], "recommended": lists} | change
    with pytest.raises(error, match=message):
        metric(
            arguments.pop("X"),
            arguments.pop("y"),
            arguments.pop("recommended"),
            **arguments,
        )


def test_coverage_refuses_ids_of_another_type():
    lists = pd.DataFrame({"user": ["0"], "item": ["7"]})
    with pytest.raises(TypeError, match="item"):
        coverage(lists, range(10))


def test_predictions_that_cannot_be_put_in_order():
    with pytest.raises(ValueError, match="predicted contains NaN"):
        rank_rated([[0, 1]], [np.nan])


@pytest.mark.parametrize("change", [{"k": 0}, {"threshold": "4"}])
def test_scorers_check_their_parameters(change):
    with pytest.raises((ValueError, TypeError), match="must be a"):
        make_ranking_scorer(**change)


def test_what_a_ranking_scorer_needs(R):
    model = BaselineRegressor().fit(R)
    with pytest.raises(ValueError, match="the held-out ratings are needed as y"):
        make_ranking_scorer()(model, R)
    with pytest.raises(ValueError, match="candidates must be 'all' or 'rated'"):
        make_ranking_scorer(candidates="some")
    other = LinearRegression().fit([[0, 0], [1, 1]], [0, 1])
    with pytest.raises(TypeError, match="must be a skrec recommender, or a Pipeline"):
        make_ranking_scorer()(other, [[0, 0]], [1])
    with pytest.raises(ValueError, match="at least 1 id"):
        coverage(pd.DataFrame({"user": [0], "item": [1]}), [])
    with pytest.raises(ValueError, match="recommended is empty"):
        novelty(pd.DataFrame({"user": [], "item": []}), [[0, 0]])
