"""Restricted Boltzmann machines that predict ratings."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np

from .._base import STOPPING_CONSTRAINTS, WARM_START_CONSTRAINTS, BaseRecommender
from .._core.training import SCHEDULES
from .._fitting import Fit
from .._sklearn_compat import Interval, StrOptions, fit_method
from .rbm_model import ItemRBM, UserRBM
from .rbm_trainer import RBMTrainer


class RBMRegressor(BaseRecommender):
    r"""Restricted Boltzmann machine that predicts ratings (RBM).

    Each user (or item) is a case: its ratings are softmax units over the levels that
    ratings have, all other visible units are missing, and binary hidden units explain
    them [1]_. The expected rating given the hidden units is predicted.

    Parameters
    ----------
    kind : {"item", "user"}, default="item"
        Whether the cases are items (I-RBM) or users (U-RBM, as in the paper). Items are
        usually more accurate, users cheaper to predict new rows of.

    n_hidden : int, default=500
        The number F of hidden units.

    alpha : float, default=16.0
        The penalty on the squared weights W, on the scale of the log-likelihood summed
        over all ratings. Biases are not penalized.

    n_gibbs : int, default=1
        T, the steps of Gibbs sampling before the gradient's negative part is taken
        (CD-T).

    persistent : bool, default=False
        Whether each case's chain goes on from where the last epoch left it (persistent
        contrastive divergence [2]_), and not from its ratings.

    batch_size : int or None, default=500
        Cases in a step. None takes all in one step. Less, such as 100, is more accurate
        where cases are a thousand or so, as in MovieLens 100K, and slower.

    learning_rate : {"constant", "linear", "cosine"}, default="linear"
        How the step size falls, to 0 after `max_iter` epochs unless constant.

    learning_rate_init : float, default=0.003
        The first step size of Adam, whose moments are the momentum of the steps.

    max_iter : int, default=40
        The largest number of epochs.

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
        Start from the weights of the last fit, if there was one. Visible units are
        matched by id.

    clip : bool, default=True
        Whether to keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        Device to compute on: "cpu", "cuda", "cuda:0", ...; "auto" takes a GPU where
        there is one. A fitted model falls back to the CPU where the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        Precision of the parameters.

    random_state : int, RandomState instance or None, default=None
        Determines initial weights, batches, samples and held-out ratings. An int gives
        the same model in each call, bit for bit with the same number of threads.

    verbose : bool or int, default=False
        Whether to print the objective after each iteration. For progress bars set a
        callback: ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    levels_ : ndarray of shape (n_levels,)
        The different ratings, ascending.

    hidden_probabilities_ : ndarray of shape (n_items or n_users, n_hidden)
        p(h = 1 | v) for the side named by `kind`.

    weights_ : ndarray of shape (n_users or n_items, n_levels, n_hidden)
        The weights W of the other side, whose ratings are the visible units.

    visible_biases_ : ndarray of shape (n_users or n_items, n_levels)
        The biases b of that side.

    hidden_biases_ : ndarray of shape (n_hidden,)
        The biases c.

    user_factors_ : ndarray of shape (n_users, n_components)
        With ``kind="user"`` the hidden probabilities of the users, with ``kind="item"``
        their weights, flattened level by level.

    loss_curve_ : list of float
        The weighted sum of -log p(v | h) in each epoch, with h drawn given v. It is not
        what contrastive divergence minimises, but goes with it.

    validation_scores_ : list of float
        R² of the held-out ratings after each iteration; empty without
        `early_stopping`.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_ : see guide
        Common to all recommenders, see :ref:`shared-attributes`.

    n_iter_, n_features_in_, feature_names_in_, device_ : see guide
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    AutoRecRegressor : An autoencoder in place of the machine; usually more accurate.
    BiasedMFRegressor : Matrix factorization, which needs no levels.

    Notes
    -----
    With the level k of each rated visible unit i of a case,

    .. math:: p(h_f = 1 | v) = \sigma\Big(c_f + \sum_i W_{i k_i f}\Big), \quad
              p(v_i = k | h) \propto \exp\Big(b_{ik} + \sum_f h_f W_{ikf}\Big)

    and the prediction is the mean of the levels under p(v | h), with p(h = 1 | v) in
    the place of h. Only rated units take part: the time of an epoch is proportional to
    the number of ratings times that of levels times that of hidden units, its memory to
    the size of W and to the number of ratings times that of levels. In the negative
    part of the gradient, and along the chain, visible units are probabilities and
    hidden units samples, whose last ones are probabilities too. A rating that is no
    level, as may be in new rows, counts as the nearest one.

    A row of a matrix in `predict` is a user who is known by that row alone. With
    ``kind="user"`` it gets its hidden units, and `score` of a matrix without y predicts
    each rating from the others in its row exactly. With ``kind="item"`` its weights
    are the softmax regression of its levels on the hidden units of the items, drawn to
    the mean of the fitted users (W with the penalty `alpha`, b with 1), found by
    Newton's method; there each rating is left out by one Newton step from the solution
    (approximate leave-one-out). A step of either takes time cubic in n_levels times the
    number of hidden units, or times that of the row's ratings where these are fewer.

    References
    ----------
    .. [1] Ruslan Salakhutdinov, Andriy Mnih and Geoffrey Hinton. 2007. "Restricted
       Boltzmann Machines for Collaborative Filtering". ICML 24.
       https://doi.org/10.1145/1273496.1273596
    .. [2] Tijmen Tieleman. 2008. "Training Restricted Boltzmann Machines using
       Approximations to the Likelihood Gradient". ICML 25.
       https://doi.org/10.1145/1390156.1390290

    Examples
    --------
    >>> from skrec import RBMRegressor
    >>> from skrec.datasets import make_ratings
    >>> R = make_ratings(n_users=300, n_items=100, random_state=0).R
    >>> model = RBMRegressor(kind="user", n_hidden=20, random_state=0).fit(R[:250])
    >>> model.predict(R[250:]).shape
    (50, 100)
    >>> model.levels_
    array([1., 2., 3., 4., 5.])
    """

    _divergence_remedy = "Lower learning_rate_init or alpha"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        **STOPPING_CONSTRAINTS,
        **WARM_START_CONSTRAINTS,
        "kind": [StrOptions({"item", "user"})],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "n_gibbs": [Interval(Integral, 1, None, closed="left")],
        "persistent": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
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
        kind="item",
        n_hidden=500,
        alpha=16.0,
        n_gibbs=1,
        persistent=False,
        batch_size=500,
        learning_rate="linear",
        learning_rate_init=0.003,
        max_iter=40,
        tol=1e-5,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        clip=True,
        device="auto",
        dtype="float32",
        random_state=None,
        verbose=False,
    ):
        self.kind = kind
        self.n_hidden = n_hidden
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
    def fit(self, X, y=None, *, sample_weight=None):
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
            How much each rating counts in the gradient, of shape (n_ratings,); beside
            a matrix sparse with its entries, or of shape (n_users,). What the hidden
            units see of a rating does not depend on its weight, but a rating of weight
            0 is as good as absent.

        Returns
        -------
        self : RBMRegressor

        Raises
        ------
        TypeError, ValueError
            If the ratings or parameters are not what they should be; see the message.

        Warns
        -----
        ConvergenceWarning
            If the weights became infinite, or the loss had not settled in `max_iter`
            epochs of a step size that does not fall.
        """
        fit = Fit(self, X, y, sample_weight)
        return fit.run(RBMTrainer(fit))

    @property
    def user_factors_(self):
        """The factors of the users, as `transform` returns them."""
        if self._kind == "user":
            return self.hidden_probabilities_
        return self.weights_.reshape(len(self.weights_), -1)

    def _make_model(self, device):
        return (ItemRBM if self._kind == "item" else UserRBM)(self, device)
