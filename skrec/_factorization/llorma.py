"""Local low-rank matrix approximation."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from torch import Tensor

from .._base import EpochReports
from .._core.device import (
    as_tensor,
    inference_device,
    make_generator,
    resolve_device,
)
from .._core.normal_rows import condition, with_ones
from .._core.ridge import positive_penalty, solve_rows
from .._core.sparse import Pattern, sddmm
from .._core.training import Stopping, iterate
from .alternation import (
    INITIAL_STD,
    Alternation,
    BaseFactorization,
    products,
)

# Predictions that are held at once for all items.
_DENSE_CHUNK = 2**22
# The weight of a rating whose item is not near, which no solution notices.
_NOT_NEAR = 1e-12


class _Local(NamedTuple):
    """Local models, as far as they have been fitted.

    Attributes
    ----------
    users, items : Tensor of shape (n_models, n_users or n_items, k + 1)
        The vectors, each a bias behind its factors.

    user_kernels, item_kernels : Tensor of shape (n_models, n_users or n_items)
        How near each is to the anchor; 0 is not near at all.
    """

    users: Tensor
    items: Tensor
    user_kernels: Tensor
    item_kernels: Tensor

    def blend(self, pattern: Pattern, fallback: Tensor) -> Tensor:
        """Predictions at the entries of a pattern, less the intercept."""
        total, weight = torch.zeros_like(fallback), torch.zeros_like(fallback)
        for t in range(len(self.users)):
            self.add(t, pattern, total, weight)
        return _average(total, weight, fallback)

    def add(self, t: int, pattern: Pattern, total: Tensor, weight: Tensor) -> None:
        """Add what model t predicts, and its weights, to what others did."""
        near = self.weights(t, pattern)
        total.addcmul_(near, products(pattern, self.users[t], self.items[t], True))
        weight.add_(near)

    def weights(self, t: int, pattern: Pattern) -> Tensor:
        """The product of the kernels of user and item at each entry."""
        return self.user_kernels[t][pattern.row] * self.item_kernels[t][pattern.col]


class LLORMARegressor(BaseFactorization):
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
        The part of the ratings that is held out.

    n_iter_no_change : int, default=2
        Iterations without improvement after which a model is finished, and models
        without improvement after which to stop.

    clip : bool, default=True
        Keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        "cpu", "cuda", "cuda:0", ...; "auto" takes a GPU where there is one. A fitted
        model falls back to the CPU where the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        The precision of the factors.

    random_state : int, RandomState instance or None, default=None
        Determines anchors, initial factors and held-out ratings. An int gives the same
        model in each call, bit for bit with the same number of threads.

    verbose : bool or int, default=False
        Print the loss after each model. For progress bars set a callback:
        ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    users_ : ndarray of shape (n_users,)
        The ids of the users, ascending; row numbers after a fit on a matrix.

    items_ : ndarray of shape (n_items,)
        The ids of the items, ascending; column numbers after a fit on a matrix.

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

    user_means_, item_means_ : ndarray of shape (n_users,) and (n_items,)
        Mean ratings, drawn to the global mean as by 5 ratings more.

    global_mean_ : float
        The mean rating.

    rating_range_ : tuple of (float, float)
        The lowest and the highest training rating.

    loss_curve_ : list of float
        Half the weighted sum of squared errors of the preliminary model, then after
        each local model.

    validation_scores_ : list of float
        R² of the held-out ratings at the same times; empty without `early_stopping`.

    n_iter_ : int
        Models fitted, the preliminary one included.

    n_features_in_ : int
        2 for pairs, the number of items for a matrix.

    feature_names_in_ : ndarray of shape (2,)
        Names of the columns, if X was a DataFrame with string names.

    device_ : str
        Where the model was fitted.

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

    # Each local model is fitted to its end before the next one is begun.
    warm_start = False

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseFactorization._parameter_constraints,
        "n_models": [Interval(Integral, 1, None, closed="left")],
        "local_penalty": [Interval(Real, 0, None, closed="neither")],
        "bandwidth": [Interval(Real, 0, None, closed="neither")],
        "lambda_u": [Interval(Real, 0, None, closed="neither")],
        "lambda_v": [Interval(Real, 0, None, closed="neither")],
    }
    _parameter_constraints.pop("warm_start")

    local_user_factors_: np.ndarray
    local_item_factors_: np.ndarray
    user_kernels_: np.ndarray
    item_kernels_: np.ndarray
    _anchor_factors: np.ndarray
    _bandwidth: float
    _local_lambda_u: float

    def __init__(
        self,
        *,
        n_models=50,
        n_factors=15,
        lambda_u=40.0,
        lambda_v=5.0,
        local_penalty=0.2,
        bandwidth=2.0,
        fit_intercept=True,
        max_iter=50,
        tol=1e-3,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=2,
        clip=True,
        device="auto",
        dtype="float32",
        random_state=None,
        verbose=False,
    ):
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

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sample_weight=None):
        """Fit the model to ratings.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
            User and item ids; or a matrix whose stored entries are the ratings, a
            stored 0 included.

        y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
            The ratings of the pairs. Beside a matrix, further ratings or None.

        sample_weight : array-like or sparse, default=None
            The weight of each rating's error, of shape (n_ratings,); beside a matrix
            sparse with its entries, or of shape (n_users,). A rating of weight 0 is as
            good as absent.

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
        device = resolve_device(self.device)
        ratings, _, known = self._check_fit(X, y, sample_weight)
        random_state = check_random_state(self.random_state)
        training, held_out = self._hold_out(ratings, random_state)
        known["_lambda_u"], known["_bandwidth"] = float(self.lambda_u), self.bandwidth
        known["_local_lambda_u"] = self.local_penalty * self.lambda_u
        known["_biased"] = True
        known["intercept_"] = known["global_mean_"] if self.fit_intercept else 0.0
        anchors = self._draw_anchors(training, random_state)
        fitting = _Fitting(self, training, held_out, known, random_state, device)

        def fitted():
            return known | self._describe_all(fitting, anchors, ratings)

        metadata = {"sample_weight": sample_weight}
        n_epochs = 1 + self.n_models
        reports = EpochReports(self, X, y, metadata, fitted, n_epochs)
        history = iterate(
            lambda epoch, keep: fitting.step(epoch, keep, anchors),
            fitting.parameters(),
            Stopping(n_epochs, self.tol, self.n_iter_no_change),
            validate=None if held_out is None else fitting.validate,
            begin_epoch=reports.begin_epoch,
            end_epoch=reports.end_epoch,
            may_settle=False,
        )
        state = fitted() | {"device_": str(device)}
        self._conclude(state, history, reports, settles=False, stacklevel=5)
        return self

    def _has_biases(self):
        return True

    def _draw_anchors(self, ratings, random_state):
        """Positions of the users and items of ratings drawn, of shape (n_models, 2)."""
        replace = self.n_models > ratings.n_ratings
        drawn = random_state.choice(ratings.n_ratings, self.n_models, replace=replace)
        return np.column_stack([ratings.rows[drawn], ratings.indices[drawn]])

    def _describe_all(self, fitting, anchors, ratings):
        """The fitted attributes that the present vectors amount to."""
        users, items, user_kernels, item_kernels = (
            tensor.cpu().numpy().copy() for tensor in fitting.local
        )
        described = self._describe(fitting.preliminary, {})
        return described | {
            "anchor_users_": ratings.users[anchors[:, 0]],
            "anchor_items_": ratings.items[anchors[:, 1]],
            "local_user_factors_": users,
            "local_item_factors_": items,
            "user_kernels_": user_kernels,
            "item_kernels_": item_kernels,
            "_anchor_factors": described["user_factors_"][anchors[:, 0]],
        }

    def _users_of_fit(self, positions):
        users = super()._users_of_fit(positions)
        is_seen = positions[:, np.newaxis] >= 0
        kernels = np.where(is_seen, self.user_kernels_.T[positions], 0)
        local = self.local_user_factors_.transpose(1, 0, 2)[positions]
        return users._replace(factors=_packed(users.factors, kernels, local))

    def _local(self, users) -> tuple[_Local, Tensor]:
        """The local models for some users, and their preliminary vectors."""
        device = inference_device(self.device)
        n_models, _, size = self.local_user_factors_.shape
        packed = as_tensor(users.factors, device=device)
        factors, kernels, local = packed.split(
            [size - 1, n_models, n_models * size], dim=1
        )
        items = as_tensor(self.local_item_factors_, device=device)
        local = local.view(-1, n_models, size).transpose(0, 1).contiguous()
        item_kernels = as_tensor(self.item_kernels_, device=device)
        bias = as_tensor(users.biases, device=device).unsqueeze(1)
        vectors = torch.cat([factors, bias], 1)
        return _Local(local, items, kernels.T.contiguous(), item_kernels), vectors

    def _item_vectors(self, device):
        """Those of the preliminary model."""
        vectors = np.column_stack([self.item_factors_, self.item_biases_])
        return as_tensor(vectors, device=device)

    def _evaluate(self, users, row, item):
        local, vectors = self._local(users)
        device = vectors.device
        crow = np.searchsorted(row, np.arange(len(vectors) + 1))
        shape = len(vectors), len(self.items_)
        pattern = Pattern(as_tensor(crow), as_tensor(item), shape).to(device)
        fallback = products(pattern, vectors, self._item_vectors(device), True)
        sums = local.blend(pattern, fallback).cpu().double()
        return self._to_ratings(sums + self.intercept_)

    def _predict_dense(self, users):
        size = max(1, _DENSE_CHUNK // len(self.items_))
        ratings = np.empty((len(users.means), len(self.items_)))
        for start in range(0, len(ratings), size):
            part = slice(start, start + size)
            ratings[part] = self._predict_some(users.take(part))
        ratings[~users.is_known] = self.item_means_
        ratings[:, ~self._is_modelled()] = users.means[:, np.newaxis]
        return ratings

    def _predict_some(self, users):
        local, vectors = self._local(users)
        fallback = _all_products(vectors, self._item_vectors(vectors.device))
        total, weight = torch.zeros_like(fallback), torch.zeros_like(fallback)
        for U, V, user_kernel, item_kernel in zip(*local, strict=True):
            near = torch.outer(user_kernel, item_kernel)
            total.addcmul_(near, _all_products(U, V))
            weight.add_(near)
        sums = _average(total, weight, fallback).cpu().double()
        return self._to_ratings(sums + self.intercept_)

    def _fold_in(self, rows):
        factors, biases = super()._fold_in(rows)
        kernels = self._kernels_of_users(torch.as_tensor(factors)).numpy()
        local = [
            self._solve_local(t, rows).coef.cpu().numpy().astype(factors.dtype)
            for t in range(len(self.local_item_factors_))
        ]
        return _packed(factors, kernels, np.stack(local, 1)), biases

    def _leave_one_out(self, rows):
        device = inference_device(self.device)
        preliminary = self._leave_out_preliminary(rows).cpu()
        item = self._item_vectors(device).cpu().double()[rows.indices]
        fallback = (preliminary[:, :-1] * item[:, :-1]).sum(1)
        fallback += preliminary[:, -1] + item[:, -1]
        total, weight = torch.zeros_like(fallback), torch.zeros_like(fallback)
        for t in range(len(self.local_item_factors_)):
            near = self._kernels_of_users(preliminary[:, :-1], [t]).squeeze(1)
            near *= as_tensor(self.item_kernels_[t, rows.indices])
            left_out = self._solve_local(t, rows, leave_one_out=True).left_out.cpu()
            offset = as_tensor(self.local_item_factors_[t, rows.indices, -1])
            # NaN where no other rating of the row is near: its vector is zero then.
            total += near * (left_out.nan_to_num() + offset)
            weight += near
        return _average(total, weight, fallback).numpy() + self.intercept_

    def _kernels_of_users(self, factors: Tensor, models=slice(None)) -> Tensor:
        """How near users are to the anchors, of shape (n_users, n_models)."""
        anchors = as_tensor(self._anchor_factors[models]).to(factors)
        fitted = (self.user_kernels_[models] > 0).any(axis=1)
        fitted = torch.tensor(fitted).to(factors)
        return _kernel(factors, anchors, self._bandwidth) * fitted

    def _solve_local(self, t, rows, leave_one_out=False):
        """Vectors of new users in a local model: ridge regressions, by item kernels."""
        device = inference_device(self.device)
        items = as_tensor(self.local_item_factors_[t], device=device).double()
        weights = as_tensor(self.item_kernels_[t], device=device).double()
        indices = as_tensor(rows.indices, device=device)
        targets = as_tensor(rows.data, device=device) - self.intercept_
        design = with_ones(items)
        return solve_rows(
            as_tensor(rows.indptr, device=device),
            indices,
            targets - items[indices, -1],
            design,
            positive_penalty(self._local_lambda_u, design),
            # An item that is not near has a weight of nothing, but may be left out.
            weights=weights[indices].clamp(min=_NOT_NEAR),
            intercept=False,
            leave_one_out=leave_one_out,
        )

    def _leave_out_preliminary(self, rows) -> Tensor:
        """Each rating's user in the preliminary model without it, of (nnz, k + 1)."""
        device = inference_device(self.device)
        targets = as_tensor(rows.data - self._offsets(rows), device=device)
        design = as_tensor(self._item_design(), device=device)
        size = design.shape[1]
        pattern = self._pattern(rows)
        eye = torch.eye(size, dtype=design.dtype, device=device)
        users, cholesky = condition(
            pattern,
            targets,
            design,
            prior=design.new_zeros(rows.shape[0], size),
            precision=positive_penalty(self._lambda_u, design) * eye,
            noise=torch.ones_like(targets),
        )
        # What each rating moves its user by, times its error: inv(A) z.
        inverse = torch.cholesky_inverse(cholesky)
        moves = torch.stack(
            [sddmm(pattern, inverse[:, a].contiguous(), design) for a in range(size)], 1
        )
        kept = 1 - (moves * design[pattern.col]).sum(1)
        error = (targets - sddmm(pattern, users, design)) / kept
        return users[pattern.row] - error.unsqueeze(1) * moves


class _Fitting:
    """The course of a fit: the preliminary model first, then one local model a step."""

    def __init__(self, estimator, training, held_out, known, random_state, device):
        self.estimator, self.training = estimator, training
        self.intercept, self.device = known["intercept_"], device
        prior = estimator._make_prior(training, random_state, device)
        self.preliminary = estimator._make_alternation(
            training, self.intercept, prior, random_state, device
        )
        seed = random_state.randint(np.iinfo(np.int32).max)
        self.generator = make_generator(seed)
        users, items = self.preliminary.users, self.preliminary.items
        n_models = estimator.n_models
        self.local = _Local(
            users.new_zeros(n_models, *users.shape),
            items.new_zeros(n_models, *items.shape),
            users.new_zeros(n_models, len(users)),
            items.new_zeros(n_models, len(items)),
        )
        self.data = estimator._to_tensors(training, self.intercept, device)
        self.blend = torch.zeros_like(self.data[1]), torch.zeros_like(self.data[1])
        self.held_out = None
        if held_out is not None:
            self.held_out = estimator._to_tensors(held_out, self.intercept, device)
            values = self.held_out[1]
            self.held_out_blend = torch.zeros_like(values), torch.zeros_like(values)

    def parameters(self) -> list[Tensor]:
        return [*self.preliminary.parameters(), *self.local]

    def step(self, epoch, keep, anchors) -> float:
        """Fit a model; return half the weighted squared errors of all so far."""
        pattern, ratings, weights = self.data
        if epoch == 0:
            self._improve(self.preliminary, keep)
        else:
            self._fit_local(epoch - 1, anchors[epoch - 1])
            self.local.add(epoch - 1, pattern, *self.blend)
            if self.held_out is not None:
                self.local.add(epoch - 1, self.held_out[0], *self.held_out_blend)
        keep()
        error = ratings - _average(*self.blend, self._fallback(pattern))
        weighted = error if weights is None else error * weights
        return 0.5 * float(torch.dot(error, weighted))

    def validate(self) -> float:
        """R² of the predictions of held-out ratings."""
        assert self.held_out is not None
        pattern, ratings, weights = self.held_out
        predicted = _average(*self.held_out_blend, self._fallback(pattern))
        weights = None if weights is None else weights.cpu()
        return r2_score(ratings.cpu(), predicted.cpu(), sample_weight=weights)

    def _fallback(self, pattern):
        return products(pattern, self.preliminary.users, self.preliminary.items, True)

    def _fit_local(self, t, anchor):
        """Fit model t to the ratings near its anchor.

        Its factors start at random: models that all start from the preliminary one err
        alike, and their mean gains less.
        """
        params, local = self.estimator, self.local
        sides = self.preliminary.users, self.preliminary.items
        kernels = [
            _kernel(v[:, :-1], v[[place], :-1], params.bandwidth).squeeze(1)
            for v, place in zip(sides, anchor, strict=True)
        ]
        for vectors, kernel, place in zip(sides, kernels, (0, 1), strict=True):
            factors = torch.empty(vectors[:, :-1].shape, dtype=vectors.dtype)
            factors.normal_(0, INITIAL_STD, generator=self.generator)
            local[place][t].copy_(vectors)
            local[place][t][:, :-1].copy_(factors)
            local[place + 2][t].copy_(kernel)
        pattern, *_ = self.data
        near = local.weights(t, pattern)
        part = self.training.select((near > 0).cpu().numpy())
        pattern, values, weights = params._to_tensors(part, self.intercept, self.device)
        near = near[near > 0]
        alternation = Alternation(
            pattern,
            values,
            near if weights is None else near * weights,
            local.users[t],
            local.items[t],
            has_biases=True,
            lambda_u=params.lambda_u,
            lambda_v=params.lambda_v * params.local_penalty * kernels[1],
            prior=params._make_prior(part, None, self.device),
        )
        # What is far from the anchor counts little, and so does its penalty.
        alternation.lambda_u = params.lambda_u * params.local_penalty * kernels[0]
        self._improve(alternation, lambda: None)

    def _improve(self, alternation, keep):
        def step(epoch, keep_sweep):
            objective = alternation.sweep()
            keep_sweep()
            keep()
            return objective

        params = self.estimator
        stopping = Stopping(params.max_iter, params.tol, params.n_iter_no_change)
        history = iterate(step, alternation.parameters(), stopping)
        if history.interrupt is not None:
            raise history.interrupt


def _kernel(vectors: Tensor, anchors: Tensor, bandwidth: float) -> Tensor:
    """Epanechnikov kernel of the angles to the anchors, (n_vectors, n_anchors)."""
    directions, to = (
        torch.nn.functional.normalize(v, dim=1) for v in (vectors, anchors)
    )
    angles = torch.arccos((directions @ to.T).clamp(-1, 1))
    return (1 - (angles / bandwidth).square()).clamp(min=0)


def _average(total, weight, fallback):
    """Weighted means, and the fallback where nothing has a weight."""
    return torch.where(weight > 0, total / weight, fallback)


def _all_products(users, items):
    return torch.addmm(items[:, -1], users, with_ones(items).T)


def _packed(factors, kernels, local):
    """What is known of users in one array, of shape (n_users, k + m + m * (k + 1))."""
    flat = local.reshape(len(local), -1)
    return np.concatenate([factors, kernels, flat], axis=1, dtype=factors.dtype)
