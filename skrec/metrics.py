"""Scorers that understand both forms of ratings."""

from __future__ import annotations

import scipy.sparse as sp
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.metrics._scorer import _BaseScorer
from sklearn.pipeline import Pipeline

__all__ = [
    "make_rating_scorer",
    "neg_mean_absolute_error_scorer",
    "neg_root_mean_squared_error_scorer",
    "r2_scorer",
]


class _RatingScorer(_BaseScorer):
    """A scorer whose X and y are pairs and ratings, or rating matrices."""

    def __call__(self, estimator, X, y_true=None, *, sample_weight=None):
        """Score a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted recommender, or a Pipeline or search that ends in one.

        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_rows, n_items)
            User and item ids; or rows of ratings, each a user.

        y_true : array-like of shape (n_ratings,), sparse of shape (n_rows, n_items) \
or None
            The ratings of the pairs. Beside rows, the ratings to be predicted from X;
            None predicts each rating in X from the others in its row.

        sample_weight : array-like or sparse, default=None
            Weights of shape (n_ratings,); beside rows of shape (n_rows,), or sparse
            with the entries of the ratings that are predicted.

        Returns
        -------
        score : float
            The higher, the better.
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

    def _score(self, method_caller, estimator, X, y_true=None, **kwargs):
        # Predictions of single ratings cannot be shared as those of `predict` are.
        return self(estimator, X, y_true, **kwargs)

    def __repr__(self):
        return super().__repr__().replace("make_scorer", "make_rating_scorer", 1)


def make_rating_scorer(score_func, *, greater_is_better=True, **kwargs):
    """Make a scorer from a function of ratings and predictions.

    Parameters
    ----------
    score_func : callable
        Called as ``score_func(y_true, y_pred, **kwargs)`` with 1-D arrays, one entry a
        rating, and with ``sample_weight`` if there are weights.

    greater_is_better : bool, default=True
        Whether a high value is good. If not, the scorer returns its negative.

    **kwargs : dict
        Passed to `score_func`.

    Returns
    -------
    scorer : callable
        Called as ``scorer(estimator, X, y=None, *, sample_weight=None)``, where X and y
        are what the estimator's `score` takes. Of use wherever scikit-learn has a
        parameter `scoring`. For weights with metadata routing enabled call its
        ``set_score_request(sample_weight=True)``.

    See Also
    --------
    sklearn.metrics.make_scorer : Scorers of pairs only.

    Examples
    --------
    >>> from sklearn.metrics import median_absolute_error
    >>> from sklearn.model_selection import cross_val_score
    >>> from skrec import BiasedMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.metrics import make_rating_scorer
    >>> scorer = make_rating_scorer(median_absolute_error, greater_is_better=False)
    >>> R = make_ratings(n_users=200, n_items=80, random_state=0).R
    >>> model = BiasedMFRegressor(random_state=0)
    >>> cross_val_score(model, R, scoring=scorer, cv=3).shape
    (3,)
    """
    return _RatingScorer(score_func, 1 if greater_is_better else -1, kwargs)


neg_root_mean_squared_error_scorer = make_rating_scorer(
    root_mean_squared_error, greater_is_better=False
)
neg_mean_absolute_error_scorer = make_rating_scorer(
    mean_absolute_error, greater_is_better=False
)
r2_scorer = make_rating_scorer(r2_score)


def _unwrap(estimator, X):
    """The recommender inside an estimator, and what it is given as X."""
    while not hasattr(estimator, "_compare"):
        if isinstance(estimator, Pipeline):
            X = estimator[:-1].transform(X) if len(estimator) > 1 else X
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            raise TypeError(
                "On a rating matrix a scorer needs a recommender of skrec, or a "
                "Pipeline or fitted search that ends in one, got "
                f"{type(estimator).__name__}: give user-item pairs instead."
            )
    return estimator, X
