"""Damped user and item effects, the baseline of every other recommender."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, cg

from .._base import BaseRecommender
from .._core.collectives import ALONE, Group, Layout
from .._data.ratings import Ratings, average, chunks, take_in_chunks
from .._fitting import Fit, Trainer, fit_method
from .._prediction import Contribution
from .._sklearn_compat import Interval, StrOptions
from .models import RidgeModel

# Relative residual at which conjugate gradients stop
_TOLERANCE = 1e-12
# Estimation of the penalties: their range, iterations, and the relative change that
# stops it
_PENALTIES = 1e-2, 1e6
_MAX_ESTIMATES, _SETTLED = 200, 1e-3


class BaselineRegressor(BaseRecommender):
    r"""Damped user and item effects, the baseline of every other recommender.

    The predicted rating is the global mean plus an effect of the user and an effect of
    the item. Effects of users and items with few ratings are shrunk toward zero [1]_.

    Parameters
    ----------
    lambda_u : float or "auto", default="auto"
        Penalty on the squared effect of a user (damping, in units of ratings). "auto"
        estimates it from the ratings.

    lambda_v : float or "auto", default="auto"
        Penalty on the squared effect of an item. "auto" estimates it from the ratings.

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
        True or 1: print about ten lines with the iteration, the objective, the
        validation RMSE (with `early_stopping`) and the seconds. 2: print a line for
        each iteration. With both, predictions, recommendations and searches for
        neighbors that take longer than 5 seconds print their progress. For progress
        bars set a callback:
        ``set_callbacks(sklearn.callback.ProgressBar())``.

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

    lambda_u_, lambda_v_ : float
        Penalties that were used.

    loss_curve_ : list of float
        Objective at the solution.

    validation_scores_ : list of float
        Always empty: the estimator has no early stopping.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_
        Common to all recommenders, see :ref:`shared-attributes`.

    rating_std_, n_iter_, n_features_in_, feature_names_in_, device_
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

    The penalties "auto" are the variance of the noise divided by the variance of the
    effects of users or items [2]_. The variances are estimated by EM, with posteriors
    of the effects that are independent of each other. The penalties do not depend on
    the unit of the ratings.

    `user_means_` and `item_means_` are the global mean plus the effect. They are the
    predictions if only the user or only the item is known. In `predict`, each row of a
    matrix is a new user described by that row alone. `score` of a matrix without y
    predicts each rating from the other ratings in its row, exactly.

    References
    ----------
    .. [1] Yehuda Koren. 2010. "Factor in the Neighbors: Scalable and Accurate
       Collaborative Filtering". ACM Transactions on Knowledge Discovery from Data 4(1).
       https://doi.org/10.1145/1644873.1644874
    .. [2] Shayle R. Searle, George Casella and Charles E. McCulloch. 1992. "Variance
       Components". Wiley. https://doi.org/10.1002/9780470316856

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
        "lambda_u": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "lambda_v": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        *,
        lambda_u: float | Literal["auto"] = "auto",
        lambda_v: float | Literal["auto"] = "auto",
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
        return BaselineModel(self, device)


class BaselineModel(RidgeModel):
    """Ridge model with one factor, the effect of the user."""

    def factors(self, side):
        raise ValueError(
            "BaselineRegressor knows no factors that users or items could share: use "
            "another recommender."
        )

    def contributions(self, case, by):
        return [
            Contribution("mean", "", self.fitted.intercept_),
            Contribution("user bias", "", float(case.state.factors[0, 0])),
            Contribution("item bias", "", float(self.fitted.item_biases_[case.item])),
        ]


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
        self.ratings, self.group = fit.ratings, fit.group
        self.mean, self.dtype = fit.mean, fit.estimator.dtype
        n_users, n_items = fit.ratings.shape
        self.users = torch.zeros(n_users, dtype=torch.float64)
        self.items = torch.zeros(n_items, dtype=torch.float64)
        self.penalties = self._penalties(fit.estimator)

    def parameters(self):
        return [self.users, self.items]

    def step(self, epoch, keep):
        lambda_u, lambda_v = self.penalties
        users, items = solve_effects(
            self.ratings, self.mean, lambda_u, lambda_v, self.group
        )
        self.users.copy_(torch.from_numpy(users))
        self.items.copy_(torch.from_numpy(items))
        error, weights = self.ratings.values, self.ratings.weights
        error -= self.mean
        error -= np.repeat(users, np.diff(self.ratings.indptr))
        error -= take_in_chunks(items, self.ratings.indices)
        error *= error
        squares = (np.ones(len(error)) if weights is None else weights) @ error
        total = self.group.total(squares + lambda_u * users @ users)
        return float(total + lambda_v * items @ items) / 2

    def attributes(self) -> dict[str, Any]:
        lambda_u, lambda_v = self.penalties
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
            "lambda_u_": float(lambda_u),
            "lambda_v_": float(lambda_v),
            "_lambda_u": float(lambda_u),
            "_has_biases": False,
        }

    def _penalties(self, params: Any) -> tuple[float, float]:
        """Return the given or estimated penalties."""
        lambda_u, lambda_v = params.lambda_u, params.lambda_v
        if "auto" in (lambda_u, lambda_v):
            estimates = estimate_penalties(self.ratings, self.mean, self.group)
            lambda_u = estimates[0] if lambda_u == "auto" else lambda_u
            lambda_v = estimates[1] if lambda_v == "auto" else lambda_v
        return lambda_u, lambda_v


