"""Matrix factorizations: PMF, and the same with biases."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from .._base import (
    STOPPING_CONSTRAINTS,
    WARM_START_CONSTRAINTS,
    BaseRecommender,
    ProbabilisticRecommender,
)
from .._fitting import Fit, fit_method
from .alternation import (
    DIVERGENCE_REMEDY,
    FACTORIZATION_CONSTRAINTS,
    PENALTY_OR_AUTO,
    AlternationTrainer,
    mean_item_prior,
    penalties_are_auto,
)
from .features import FEATURE_CONSTRAINTS, FeatureMixin, refuse_features
from .models import RidgeModel
from .variational_model import VariationalModel
from .variational_trainer import VariationalTrainer


class PMFRegressor(BaseRecommender):
    r"""Probabilistic matrix factorization (PMF) by alternating least squares.

    The predicted rating is the global mean plus the dot product of the latent factors
    of user and item. The maximum a posteriori estimate of [1]_ is computed by solving
    for all users at once, then for all items, in alternation.

    Parameters
    ----------
    n_factors : int, default=10
        Number of latent factors k. With this solver, small values are most accurate.

    lambda_u : float, default=10.0
        Penalty on the squared norm of a user's vector, on the scale of half the sum of
        squared errors of the standardized ratings (see Notes).

    lambda_v : float, default=10.0
        Penalty on the squared norm of an item's vector, on the same scale.

    fit_intercept : bool, default=True
        Whether to subtract the global mean from the ratings. Ignored with
        `normalize_y`, which subtracts it.

    normalize_y : bool, default=True
        Whether to standardize the ratings inside the fit. Predictions are then the same
        whatever the unit of the ratings. False uses the ratings as they are, as the
        papers do.

    max_iter : int, default=50
        Maximum number of iterations. Each iteration solves for all users, then for all
        items.

    tol : float, default=1e-4
        Minimum relative decrease of the objective, or minimum increase of the
        validation score, that counts as an improvement.

    early_stopping : bool, default=False
        Whether to hold out ratings, to stop when their score has not improved for
        `n_iter_no_change` iterations, and to keep the best parameters.

    validation_fraction : float, default=0.1
        Fraction of the ratings that is held out with `early_stopping`.

    n_iter_no_change : int, default=2
        Number of iterations without improvement after which to stop.

    warm_start : bool, default=False
        Whether to start from the factors of the previous fit, if there is one. Users
        and items are matched by id. New users and items are initialized at random.

    clip : bool, default=True
        Whether to keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        Device to compute on: "cpu", "cuda", "cuda:0", ...; "auto" uses a GPU if
        there is one. A fitted model falls back to the CPU if the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        Precision of the parameters.

    random_state : int, RandomState instance or None, default=None
        Source of all random numbers, such as initial parameters, batches, samples and
        held-out ratings. An int gives reproducible fits, bit for bit with the same
        number of threads.

    verbose : bool or int, default=False
        True or 1: print about ten lines with the iteration, the objective, the
        validation RMSE (with `early_stopping`) and the seconds. 2: print a line for
        each iteration. With both, predictions, recommendations and searches for
        neighbors that take longer than 5 seconds print their progress. For progress
        bars set a callback:
        ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, n_factors)
        Factors of the users: what `transform` returns for the users in `fit`.

    item_factors_ : ndarray of shape (n_items, n_factors)
        Factors of the items.

    user_biases_ : ndarray of shape (n_users,)
        Zeros: the model has no biases.

    item_biases_ : ndarray of shape (n_items,)
        Zeros: the model has no biases.

    intercept_ : float
        Global mean; 0 with `normalize_y` or without `fit_intercept`.

    loss_curve_ : list of float
        Objective after each iteration.

    validation_scores_ : list of float
        R² of the held-out ratings after each iteration; empty without
        `early_stopping`.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_
        Common to all recommenders, see :ref:`shared-attributes`.

    rating_std_, n_iter_, n_features_in_, feature_names_in_, device_
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    BiasedMFRegressor : The same model with biases; usually more accurate.
    ConvMFRegressor : The same model with a prior on the items from their texts.

    Notes
    -----
    With the weight w of each rating, the objective is

    .. math:: \frac{1}{2} \sum_{(u, i)} w_{ui} (r_{ui} - \mu - u_u^T v_i)^2
              + \frac{\lambda_U}{2} \sum_u \|u_u\|^2
              + \frac{\lambda_V}{2} \sum_i \|v_i\|^2

    With `normalize_y`, the ratings r are standardized, mu is 0, and the parameters are
    on this scale: the predicted rating is ``global_mean_ + rating_std_ * z``, where z
    is `intercept_` plus the product of the factors. A penalty for ratings as they are,
    such as a paper's, has the same effect if it is divided by the standard deviation of
    the ratings. With ratings, penalties and squared factors multiplied by s, the
    objective is multiplied by the square of s.

    Each half step solves ridge regressions by conjugate gradients. The matrix products
    are evaluated at the ratings only, so the time and memory of an iteration are
    proportional to the number of ratings times the number of factors.

    In `predict`, each row of a matrix is a new user described by that row alone, whose
    vector is the solution of a ridge regression. `score` of a matrix without y predicts
    each rating from the other ratings in its row, exactly.

    References
    ----------
    .. [1] Ruslan Salakhutdinov and Andriy Mnih. 2007. "Probabilistic Matrix
       Factorization". NIPS 20.

    Examples
    --------
    >>> from skrec import PMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> R = make_ratings(n_users=300, n_items=100, random_state=0).R
    >>> model = PMFRegressor(n_factors=5, random_state=0).fit(R[:250])
    >>> round(model.score(R[250:]), 1)
    0.3
    """

    _divergence_remedy = DIVERGENCE_REMEDY

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        **STOPPING_CONSTRAINTS,
        **WARM_START_CONSTRAINTS,
        **FACTORIZATION_CONSTRAINTS,
    }

    def __init__(
        self,
        *,
        n_factors: int = 10,
        lambda_u: float = 10.0,
        lambda_v: float = 10.0,
        fit_intercept: bool = True,
        normalize_y: bool = True,
        max_iter: int = 50,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        warm_start: bool = False,
        clip: bool = True,
        device: str | torch.device = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_factors = n_factors
        self.lambda_u = lambda_u
        self.lambda_v = lambda_v
        self.fit_intercept = fit_intercept
        self.normalize_y = normalize_y
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.clip = clip
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_method
    def fit(self, X: Any, y: Any = None, *, sample_weight: Any = None) -> Self:
        """Fit the model to ratings.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
            User and item ids; or a matrix whose stored entries are the ratings, a
            stored 0 included.

        y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
            Ratings of the pairs. With a matrix, further ratings of it or None.

        sample_weight : array-like or sparse, default=None
            Weight of each rating's error, of shape (n_ratings,); with a matrix, sparse
            with its entries or of shape (n_users,). Ratings of weight 0 are ignored.

        Returns
        -------
        self : PMFRegressor

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is invalid; see the message.

        Warns
        -----
        ConvergenceWarning
            If the objective became infinite, or did not converge within `max_iter`
            iterations.
        """
        fit = Fit(self, X, y, sample_weight)
        return fit.run(AlternationTrainer(fit, has_biases=False))

    def _make_model(self, device):
        return RidgeModel(self, device)


class BiasedMFRegressor(FeatureMixin, ProbabilisticRecommender):
    r"""Matrix factorization with biases, by variational Bayes or least squares.

    The predicted rating is the sum of the global mean, the bias of the user, the bias
    of the item, and the dot product of their latent factors [1]_. By default all
    penalties are estimated from the ratings by variational Bayes [2]_. The solver
    computes all users at once, then all items, in alternation.

    Parameters
    ----------
    n_factors : int, default=20
        Number of latent factors k. With estimated penalties it is a maximum: factors
        that explain nothing are dropped.

    lambda_u : float or "auto", default="auto"
        Penalty on the squared norm of a user's vector, on the scale of half the sum of
        squared errors of the standardized ratings (see Notes). "auto" estimates the
        prior of the vectors, and needs ``lambda_v="auto"``.

    lambda_v : float or "auto", default="auto"
        Penalty on the squared distance of an item's vector from the mean item, on the
        same scale. "auto" needs ``lambda_u="auto"``.

    fit_intercept : bool, default=True
        Whether to subtract the global mean from the ratings. Ignored with
        `normalize_y`, which subtracts it.

    normalize_y : bool, default=True
        Whether to standardize the ratings inside the fit. Predictions are then the same
        whatever the unit of the ratings. False uses the ratings as they are, as the
        papers do.

    item_encoder, user_encoder : transformer or None, default=None
        Transformers that turn the tables of features into numbers, such as a
        `ColumnTransformer` or a `Pipeline`. None means
        :class:`skrec.features.FeatureEncoder`, which looks at the columns. Columns are
        centered and scaled in blocks: those of `output_indices_`, if the encoder has
        this attribute, or else all of them.

    memory : str, object with the interface of joblib.Memory, or None, default=None
        Folder in which to cache the fitted encoders.

    max_iter : int, default=200
        Maximum number of iterations. Each iteration solves for all users, then for all
        items.

    tol : float, default=1e-3
        Minimum relative decrease of the objective, or minimum increase of the
        validation score, that counts as an improvement.

    early_stopping : bool, default=False
        Whether to hold out ratings, to stop when their score has not improved for
        `n_iter_no_change` iterations, and to keep the best parameters.

    validation_fraction : float, default=0.1
        Fraction of the ratings that is held out with `early_stopping`.

    n_iter_no_change : int, default=2
        Number of iterations without improvement after which to stop.

    warm_start : bool, default=False
        Whether to start from the factors of the previous fit, if there is one. Users
        and items are matched by id. New users and items are initialized at random.

    clip : bool, default=True
        Whether to keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        Device to compute on: "cpu", "cuda", "cuda:0", ...; "auto" uses a GPU if
        there is one. A fitted model falls back to the CPU if the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        Precision of the parameters.

    random_state : int, RandomState instance or None, default=None
        Source of all random numbers, such as initial parameters, batches, samples and
        held-out ratings. An int gives reproducible fits, bit for bit with the same
        number of threads.

    verbose : bool or int, default=False
        True or 1: print about ten lines with the iteration, the objective, the
        validation RMSE (with `early_stopping`) and the seconds. 2: print a line for
        each iteration. With both, predictions, recommendations and searches for
        neighbors that take longer than 5 seconds print their progress. For progress
        bars set a callback:
        ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, n_kept)
        Factors of the users: what `transform` returns for the users in `fit`. With
        estimated penalties, the n_kept <= n_factors factors that explain something, in
        descending order of what they explain.

    item_factors_ : ndarray of shape (n_items, n_kept)
        Factors of the items.

    user_biases_ : ndarray of shape (n_users,)
        Biases of the users.

    item_biases_ : ndarray of shape (n_items,)
        Biases of the items.

    intercept_ : float
        Global mean; 0 with `normalize_y` or without `fit_intercept`.

    noise_variance_ : float
        Variance of a rating around its prediction; only with estimated penalties.

    user_prior_mean_, item_prior_mean_ : ndarray of shape (n_kept + 1,)
        Prior means of the vectors; only with estimated penalties.

    user_prior_covariance_, item_prior_covariance_ : ndarray
        Prior covariances of the vectors, of shape (n_kept + 1, n_kept + 1); only with
        estimated penalties.

    item_encoder_, user_encoder_ : transformer or None
        Fitted encoders of the features; only with estimated penalties, as the following
        attributes. They are None without features.

    item_feature_weights_, user_feature_weights_ : ndarray or None
        Linear maps from the encoded features to prior means of the vectors, of shape
        (n_columns, n_kept + 1).

    item_feature_names_, user_feature_names_ : ndarray of shape (n_columns,) or None
        Names of the columns of the encoded features.

    item_feature_blocks_, user_feature_blocks_ : dict of str to slice or None
        Columns of each block: those that encode a column of the table.

    item_feature_center_, user_feature_center_ : ndarray of shape (n_columns,) or None
        Means of the encoded features, which are subtracted from them.

    loss_curve_ : list of float
        Objective after each iteration.

    validation_scores_ : list of float
        R² of the held-out ratings after each iteration; empty without
        `early_stopping`.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_
        Common to all recommenders, see :ref:`shared-attributes`.

    rating_std_, n_iter_, n_features_in_, feature_names_in_, device_
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    PMFRegressor : The same model without biases.
    SVDppRegressor : The same model with prior means from who has rated what.
    BayesianMFRegressor : Posterior samples by Gibbs sampling; slower.

    Notes
    -----
    A vector consists of the factors and the bias. With ``lambda_u="auto"`` and
    ``lambda_v="auto"``, ratings and vectors are normal,

    .. math:: r_{ui} \sim N(\mu + u_u^T v_i + b_u + c_i, \tau / w_{ui}), \quad
              (u_u, b_u) \sim N(m_U, C_U), \quad (v_i, c_i) \sim N(m_V, C_V)

    where w is the weight of the rating. The posterior of the vectors is approximated by
    a product of normal distributions with full covariances, one for each user and each
    item. The prior means, the prior covariances and the noise variance tau maximize the
    evidence bound; there is no penalty to choose. The objective is the negative
    evidence bound, which never rises. The expected vectors are `user_factors_`,
    `user_biases_`, `item_factors_` and `item_biases_`. An iteration takes time
    proportional to the number of ratings times the square of the number of factors,
    plus the number of users and items times its cube.

    With penalties given as numbers and the weight w of each rating, the objective is

    .. math:: \frac{1}{2} \sum_{(u, i)} w_{ui}
              (r_{ui} - \mu - b_u - c_i - u_u^T v_i)^2
              + \frac{\lambda_U}{2} \sum_u (b_u^2 + \|u_u\|^2)
              + \frac{\lambda_V}{2}
              \sum_i \left((c_i - \bar{c})^2 + \|v_i - \bar{v}\|^2\right)

    The user biases b are `user_biases_`, and the item biases c are `item_biases_`.
    Each half step solves ridge regressions by conjugate gradients.

    With `normalize_y`, the ratings r are standardized, mu is 0, and the parameters are
    on this scale: the predicted rating is ``global_mean_ + rating_std_ * z``, where z
    is the sum of `intercept_`, the biases and the product of the factors. A penalty for
    ratings as they are, such as a paper's, has the same effect on factors if it is
    divided by the standard deviation of the ratings. With ratings, penalties and
    squared factors multiplied by s, the objective is multiplied by the square of s.

    Either way, vectors are shrunk toward the mean vector of a side, so that an item
    with few ratings is treated like an average item.

    The prior mean of a user or an item with features x is moved by ``W' (x - center)``,
    where W is `user_feature_weights_` or `item_feature_weights_`. W is solved for with
    the vectors integrated out. The entries of W have normal priors whose variances are
    estimated, one for each block of columns and each factor: features that say nothing
    get weights near 0. Items without ratings are predicted from their features, plus
    the mean difference of the user's rated items from their features' predictions:
    users choose what they rate. This correction is multiplied by the probability that
    an item without ratings is new, not one that nobody chooses, which is estimated from
    the numbers of items with few ratings.

    In `predict`, each row of a matrix is a new user described by that row alone, whose
    vector is the expected one, given the distributions of the items (a ridge regression
    with penalties given as numbers). `score` of a matrix without y predicts each rating
    from the other ratings in its row, exactly.

    References
    ----------
    .. [1] Yehuda Koren, Robert Bell and Chris Volinsky. 2009. "Matrix Factorization
       Techniques for Recommender Systems". Computer 42(8).
       https://doi.org/10.1109/MC.2009.263
    .. [2] Yew Jin Lim and Yee Whye Teh. 2007. "Variational Bayesian Approach to Movie
       Rating Prediction". KDD Cup and Workshop '07.

    Examples
    --------
    >>> from skrec import BiasedMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> R = make_ratings(n_users=300, n_items=100, random_state=0).R
    >>> model = BiasedMFRegressor(random_state=0).fit(R[:250])
    >>> round(model.score(R[250:]), 1)
    0.6
    >>> ratings, std = model.predict([[0, 1], [0, 2]], return_std=True)
    >>> [f"{r:.1f} +- {s:.1f}" for r, s in zip(ratings, std)]
    ['3.8 +- 0.6', '4.7 +- 0.6']
    """

    _divergence_remedy = DIVERGENCE_REMEDY

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        **STOPPING_CONSTRAINTS,
        **WARM_START_CONSTRAINTS,
        **FACTORIZATION_CONSTRAINTS,
        **FEATURE_CONSTRAINTS,
        "lambda_u": PENALTY_OR_AUTO,
        "lambda_v": PENALTY_OR_AUTO,
    }

    def __init__(
        self,
        *,
        n_factors: int = 20,
        lambda_u: float | Literal["auto"] = "auto",
        lambda_v: float | Literal["auto"] = "auto",
        fit_intercept: bool = True,
        normalize_y: bool = True,
        item_encoder: Any = None,
        user_encoder: Any = None,
        memory: Any = None,
        max_iter: int = 200,
        tol: float = 1e-3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        warm_start: bool = False,
        clip: bool = True,
        device: str | torch.device = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_factors = n_factors
        self.lambda_u = lambda_u
        self.lambda_v = lambda_v
        self.fit_intercept = fit_intercept
        self.normalize_y = normalize_y
        self.item_encoder = item_encoder
        self.user_encoder = user_encoder
        self.memory = memory
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.clip = clip
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_method
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        item_features: Any = None,
        user_features: Any = None,
    ) -> Self:
        """Fit the model to ratings, and to what is known of items and users.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
            User and item ids; or a matrix whose stored entries are the ratings, a
            stored 0 included.

        y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
            Ratings of the pairs. With a matrix, further ratings of it or None.

        sample_weight : array-like or sparse, default=None
            Weight of each rating's error, of shape (n_ratings,); with a matrix, sparse
            with its entries or of shape (n_users,). Ratings of weight 0 are ignored.

        item_features : DataFrame, mapping, Series, array-like, sparse or Features, \
default=None
            Features by item id: a DataFrame whose index holds the ids, with columns of
            any kind, or a mapping from id to vector. With a matrix, the ids are its
            column numbers, or an array has one row for each column. Items without
            ratings become known. For cross-validation, use
            :class:`skrec.features.Features`: scikit-learn splits other sized objects
            with as many entries as there are samples.

        user_features : DataFrame, mapping, Series, array-like, sparse or Features, \
default=None
            The same by user id. With a matrix, a table or array with one row for each
            row of X, in the same order, which scikit-learn splits with X.

        Returns
        -------
        self : BiasedMFRegressor

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is invalid; see the message.

        Warns
        -----
        ConvergenceWarning
            If the objective became infinite, or did not converge within `max_iter`
            iterations.
        """
        is_auto = penalties_are_auto(self)
        fit = Fit(self, X, y, sample_weight, None, item_features, user_features)
        if is_auto:
            return fit.run(VariationalTrainer(fit))
        refuse_features(fit)
        prior = mean_item_prior(fit, fit.training)
        return fit.run(AlternationTrainer(fit, has_biases=True, item_prior=prior))

    def _make_model(self, device):
        return (VariationalModel if self._lambda_u is None else RidgeModel)(
            self, device
        )
