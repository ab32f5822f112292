"""The public interface of all recommenders."""

from __future__ import annotations

import warnings
from abc import ABCMeta, abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.callback import CallbackSupportMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from ._core.device import own_settings
from ._data.ratings import check_matrix_weights, is_matrix, row_numbers
from ._explanation import explain
from ._limits import refuse_unknown_parameters
from ._prediction import Model, Predictor, PredictorCache
from ._serving import recommend, recommend_for, similar
from ._sklearn_compat import DocumentedMixin, Interval, StrOptions
from ._version import __version__

STOPPING_CONSTRAINTS: dict[str, list[Any]] = {
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
}
WARM_START_CONSTRAINTS: dict[str, list[Any]] = {"warm_start": ["boolean"]}


class BaseRecommender(
    DocumentedMixin,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    RegressorMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """Base class of all recommenders, limited to the public interface.

    `fit` of a subclass creates a `Fit` from its arguments and runs it with a trainer.
    All predictions come from a `Predictor`, which asks the subclass for its model.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "clip": ["boolean"],
        "device": [str, torch.device],
        "dtype": [StrOptions({"float32", "float64"})],
        "random_state": [
            Interval(Integral, 0, 2**32 - 1, closed="both"),
            np.random.RandomState,
            None,
        ],
        "verbose": ["verbose"],
    }

    # Advice in the warning about divergence
    _divergence_remedy: ClassVar[str]

    # Attributes that every `fit` sets
    users_: NDArray[Any]
    items_: NDArray[Any]
    user_means_: NDArray[np.float64]
    item_means_: NDArray[np.float64]
    global_mean_: float
    rating_range_: tuple[float, float]
    rating_std_: float
    n_features_in_: int
    n_iter_: int
    loss_curve_: list[float]
    validation_scores_: list[float]
    device_: str
    _fitted_on_matrix: bool
    _predictors: PredictorCache

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator, or of an estimator among its parameters.

        Parameters
        ----------
        **params : dict
            Values by name; ``name__inner=value`` sets a parameter of the estimator that
            is the parameter `name`.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If there is no such parameter; the message suggests similar names.
        """
        refuse_unknown_parameters(self, params)
        return super().set_params(**params)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_skrec_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        attributes = state.copy()
        version = attributes.pop("_skrec_version", "of an unknown version")
        if version != __version__:
            missing = set(self._get_param_names()) - set(attributes)
            if missing:
                raise ValueError(
                    f"{type(self).__name__} was saved by skrec {version}, in which "
                    f"{sorted(missing)} were no parameters or had other names: load it "
                    "with that version, or fit it again."
                )
            warnings.warn(
                f"{type(self).__name__} was saved by skrec {version}, but skrec "
                f"{__version__} is installed. Predictions may differ: fit it again.",
                UserWarning,
                stacklevel=2,
            )
        super().__setstate__(attributes)

    @abstractmethod
    def _make_model(self, device: torch.device) -> Model:
        """Create the fitted model on a device."""

    @own_settings()
    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predict ratings.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_rows, n_items)
            User and item ids; or rows of ratings, with one column for each of `items_`.
            Each row is a new user described by its stored ratings alone, even if the
            same user was in `fit`.

        Returns
        -------
        ratings : ndarray of shape (n_ratings,) or (n_rows, n_items)
            Predicted ratings. A pair with an unseen user gets the item's mean, and a
            pair with an unseen item gets the user's mean. Both means are shrunk toward
            the global mean if ratings are few. A pair with an unseen user and an unseen
            item gets the global mean. A row without ratings counts as an unseen user.
            An item without ratings, without a known text and without features counts
            as an unseen item.

        Raises
        ------
        ValueError
            If the number of columns of X is wrong, or if the dense result of a matrix
            would not fit in memory.
        """
        predictor = self._predictor()
        return predictor.predict_rows(X) if is_matrix(X) else predictor.predict_pairs(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the coefficient of determination R² of the predictions.

        scikit-learn's own scorers need y: with a matrix alone, use the scorers of
        `skrec.metrics`, such as `neg_root_mean_squared_error_scorer`.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_rows, n_items)
            User and item ids; or rows of ratings, one user per row.

        y : array-like of shape (n_ratings,), sparse of shape (n_rows, n_items) or None
            Ratings of the pairs. With rows, the ratings to predict from X. With None,
            each rating in X is predicted from the other ratings in its row
            (leave-one-out). This score is valid for users who were not in `fit`. Users
            who were in `fit` have influenced the factors of the items.

        sample_weight : array-like or sparse, default=None
            Weights of shape (n_ratings,); with rows, of shape (n_rows,) or sparse with
            the entries of the predicted ratings.

        Returns
        -------
        score : float
            R² of the predictions.
        """
        target, predicted, weights = self._compare(X, y, sample_weight)
        return r2_score(target, predicted, sample_weight=weights)

    @own_settings()
    def _compare(self, X, y, sample_weight):
        """Return the ratings, their predictions and their weights, for a score.

        Each is of shape (n_ratings,), or None. The arguments are those of `score`.
        """
        predictor = self._predictor()
        if not is_matrix(X):
            return y, predictor.predict_pairs(X), sample_weight
        rows = predictor.check_rows(X)
        if y is None:
            target, predicted = rows, predictor.predict_left_out(rows)
        else:
            target = predictor.check_rows(y, name="y")
            if target.shape != rows.shape:
                raise ValueError(f"y has shape {target.shape}, but X has {rows.shape}.")
            predicted = predictor.predict_entries(
                predictor.users_of_rows(rows), row_numbers(target), target.indices
            )
        return target.data, predicted, check_matrix_weights(sample_weight, target)

    @own_settings()
    def transform(self, X: Any) -> NDArray[Any]:
        """Return the factors of users.

        Parameters
        ----------
        X : {sparse matrix, sparse array} of shape (n_rows, n_items) or {array-like, \
DataFrame} of shape (n_ratings, 2)
            Rows of ratings, one user per row; or user-item pairs.

        Returns
        -------
        factors : ndarray of shape (n_rows, n_components) or (n_ratings, n_components)
            Factors of each row, folded in; or factors of each pair's user from `fit`.
            The factors of an unseen user are zeros.
        """
        predictor = self._predictor()
        if is_matrix(X):
            users = predictor.users_of_rows(predictor.check_rows(X))
        else:
            users = predictor.known_users(predictor.positions(X)[0])
        return predictor.transform(users)

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> NDArray[Any]:
        """Fit and return the factors of users.

        Parameters
        ----------
        X : {sparse matrix, sparse array} of shape (n_rows, n_items) or {array-like, \
DataFrame} of shape (n_ratings, 2)
            Rating matrix, or user-item pairs.

        y : array-like of shape (n_ratings,)
            Ratings of the pairs. Ignored with a matrix: in a Pipeline, y belongs to a
            later step.

        **fit_params : dict
            Further arguments of `fit`.

        Returns
        -------
        factors : ndarray of shape (n_samples, n_components)
            Factors of each row, or of each pair's user.
        """
        y = None if is_matrix(X) else y
        return self.fit(X, y, **fit_params).transform(X)

    @own_settings()
    def recommend(
        self,
        X: Any,
        n_items: int = 10,
        *,
        exclude_seen: bool = True,
        items: Any = None,
        exclude_items: Any = None,
    ) -> pd.DataFrame:
        """Recommend the items with the highest predicted ratings.

        Parameters
        ----------
        X : {sparse matrix, sparse array} of shape (n_rows, n_items) or array-like of \
shape (n_users,)
            Rows of ratings, one user per row; or user ids. An unseen user gets the
            items with the highest mean ratings.

        n_items : int, default=10
            Number of items to recommend to each user.

        exclude_seen : bool, default=True
            Whether to exclude the items that a user has rated, in the row or in `fit`.
            Ratings of weight 0 do not count.

        items : array-like or mapping, default=None
            Candidates: ids of the only items that may be recommended; or such ids for
            each user, by user id (or row number). None means all items.

        exclude_items : array-like or mapping, default=None
            Ids of items that must not be recommended, to anybody or by user id. Ids
            that the model does not know are ignored, and so are users without an entry.

        Returns
        -------
        recommendations : DataFrame
            Table with the columns "user" (user id or row number), "item" and "rating"
            (predicted rating). Each user has n_items rows, or fewer if fewer items are
            left, in descending order of the rating before clipping.

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, if a candidate is not in `items_`, or if a user
            has no entry in a mapping of candidates.

        See Also
        --------
        recommend_for : Recommend items to new users, given a table of their ratings.
        """
        _check_number(n_items, "n_items")
        _check_boolean(exclude_seen, "exclude_seen")
        return recommend(
            self._predictor(),
            X,
            int(n_items),
            exclude_seen=bool(exclude_seen),
            items=items,
            exclude_items=exclude_items,
        )

    @own_settings()
    def recommend_for(
        self,
        ratings: pd.DataFrame,
        n_items: int = 10,
        *,
        exclude_seen: bool = True,
        items: Any = None,
        exclude_items: Any = None,
    ) -> pd.DataFrame:
        """Recommend items to new users, given their ratings.

        The users are known by these ratings alone, even if users of the same ids were
        in `fit`. The model does not change.

        Parameters
        ----------
        ratings : DataFrame of shape (n_ratings, 3)
            User ids, item ids and ratings. All items must be in `items_`.

        n_items, exclude_seen, items, exclude_items
            As for `recommend`.

        Returns
        -------
        recommendations : DataFrame
            Table with the columns "user", "item" and "rating" (predicted rating), as
            from `recommend`, ordered by user id.

        Raises
        ------
        TypeError, ValueError
            If `ratings` has other columns, an item that is not in `items_`, or a pair
            twice, or if another argument is invalid.

        Examples
        --------
        >>> import pandas as pd
        >>> from skrec import BiasedMFRegressor
        >>> from skrec.datasets import make_ratings
        >>> R = make_ratings(300, 20, density=0.3, random_state=0).R
        >>> model = BiasedMFRegressor(random_state=0).fit(R)
        >>> ratings = pd.DataFrame(
        ...     [("zoe", 1, 5), ("zoe", 4, 2), ("yan", 4, 5)],
        ...     columns=["user", "item", "rating"],
        ... )
        >>> model.recommend_for(ratings, n_items=2).round(1)
          user  item  rating
        0  yan    11     4.3
        1  yan    18     4.1
        2  zoe     9     4.3
        3  zoe    18     4.3
        """
        _check_number(n_items, "n_items")
        _check_boolean(exclude_seen, "exclude_seen")
        return recommend_for(
            self._predictor(),
            ratings,
            int(n_items),
            exclude_seen=bool(exclude_seen),
            items=items,
            exclude_items=exclude_items,
        )

    @own_settings()
    def similar_items(self, items: Any, n_items: int = 10) -> pd.DataFrame:
        """Find the most similar items, by the cosine of their factors.

        Parameters
        ----------
        items : array-like of shape (n,)
            Item ids. Items that are known by features or a text only count as well.

        n_items : int, default=10
            Number of similar items to find for each item.

        Returns
        -------
        similar : DataFrame
            Table with the columns "item", "similar_item" and "similarity" (cosine, at
            most 1), in descending order of the similarity. No item is similar to
            itself, and items of which nothing is known are left out.

        Raises
        ------
        TypeError, ValueError
            If an id is not in `items_`, or if the model has no factors.
        """
        _check_number(n_items, "n_items")
        return similar(self._predictor(), "item", items, int(n_items))

    @own_settings()
    def similar_users(self, users: Any, n_users: int = 10) -> pd.DataFrame:
        """Find the most similar users in `fit`, by the cosine of their factors.

        Parameters
        ----------
        users : array-like of shape (n,)
            User ids.

        n_users : int, default=10
            Number of similar users to find for each user.

        Returns
        -------
        similar : DataFrame
            Table with the columns "user", "similar_user" and "similarity", as from
            `similar_items`.

        Raises
        ------
        TypeError, ValueError
            If an id is not in `users_`, or if the model has no factors.
        """
        _check_number(n_users, "n_users")
        return similar(self._predictor(), "user", users, int(n_users))

    @own_settings()
    def explain(
        self,
        user: Any,
        item: Any,
        *,
        by: Literal["user", "item"] = "user",
        item_text: str | None = None,
    ) -> pd.Series:
        """Split a prediction into contributions that sum to it, before clipping.

        Parameters
        ----------
        user : id, {sparse matrix, sparse array} of shape (1, n_items) or DataFrame
            Id of a user; or the ratings of a new user, in a row or in a table as for
            `recommend_for`.

        item : id
            Id of an item: one of `items_`.

        by : {"user", "item"}, default="user"
            Side whose parts split the product of the factors of user and item. "user"
            tells how much each of the user's ratings contributes, "item" how much each
            feature and the text of the item do.

        item_text : str, default=None
            Text that the item had in `fit` or `extend_items` of a `ConvMFRegressor`,
            which does not keep texts. It is split into its words and windows.

        Returns
        -------
        contributions : Series
            Contributions in the unit of the ratings, with the index levels "kind" and
            "name". Those of 0 are left out. Their sum is the predicted rating, up to
            rounding. These are the kinds:

            - "mean": global mean of the ratings.
            - "user bias", "item bias": biases, without the parts that are listed under
              other kinds. If the user or the item is unseen, difference of the other's
              mean from the global mean.
            - "rated item": part of the user's factors that comes from the rating of the
              item with this id; the user's vector is linear in the ratings.
            - "seen item": what it contributes that the user has rated the item at all
              (implicit feedback).
            - "user feature", "item feature": each column of the features, including its
              part of the bias.
            - "text": text of the item, including its part of the bias; in a
              `ConvMFRegressor` with estimated penalties the "words" of the linear path,
              and the "network".
            - "text word", "text window": with `item_text`, each word of the linear path
              and each window of words that wins a filter of the network, compared with
              an empty text. "text" is then what an empty text adds. The layers of the
              network are replaced by their secants between the two texts.
            - "raters": who has rated the item (implicit feedback).
            - "average user", "average item": factors that every user or item has before
              anything is known of it.
            - "item ratings": part of the item's factors that its ratings determine.
            - "factors", "network": product of the factors, or output of the network,
              which cannot be split further.
            - "self-selection": correction for items without ratings.
            - "remainder": part of a user's factors that is not their expected value,
              given the ratings and the items of the model. It is not 0 because a fit
              ends before its iterations have converged, and because samples are random.
              New users have none.

        Raises
        ------
        TypeError, ValueError
            If an id cannot be one of the model, if `user` is several users, if
            `item_text` is not the text of the item, or if the model cannot split texts.

        Examples
        --------
        >>> import numpy as np
        >>> from skrec import BiasedMFRegressor
        >>> from skrec.datasets import make_ratings
        >>> R = make_ratings(300, 20, density=0.15, random_state=0).R
        >>> model = BiasedMFRegressor(random_state=0).fit(R[:250])
        >>> model.explain(R[[250]], 3).round(2)
        kind          name
        mean                  3.42
        user bias            -0.19
        item bias            -0.47
        rated item    4       0.15
                      1      -0.10
                      19     -0.01
        average user         -0.13
        Name: contribution, dtype: float64
        """
        if by not in ("user", "item"):
            raise ValueError(f"by must be 'user' or 'item', got {by!r}.")
        return explain(self._predictor(), user, item, by, item_text)

    def _split_text(self, item: int, text: str) -> dict[tuple[str, str], Any]:
        """Finer parts of what a text adds to an item's vector."""
        raise TypeError(
            f"{type(self).__name__} cannot split item_text: only ConvMFRegressor can."
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        # The precision of the factors is `dtype`, whatever the input.
        tags.transformer_tags.preserves_dtype = []
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.user_factors_.shape[1]

    def _predictor(self) -> Predictor:
        """Return the predictor for the current state of the estimator."""
        if "_predictors" not in vars(self):
            check_is_fitted(self)
        return self._predictors.get(self)


class ProbabilisticRecommender(BaseRecommender):
    """Base class of recommenders that also predict standard deviations."""

    @overload
    def predict(
        self, X: Any, return_std: Literal[False] = False
    ) -> NDArray[np.float64]: ...

    @overload
    def predict(
        self, X: Any, return_std: Literal[True]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

    @own_settings()
    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict ratings, as expected values.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_rows, n_items)
            User and item ids; or rows of ratings, with one column for each of `items_`.
            Each row is a new user described by its stored ratings alone, even if the
            same user was in `fit`.

        return_std : bool, default=False
            Whether to return standard deviations as well.

        Returns
        -------
        ratings : ndarray of shape (n_ratings,) or (n_rows, n_items)
            Predicted ratings. A pair with an unseen user gets the item's mean, and a
            pair with an unseen item gets the user's mean. Both means are shrunk toward
            the global mean if ratings are few. A pair with an unseen user and an unseen
            item gets the global mean. A row without ratings counts as an unseen user,
            and an item without ratings, text and features counts as an unseen item.

        std : ndarray of the same shape
            Standard deviations, only with `return_std`: predictive standard deviation
            of the user's rating, including the uncertainty of the vectors and the
            noise. Clipping does not change it. It is `rating_std_` where the prediction
            is a mean because the user or the item is unseen.

        Raises
        ------
        ValueError
            If the number of columns of X is wrong, if the dense result of a matrix
            would not fit in memory, or if the model has no standard deviations.
        """
        # One predictor for both, which a refit in another thread does not change.
        predictor = self._predictor()
        predict, std = predictor.predict_pairs, predictor.std_of_pairs
        if is_matrix(X):
            predict, std = predictor.predict_rows, predictor.std_of_rows
        return (predict(X), std(X)) if return_std else predict(X)


def _check_number(value: Any, name: str) -> None:
    is_bool = isinstance(value, bool | np.bool_)
    if is_bool or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")


def _check_boolean(value: Any, name: str) -> None:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a boolean, got {value!r}.")