def solve_effects(
    ratings: Ratings,
    mean: float,
    lambda_u: float,
    lambda_v: float,
    group: Group = ALONE,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve for the damped effects of users and items.

    Parameters
    ----------
    ratings : Ratings
        Ratings.

    mean : float
        Mean of the ratings.

    lambda_u, lambda_v : float
        Penalties on the squared effects of users and of items.

    group : Group
        Ranks that have the users.

    Returns
    -------
    users, items : ndarray of shape (n_users,) and (n_items,)
        Effects.
    """
    W, weights = ratings.matrix, ratings.weights
    W.data -= mean
    if weights is not None:
        W.data *= weights
    sums = W.sum(axis=1), W.sum(axis=0)  # of the weighted ratings
    W.data[:] = 1.0 if weights is None else weights
    # Substitute b = (R 1 - W c) / D into W'1 c + W' b + lambda_v c = R'1.
    D = W.sum(axis=1) + lambda_u
    diagonal = group.total(W.sum(axis=0)) + lambda_v
    n = len(diagonal)
    inverse = LinearOperator((n, n), matvec=lambda x: x / diagonal, dtype=np.float64)
    target = group.total(sums[1] - W.T @ (sums[0] / D))

    def times(c):
        return diagonal * c - group.total(W.T @ (W @ c / D))

    def solve(times):
        system = LinearOperator((n, n), matvec=times, dtype=np.float64)
        return cg(system, target, rtol=_TOLERANCE, M=inverse)[0]

    items = group.lead(times, solve, n)
    return (sums[0] - W @ items) / D, items


def estimate_penalties(
    ratings: Ratings, mean: float, group: Group = ALONE
) -> tuple[float, float]:
    """Estimate the penalties of users and items as ratios of variances.

    The ratings are ``mean + b_u + c_i + noise``, where b, c and the noise are normal
    with unknown variances. The posterior of each effect has a mean and a variance; the
    EM algorithm estimates the three variances from them.

    Parameters
    ----------
    ratings : Ratings
        Ratings, with at least one.

    mean : float
        Mean of the ratings.

    group : Group
        Ranks that have the users.

    Returns
    -------
    lambda_u, lambda_v : float
        Variance of the noise divided by that of the effects of users and of items.
    """
    residuals, weights = ratings.values, ratings.weights
    residuals -= mean
    layouts = Layout(rows=group), Layout(entries=group)
    noise = average(residuals**2, weights, group.total)
    if noise == 0:
        return 1.0, 1.0  # All ratings are equal, and all effects are 0.
    places, n_ratings = (ratings.rows, ratings.indices), ratings.n_ratings
    counts = [
        layout.entries.total(np.bincount(p, weights, n))
        for p, n, layout in zip(places, ratings.shape, layouts, strict=True)
    ]
    n_all = group.total(n_ratings)
    variances = [0.2 * noise, 0.2 * noise]
    means = [np.zeros(n) for n in ratings.shape]
    spreads = [np.zeros(n) for n in ratings.shape]
    for _ in range(_MAX_ESTIMATES):
        before = np.log([noise, *variances])
        for side, other in (0, 1), (1, 0):
            sums = np.zeros(ratings.shape[side])
            for part in chunks(n_ratings):
                target = residuals[part] - means[other][places[other][part]]
                if weights is not None:
                    target *= weights[part]
                sums += np.bincount(places[side][part], target, len(sums))
            spreads[side] = 1 / (counts[side] / noise + 1 / variances[side])
            sums = layouts[side].entries.total(sums)
            means[side] = spreads[side] * sums / noise
            squares = (means[side] ** 2 + spreads[side])[counts[side] > 0]
            over_rows = layouts[side].rows.total
            variances[side] = float(over_rows(squares.sum()) / over_rows(len(squares)))
        total = 0.0
        for part in chunks(n_ratings):
            rows, columns = (place[part] for place in places)
            errors = residuals[part] - means[0][rows] - means[1][columns]
            squares = errors**2 + spreads[0][rows] + spreads[1][columns]
            own = np.ones(len(squares)) if weights is None else weights[part]
            total += float(own @ squares)
        noise = group.total(total) / n_all
        change = np.abs(np.log([noise, *variances]) - before).max()
        if group.first(bool(change < _SETTLED)):
            break
    lambda_u, lambda_v = np.clip(noise / np.array(variances), *_PENALTIES)
    return float(lambda_u), float(lambda_v)
