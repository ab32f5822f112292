"""Local low-rank matrix approximation."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from .._base import STOPPING_CONSTRAINTS, BaseRecommender
from .._fitting import Fit, fit_method
from .._sklearn_compat import Interval, StrOptions
from .alternation import (
    DIVERGENCE_REMEDY,
    FACTORIZATION_CONSTRAINTS,
    penalties_are_auto,
)
from .llorma_model import LLORMAModel
from .llorma_trainer import LeastSquares, LLORMATrainer, VariationalBayes

_POSITIVE_OR_AUTO = [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})]


class LLORMARegressor(BaseRecommender):
    r"""Local low-rank matrix approximation, by variational Bayes or least squares.

    LLORMA chooses anchors, which are user-item pairs, at random from the ratings. The
    ratings near each anchor are fitted by a local model: a matrix factorization with
    biases. The predicted rating is the mean of the local models, weighted by the
    proximity of user and item to the anchors [1]_. By default all penalties are
    estimated from the ratings by variational Bayes [2]_.

    Parameters
    ----------
    n_models : int, default=50
        Number q of anchors, which is the number of local models.

    n_factors : int, default=10
        Number of latent factors k, in each local model and in the preliminary model.

    lambda_u : float or "auto", default="auto"
        Penalty on the squared norm of a user's vector in the preliminary model, on the
        scale of half the sum of squared errors of the standardized ratings (see Notes).
        "auto" estimates the priors of the vectors, separately in each model, and needs
        ``lambda_v="auto"``.

    lambda_v : float or "auto", default="auto"
        Penalty on the squared distance of an item's vector from the mean item, on the
        same scale. "auto" needs ``lambda_u="auto"``.

    local_penalty_scale : float, default=0.2
        Factor that scales `lambda_u` and `lambda_v` for the local models. In a local
        model each rating has a weight below 1, and the errors of single models average
        out. Ignored with estimated penalties.

    bandwidth : float, default=2.0
        Kernel bandwidth h: the angle in radians at which the kernel becomes 0.

    fit_intercept : bool, default=True
        Whether to subtract the global mean from the ratings. Ignored with
        `normalize_y`, which subtracts it.

    normalize_y : bool, default=True
        Whether to standardize the ratings inside the fit. Predictions are then the same
        whatever the unit of the ratings. False uses the ratings as they are, as the
        papers do.

    max_iter : int, default=50
        Maximum number of iterations in each model.

    tol : float, default=1e-3
        Minimum relative decrease of the objective of a model, or minimum increase of
        the validation score of all models, that counts as an improvement.

    early_stopping : bool, default=False
        Whether to hold out ratings, to stop when their score has not improved for
        `n_iter_no_change` local models, and to keep the best number of local models.

    validation_fraction : float, default=0.1
        Fraction of the ratings that is held out with `early_stopping`.

    n_iter_no_change : int, default=2
        Number of iterations without improvement after which to finish a model, and
        number of models without improvement after which to stop.

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
    anchor_users_, anchor_items_ : ndarray of shape (n_models,)
        User and item ids of the anchors.

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

    local_user_factors_ : ndarray of shape (n_models, n_users, n_factors + 1)
        Vectors of the users in the local models: factors followed by the bias.

    local_item_factors_ : ndarray of shape (n_models, n_items, n_factors + 1)
        Vectors of the items in the local models: factors followed by the bias.

    user_kernels_, item_kernels_ : ndarray of shape (n_models, n_users or n_items)
        Kernels between users or items and the anchors, from 0 (far) to 1 (near). Zeros
        for a model that was not fitted because training ended early.

    intercept_ : float
        Global mean; 0 with `normalize_y` or without `fit_intercept`.

    noise_variance_ : float
        Variance of a rating around its prediction; only with estimated penalties.

    user_prior_mean_, item_prior_mean_ : ndarray of shape (n_kept + 1,)
        Prior means of the vectors; only with estimated penalties.

    user_prior_covariance_, item_prior_covariance_ : ndarray
        Prior covariances of the vectors, of shape (n_kept + 1, n_kept + 1); only with
        estimated penalties.

    local_noise_variances_ : ndarray of shape (n_models,)
        Variances of a rating of weight 1 in the local models; only with estimated
        penalties.

    local_user_prior_means_ : ndarray of shape (n_models, n_factors + 1)
        Prior means of the users in the local models; only with estimated penalties.

    local_user_prior_covariances_ : ndarray
        Prior covariances of the users in the local models, of shape (n_models,
        n_factors + 1, n_factors + 1); only with estimated penalties.

    loss_curve_ : list of float
        Half the weighted sum of squared errors after each model, beginning with the
        preliminary one.

    validation_scores_ : list of float
        R² of the held-out ratings after each model; empty without `early_stopping`.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_
        Common to all recommenders, see :ref:`shared-attributes`.

    rating_std_, n_iter_, n_features_in_, feature_names_in_, device_
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    BiasedMFRegressor : One model for all ratings, used here as preliminary model.

    Notes
    -----
    A preliminary `BiasedMFRegressor` is fitted first. `user_factors_`, `item_factors_`,
    the biases, the priors and `noise_variance_` belong to it. Distances to the anchors
    are angles between its factors x: the kernel between a user (or, likewise, an item)
    and anchor t is

    .. math:: K_t(u) = \max\left(0, 1 - \frac{1}{h^2}
              \arccos^2 \frac{x_u^T x_{u_t}}{\|x_u\| \|x_{u_t}\|}\right)

    With ``lambda_u="auto"`` and ``lambda_v="auto"``, local model t is the variational
    factorization of `BiasedMFRegressor` with the weights K_t(u) K_t(i) w, where w is
    the weight of each rating. Each local model starts from random vectors and has its
    own vectors, priors and noise variance. The prediction is the mean of the local
    predictions, weighted by K_t(u) K_t(i), and of the preliminary prediction, with
    weight 4. The covariances of the items are kept for new users, which takes
    (k + 1) (k + 2) / 2 numbers for each item and model: with 3,700 items and the
    defaults, 49 MB.

    With penalties given as numbers, local model t minimizes

    .. math:: \frac{1}{2} \sum_{(u, i)} K_t(u) K_t(i) w_{ui}
              (r_{ui} - \mu - b_u - c_i - u_u^T v_i)^2
              + \frac{\lambda_U}{2} \sum_u K_t(u) (b_u^2 + \|u_u\|^2)
              + \frac{\lambda_V}{2} \sum_i K_t(i)
              \left((c_i - \bar{c})^2 + \|v_i - \bar{v}\|^2\right)

    by the alternation of `BiasedMFRegressor`. The initial factors are random, and the
    initial biases are those of the preliminary model. The penalties are scaled by
    `local_penalty_scale`. The preliminary prediction has weight 0: it is used where all
    products of kernels are 0.

    With `normalize_y`, the ratings r are standardized, mu is 0, and the parameters are
    on this scale: the predicted rating is ``global_mean_ + rating_std_ * z``, where z
    is the mean of the predictions. A penalty for ratings as they are, such as a
    paper's, has the same effect on factors if it is divided by the standard deviation
    of the ratings. With ratings, penalties and squared factors multiplied by s, the
    objective is multiplied by the square of s.

    Unlike here, the paper has no biases, and its penalties do not depend on the
    kernels. With numbers, the dependence makes a user's vector independent of the
    user's own proximity to the anchor. Each epoch of a callback is one model, and
    `n_iter_` is the number of fitted models, including the preliminary one.

    In `predict`, each row of a matrix is a new user described by that row alone. The
    expected vector in the preliminary model gives the kernels, and then the local
    vectors are the expected ones, given the weights of the ratings (ridge regressions
    with penalties given as numbers). `score` of a matrix without y predicts each
    rating from the other ratings in its row, exactly, including the kernels.

    References
    ----------
    .. [1] Joonseok Lee, Seungyeon Kim, Guy Lebanon and Yoram Singer. 2013. "Local
       Low-Rank Matrix Approximation". ICML 30, PMLR 28(2).
       https://proceedings.mlr.press/v28/lee13.html
    .. [2] Yew Jin Lim and Yee Whye Teh. 2007. "Variational Bayesian Approach to Movie
       Rating Prediction". KDD Cup and Workshop '07.

    Examples
    --------
    >>> from skrec import LLORMARegressor
    >>> from skrec.datasets import make_ratings
    >>> R = make_ratings(n_users=300, n_items=100, random_state=0).R
    >>> model = LLORMARegressor(n_models=10, n_factors=5, random_state=0).fit(R[:250])
    >>> round(model.score(R[250:]), 1)
    0.5
    >>> model.anchor_items_[:5]
    array([52, 62, 29,  1,  8])
    """

    _divergence_remedy = DIVERGENCE_REMEDY

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        **STOPPING_CONSTRAINTS,
        **FACTORIZATION_CONSTRAINTS,
        "n_models": [Interval(Integral, 1, None, closed="left")],
        "local_penalty_scale": [Interval(Real, 0, None, closed="neither")],
        "bandwidth": [Interval(Real, 0, None, closed="neither")],
        "lambda_u": _POSITIVE_OR_AUTO,
        "lambda_v": _POSITIVE_OR_AUTO,
    }

    def __init__(
        self,
        *,
        n_models: int = 50,
        n_factors: int = 10,
        lambda_u: float | Literal["auto"] = "auto",
        lambda_v: float | Literal["auto"] = "auto",
        local_penalty_scale: float = 0.2,
        bandwidth: float = 2.0,
        fit_intercept: bool = True,
        normalize_y: bool = True,
        max_iter: int = 50,
        tol: float = 1e-3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        clip: bool = True,
        device: str | torch.device = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_models = n_models
        self.n_factors = n_factors
        self.lambda_u = lambda_u
        self.lambda_v = lambda_v
        self.local_penalty_scale = local_penalty_scale
        self.bandwidth = bandwidth
        self.fit_intercept = fit_intercept
        self.normalize_y = normalize_y
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
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
        self : LLORMARegressor

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is invalid; see the message.

        Warns
        -----
        ConvergenceWarning
            If the objective became infinite.
        """
        solver = VariationalBayes if penalties_are_auto(self) else LeastSquares
        fit = Fit(self, X, y, sample_weight)
        return fit.run(LLORMATrainer(fit, solver))

    def _make_model(self, device):
        return LLORMAModel(self, device)
