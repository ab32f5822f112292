"""Local low-rank matrix approximation."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from .._base import STOPPING_CONSTRAINTS, BaseRecommender
from .._fitting import Fit
from .._sklearn_compat import Interval, fit_method
from .alternation import DIVERGENCE_REMEDY, FACTORIZATION_CONSTRAINTS
from .llorma_model import LLORMAModel
from .llorma_trainer import LLORMATrainer


class LLORMARegressor(BaseRecommender):
    r"""Local low-rank matrix approximation (LLORMA).

    The ratings near each of some anchors, which are pairs of a user and an item, get a
    matrix factorization with biases of their own; a rating is predicted as the mean of
    these local models, weighted by how near its user and item are [1]_.

    Parameters
    ----------
    n_models : int, default=50
        The number q of anchors and of local models.

    n_factors : int, default=15
        The number of factors k of each model, and of the preliminary one.

    lambda_u : float, default=40.0
        The penalty on the squared length of a user's vector in the preliminary model,
        on the scale of half the sum of squared errors.

    lambda_v : float, default=5.0
        The same for the distance of an item's vector from the mean item.

    local_penalty : float, default=0.2
        What the penalties of the local models are, as a part of the former. Their
        ratings count less than 1 each, and errors of single models average out.

    bandwidth : float, default=2.0
        h, the angle in radians beyond which nothing is near an anchor.

    fit_intercept : bool, default=True
        Whether to subtract the global mean from the ratings.

    max_iter : int, default=50
        The largest number of iterations for each model.

    tol : float, default=1e-3
        The decrease of a model's objective, as a part of it, that counts as an
        improvement of that model; and the increase of the validation score that counts
        as one of all.

    early_stopping : bool, default=False
        Hold out ratings, stop when their score has not improved for
        `n_iter_no_change` local models, and keep the best number of them.

    validation_fraction : float, default=0.1
        Fraction of the ratings that is held out with `early_stopping`.

    n_iter_no_change : int, default=2
        Iterations without improvement after which a model is finished, and models
        without improvement after which to stop.

    clip : bool, default=True
        Whether to keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        Device to compute on: "cpu", "cuda", "cuda:0", ...; "auto" takes a GPU where
        there is one. A fitted model falls back to the CPU where the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        Precision of the parameters.

    random_state : int, RandomState instance or None, default=None
        Determines anchors, initial factors and held-out ratings. An int gives the same
        model in each call, bit for bit with the same number of threads.

    verbose : bool or int, default=False
        Whether to print the objective after each iteration. For progress bars set a
        callback: ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    anchor_users_, anchor_items_ : ndarray of shape (n_models,)
        The ids of the anchors.

    user_factors_, item_factors_ : ndarray of shape (n_users or n_items, n_factors)
        The factors of the preliminary model, whose angles are the distances.

    user_biases_, item_biases_ : ndarray of shape (n_users,) and (n_items,)
        Its biases.

    local_user_factors_ : ndarray of shape (n_models, n_users, n_factors + 1)
        The users' vectors in the local models, each a bias behind its factors.

    local_item_factors_ : ndarray of shape (n_models, n_items, n_factors + 1)
        The same of the items.

    user_kernels_, item_kernels_ : ndarray of shape (n_models, n_users or n_items)
        How near each is to the anchors, from 0 to 1. Zeros for a model that was not
        fitted because the training ended before.

    intercept_ : float
        The global mean, or 0 without `fit_intercept`.

    loss_curve_ : list of float
        Objective after each iteration.

    validation_scores_ : list of float
        R² of the held-out ratings after each iteration; empty without
        `early_stopping`.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_ : see guide
        Common to all recommenders, see :ref:`shared-attributes`.

    n_iter_, n_features_in_, feature_names_in_, device_ : see guide
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    BiasedMFRegressor : One model for all ratings; the preliminary one here.

    Notes
    -----
    With the kernel of a user (and of an item likewise) near anchor t

    .. math:: K_t(u) = \max\left(0, 1 - \frac{1}{h^2}
              \arccos^2 \frac{x_u^T x_{u_t}}{\|x_u\| \|x_{u_t}\|}\right)

    of the factors x of the preliminary model, local model t minimises

    .. math:: \frac{1}{2} \sum_{(u, i)} K_t(u) K_t(i) w_{ui}
              (r_{ui} - \mu - b_u - c_i - u_u^T v_i)^2
              + \frac{\lambda_U}{2} \sum_u K_t(u) (b_u^2 + \|u_u\|^2)
              + \frac{\lambda_V}{2} \sum_i K_t(i)
              \left((c_i - \bar{c})^2 + \|v_i - \bar{v}\|^2\right)

    by the alternation of `BiasedMFRegressor`, from random factors and the preliminary
    model's biases on; its vectors are its own, w is the weight of each rating, and the
    penalties are scaled by `local_penalty`. The mean by
    K_t(u) K_t(i) of what the models predict is the prediction, and where no model has
    a weight it is the preliminary model's. The paper has no biases, and its penalties
    do not depend on the kernels; that they do keeps a user's vector apart from how near
    that user is. Each epoch of a callback is one model.

    A row of a matrix in `predict` is a user who is known by that row alone: the
    preliminary ridge regression gives its kernels, weighted ones its local vectors.
    `score` of a matrix without y predicts each rating from the others in its row,
    exactly, kernels included.

    References
    ----------
    .. [1] Joonseok Lee, Seungyeon Kim, Guy Lebanon and Yoram Singer. 2013. "Local
       Low-Rank Matrix Approximation". ICML 30, PMLR 28(2).
       https://proceedings.mlr.press/v28/lee13.html

    Examples
    --------
    >>> from skrec import LLORMARegressor
    >>> from skrec.datasets import make_ratings
    >>> R = make_ratings(n_users=300, n_items=100, random_state=0).R
    >>> model = LLORMARegressor(n_models=5, n_factors=3, random_state=0).fit(R[:250])
    >>> model.predict(R[250:]).shape
    (50, 100)
    >>> model.user_kernels_.shape
    (5, 250)
    """

    _divergence_remedy = DIVERGENCE_REMEDY

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        **STOPPING_CONSTRAINTS,
        **FACTORIZATION_CONSTRAINTS,
        "n_models": [Interval(Integral, 1, None, closed="left")],
        "local_penalty": [Interval(Real, 0, None, closed="neither")],
        "bandwidth": [Interval(Real, 0, None, closed="neither")],
        "lambda_u": [Interval(Real, 0, None, closed="neither")],
        "lambda_v": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        n_models: int = 50,
        n_factors: int = 15,
        lambda_u: float = 40.0,
        lambda_v: float = 5.0,
        local_penalty: float = 0.2,
        bandwidth: float = 2.0,
        fit_intercept: bool = True,
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
        self.local_penalty = local_penalty
        self.bandwidth = bandwidth
        self.fit_intercept = fit_intercept
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
            If the ratings or parameters are not what they should be; see the message.

        Warns
        -----
        ConvergenceWarning
            If the errors became infinite.
        """
        fit = Fit(self, X, y, sample_weight)
        return fit.run(LLORMATrainer(fit))

    def _make_model(self, device):
        return LLORMAModel(self, device)
