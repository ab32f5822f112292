"""Comparison of models by cross-validation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import KFold, check_cv, cross_validate

from . import _ranking
from ._data.ratings import is_matrix
from ._ranking import METRICS, coverage, surprise
from ._splitters import RatingKFold, split_rows
from .metrics import compare, recommend_for_held_out, unwrap


def evaluate(
    models: Mapping[str, Any] | Sequence[Any],
    X: Any,
    y: Any = None,
    *,
    cv: Any = None,
    k: int = 10,
    threshold: float | None = None,
    groups: Any = None,
    params: Mapping[str, Any] | None = None,
    n_jobs: int | None = None,
    average: bool = True,
) -> pd.DataFrame:
    """Compare models by cross-validation, in one table.

    Parameters
    ----------
    models : mapping of str to estimator, or sequence of estimators
        Recommenders, or Pipelines and searches that end in one. Estimators of a
        sequence are named after their classes.

    X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
        User and item ids; or a matrix, whose samples are users.

    y : array-like of shape (n_ratings,) or None
        Ratings of the pairs. None with a matrix: ratings are predicted from the other
        ratings in their row, and recommendations are scored by a held-out fifth of each
        row.

    cv : int, splitter or iterable, default=None
        Splits, as in scikit-learn. None means five shuffled folds: of ratings, by
        `RatingKFold`; with a matrix, of users. The seed is 0.

    k : int, default=10
        Length of the recommended lists.

    threshold : float, default=None
        Smallest rating of a relevant item, in the unit of the ratings. None means the
        mean of the held-out ratings.

    groups : array-like of shape (n_samples,), default=None
        Groups, or the times of the ratings for splitters by time.

    params : mapping of str to object, default=None
        Further arguments of `fit`, such as ``{"item_features": Features(table)}``.

    n_jobs : int, default=None
        Number of parallel jobs of joblib.

    average : bool, default=True
        Whether to average over the splits. If not, the table has a row for each model
        and split.

    Returns
    -------
    table : DataFrame
        One row for each model, in their order, with the columns "RMSE", "MAE", "R2"
        (of ratings); "NDCG@k", "MAP@k", "precision@k", "recall@k", "hit rate@k" (of the
        recommendations among all items that a user has not rated in the training set,
        see `skrec.metrics`); "coverage" (share of the items that are recommended),
        "novelty" (in bits); "fit seconds" and "predict seconds" (of the held-out
        ratings).

    See Also
    --------
    sklearn.model_selection.cross_validate : The loop that this function runs.

    Examples
    --------
    >>> from skrec import BaselineRegressor, BiasedMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.model_selection import evaluate, ratings_to_samples
    >>> X, y = ratings_to_samples(make_ratings(200, 80, random_state=0).R)
    >>> models = [BaselineRegressor(), BiasedMFRegressor(random_state=0)]
    >>> table = evaluate(models, X, y)
    >>> table[["RMSE", "MAE", "NDCG@10"]].round(2)
                       RMSE   MAE  NDCG@10
    BaselineRegressor   0.9  0.72     0.23
    BiasedMFRegressor   0.8  0.63     0.22
    """
    named = _named(models)
    if is_matrix(X) and y is not None:
        raise TypeError(
            "y must be None with a matrix, whose ratings are predicted from each "
            "other: add the ratings in y to X."
        )
    if cv is None:
        shuffled = KFold(5, shuffle=True, random_state=0)
        cv = shuffled if is_matrix(X) else RatingKFold(5, random_state=0)
    _ranking.check_cut(k, threshold)
    # The same splits for all models, also if the splitter has no seed
    splits = list(check_cv(cv).split(X, y, groups))
    tables = {}
    for name, model in named.items():
        found = cross_validate(
            model,
            X,
            y,
            cv=splits,
            scoring=_Scores(k, threshold),
            params=params,
            n_jobs=n_jobs,
            error_score="raise",
        )
        columns = {
            key.removeprefix("test_"): values
            for key, values in found.items()
            if key.startswith("test_")
        }
        predict_seconds = columns.pop("predict seconds")
        columns["fit seconds"] = found["fit_time"]
        columns["predict seconds"] = predict_seconds
        tables[name] = pd.DataFrame(columns)
    table = pd.concat(tables, names=["model", "split"])
    if not average:
        return table
    return table.groupby(level="model", sort=False).mean().rename_axis(None)


class _Scores:
    """A scorer that returns all columns of the table but one."""

    def __init__(self, k: int, threshold: float | None):
        self.k, self.threshold = k, threshold

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> dict[str, float]:
        start = time.perf_counter()
        target, predicted, _ = compare(estimator, X, y)
        seconds = time.perf_counter() - start
        if is_matrix(X) and y is None:
            X, y = split_rows(X, random_state=0)
        lists = recommend_for_held_out(estimator, X, y, self.k, "all")
        model, _ = unwrap(estimator, None)
        held_out = (y, None) if is_matrix(X) else (X, y)
        return {
            "RMSE": root_mean_squared_error(target, predicted),
            "MAE": mean_absolute_error(target, predicted),
            "R2": r2_score(target, predicted),
            **{
                f"{name}@{self.k}": metric(
                    *held_out, lists, k=self.k, threshold=self.threshold
                )
                for name, metric in METRICS.items()
            },
            "coverage": coverage(lists, model.items_),
            "novelty": surprise(lists["item"], model.items_, model._seen),
            "predict seconds": seconds,
        }


def _named(models: Any) -> dict[str, Any]:
    """Models by name."""
    if isinstance(models, Mapping):
        named = {str(name): model for name, model in models.items()}
        if len(named) < len(models):
            raise ValueError(f"models has names that print alike: {list(models)!r}.")
    elif isinstance(models, Sequence) and not isinstance(models, str):
        names = [type(model).__name__ for model in models]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(
                f"models has several of type {min(repeated)}: give a mapping from "
                "names to estimators."
            )
        named = dict(zip(names, models, strict=True))
    else:
        raise TypeError(
            "models must be a mapping from names to estimators, or a list of them, got "
            f"{type(models).__name__}."
        )
    if not named:
        raise ValueError("models is empty: give at least one estimator.")
    return named
