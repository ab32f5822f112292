"""Restricted Boltzmann machines that predict ratings."""

from __future__ import annotations

import functools
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from .._base import PRIOR_RATINGS, BaseRecommender, EpochReports
from .._core.batches import Rows
from .._core.device import (
    as_tensor,
    inference_device,
    make_generator,
    resolve_device,
)
from .._core.rbm import Cases, Machine, all_levels
from .._core.softmax import SoftmaxSolutions, solve_softmax_rows
from .._core.sparse import Pattern
from .._core.training import SCHEDULES, History, PenalisedLoss, Stopping, train
from .._data.ids import positions_of
from .._data.ratings import Ratings

# More levels than any rating scale has are measurements, not levels.
_MAX_LEVELS = 100
# Numbers that are held at once to predict.
_CHUNK = 2**24
_MAX_SEED = np.iinfo(np.int32).max
# What draws the biases of a new user to the mean of the fitted users, and the smallest
# penalty of its weights with which the solution is sure to be unique.
_BIAS_PENALTY, _SMALLEST_PENALTY = 1.0, 1e-3


class _ContrastiveDivergence(PenalisedLoss):
    """A loss whose gradient the machine estimates by samples."""

    def __init__(self, machine: Machine, alpha: float, options: tuple):
        super().__init__(
            machine.contrast, list(machine.parameters()), [machine.weights], alpha
        )
        self.options = options

    def __call__(self, batch, share: float = 1.0) -> float:
        """Set the gradients, with `share` of the penalty."""
        loss = self.loss(batch, *self.options)
        for weights in self.weights:
            weights.grad.add_(weights.detach(), alpha=share * self.penalty)
        return loss


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
        over all ratings. Biases are not penalised.

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
        What counts as an improvement: a decrease of the loss by this part, or an
        increase of the validation score by this much.

    early_stopping : bool, default=False
        Hold out ratings, stop when their score has not improved for
        `n_iter_no_change` epochs, and keep the best weights.

    validation_fraction : float, default=0.1
        The part of the ratings that is held out.

    n_iter_no_change : int, default=10
        Epochs without improvement after which to stop. The loss of a step size that
        falls does not stop the training.

    warm_start : bool, default=False
        Start from the weights of the last fit, if there was one. Visible units are
        matched by id.

    clip : bool, default=True
        Without effect, for an expected rating is always inside the training range.

    device : str or torch.device, default="auto"
        "cpu", "cuda", "cuda:0", ...; "auto" takes a GPU where there is one. A fitted
        model falls back to the CPU where the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        The precision of the weights.

    random_state : int, RandomState instance or None, default=None
        Determines initial weights, batches, samples and held-out ratings. An int gives
        the same model in each call, bit for bit with the same number of threads.

    verbose : bool or int, default=False
        Print the loss after each epoch. For progress bars set a callback:
        ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    users_ : ndarray of shape (n_users,)
        The ids of the users, ascending; row numbers after a fit on a matrix.

    items_ : ndarray of shape (n_items,)
        The ids of the items, ascending; column numbers after a fit on a matrix.

    levels_ : ndarray of shape (n_levels,)
        The different ratings, ascending.

    user_factors_, item_factors_ : ndarray
        Of the kind of `kind`: p(h = 1 | v) of shape (n_users or n_items, n_hidden).
        Of the other: W of shape (n_users or n_items, n_levels * n_hidden), level by
        level.

    user_biases_, item_biases_ : ndarray
        Of the kind of `kind`: zeros. Of the other: b of shape (n_users or n_items,
        n_levels).

    hidden_biases_ : ndarray of shape (n_hidden,)
        c.

    intercept_ : float
        0, for this model has none.

    user_means_, item_means_ : ndarray of shape (n_users,) and (n_items,)
        Mean ratings, drawn to the global mean as by 5 ratings more.

    global_mean_ : float
        The mean rating.

    rating_range_ : tuple of (float, float)
        The lowest and the highest training rating.

    loss_curve_ : list of float
        The weighted sum of -log p(v | h) in each epoch, with h drawn given v. It is not
        what contrastive divergence minimises, but goes with it.

    validation_scores_ : list of float
        R² of the held-out ratings after each epoch; empty without `early_stopping`.

    n_iter_ : int
        Epochs made.

    n_features_in_ : int
        2 for pairs, the number of items for a matrix.

    feature_names_in_ : ndarray of shape (2,)
        Names of the columns, if X was a DataFrame with string names.

    device_ : str
        Where the model was fitted.

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
    hidden_biases_: np.ndarray
    _kind: str
    _alpha: float

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
        device = resolve_device(self.device)
        ratings, _, known = self._check_fit(X, y, sample_weight)
        known["levels_"] = _check_levels(ratings)
        random_state = check_random_state(self.random_state)
        training, held_out = self._hold_out(ratings, random_state)
        rows = self._orient(training, known["levels_"], device)
        machine = self._make_machine(ratings, rows, known["levels_"], random_state)

        def fitted():
            return known | self._describe(machine, rows)

        metadata = {"sample_weight": sample_weight}
        reports = EpochReports(self, X, y, metadata, fitted)
        validate = None
        if held_out is not None:
            targets = self._orient(held_out, known["levels_"], device)
            validate = functools.partial(
                _validation_score, machine, rows, targets, known["levels_"]
            )
        history = self._train(machine, rows, random_state, validate, reports)
        state = fitted() | {"device_": str(device)}
        settles = self.learning_rate == "constant"
        self._conclude(state, history, reports, settles=settles, stacklevel=5)
        return self

    def _orient(self, ratings: Ratings, levels, device) -> Rows:
        """Levels and ratings in rows, which are users or items."""
        pattern, values, weights = self._to_tensors(ratings, 0.0, torch.device("cpu"))
        places = torch.as_tensor(_nearest(levels, ratings.values))
        rows = Rows(pattern, places, values, weights)
        if self.kind == "item":
            rows = rows.arrange(pattern.transposed, pattern.order)
        return rows.to(device)

    def _make_machine(self, ratings, rows, levels, random_state) -> Machine:
        """The initial machine, or that of the last fit as far as there is one."""
        visible = ratings.users if self.kind == "item" else ratings.items
        dtype = getattr(torch, self.dtype)
        generator = make_generator(random_state.randint(_MAX_SEED))
        log_rates = _log_rates(rows, len(levels)).to(dtype)
        machine = Machine.draw(log_rates, self.n_hidden, generator)
        if self.warm_start and hasattr(self, "levels_"):
            self._continue_from_fit(machine, visible, levels)
        return machine.to(rows.inputs.device)

    @torch.no_grad()
    def _continue_from_fit(self, machine, visible, levels):
        old = self._machine(torch.device("cpu"))
        same = self._kind == self.kind and np.array_equal(self.levels_, levels)
        if not same or len(old.hidden_bias) != self.n_hidden:
            raise ValueError(
                "warm_start=True cannot continue a fit of another kind, another "
                "n_hidden or other levels of ratings: use warm_start=False."
            )
        ids = self.users_ if self.kind == "item" else self.items_
        positions = positions_of(visible, ids, self.kind)
        new = np.flatnonzero(positions >= 0)
        for tensor, source in [
            (machine.weights, old.weights),
            (machine.visible_bias, old.visible_bias),
        ]:
            shape = -1, len(levels), tensor.numel() // (len(visible) * len(levels))
            found = source.view(shape)[positions[new]]
            tensor.view(shape)[new] = found.to(tensor.dtype)
        machine.hidden_bias.copy_(old.hidden_bias)

    def _train(self, machine, rows, random_state, validate, reports) -> History:
        order = make_generator(random_state.randint(_MAX_SEED))
        noise = make_generator(random_state.randint(_MAX_SEED), rows.inputs.device)
        batches = [_cases(b, machine) for b in rows.cut(self.batch_size, order)]
        return train(
            _ContrastiveDivergence(
                machine, self.alpha, (self.n_gibbs, self.persistent, noise)
            ),
            batches,
            [len(batch.levels) / rows.pattern.nnz for batch in batches],
            Stopping(self.max_iter, self.tol, self.n_iter_no_change),
            solver="adam",
            learning_rate=self.learning_rate_init,
            schedule=self.learning_rate,
            generator=order,
            validate=validate,
            begin_epoch=reports.begin_epoch,
            end_epoch=reports.end_epoch,
        )

    @torch.no_grad()
    def _describe(self, machine, rows: Rows) -> dict[str, Any]:
        """The fitted attributes that the present weights amount to."""
        hidden = machine.hidden(rows.pattern, rows.inputs).cpu().numpy()
        seen, drawn = ("item", "user") if self.kind == "item" else ("user", "item")
        bias = machine.visible_bias.cpu().numpy().copy()
        weights = machine.weights.cpu().numpy().copy()
        return {
            "_kind": self.kind,
            "_alpha": float(self.alpha),
            "intercept_": 0.0,
            f"{seen}_factors_": hidden,
            f"{seen}_biases_": np.zeros(len(hidden), hidden.dtype),
            f"{drawn}_factors_": weights.reshape(len(bias), -1),
            f"{drawn}_biases_": bias,
            "hidden_biases_": machine.hidden_bias.cpu().numpy().copy(),
        }

    @property
    def _n_features_out(self):
        return self.user_factors_.shape[1]

    def _machine(self, device) -> Machine:
        """The fitted machine."""
        visible = "user" if self._kind == "item" else "item"
        bias = as_tensor(getattr(self, f"{visible}_biases_"), device=device)
        weights = as_tensor(getattr(self, f"{visible}_factors_"), device=device)
        return Machine(
            weights.view(bias.numel(), -1),
            bias,
            as_tensor(self.hidden_biases_, device=device),
        )

    @torch.no_grad()
    def _evaluate(self, users, row, item):
        items = self.item_factors_, self.item_biases_
        if self._kind == "item":
            (h, _), at, (W, b), unit = items, item, users[:2], row
        else:
            (h, _), at, (W, b), unit = users[:2], row, items, item
        device = inference_device(self.device)
        hidden, bias = as_tensor(h, device=device), as_tensor(b, device=device)
        weights = as_tensor(W, device=device).view(*bias.shape, hidden.shape[1])
        ratings = np.empty(len(row))
        for part in _parts(len(row), W.shape[1]):
            v = unit[part]
            sums = torch.einsum("nf,nlf->nl", hidden[at[part]], weights[v]) + bias[v]
            ratings[part] = self._expected(sums)
        return ratings

    @torch.no_grad()
    def _predict_dense(self, users):
        device = inference_device(self.device)
        items = as_tensor(self.item_factors_, device=device)
        n_users, n_items, n_levels = len(users.means), len(items), len(self.levels_)
        ratings = np.empty((n_users, n_items))
        for part in _parts(n_users, n_items * n_levels):
            factors = as_tensor(users.factors[part], device=device)
            if self._kind == "item":
                W = factors.view(-1, n_levels, items.shape[1])
                bias = as_tensor(users.biases[part], device=device)
                sums = (W @ items.T + bias.unsqueeze(2)).transpose(1, 2)
            else:
                W = items.view(-1, factors.shape[1])
                bias = as_tensor(self.item_biases_, device=device)
                sums = (factors @ W.T).view(-1, n_items, n_levels) + bias
            ratings[part] = self._expected(sums)
        ratings[~users.is_known] = self.item_means_
        ratings[:, ~self._is_modelled()] = users.means[:, np.newaxis]
        return ratings

    def _expected(self, sums):
        """The expected ratings, given the logits of the levels in the last axis."""
        levels = as_tensor(self.levels_, device=sums.device)
        return (torch.softmax(sums.double(), -1) @ levels).cpu().numpy()

    @torch.no_grad()
    def _fold_in(self, rows):
        if self._kind == "user":
            h = self._machine(inference_device(self.device)).hidden(
                *self._seen_by(rows)
            )
            return h.cpu().numpy(), np.zeros(len(h), self.user_biases_.dtype)
        coef = self._solve_users(rows).coef.cpu().numpy()
        coef = coef.astype(self.user_factors_.dtype)
        return coef[..., :-1].reshape(len(coef), -1), coef[..., -1].copy()

    @torch.no_grad()
    def _leave_one_out(self, rows):
        if self._kind == "item":
            return self._expected(self._solve_users(rows, True).left_out)
        machine = self._machine(inference_device(self.device))
        left_out = machine.leave_one_out(*self._seen_by(rows))
        ratings = np.empty(rows.nnz)
        width = machine.weights.shape[1] * len(self.levels_)
        for part in _parts(rows.nnz, width):
            ratings[part] = self._expected(left_out(part))
        return ratings

    def _seen_by(self, rows) -> tuple[Pattern, torch.Tensor]:
        """What the machine sees of rows of ratings."""
        pattern, levels = self._pattern(rows), _nearest(self.levels_, rows.data)
        return pattern, torch.as_tensor(levels, device=pattern.col.device)

    def _solve_users(self, rows, leave_one_out=False) -> SoftmaxSolutions:
        """Weights of new users, drawn to the mean of the fitted ones."""
        device = inference_device(self.device)
        features = np.ones((len(self.item_factors_), self.item_factors_.shape[1] + 1))
        features[:, :-1] = self.item_factors_
        is_known = np.diff(self._seen.indptr) > 0
        bias = self.user_biases_[is_known].mean(0)
        mean = self.user_factors_[is_known].mean(0).reshape(len(bias), -1)
        prior = np.column_stack([mean, bias]).astype(np.float64)
        penalty = np.full(prior.shape[1], max(self._alpha, _SMALLEST_PENALTY))
        penalty[-1] = _BIAS_PENALTY
        return solve_softmax_rows(
            as_tensor(rows.indptr, device=device),
            as_tensor(rows.indices, device=device),
            torch.as_tensor(_nearest(self.levels_, rows.data), device=device),
            as_tensor(features, device=device),
            as_tensor(penalty, device=device),
            as_tensor(prior, device=device),
            leave_one_out=leave_one_out,
        )


