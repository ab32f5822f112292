"""Displays of the errors of held-out ratings."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_scalar

from .._base import ProbabilisticRecommender
from .._data.ratings import check_target, is_matrix, row_numbers
from ._checks import axes_to_draw_on, check_recommender


class ErrorByCountDisplay:
    """Error of held-out ratings by the number of training ratings.

    Use `from_estimator` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    lowest : ndarray of shape (n_bins,)
        Lowest number of training ratings in each bin: 0 or a power of two. A bin ends
        below the next power of two.

    rmse : ndarray of shape (n_bins,)
        Root mean squared error of the held-out ratings in each bin.

    n_ratings : ndarray of shape (n_bins,)
        Number of held-out ratings in each bin.

    by : {"item", "user"}
        Side whose training ratings are counted.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the bars.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from sklearn.model_selection import train_test_split
    >>> from skrec import BiasedMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.inspection import ErrorByCountDisplay
    >>> from skrec.model_selection import ratings_to_samples
    >>> X, y = ratings_to_samples(make_ratings(500, 200, random_state=0).R)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> model = BiasedMFRegressor(random_state=0).fit(X_train, y_train)
    >>> display = ErrorByCountDisplay.from_estimator(model, X_test, y_test, by="user")
    >>> display.lowest
    array([ 1,  2,  4,  8, 16, 32, 64])
    >>> display.rmse.round(1)
    array([1.2, 0.9, 0.9, 0.7, 0.7, 0.6, 0.6])
    """

    def __init__(
        self,
        lowest: NDArray[np.int64],
        rmse: NDArray[np.float64],
        n_ratings: NDArray[np.int64],
        by: Literal["item", "user"],
    ) -> None:
        self.lowest = lowest
        self.rmse = rmse
        self.n_ratings = n_ratings
        self.by = by

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any = None,
        *,
        by: Literal["item", "user"] = "item",
        ax: Any = None,
    ) -> Self:
        """Predict held-out ratings and draw the errors.

        Parameters
        ----------
        model : recommender
            Fitted model.

        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_rows, n_items)
            User and item ids; or rows of ratings, one new user per row.

        y : array-like of shape (n_ratings,), sparse of shape (n_rows, n_items) or None
            Held-out ratings of the pairs. With rows, the ratings to predict from X.
            With None, each rating in X is predicted from the other ratings in its row.

        by : {"item", "user"}, default="item"
            Side whose ratings are counted: those in `fit`. With rows and "user", those
            in its row that the prediction is made from.

        ax : matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : ErrorByCountDisplay
            Display with the errors, in bins of 0, 1, 2 to 3, 4 to 7, ... ratings. Bins
            without held-out ratings are left out.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        TypeError, ValueError
            If the model is not a recommender of skrec, or if another argument is
            invalid.
        """
        check_recommender(model)
        if by not in ("item", "user"):
            raise ValueError(f"by must be 'item' or 'user', got {by!r}.")
        _require_target(X, y)
        target, predicted, _ = model._compare(X, y, None)
        target = check_target(target, len(predicted))
        # The exponent of 0 is 0, that of 1 is 1, that of 2 and 3 is 2, and so on.
        exponents = np.frexp(_counts(model, X, y, by))[1]
        bins, place, n_ratings = np.unique(
            exponents, return_inverse=True, return_counts=True
        )
        squares = np.bincount(place, (target - predicted) ** 2)
        rmse = np.sqrt(squares / n_ratings)
        return cls(np.int64(2) ** bins // 2, rmse, n_ratings, by).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the errors.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : ErrorByCountDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = axes_to_draw_on(self, ax)
        labels = [str(n) if n < 2 else f"{n}-{2 * n - 1}" for n in self.lowest]
        bars = ax.bar(range(len(labels)), self.rmse)
        ax.set_xticks(range(len(labels)), labels)
        ax.margins(y=0.1)  # room for the numbers
        ax.bar_label(bars, [f"{n:,}" for n in self.n_ratings])
        ax.set(
            xlabel=f"number of training ratings of the {self.by}",
            ylabel="root mean squared error",
            title="error, with the number of held-out ratings",
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self


class CalibrationDisplay:
    """Predicted standard deviations against the errors of held-out ratings.

    Use `from_estimator` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    predicted_std : ndarray of shape (n_bins,)
        Predicted standard deviation (root mean square) in each bin, ascending.

    rmse : ndarray of shape (n_bins,)
        Root mean squared error of the held-out ratings in each bin.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the bins and the diagonal, on which both are equal.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from sklearn.model_selection import train_test_split
    >>> from skrec import BiasedMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.inspection import CalibrationDisplay
    >>> from skrec.model_selection import ratings_to_samples
    >>> X, y = ratings_to_samples(make_ratings(500, 200, random_state=0).R)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> model = BiasedMFRegressor(random_state=0).fit(X_train, y_train)
    >>> display = CalibrationDisplay.from_estimator(model, X_test, y_test, n_bins=4)
    >>> display.predicted_std.round(2)
    array([0.6 , 0.62, 0.64, 0.73])
    >>> display.rmse.round(2)
    array([0.57, 0.62, 0.64, 0.75])
    """

    def __init__(
        self, predicted_std: NDArray[np.float64], rmse: NDArray[np.float64]
    ) -> None:
        self.predicted_std = predicted_std
        self.rmse = rmse

    @classmethod
    def from_estimator(
        cls, model: Any, X: Any, y: Any, *, n_bins: int = 10, ax: Any = None
    ) -> Self:
        """Predict held-out ratings and draw how large their errors are.

        Parameters
        ----------
        model : recommender
            Fitted model that predicts standard deviations.

        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_rows, n_items)
            User and item ids; or rows of ratings, one new user per row.

        y : array-like of shape (n_ratings,) or sparse of shape (n_rows, n_items)
            Held-out ratings of the pairs; or the ratings to predict from the rows.

        n_bins : int, default=10
            Number of bins. Each has the same number of ratings (up to one), from the
            smallest to the largest standard deviations.

        ax : matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : CalibrationDisplay
            Display with one point for each bin.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        TypeError, ValueError
            If the model predicts no standard deviations, or if another argument is
            invalid.
        """
        check_recommender(model)
        if not isinstance(model, ProbabilisticRecommender):
            raise TypeError(
                "model must predict standard deviations, as BiasedMFRegressor does, "
                f"got {type(model).__name__}."
            )
        check_scalar(n_bins, "n_bins", Integral, min_val=1)
        if y is None:
            raise ValueError(
                "y must be passed: give the held-out ratings, as a sparse matrix if X "
                "has rows of ratings."
            )
        target, predicted, _ = model._compare(X, y, None)
        target = check_target(target, len(predicted))
        std = model.predict(X, return_std=True)[1]
        if is_matrix(X):
            entries = model._predictor().check_rows(y, name="y")
            std = std[row_numbers(entries), entries.indices]
        if n_bins > len(std):
            raise ValueError(
                f"n_bins is {n_bins}, but there are only {len(std)} held-out ratings: "
                "give fewer bins."
            )
        bins = np.array_split(np.argsort(std, kind="stable"), n_bins)
        return cls(
            np.array([_root_mean_square(std[bin]) for bin in bins]),
            np.array([_root_mean_square((target - predicted)[bin]) for bin in bins]),
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the bins and the diagonal.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : CalibrationDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = axes_to_draw_on(self, ax)
        label = f"{len(self.rmse)} bins of equal size"
        ax.plot(self.predicted_std, self.rmse, "o-", label=label)
        on_diagonal = (self.predicted_std[0],) * 2
        ax.axline(on_diagonal, slope=1, color="gray", label="calibrated")
        ax.set(xlabel="predicted standard deviation", ylabel="root mean squared error")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _require_target(X: Any, y: Any) -> None:
    if y is None and not is_matrix(X):
        raise ValueError(
            "X with user-item pairs requires y to be passed: give one held-out rating "
            "for each row of X."
        )


def _counts(model: Any, X: Any, y: Any, by: str) -> NDArray[np.int64]:
    """Return the number of training ratings for each held-out rating."""
    predictor, seen = model._predictor(), model._seen
    if is_matrix(X):
        rows = predictor.check_rows(X)
        target = rows if y is None else predictor.check_rows(y, name="y")
        if by == "user":
            return np.diff(rows.indptr)[row_numbers(target)] - (y is None)
        places = target.indices
    else:
        places = predictor.positions(X)[0 if by == "user" else 1]
    if by == "user":
        counts = np.diff(seen.indptr)
    else:
        counts = np.bincount(seen.indices, minlength=len(model.items_))
    # Unseen ids have the position -1.
    return np.append(counts, 0)[places]


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))
