"""Scorers that accept both forms of ratings.

scikit-learn's own scorers, such as ``scoring="neg_root_mean_squared_error"``, need y
and therefore pairs: with a matrix alone, they fail before they ask the estimator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.pipeline import Pipeline

from ._data.ids import Pairs
from ._data.ratings import RatingMatrix
from ._sklearn_compat import BaseScorer

__all__ = [
    "make_rating_scorer",
    "neg_mean_absolute_error_scorer",
    "neg_root_mean_squared_error_scorer",
    "r2_scorer",
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
        if sp.issparse(X):
            estimator, X = _unwrap(estimator, X)
            y_true, predicted, sample_weight = estimator._compare(
                X, y_true, sample_weight
            )
        else:
            predicted = estimator.predict(X)
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


def _unwrap(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Return the recommender inside an estimator and the X that it receives."""
    while not hasattr(estimator, "_compare"):
        if isinstance(estimator, Pipeline):
            X = estimator[:-1].transform(X) if len(estimator) > 1 else X
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            raise TypeError(
                "To score a rating matrix, the estimator must be a skrec recommender, "
                "or a Pipeline or fitted search that ends in one, got "
                f"{type(estimator).__name__}: give user-item pairs instead."
            )
    return estimator, X
