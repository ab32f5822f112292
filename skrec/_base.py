"""What all recommenders share: prediction in both forms, scores, recommendations."""

from __future__ import annotations

import math
import warnings
from abc import ABCMeta, abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_feature_names, check_is_fitted

from ._core.device import as_tensor, available_memory, inference_device
from ._core.sparse import Pattern, sddmm
from ._data.ids import check_ids, check_matrix_ids, check_pairs, positions_of
from ._data.ratings import (
    Ratings,
    check_matrix_weights,
    check_rating_matrix,
    check_ratings,
    is_matrix,
    row_numbers,
    select_entries,
)
from ._data.texts import resolve_item_texts

# A mean of few ratings is drawn to the global mean as if this many more had been seen
# there: about the ratio of the variances within and between the items of MovieLens.
PRIOR_RATINGS = 5.0
# Predictions that `recommend` holds at once.
_DENSE_CHUNK = 2**24


class _Users(NamedTuple):
    """Users to predict for, wherever what is known of them comes from.

    Attributes
    ----------
    factors : ndarray of shape (n_users, n_components)
        Their factors.

    biases : ndarray of shape (n_users,)
        Their biases.

    is_known : ndarray of shape (n_users,), dtype bool
        Whether they have rated anything that the factors could come from.

    means : ndarray of shape (n_users,)
        Their mean ratings, drawn to the global mean.

    text_biases : ndarray of shape (n_users,)
        What is added for an item that is known by its text alone.
    """

    factors: np.ndarray
    biases: np.ndarray
    is_known: np.ndarray
    means: np.ndarray
    text_biases: np.ndarray

    def take(self, positions) -> _Users:
        return _Users(*(field[positions] for field in self))


class BaseRecommender(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    RegressorMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """Base of all recommenders.

    Every model ends as factors and biases of users and items, so that a rating is
    predicted as ``f(user_factors_[u] @ item_factors_[i] + user_biases_[u] +
    item_biases_[i] + intercept_)``. A subclass finds these in `fit`, and says how rows
    of ratings become factors (`_fold_in`) and how each rating follows from the others
    in its row (`_leave_one_out`).
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "clip": ["boolean"],
        "device": [str, torch.device],
        "dtype": [StrOptions({"float32", "float64"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # What a message about divergence recommends.
    _divergence_remedy: str

    # What every `fit` finds.
    users_: np.ndarray
    items_: np.ndarray
    user_factors_: np.ndarray
    item_factors_: np.ndarray
    user_biases_: np.ndarray
    item_biases_: np.ndarray
    user_means_: np.ndarray
    item_means_: np.ndarray
    intercept_: float
    global_mean_: float
    rating_range_: tuple[float, float]
    n_features_in_: int
    _fitted_on_matrix: bool
    _seen: sp.csr_array
    _has_text: np.ndarray
    _is_rated: np.ndarray

    def predict(self, X):
        """Predict ratings.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_rows, n_items)
            User and item ids; or rows of ratings, one column for each of `items_`. A
            row is a user who is known by the ratings stored in it and by nothing else,
            also if the same user was in `fit`.

        Returns
        -------
        ratings : ndarray of shape (n_ratings,) or (n_rows, n_items)
            A pair with an unseen user gets the item's mean, one with an unseen item
            the user's mean (both drawn to the global mean where ratings are few), and
            one with neither seen the global mean. The same holds for a row without
            ratings, and for an item without ratings whose text is not known either.

        Raises
        ------
        ValueError
            If X has another number of columns, or if the dense result of a matrix
            would not fit in memory.
        """
        check_is_fitted(self)
        if not is_matrix(X):
            return self._predict_pairs(X)
        rows = check_rating_matrix(X, n_items=len(self.items_))
        _refuse_too_large(rows.shape)
        return self._predict_dense(self._users_of_rows(rows))

    def score(self, X, y=None, sample_weight=None):
        """Return the coefficient of determination R² of the predictions.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_rows, n_items)
            User and item ids; or rows of ratings, each a user.

        y : array-like of shape (n_ratings,), sparse of shape (n_rows, n_items) or None
            The ratings of the pairs. Beside rows, the ratings to be predicted from X;
            None predicts each rating in X from the others in its row, as if it had not
            been there. That is an honest score of users who were not in `fit`; users
            who were have shaped the items' factors.

        sample_weight : array-like or sparse, default=None
            Weights of shape (n_ratings,); beside rows of shape (n_rows,), or sparse
            with the entries of the ratings that are predicted.

        Returns
        -------
        score : float
        """
        target, predicted, weights = self._compare(X, y, sample_weight)
        return r2_score(target, predicted, sample_weight=weights)

    def _compare(self, X, y, sample_weight):
        """Ratings, what is predicted of them, and weights: what a score is made of.

        Each is of shape (n_ratings,), or None. The arguments are those of `score`.
        """
        check_is_fitted(self)
        if not is_matrix(X):
            return y, self.predict(X), sample_weight
        rows = check_rating_matrix(X, n_items=len(self.items_))
        if y is None:
            target, predicted = rows, self._predict_left_out(rows)
        else:
            target = check_rating_matrix(y, name="y", n_items=len(self.items_))
            if target.shape != rows.shape:
                raise ValueError(f"y has shape {target.shape}, but X has {rows.shape}.")
            predicted = self._predict_entries(
                self._users_of_rows(rows), row_numbers(target), target.indices
            )
        return target.data, predicted, check_matrix_weights(sample_weight, target)

    def transform(self, X):
        """Return the factors of users.

        Parameters
        ----------
        X : {sparse matrix, sparse array} of shape (n_rows, n_items) or {array-like, \
DataFrame} of shape (n_ratings, 2)
            Rows of ratings, each a user; or user-item pairs.

        Returns
        -------
        factors : ndarray of shape (n_rows, n_components) or (n_ratings, n_components)
            The factors of each row, folded in; or those of each pair's user as found
            in `fit`, and zeros for an unseen user.
        """
        check_is_fitted(self)
        if is_matrix(X):
            rows = check_rating_matrix(X, n_items=len(self.items_))
            users = self._users_of_rows(rows)
        else:
            users = self._users_of_fit(self._positions(X)[0])
        # What a subclass keeps behind them is for its predictions.
        return users.factors[:, : self._n_features_out]

    def fit_transform(self, X, y=None, **fit_params):
        """Fit and return the factors of users.

        Parameters
        ----------
        X : {sparse matrix, sparse array} of shape (n_rows, n_items) or {array-like, \
DataFrame} of shape (n_ratings, 2)
            The ratings, or user-item pairs.

        y : array-like of shape (n_ratings,)
            The ratings of the pairs. Ignored beside a matrix: in a Pipeline it belongs
            to a later step.

        **fit_params : dict
            Passed to `fit`.

        Returns
        -------
        factors : ndarray of shape (n_samples, n_components)
        """
        y = None if is_matrix(X) else y
        return self.fit(X, y, **fit_params).transform(X)

    def recommend(self, X, n_items=10, *, exclude_seen=True):
        """Recommend the items with the highest predicted ratings.

        Parameters
        ----------
        X : {sparse matrix, sparse array} of shape (n_rows, n_items) or array-like of \
