"""Damped user and item effects, the baseline of every other recommender."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, cg

from .._base import BaseRecommender
from .._fitting import Fit, Trainer
from .._sklearn_compat import Interval, fit_method
from .models import RidgeModel

# Relative residual at which conjugate gradients stop
_TOLERANCE = 1e-12


class BaselineRegressor(BaseRecommender):
    r"""Damped user and item effects, the baseline of every other recommender.

    The predicted rating is the global mean plus an effect of the user and an effect of
    the item. Effects of users and items with few ratings are shrunk toward zero [1]_.

    Parameters
    ----------
    lambda_u : float, default=5.0
        Penalty on the squared effect of a user (damping, in units of ratings).

    lambda_v : float, default=5.0
        Penalty on the squared effect of an item.

    clip : bool, default=True
        Whether to keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        Device to compute on: "cpu", "cuda", "cuda:0", ...; "auto" uses a GPU if
        there is one. A fitted model falls back to the CPU if the device is missing.
        The fit always runs on the CPU.

    dtype : {"float32", "float64"}, default="float64"
        Precision of the parameters.

    random_state : int, RandomState instance or None, default=None
        Ignored, because the solution is unique. Present for API consistency.

    verbose : bool or int, default=False
        Whether to print the objective after each iteration. For progress bars set a
        callback: ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, 1)
        Factors of the users: what `transform` returns for the users in `fit`. The only
        factor is the effect of the user.

    item_factors_ : ndarray of shape (n_items, 1)
        Ones, which multiply the effects of the users.

    user_biases_ : ndarray of shape (n_users,)
        Zeros: the effects are factors.

    item_biases_ : ndarray of shape (n_items,)
        Effects of the items.

    intercept_ : float
        Global mean.

    loss_curve_ : list of float
        Objective at the solution.

    validation_scores_ : list of float
        Always empty: the estimator has no early stopping.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_
        Common to all recommenders, see :ref:`shared-attributes`.

    n_iter_, n_features_in_, feature_names_in_, device_
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    BiasedMFRegressor : The same effects, plus factors of users and items.

    Notes
    -----
    With the weight w of each rating, the effects minimize

    .. math:: \frac{1}{2} \sum_{(u, i)} w_{ui} (r_{ui} - \mu - b_u - c_i)^2
              + \frac{\lambda_U}{2} \sum_u b_u^2 + \frac{\lambda_V}{2} \sum_i c_i^2

    The effects of the users are eliminated, and the effects of the items are solved for
    by conjugate gradients to working precision. Given the other side, an effect is the
    sum of its residuals divided by their number plus the penalty.

    `user_means_` and `item_means_` are the global mean plus the effect. They are the
    predictions if only the user or only the item is known. In `predict`, each row of a
    matrix is a new user described by that row alone. `score` of a matrix without y
    predicts each rating from the other ratings in its row, exactly.

    References
    ----------
    .. [1] Yehuda Koren. 2010. "Factor in the Neighbors: Scalable and Accurate
       Collaborative Filtering". ACM Transactions on Knowledge Discovery from Data 4(1).
       https://doi.org/10.1145/1644873.1644874

    Examples
    --------
    >>> from skrec import BaselineRegressor
    >>> X = [["ann", "up"], ["ann", "alien"], ["bob", "up"], ["bob", "heat"]]
    >>> model = BaselineRegressor(lambda_u=1, lambda_v=1).fit(X, [5, 3, 4, 2])
    >>> model.predict([["ann", "heat"], ["bob", "alien"], ["eve", "up"]]).round(2)
    array([3.15, 2.75, 4.23])
    """

    _divergence_remedy = "Use larger penalties"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        "lambda_u": [Interval(Real, 0, None, closed="neither")],
        "lambda_v": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        lambda_u: float = 5.0,
        lambda_v: float = 5.0,
        clip: bool = True,
        device: str | torch.device = "auto",
        dtype: Literal["float32", "float64"] = "float64",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.lambda_u = lambda_u
        self.lambda_v = lambda_v
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
        self : BaselineRegressor

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is invalid; see the message.
        """
        fit = Fit(self, X, y, sample_weight)
        return fit.run(BaselineTrainer(fit))

    def _make_model(self, device):
        return RidgeModel(self, device)


class BaselineTrainer(Trainer):
    """Trainer that solves for the effects in a single step.

    Parameters
    ----------
    fit : Fit
        The fit of a `BaselineRegressor`.
    """

    n_epochs = 1
    may_settle = must_settle = False

    def __init__(self, fit: Fit):
        self.params, self.ratings = fit.estimator, fit.ratings
        self.mean, self.dtype = fit.known.global_mean_, fit.estimator.dtype
        n_users, n_items = fit.ratings.shape
        self.users = torch.zeros(n_users, dtype=torch.float64)
        self.items = torch.zeros(n_items, dtype=torch.float64)

    def parameters(self):
        return [self.users, self.items]

    def step(self, epoch, keep):
        lambda_u, lambda_v = self.params.lambda_u, self.params.lambda_v
        W, R = self.ratings.matrix, self.ratings.matrix
        weights = self.ratings.weights
        W.data = np.ones(W.nnz) if weights is None else weights.copy()
        R.data = (R.data - self.mean) * W.data
        # Substitute b = (R 1 - W c) / D into W'1 c + W' b + lambda_v c = R'1.
        D = W.sum(axis=1) + lambda_u
        diagonal = W.sum(axis=0) + lambda_v
        system = LinearOperator(
            (len(diagonal), len(diagonal)),
            matvec=lambda c: diagonal * c - W.T @ (W @ c / D),
            dtype=np.float64,
        )
        inverse = LinearOperator(
            system.shape, matvec=lambda x: x / diagonal, dtype=np.float64
        )
        target = R.sum(axis=0) - W.T @ (R.sum(axis=1) / D)
        items, _ = cg(system, target, rtol=_TOLERANCE, M=inverse)
        users = (R.sum(axis=1) - W @ items) / D
        self.users.copy_(torch.from_numpy(users))
        self.items.copy_(torch.from_numpy(items))
        error = self.ratings.values - self.mean - users[self.ratings.rows]
        error -= items[self.ratings.indices]
        penalty = lambda_u * users @ users + lambda_v * items @ items
        return float(W.data @ error**2 + penalty) / 2

    def attributes(self) -> dict[str, Any]:
        users = self.users.numpy().astype(self.dtype)
        items = self.items.numpy().astype(self.dtype)
        return {
            "user_factors_": users[:, np.newaxis],
            "item_factors_": np.ones((len(items), 1), self.dtype),
            "user_biases_": np.zeros_like(users),
            "item_biases_": items,
            "intercept_": self.mean,
            "user_means_": self.mean + self.users.numpy(),
            "item_means_": self.mean + self.items.numpy(),
            "_lambda_u": float(self.params.lambda_u),
            "_has_biases": False,
        }