def _check_levels(ratings: Ratings) -> np.ndarray:
    """The levels that ratings have, ascending; refuse ratings that have none."""
    levels = np.unique(ratings.values)
    if len(levels) > _MAX_LEVELS:
        raise ValueError(
            f"RBMRegressor takes ratings of at most {_MAX_LEVELS} different values, as "
            f"a scale of stars has, but found {len(levels)}: round the ratings to the "
            "levels of a scale."
        )
    return levels


def _nearest(levels, ratings) -> np.ndarray:
    """The position of the level that is nearest to each rating."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, ratings)


def _log_rates(rows: Rows, n_levels: int) -> torch.Tensor:
    """Logarithms of how often each visible unit has each level.

    Rates of few ratings are drawn to those of all ratings, as means are.
    """
    n_visible = rows.pattern.shape[1]
    counts = torch.bincount(
        rows.pattern.col.cpu().long() * n_levels + rows.inputs.cpu(),
        None if rows.weights is None else rows.weights.cpu().double(),
        minlength=n_visible * n_levels,
    )
    counts = counts.view(n_visible, n_levels).double()
    # A level that only held-out ratings have is rare, but not impossible.
    overall = counts.sum(0) + 1
    prior = PRIOR_RATINGS * overall / overall.sum()
    return ((counts + prior) / (counts.sum(1, keepdim=True) + PRIOR_RATINGS)).log()


def _cases(rows: Rows, machine: Machine) -> Cases:
    n_levels = machine.visible_bias.shape[1]
    return Cases(
        rows.pattern, rows.inputs, rows.weights, n_levels, machine.weights.dtype
    )


@torch.no_grad()
def _validation_score(machine, rows: Rows, targets: Rows, levels) -> float:
    """R² of the predictions of held-out ratings."""
    h = machine.hidden(rows.pattern, rows.inputs)
    log_p = machine.log_visible(all_levels(targets.pattern, len(levels)), h)
    predicted = log_p.exp().cpu().double() @ as_tensor(levels)
    weights = None if targets.weights is None else targets.weights.cpu()
    return r2_score(targets.targets.cpu(), predicted, sample_weight=weights)


def _parts(size: int, width: int) -> list[slice]:
    """Cut so many entries, each of so many numbers, to what is held at once."""
    step = max(1, _CHUNK // width)
    return [slice(start, start + step) for start in range(0, size, step)]