shape (n_users,)
            Rows of ratings, each a user; or user ids. An unseen user gets the items
            of the highest mean ratings.

        n_items : int, default=10
            How many items to recommend to each user.

        exclude_seen : bool, default=True
            Leave out what a user has rated: in the row, or in `fit`.

        Returns
        -------
        recommendations : DataFrame
            With the columns "user" (the id, or the number of the row), "item" and
            "rating" (as predicted): for each user in turn n_items rows, or as many as
            there are items left, best first.
        """
        check_is_fitted(self)
        if not isinstance(n_items, Integral) or n_items < 1:
            raise ValueError(f"n_items must be a positive integer, got {n_items!r}.")
        if is_matrix(X):
            seen = check_rating_matrix(X, n_items=len(self.items_))
            ids, users = np.arange(seen.shape[0]), self._users_of_rows(seen)
        else:
            ids = check_ids(X, "user")
            positions = positions_of(ids, self.users_, "user")
            users = self._users_of_fit(positions)
            empty = sp.csr_array((1, len(self.items_)), dtype=bool)
            seen = sp.vstack([self._seen, empty], format="csr")[positions]
        chunk = max(1, _DENSE_CHUNK // len(self.items_))
        parts = []
        for start in range(0, max(len(ids), 1), chunk):
            part = slice(start, start + chunk)
            ratings = self._predict_dense(users.take(part))
            if exclude_seen:
                rows = seen[part]
                ratings[row_numbers(rows), rows.indices] = -np.inf
            parts.append(_best(ids[part], ratings, self.items_, n_items))
        return pd.concat(parts, ignore_index=True)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        # Factors are of the precision that `dtype` says.
        tags.transformer_tags.preserves_dtype = []
        return tags

    @property
    def _n_features_out(self):
        return self.item_factors_.shape[1]

    @abstractmethod
    def _fold_in(self, rows):
        """Find the factors and biases of rows of ratings.

        Parameters
        ----------
        rows : csr_array of shape (n_rows, n_items)
            Ratings of items that have factors.

        Returns
        -------
        factors, biases : ndarray of shape (n_rows, n_components) and (n_rows,)
        """

    @abstractmethod
    def _leave_one_out(self, rows):
        """Predict each rating of `rows` from the others in its row.

        Returns
        -------
        ratings : ndarray of shape (nnz,)
            Anything where a row has no other rating.
        """

    def _text_biases_of_fit(self):
        """What is added for each of `users_` where a text is all that is known."""
        return np.zeros(len(self.users_), self.user_biases_.dtype)

    def _text_biases(self, rows, factors):
        """The same for rows of ratings that have been folded in."""
        return np.zeros(len(factors), factors.dtype)

    def _link(self, sums: torch.Tensor) -> torch.Tensor:
        """Turn sums into ratings."""
        return sums

    def _check_fit(
        self, X, y, sample_weight, item_texts=None
    ) -> tuple[Ratings, list[str | None] | None, dict[str, Any]]:
        """Validate the input of `fit`.

        Returns
        -------
        ratings : Ratings
            Its items are those that are rated or have a text.

        texts : list of length n_items or None
            The text of each item, None where there is none; None without `item_texts`.

        known : dict
            The fitted attributes that follow from the ratings alone.
        """
        ratings, texts = check_ratings(X, y, sample_weight), None
        on_matrix = is_matrix(X)
        if item_texts is not None:
            ids, texts = resolve_item_texts(
                item_texts, ratings.items, on_matrix=on_matrix
            )
            ratings = ratings.with_items(ids)
        _check_feature_names(self, X, reset=True)
        weights, values = ratings.weights, ratings.values
        mean = float(np.average(values, weights=weights))
        n_users, n_items = ratings.shape
        seen = np.ones(ratings.n_ratings, bool), ratings.indices, ratings.indptr
        return (
            ratings,
            texts,
            {
                "n_features_in_": n_items if on_matrix else 2,
                "users_": ratings.users.copy(),
                "items_": ratings.items.copy(),
                "rating_range_": (float(values.min()), float(values.max())),
                "global_mean_": mean,
                "user_means_": _means(ratings.rows, n_users, values, mean, weights),
                "item_means_": _means(ratings.indices, n_items, values, mean, weights),
                "_fitted_on_matrix": on_matrix,
                "_seen": sp.csr_array(seen, shape=ratings.shape, copy=True),
                "_is_rated": np.bincount(ratings.indices, minlength=n_items) > 0,
                "_has_text": np.array(
                    [text is not None for text in texts or [None] * n_items]
                ),
            },
        )

    def _hold_out(self, ratings, random_state) -> tuple[Ratings, Ratings | None]:
        """Split ratings into those to train on and those to stop early by."""
        if not self.early_stopping:
            return ratings, None
        # A score needs two.
        n_held_out = max(2, math.ceil(self.validation_fraction * ratings.n_ratings))
        if n_held_out >= ratings.n_ratings:
            raise ValueError(
                f"early_stopping=True leaves no rating to train on out of "
                f"{ratings.n_ratings}: use early_stopping=False."
            )
        is_held_out = random_state.permutation(ratings.n_ratings) < n_held_out
        return ratings.select(~is_held_out), ratings.select(is_held_out)

    def _conclude(self, fitted, history, reports, *, settles: bool, stacklevel: int):
        """Store what was fitted; warn, or raise the interrupt of the training again.

        `stacklevel` is the distance from here to whoever called `fit`.
        """
        for name, value in fitted.items():
            setattr(self, name, value)
        self.n_iter_ = len(history.loss_curve)
        self.loss_curve_ = history.loss_curve
        self.validation_scores_ = history.validation_scores
        if history.interrupt is not None:
            raise history.interrupt
        message = None
        if history.reason == "diverged":
            message = (
                f"{type(self).__name__} diverged in epoch {self.n_iter_ + 1}: the loss "
                f"is not finite. The last finite state is kept. "
                f"{self._divergence_remedy}."
            )
        elif history.reason == "max_iter" and settles:
            message = (
                f"{type(self).__name__} stopped at max_iter={self.max_iter} before the "
                f"loss had settled to tol={self.tol}. Raise max_iter or tol."
            )
        if message is not None:
            warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)
        reports.end()

    def _to_tensors(self, ratings: Ratings, offset: float, device, scale=1.0):
        """Pattern, ratings less the offset on a scale, and weights."""
        dtype = getattr(torch, self.dtype)
        pattern = Pattern(
            torch.tensor(ratings.indptr), torch.tensor(ratings.indices), ratings.shape
        ).to(device)
        values = (ratings.values - offset) / scale
        values = torch.tensor(values, dtype=dtype, device=device)
        weights = None
        if ratings.weights is not None:
            weights = torch.tensor(ratings.weights, dtype=dtype, device=device)
        return pattern, values, weights

    def _pattern(self, rows) -> Pattern:
        """Where rows have ratings, on the device of predictions."""
        pattern = Pattern(as_tensor(rows.indptr), as_tensor(rows.indices), rows.shape)
        return pattern.to(inference_device(self.device))

    def _positions(self, X):
        """Where the users and items of pairs stand in the model; -1 for unseen ones."""
        users, items = check_pairs(X)
        if self._fitted_on_matrix:
            check_matrix_ids(users, "user")
            check_matrix_ids(items, "item")
        else:
            _check_feature_names(self, X, reset=False)
        return (
            positions_of(users, self.users_, "user"),
            positions_of(items, self.items_, "item"),
        )

    def _is_modelled(self):
        """Which items have factors from `fit`: by their ratings, or by their text."""
        return self._is_rated | self._has_text

    def _is_text_only(self):
        """Which items are known by their text alone."""
        return self._has_text & ~self._is_rated

    def _users_of_fit(self, positions) -> _Users:
        """Users by their position in `users_`; -1 is an unseen user."""
        is_seen = positions >= 0
        users = _Users(
            self.user_factors_[positions],
            self.user_biases_[positions],
            is_seen & (np.diff(self._seen.indptr) > 0)[positions],
            np.where(is_seen, self.user_means_[positions], self.global_mean_),
            self._text_biases_of_fit()[positions],
        )
        users.factors[~is_seen], users.biases[~is_seen] = 0, 0
        return users

    def _users_of_rows(self, rows) -> _Users:
        """Users who are known by the ratings in their rows."""
        informative = select_entries(rows, self._is_modelled()[rows.indices])
        factors, biases = self._fold_in(informative)
        is_known = np.diff(informative.indptr) > 0
        factors[~is_known], biases[~is_known] = 0, 0
        means = _means(row_numbers(rows), rows.shape[0], rows.data, self.global_mean_)
        text_biases = self._text_biases(informative, factors)
        return _Users(factors, biases, is_known, means, text_biases)

    def _predict_pairs(self, X):
        users, items = self._positions(X)
        users, row = np.unique(users, return_inverse=True)
        return self._predict_entries(self._users_of_fit(users), row, items)

    def _predict_entries(self, users: _Users, row, item):
        """Predict single ratings, of shape (n_ratings,); -1 is an unseen one."""
        is_modelled = np.append(self._is_modelled(), False)[item]
        item_means = np.append(self.item_means_, self.global_mean_)[item]
        ratings = np.where(is_modelled, item_means, users.means[row])
        modelled = np.flatnonzero(users.is_known[row] & is_modelled)
        # Each pair once, by user and item: there may be more pairs than different ones.
        n_items = len(self.items_)
        keys = row[modelled].astype(np.int64) * n_items + item[modelled]
        keys, place = np.unique(keys, return_inverse=True)
        ratings[modelled] = self._evaluate(users, *np.divmod(keys, n_items))[place]
        return ratings

    def _evaluate(self, users: _Users, row, item):
        """Evaluate the model for different pairs that it knows, sorted."""
        device = inference_device(self.device)
        crow = np.searchsorted(row, np.arange(len(users.factors) + 1))
        shape = len(users.factors), len(self.items_)
        pattern = Pattern(as_tensor(crow), as_tensor(item), shape)
        left = as_tensor(users.factors, device=device)
        right = as_tensor(self.item_factors_, device=device)
        sums = sddmm(pattern.to(device), left, right).cpu().double()
        sums += as_tensor(users.biases[row] + self.item_biases_[item])
        sums += as_tensor(users.text_biases[row] * self._is_text_only()[item])
        sums += self.intercept_
        return self._to_ratings(sums)

    def _predict_dense(self, users: _Users):
        """Predict all items for some users, of shape (n_users, n_items)."""
        device = inference_device(self.device)
        factors, biases = (as_tensor(a, device=device) for a in users[:2])
        item_factors = as_tensor(self.item_factors_, device=device)
        item_biases = as_tensor(self.item_biases_, device=device)
        sums = torch.addmm(item_biases, factors, item_factors.T)
        sums += biases.unsqueeze(1) + self.intercept_
        text_only = torch.as_tensor(np.flatnonzero(self._is_text_only()), device=device)
        sums[:, text_only] += as_tensor(users.text_biases, device=device).unsqueeze(1)
        ratings = self._to_ratings(sums.cpu())
        is_modelled = self._is_modelled()
        ratings[~users.is_known] = self.item_means_
        ratings[:, ~is_modelled] = users.means[:, np.newaxis]
        return ratings

    def _predict_left_out(self, rows):
        """Predict each rating from the others in its row, of shape (nnz,)."""
        row = row_numbers(rows)
        is_modelled = self._is_modelled()[rows.indices]
        informative = select_entries(rows, is_modelled)
        counts = np.diff(rows.indptr)[row]
        # Without rating j the sum of its row lacks r_j and the count lacks one.
        sums = np.bincount(row, rows.data, minlength=rows.shape[0])[row] - rows.data
        prior = PRIOR_RATINGS * self.global_mean_
        ratings = (sums + prior) / (counts - 1 + PRIOR_RATINGS)
        others = np.diff(informative.indptr)[row] - is_modelled
        alone = is_modelled & (others == 0)
        ratings[alone] = self.item_means_[rows.indices[alone]]
        left_out = as_tensor(self._leave_one_out(informative))
        modelled = is_modelled & (others > 0)
        ratings[modelled] = self._clipped(left_out.numpy())[others[is_modelled] > 0]
        return ratings

    def _to_ratings(self, sums):
        return self._clipped(self._link(sums).numpy().astype(np.float64, copy=False))

    def _clipped(self, ratings):
        return np.clip(ratings, *self.rating_range_) if self.clip else ratings


class EpochReports:
    """Tells the callbacks, and who asked for it by `verbose`, of a fit's epochs.

    Parameters
    ----------
    estimator : BaseRecommender
        What is being fitted.

    X, y : array-like, sparse or None
        The arguments of `fit`.

    metadata : dict
        Its other arguments; None means not given.

    fitted : callable
        Returns the attributes that the estimator would have if it stopped now.

    n_epochs : int or None
        The largest number of epochs. None means `max_iter`.
    """

    def __init__(self, estimator, X, y, metadata, fitted, n_epochs=None):
        self.estimator = estimator
        self.arguments = {"estimator": estimator, "X": X, "y": y}
        given = {name: value for name, value in metadata.items() if value is not None}
        if given:
            self.arguments["metadata"] = given
        self.arguments["reconstruction_attributes"] = fitted
        self.fit = estimator._init_callback_context(
            max_subtasks=n_epochs or estimator.max_iter
        )
        self.fit.call_on_fit_task_begin(**self.arguments)

    def begin_epoch(self) -> None:
        self.epoch = self.fit.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(**self.arguments)

    def end_epoch(self, history) -> bool:
        """Report an epoch; whether a callback wants the training to stop."""
        if self.estimator.verbose:
            scores = history.validation_scores
            score = f", validation R2 {scores[-1]:.5f}" if scores else ""
            print(
                f"[{type(self.estimator).__name__}] epoch {len(history.loss_curve)}: "
                f"loss {history.loss_curve[-1]:.6g}{score}"
            )
        return self.epoch.call_on_fit_task_end(**self.arguments)

    def end(self) -> None:
        self.fit.call_on_fit_task_end(**self.arguments)


def _means(positions, size, ratings, global_mean, weights=None):
    """Mean rating by user or item, drawn to the global mean, of shape (size,)."""
    counts = np.bincount(positions, weights, minlength=size)
    weighted = ratings if weights is None else ratings * weights
    sums = np.bincount(positions, weighted, minlength=size)
    return (sums + PRIOR_RATINGS * global_mean) / (counts + PRIOR_RATINGS)


def _best(ids, ratings, items, n_items) -> pd.DataFrame:
    """The items of the highest ratings for each user; -inf is never taken."""
    n_items = min(n_items, ratings.shape[1])
    top = np.argpartition(-ratings, n_items - 1, axis=1)[:, :n_items]
    best = np.take_along_axis(ratings, top, axis=1)
    # Equal ratings come in the order of the items.
    order = np.lexsort((top, -best), axis=1)
    top, best = (np.take_along_axis(a, order, axis=1) for a in (top, best))
    found = best > -np.inf
    return pd.DataFrame(
        {
            "user": np.repeat(ids, found.sum(axis=1)),
            "item": items[top[found]],
            "rating": best[found],
        }
    )


def _refuse_too_large(shape):
    size, free = shape[0] * shape[1] * 8, available_memory()
    if size > free:
        raise ValueError(
            f"The dense predictions of shape {shape} would take {size / 2**30:.1f} GiB "
            f"of {free / 2**30:.1f} GiB that are free: predict some rows at a time, "
            "predict user-item pairs, or call recommend(X)."
        )
