"""Restricted Boltzmann machines that predict ratings."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from .._base import STOPPING_CONSTRAINTS, WARM_START_CONSTRAINTS, BaseRecommender
from .._core.training import SCHEDULES
from .._fitting import Fit, fit_method
from .._sklearn_compat import Interval, StrOptions
from .rbm_model import ItemRBM, UserRBM
from .rbm_trainer import RBMTrainer


class RBMRegressor(BaseRecommender):
    r"""Restricted Boltzmann machine that predicts ratings (RBM).

    Each user (or item) is a case [1]_. Its ratings are softmax visible units over a few
    levels; its other visible units are missing. Binary hidden units model the ratings.
    The prediction is the expected rating given the hidden units.

    By default, the levels are classes of what damped effects of users and items leave
    of the ratings. With ``baseline=False``, the levels are the rating values, as in
    [1]_. See the Notes for details.

    Parameters
    ----------
    kind : {"item", "user"}, default="item"
        Cases of the machine: items (I-RBM) or users (U-RBM, as in the paper). "item" is
        usually more accurate. "user" predicts new rows at lower cost.

    n_hidden : int, default=200
        Number F of hidden units.

    baseline : bool, default=True
        Whether to subtract damped user and item effects from the ratings, those of
        `BaselineRegressor`, and to add them to the predictions. False leaves the levels
        of users and items to the machine, which is less accurate for those with few
        ratings. With a million ratings, as in MovieLens 1M, the model of the paper
        in the Notes is more accurate.

    n_levels : int, default=3
        Number of levels with `baseline`: more levels are slower and overfit sooner.
        Ignored without `baseline`.

    alpha : float, default=24.0
        Penalty on the squared weights W (weight decay), on the scale of the
        log-likelihood summed over all ratings. Biases are not penalized. Larger values
        help where ratings say little more than the effects.

    n_gibbs : int, default=1
        Number T of Gibbs sampling steps before the negative part of the gradient is
        computed (CD-T).

    persistent : bool, default=False
        Whether each case's chain continues from its state in the last epoch (persistent
        contrastive divergence [2]_) instead of restarting from the ratings.

    batch_size : int, "auto" or None, default="auto"
        Number of cases in each step. "auto" is an eighth of the cases. None means all
        cases. Small batches are slow, since each step changes all weights.

    learning_rate : {"constant", "linear", "cosine"}, default="linear"
        Schedule of the step size of Adam: constant, or decreasing to 0 over `max_iter`
        epochs.

    learning_rate_init : float, default=0.006
        Initial step size of the optimizer.

    max_iter : int, default=20
        Maximum number of epochs. With a decreasing step size, all epochs are run unless
        `early_stopping` ends the fit.

    tol : float, default=1e-5
        Minimum relative decrease of the objective, or minimum increase of the
        validation score, that counts as an improvement.

    early_stopping : bool, default=False
        Whether to hold out ratings, to stop when their score has not improved for
        `n_iter_no_change` iterations, and to keep the best parameters.

    validation_fraction : float, default=0.1
        Fraction of the ratings that is held out with `early_stopping`.

    n_iter_no_change : int, default=10
        Number of iterations without improvement after which to stop.

    warm_start : bool, default=False
        Whether to start from the weights of the previous fit, if there is one. Visible
        units are matched by id.

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
    levels_ : ndarray of shape (n_levels,)
        Levels in ascending order: the mean residual of each class, in units of
        `rating_std_`, or the distinct rating values without `baseline`. There are fewer
        than the parameter `n_levels` if fewer residuals are distinct.

    user_effects_, item_effects_ : ndarray of shape (n_users,), (n_items,) or None
        Effects that are subtracted from the ratings, in units of `rating_std_`; None
        without `baseline`.

    hidden_probabilities_ : ndarray of shape (n_items or n_users, n_hidden)
        Probabilities p(h = 1 | v) for the side named by `kind`.

    weights_ : ndarray of shape (n_users or n_items, n_levels, n_hidden)
        Weights W of the other side, whose ratings are the visible units.

    visible_biases_ : ndarray of shape (n_users or n_items, n_levels)
        Biases b of the visible units. With `baseline`, those of all units are the
        logarithms of the relative frequencies of the levels.

    hidden_biases_ : ndarray of shape (n_hidden,)
        Biases c of the hidden units; 0 with `baseline`.

    user_factors_ : ndarray of shape (n_users, n_components)
        Factors of the users: what `transform` returns for the users in `fit`. They are
        the weights of the users, flattened level by level, with ``kind="item"``, or the
        hidden probabilities of the users with ``kind="user"``.

    loss_curve_ : list of float
        Weighted sum of -log p(v | h) in each epoch, with h drawn given v. Contrastive
        divergence does not minimize this sum, but usually decreases it.

    validation_scores_ : list of float
        R² of the held-out ratings after each iteration; empty without
        `early_stopping`.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_
        Common to all recommenders, see :ref:`shared-attributes`.

    rating_std_, n_iter_, n_features_in_, feature_names_in_, device_
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    AutoRecRegressor : Autoencoder instead of an RBM; usually more accurate.
    BaselineRegressor : The effects alone.
    BiasedMFRegressor : Matrix factorization, which needs no levels.

    Notes
    -----
    With the level k of each rated visible unit i of a case, the model is

    .. math:: p(h_f = 1 | v) = \sigma\left(c_f + \sum_i W_{i k_i f}\right), \quad
              p(v_i = k | h) \propto \exp\left(b_{ik} + \sum_f h_f W_{ikf}\right)

    The prediction is the mean of the levels under p(v | h), with h replaced by
    p(h = 1 | v). Only rated units are used. The time of an epoch is proportional to the
    number of ratings times n_levels times n_hidden. Its memory is proportional to the
    size of W plus the number of ratings times n_levels.

    With `baseline`, the ratings are standardized, and the damped effects of users and
    items are estimated as by `BaselineRegressor`. The residuals, less their mean, are
    put on `n_levels` levels, each the mean of the residuals nearest to it (Lloyd-Max
    quantization [3]_). The prediction is the sum of both effects plus the mean of the
    levels under

    .. math:: p(v_i = k | h) \propto
              \exp\left(b_k + \sum_f \left(h_f - \tfrac12\right) W_{ikf}\right)

    The effects take the place of both biases: :math:`b_k` is the logarithm of the
    relative frequency of level k, and :math:`c_f` is 0. Only W is learned. Without
    ratings, each :math:`h_f` is 1/2 and the mean of the levels is 0, so the effects
    alone are predicted. The penalty on W makes predictions of rows with few ratings
    close to that. Ratings may have any number of distinct values, and predictions are
    the same whatever the unit of the ratings. `user_means_` and `item_means_` are the
    global mean plus the effect, as in `BaselineRegressor`. Without `baseline`, ratings
    may have at most 100 distinct values.

    The defaults were chosen on validation ratings of seven data sets with 8,000 to
    810,000 training ratings. Their RMSE is 0 to 3 % below that of `BaselineRegressor`
    there, and 3 levels are more accurate than 5 or 8 on most sets. A model of the paper
    is ``baseline=False, n_hidden=500, alpha=16, batch_size=500, max_iter=40,
    learning_rate_init=0.003``.

    The optimizer is Adam, whose moments act as momentum. In the negative part of the
    gradient, and along the chain, visible units are probabilities and hidden units are
    samples; the last hidden units are probabilities too. A rating that is not a level,
    which may occur in new rows, is replaced by the nearest level.

    In `predict`, each row of a matrix is a new user described by that row alone. With
    ``kind="user"`` the hidden units of the row are computed, and `score` of a matrix
    without y predicts each rating from the other ratings in its row exactly. With
    ``kind="item"`` the weights of the row are the softmax regression of its levels on
    the hidden units of the items, shrunk toward the mean of the fitted users (W with
    the penalty `alpha`; without `baseline` also b, with 1) and solved by Newton's
    method. `score` then leaves out each rating by one Newton step from the solution
    (approximate leave-one-out). With `baseline`, the effect of the row is the sum of
    its residuals divided by their number plus the penalty. It is estimated without the
    rating that is left out, but with ``kind="item"``, the levels of the other ratings
    are those of the whole row. Each Newton step takes time cubic in n_levels times the
    number of hidden units, or times the number of ratings in the row if that is
    smaller. With ``kind="user"`` and `baseline`, `score` takes time quadratic in the
    number of ratings in a row.

    References
    ----------
    .. [1] Ruslan Salakhutdinov, Andriy Mnih and Geoffrey Hinton. 2007. "Restricted
       Boltzmann Machines for Collaborative Filtering". ICML 24.
       https://doi.org/10.1145/1273496.1273596
    .. [2] Tijmen Tieleman. 2008. "Training Restricted Boltzmann Machines using
       Approximations to the Likelihood Gradient". ICML 25.
       https://doi.org/10.1145/1390156.1390290
    .. [3] Stuart P. Lloyd. 1982. "Least Squares Quantization in PCM". IEEE Transactions
       on Information Theory 28(2). https://doi.org/10.1109/TIT.1982.1056489

    Examples
    --------
    >>> from skrec import RBMRegressor
    >>> from skrec.datasets import make_ratings
    >>> R = make_ratings(n_users=300, n_items=100, random_state=0).R
    >>> model = RBMRegressor(kind="user", n_hidden=20, random_state=0).fit(R[:250])
    >>> model.levels_.round(2)
    array([-1.18, -0.05,  0.98])
    >>> model.recommend(R[250:251], n_items=3)["item"].tolist()
    [2, 67, 78]
    """

    _divergence_remedy = "Lower learning_rate_init or alpha"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        **STOPPING_CONSTRAINTS,
        **WARM_START_CONSTRAINTS,
        "kind": [StrOptions({"item", "user"})],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "baseline": ["boolean"],
        "n_levels": [Interval(Integral, 2, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "n_gibbs": [Interval(Integral, 1, None, closed="left")],
        "persistent": ["boolean"],
        "batch_size": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    }

    levels_: np.ndarray
    hidden_probabilities_: np.ndarray
    weights_: np.ndarray
    _kind: str

    def __init__(
        self,
        *,
        kind: Literal["item", "user"] = "item",
        n_hidden: int = 200,
        baseline: bool = True,
        n_levels: int = 3,
        alpha: float = 24.0,
        n_gibbs: int = 1,
        persistent: bool = False,
        batch_size: int | Literal["auto"] | None = "auto",
        learning_rate: Literal["constant", "linear", "cosine"] = "linear",
        learning_rate_init: float = 0.006,
        max_iter: int = 20,
        tol: float = 1e-5,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        clip: bool = True,
        device: str | torch.device = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.kind = kind
        self.n_hidden = n_hidden
        self.baseline = baseline
        self.n_levels = n_levels
        self.alpha = alpha
        self.n_gibbs = n_gibbs
        self.persistent = persistent
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
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
            Weight of each rating in the gradient, of shape (n_ratings,); with a matrix,
            sparse with its entries or of shape (n_users,). The input of the hidden
            units does not depend on the weights. Ratings of weight 0 are ignored.

        Returns
        -------
        self : RBMRegressor

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is invalid; see the message.

        Warns
        -----
        ConvergenceWarning
            If the objective became infinite, or did not converge within `max_iter`
            iterations with a constant step size.
        """
        fit = Fit(self, X, y, sample_weight)
        return fit.run(RBMTrainer(fit))

    @property
    def normalize_y(self):
        """Whether effects and levels are on the scale of standardized ratings."""
        return self.baseline

    @property
    def user_factors_(self):
        """Factors of the users, as returned by `transform`."""
        if self._kind == "user":
            return self.hidden_probabilities_
        return self.weights_.reshape(len(self.weights_), -1)

    def _make_model(self, device):
        return (ItemRBM if self._kind == "item" else UserRBM)(self, device)
