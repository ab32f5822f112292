"""Metrics of recommended lists, and scorers that accept both forms of ratings.

scikit-learn's own scorers, such as ``scoring="neg_root_mean_squared_error"``, need y
and therefore pairs: with a matrix alone, they fail before they ask the estimator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.pipeline import Pipeline

from ._data.ids import Pairs, check_pairs
from ._data.ratings import RatingMatrix, check_rating_matrix, row_numbers
from ._ranking import (
    check_cut,
    coverage,
    hit_rate_at_k,
    map_at_k,
    ndcg_at_k,
    novelty,
    precision_at_k,
    rank_rated,
    recall_at_k,
)
from ._sklearn_compat import BaseScorer

__all__ = [
    "coverage",
    "hit_rate_at_k",
    "make_ranking_scorer",
    "make_rating_scorer",
    "map_at_k",
    "ndcg_at_k",
    "neg_mean_absolute_error_scorer",
    "neg_root_mean_squared_error_scorer",
    "novelty",
    "precision_at_k",
    "r2_scorer",
    "rank_rated",
    "recall_at_k",
]


class _RatingScorer(BaseScorer):
    """A scorer that takes pairs and their ratings, or rating matrices."""

    def __call__(
        self,
        estimator: Any,
        X: Pairs | RatingMatrix,
        y_true: ArrayLike | RatingMatrix | None = None,
        *,
        sample_weight: ArrayLike | RatingMatrix | None = None,
    ) -> float:
        """Score a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted recommender, or a Pipeline or search that ends in one.

        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_rows, n_items)
            User and item ids, or rows of ratings, one row per user.

        y_true : array-like of shape (n_ratings,), sparse of shape (n_rows, n_items) \
or None
            Ratings of the pairs. With a matrix, the ratings to predict from X; None
            predicts each rating in X from the other ratings in its row.

        sample_weight : array-like or sparse, default=None
            Weights of shape (n_ratings,). With a matrix, weights of shape (n_rows,),
            or a sparse matrix with the same entries as the predicted ratings.

        Returns
        -------
        score : float
            The score; higher is better.
        """
        y_true, predicted, sample_weight = compare(estimator, X, y_true, sample_weight)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return self._sign * self._score_func(
            y_true, predicted, **self._kwargs, **weights
        )

    def _score(
        self,
        method_caller: Callable[..., Any],
        estimator: Any,
        X: Any,
        y_true: Any = None,
        **kwargs: Any,
    ) -> float:
        # `method_caller` caches `predict`, which does not give left-out predictions.
        return self(estimator, X, y_true, **kwargs)

    def __repr__(self) -> str:
        return super().__repr__().replace("make_scorer", "make_rating_scorer", 1)


def make_rating_scorer(
    score_func: Callable[..., float], *, greater_is_better: bool = True, **kwargs: Any
) -> _RatingScorer:
    """Make a scorer from a function of ratings and predictions.

    Parameters
    ----------
    score_func : callable
        Metric, called as ``score_func(y_true, y_pred, **kwargs)`` with 1-D arrays that
        have one entry per rating, and with ``sample_weight`` if weights are given.

    greater_is_better : bool, default=True
        Whether higher values of `score_func` are better. If False, the scorer returns
        the negated value.

    **kwargs : dict
        Further arguments of `score_func`.

    Returns
    -------
    scorer : callable
        Scorer for any `scoring` parameter of scikit-learn. It is called as
        ``scorer(estimator, X, y=None, *, sample_weight=None)``, where X and y are what
        the estimator's `score` takes. To use weights with metadata routing enabled,
        call ``scorer.set_score_request(sample_weight=True)``.

    See Also
    --------
    sklearn.metrics.make_scorer : Make a scorer that takes user-item pairs only.

    Examples
    --------
    >>> from sklearn.metrics import median_absolute_error
    >>> from sklearn.model_selection import KFold, cross_val_score
    >>> from skrec import BiasedMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.metrics import make_rating_scorer
    >>> scorer = make_rating_scorer(median_absolute_error, greater_is_better=False)
    >>> R = make_ratings(n_users=200, n_items=80, random_state=0).R
    >>> model = BiasedMFRegressor(random_state=0)
    >>> folds = KFold(3, shuffle=True, random_state=0)
    >>> cross_val_score(model, R, scoring=scorer, cv=folds).round(1)
    array([-0.5, -0.5, -0.6])
    """
    return _RatingScorer(score_func, 1 if greater_is_better else -1, kwargs)


neg_root_mean_squared_error_scorer = make_rating_scorer(
    root_mean_squared_error, greater_is_better=False
)
neg_mean_absolute_error_scorer = make_rating_scorer(
    mean_absolute_error, greater_is_better=False
)
r2_scorer = make_rating_scorer(r2_score)


class _RankingScorer:
    """A scorer of the lists that a recommender makes for held-out ratings."""

    def __init__(self, metric, k, threshold, candidates):
        self.metric, self.k = metric, k
        self.threshold, self.candidates = threshold, candidates

    def __call__(self, estimator: Any, X: Any, y_true: Any = None) -> float:
        """Score a fitted estimator; see `make_ranking_scorer`."""
        lists = recommend_for_held_out(estimator, X, y_true, self.k, self.candidates)
        if sp.issparse(X):
            X, y_true = y_true, None
        return self.metric(X, y_true, lists, k=self.k, threshold=self.threshold)

    def __repr__(self) -> str:
        return (
            f"make_ranking_scorer({self.metric.__name__}, k={self.k}, "
            f"threshold={self.threshold}, candidates={self.candidates!r})"
        )


def make_ranking_scorer(
    metric: Callable[..., float] = ndcg_at_k,
    *,
    k: int = 10,
    threshold: float | None = None,
    candidates: Literal["all", "rated"] = "all",
) -> _RankingScorer:
    """Make a scorer from a metric of recommended lists.

    Parameters
    ----------
    metric : callable, default=ndcg_at_k
        A metric of this module, or one that is called alike:
        ``metric(X, y, recommended, k=k, threshold=threshold)``.

    k : int, default=10
        Length of the lists.

    threshold : float, default=None
        Smallest rating of a relevant item, in the unit of the ratings. None means the
        mean of the held-out ratings.

    candidates : {"all", "rated"}, default="all"
        Items to choose from: all items that the user has not rated in the training set,
        or the user's held-out items, which are then only put in order.

    Returns
    -------
    scorer : callable
        Scorer for any `scoring` parameter of scikit-learn. It is called as
        ``scorer(estimator, X, y)`` with held-out pairs and their ratings. With a matrix
        X, each row is a user known by its ratings, and the matrix y has the held-out
        ones.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from skrec import BiasedMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.metrics import make_ranking_scorer, precision_at_k
    >>> from skrec.model_selection import RatingKFold, ratings_to_samples
    >>> X, y = ratings_to_samples(make_ratings(200, 80, random_state=0).R)
    >>> scorer = make_ranking_scorer(precision_at_k, k=1, candidates="rated")
    >>> model = BiasedMFRegressor(random_state=0)
    >>> folds = RatingKFold(3, random_state=0)
    >>> cross_val_score(model, X, y, scoring=scorer, cv=folds).round(1)
    array([0.9, 0.8, 0.9])
    """
    if candidates not in ("all", "rated"):
        raise ValueError(f"candidates must be 'all' or 'rated', got {candidates!r}.")
    check_cut(k, threshold)
    return _RankingScorer(metric, k, threshold, candidates)


def compare(
    estimator: Any, X: Any, y: Any, sample_weight: Any = None
) -> tuple[Any, Any, Any]:
    """Return the ratings, their predictions and their weights, of shape (n_ratings,).

    The arguments are those of a scorer.
    """
    if not sp.issparse(X):
        return y, estimator.predict(X), sample_weight
    estimator, X = unwrap(estimator, X)
    return estimator._compare(X, y, sample_weight)


def recommend_for_held_out(
    estimator: Any, X: Any, y: Any, k: int, candidates: str
) -> pd.DataFrame:
    """Make the lists of the users who have held-out ratings.

    The arguments are those of a scorer and of `make_ranking_scorer`.
    """
    if y is None:
        raise ValueError(
            "To score recommendations, the held-out ratings are needed as y: give "
            "pairs and ratings; or rows of ratings, and further ratings of the same "
            "users as another matrix, as skrec.model_selection.split_rows makes them."
        )
    if candidates == "rated":
        _, predicted, _ = compare(estimator, X, y)
        if sp.issparse(X):
            y = check_rating_matrix(y, name="y")
            X = np.column_stack([row_numbers(y), y.indices])
        return rank_rated(X, predicted)
    if not sp.issparse(X):
        X = pd.unique(check_pairs(X)[0])
    estimator, X = unwrap(estimator, X)
    return estimator.recommend(X, k)


def unwrap(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Return the recommender inside an estimator and the X that it receives."""
    while not hasattr(estimator, "_compare"):
        if isinstance(estimator, Pipeline):
            # Transformers before a recommender change rating matrices, not user ids.
            if len(estimator) > 1 and sp.issparse(X):
                X = estimator[:-1].transform(X)
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            raise TypeError(
                "To score a rating matrix or recommended lists, the estimator must be "
                "a skrec recommender, or a Pipeline or fitted search that ends in one, "
                f"got {type(estimator).__name__}: score the predicted ratings of "
                "user-item pairs instead."
            )
    return estimator, X
