"""Bayesian matrix factorization by Gibbs sampling."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from torch import Tensor

from .._base import BaseRecommender, EpochReports
from .._core.device import as_tensor, inference_device, resolve_device
from .._core.gibbs import GibbsSampler
from .._core.normal_rows import condition, implicit_means, leave_out, parts
from .._core.training import Stopping, iterate
from .._data.ratings import Ratings, check_rating_matrix, is_matrix, select_entries

# Numbers that the standard deviations of pairs are computed from at once.
_PAIRS_CHUNK = 2**24


class _Sample(NamedTuple):
    """A state of the chain, on the scale of the ratings.

    Attributes
    ----------
    users, items : ndarray of shape (n_users or n_items, n_factors + 1)
        The vectors, the last entry a bias.

    mean, precision : ndarray of shape (n_factors + 1,) and (n_factors + 1, \
n_factors + 1)
        The prior of the users.

    links : ndarray of shape (n_items, n_factors + 1) or None
        What each rated item adds to a user's prior mean.

    noise : float
        The variance of the noise.
    """

    users: np.ndarray
    items: np.ndarray
    mean: np.ndarray
    precision: np.ndarray
    links: np.ndarray | None
    noise: float

    @classmethod
    def take(cls, sampler: GibbsSampler, scale: float) -> _Sample:
        """Copy the state of a sampler of ratings that were divided by `scale`."""
        users, items = sampler.users, sampler.items
        item_vectors = items.vectors.cpu().numpy().copy()
        item_vectors[:, -1] *= scale
        return cls(
            users.vectors.cpu().numpy() * scale,
            item_vectors,
            users.mean.cpu().numpy() * scale,
            users.precision.cpu().numpy() / scale**2,
            None if users.links is None else users.links.cpu().numpy() * scale,
            scale**2 / float(sampler.noise),
        )

    def at_zero(self) -> _Sample:
        """The same with vectors of zeros, which predict the mean."""
        users, items = np.zeros_like(self.users), np.zeros_like(self.items)
        return self._replace(users=users, items=items)


class BayesianMFRegressor(BaseRecommender):
    r"""Bayesian matrix factorization by Gibbs sampling.

    A rating is predicted as the global mean, the bias of the user, the bias of the item
    and the product of their factors, averaged over samples from the posterior of all
    of these and of their priors [1]_. There is no penalty to choose, and `predict`
    knows how uncertain it is.

    Parameters
    ----------
    n_factors : int, default=10
        The number of factors k. More are more accurate where ratings are many: on
        MovieLens 1M 24 are, on MovieLens 100K they are not.

    implicit : bool, default=False
        Whether to draw a vector to a mean that depends on who has rated what, whatever
        the ratings, as SVD++ does for users [2]_. More accurate, and slower to fit.

    max_iter : int, default=500
        Sweeps: in each, all vectors and their priors are drawn once.

    burn_in : int, default=20
        Sweeps before the first sample that is kept.

    thinning : int, default=2
        From then on the first of so many sweeps is kept. More samples are more
        accurate; size and time of a prediction are proportional to their number. The
        vectors of 10,000 users and items with 10 factors take 100 MB by default.

    clip : bool, default=True
        Keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        "cpu", "cuda", "cuda:0", ...; "auto" takes a GPU where there is one. A fitted
        model falls back to the CPU where the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        The precision of the vectors.

    random_state : int, RandomState instance or None, default=None
        Determines all draws. An int gives the same model in each call, bit for bit
        with the same number of threads.

    verbose : bool or int, default=False
        Print the mean squared error after each sweep. For progress bars set a callback:
        ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    users_ : ndarray of shape (n_users,)
        The ids of the users, ascending; row numbers after a fit on a matrix.

    items_ : ndarray of shape (n_items,)
        The ids of the items, ascending; column numbers after a fit on a matrix.

    user_factors_ : ndarray of shape (n_users, n_samples * n_factors)
        The factors of all samples side by side, divided by the number of samples, so
        that the product with `item_factors_` is the mean of the samples' products.

    item_factors_ : ndarray of shape (n_items, n_samples * n_factors)
        The factors of all samples side by side.

    user_biases_, item_biases_ : ndarray of shape (n_users,) and (n_items,)
        The mean biases.

    user_bias_samples_ : ndarray of shape (n_users, n_samples)
        The bias of each user in each sample.

    item_bias_samples_ : ndarray of shape (n_items, n_samples)
        The same of the items.

    user_prior_means_ : ndarray of shape (n_samples, n_factors + 1)
        The prior mean of a user's factors and bias in each sample.

    user_prior_precisions_ : ndarray of shape (n_samples, n_factors + 1, n_factors + 1)
        The precision matrix of that prior.

    user_links_ : ndarray of shape (n_samples, n_items, n_factors + 1) or None
        What each rated item adds to the prior mean; None without `implicit`.

    noise_variances_ : ndarray of shape (n_samples,)
        The variance of a rating around its prediction in each sample.

    intercept_, global_mean_ : float
        The mean rating.

    rating_std_ : float
        The standard deviation of the ratings.

    user_means_, item_means_ : ndarray of shape (n_users,) and (n_items,)
        Mean ratings, drawn to the global mean as by 5 ratings more.

    rating_range_ : tuple of (float, float)
        The lowest and the highest training rating.

    loss_curve_ : list of float
        The mean squared error of the training ratings in each sweep. It fluctuates
        around a constant when the chain has converged.

    validation_scores_ : list of float
        Empty.

    n_iter_ : int
        Sweeps made.

    n_features_in_ : int
        2 for pairs, the number of items for a matrix.

    feature_names_in_ : ndarray of shape (2,)
        Names of the columns, if X was a DataFrame with string names.

    device_ : str
        Where the model was fitted.

    See Also
    --------
    BiasedMFRegressor : One estimate instead of samples; smaller, and faster to predict.

    Notes
    -----
    With the vectors :math:`u = (p_u, b_u)` and :math:`v = (q_i, c_i)` the model is

    .. math:: r_{ui} \sim N(\mu + b_u + c_i + p_u^T q_i, \; \sigma^2 / w_{ui}), \quad
              u \sim N(m_U, \Lambda_U^{-1}), \quad v \sim N(m_V, \Lambda_V^{-1})

    with the weight w of each rating. Means and precision matrices have the
    normal-Wishart prior of [1]_ (:math:`\beta_0 = 2`, :math:`W_0` the identity and as
    many degrees of freedom as entries), :math:`\sigma^{-2}` a gamma prior of shape and
    rate 1, all on the scale of ratings whose standard deviation is 1. Biases share the
    covariance of the factors.

    With `implicit`, the mean of a user who has rated the items N(u) becomes

    .. math:: m_U + |N(u)|^{-1/2} \sum_{j \in N(u)} y_j, \quad
              y_j \sim N(0, \Lambda_Y^{-1})

    and that of an item likewise depends on who has rated it. The y are drawn by
    injecting noise into a ridge regression [3]_, their precision matrices have a
    Wishart prior.

    All rows of a half step are drawn together, or as many as fit in memory: their
    precision matrices are one product of the sparse ratings with the products of the
    others' entries. The time of a sweep is proportional to the number of ratings times
    that of factors squared.

    A row of a matrix in `predict` is a user who is known by that row alone. In each
    sample, the mean of the user's vector given the row and the sample's items and
    priors is taken; the standard deviation has that distribution's width in it.
    `score` of a matrix without y predicts each rating from the others in its row,
    exactly: with `implicit` the rating leaves the features of its user, too.

    References
    ----------
    .. [1] Ruslan Salakhutdinov and Andriy Mnih. 2008. "Bayesian Probabilistic Matrix
       Factorization using Markov Chain Monte Carlo". ICML '08.
       https://doi.org/10.1145/1390156.1390267
    .. [2] Yehuda Koren. 2008. "Factorization Meets the Neighborhood: a Multifaceted
       Collaborative Filtering Model". KDD '08.
       https://doi.org/10.1145/1401890.1401944
    .. [3] Jaak Simm et al. 2017. "Macau: Scalable Bayesian Factorization with
       High-Dimensional Side Information Using MCMC". MLSP 2017.
       https://doi.org/10.1109/MLSP.2017.8168143

    Examples
    --------
    >>> from skrec import BayesianMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> R = make_ratings(n_users=300, n_items=100, random_state=0).R
    >>> model = BayesianMFRegressor(n_factors=5, max_iter=60, random_state=0)
    >>> model.fit(R[:250])
    BayesianMFRegressor(...)
    >>> mean, std = model.predict(R[250:], return_std=True)
    >>> mean.shape, std.shape
    ((50, 100), (50, 100))
    """

    _divergence_remedy = "Use dtype='float64', or smaller weights"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{
            name: BaseRecommender._parameter_constraints[name]
            for name in [
                "max_iter",
                "clip",
                "device",
                "dtype",
                "random_state",
                "verbose",
            ]
        },
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "implicit": ["boolean"],
        "burn_in": [Interval(Integral, 0, None, closed="left")],
        "thinning": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        n_factors=10,
        implicit=False,
        max_iter=500,
        burn_in=20,
        thinning=2,
        clip=True,
        device="auto",
        dtype="float32",
        random_state=None,
        verbose=False,
    ):
        self.n_factors = n_factors
        self.implicit = implicit
        self.max_iter = max_iter
        self.burn_in = burn_in
        self.thinning = thinning
        self.clip = clip
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sample_weight=None):
        """Fit the model to ratings.

        An interrupt keeps the samples so far, or the last state if there is none.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
            User and item ids; or a matrix whose stored entries are the ratings, a
            stored 0 included.

        y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
            The ratings of the pairs. Beside a matrix, further ratings or None.

        sample_weight : array-like or sparse, default=None
            The precision of each rating relative to the noise, of shape (n_ratings,);
            beside a matrix sparse with its entries, or of shape (n_users,). A rating of
            weight 0 is as good as absent.

        Returns
        -------
        self : BayesianMFRegressor

        Raises
        ------
        TypeError, ValueError
            If the ratings or parameters are not what they should be; see the message.

        Warns
        -----
        ConvergenceWarning
            If a draw failed, as weights of very different sizes may cause.
        """
        if self.burn_in >= self.max_iter:
            raise ValueError(
                f"burn_in={self.burn_in} leaves no sample of max_iter={self.max_iter} "
                "sweeps: use a smaller burn_in or a larger max_iter."
            )
        device = resolve_device(self.device)
        ratings, _, known = self._check_fit(X, y, sample_weight)
        known["intercept_"] = known["global_mean_"]
        known["rating_std_"] = _std(ratings, known["intercept_"])
        # The sampler's priors are meant for ratings of a standard deviation of 1.
        scale = known["rating_std_"] or 1.0
        sampler = self._make_sampler(ratings, known["intercept_"], scale, device)
        samples: list[_Sample] = []
        swept = False

        def step(epoch, keep):
            nonlocal swept
            error = sampler.sweep() * scale**2
            keep()
            swept = True
            is_due = (
                epoch >= self.burn_in and (epoch - self.burn_in) % self.thinning == 0
            )
            if is_due and np.isfinite(error):
                samples.append(_Sample.take(sampler, scale))
            return error

        def fitted():
            last = _Sample.take(sampler, scale)
            return known | _describe(samples or [last if swept else last.at_zero()])

        reports = EpochReports(self, X, y, {"sample_weight": sample_weight}, fitted)
        history = iterate(
            step,
            sampler.state(),
            Stopping(self.max_iter, 0.0, self.max_iter),
            begin_epoch=reports.begin_epoch,
            end_epoch=reports.end_epoch,
            may_settle=False,
        )
        state = fitted() | {"device_": str(device)}
        self._conclude(state, history, reports, settles=False, stacklevel=5)
        return self

    def predict(self, X, return_std=False):
        """Predict ratings: their means over the samples.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_rows, n_items)
            User and item ids; or rows of ratings, one column for each of `items_`. A
            row is a user who is known by the ratings stored in it and by nothing else,
            also if the same user was in `fit`.

        return_std : bool, default=False
            Whether to return standard deviations, too.

        Returns
        -------
        ratings : ndarray of shape (n_ratings,) or (n_rows, n_items)
            A pair with an unseen user gets the item's mean, one with an unseen item
            the user's mean (both drawn to the global mean where ratings are few), and
            one with neither seen the global mean. The same holds for a row without
            ratings, and for an item without ratings.

        std : ndarray of the same shape
            Only with `return_std`: the standard deviation of the rating that the user
            would give, of what is not known about the vectors and of the noise.
            Clipping does not change it. Where a mean is predicted it is `rating_std_`.

        Raises
        ------
        ValueError
            If X has another number of columns, or if the dense result of a matrix
            would not fit in memory.
        """
        ratings = super().predict(X)
        if not return_std:
            return ratings
        if not is_matrix(X):
            return ratings, self._std_of_pairs(X)
        rows = check_rating_matrix(X, n_items=len(self.items_))
        return ratings, self._std_of_rows(rows)

    def _make_sampler(self, ratings, offset, scale, device) -> GibbsSampler:
        pattern, values, weights = self._to_tensors(ratings, offset, device, scale)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        return GibbsSampler(
            pattern,
            values,
            weights,
            self.n_factors,
            np.random.default_rng(seed),
            implicit=self.implicit,
        )

    def _fold_in(self, rows):
        n_samples, dtype = len(self.noise_variances_), self.user_factors_.dtype
        pattern = self._pattern(rows)
        k = self.user_prior_means_.shape[1]
        vectors = np.empty((rows.shape[0], n_samples, k), dtype)
        for at, part, entries in parts(pattern, k**2):
            ratings = self._centred(rows)[entries]
            for s in range(n_samples):
                mean = condition(**self._problem(s, part, ratings)).mean
                vectors[at, s] = mean.cpu().numpy()
        factors = vectors[:, :, :-1].reshape(len(vectors), -1) / n_samples
        return factors, vectors[:, :, -1].mean(axis=1)

    def _leave_one_out(self, rows):
        n_samples = len(self.noise_variances_)
        pattern, ratings = self._pattern(rows), self._centred(rows)
        predicted = torch.zeros_like(ratings)
        for _, part, entries in parts(pattern, self.user_prior_means_.shape[1] ** 2):
            for s in range(n_samples):
                problem = self._problem(s, part, ratings[entries])
                offsets = ratings[entries] - problem["ratings"]
                left_out = leave_out(**problem, links=self._links(s))
                predicted[entries] += (left_out + offsets) / n_samples
        return predicted.cpu().numpy() + self.intercept_

    def _std_of_pairs(self, X):
        users, items = self._positions(X)
        is_known = np.append(np.diff(self._seen.indptr) > 0, False)[users]
        known = np.flatnonzero(is_known & np.append(self._is_rated, False)[items])
        std = np.full(len(users), self.rating_std_)
        n_samples = len(self.noise_variances_)
        size = max(1, _PAIRS_CHUNK // self.user_factors_.shape[1])
        for start in range(0, len(known), size):
            at = known[start : start + size]
            u, i = users[at], items[at]
            p, q = (
                factors.astype(np.float64).reshape(len(at), n_samples, -1)
                for factors in (self.user_factors_[u], self.item_factors_[i])
            )
            sums = np.einsum("nsk,nsk->ns", p, q) * n_samples
            sums += self.user_bias_samples_[u] + self.item_bias_samples_[i]
            std[at] = np.sqrt(sums.var(axis=1) + self.noise_variances_.mean())
        return std

    def _std_of_rows(self, rows):
        n_samples = len(self.noise_variances_)
        informative = select_entries(rows, self._is_rated[rows.indices])
        pattern, ratings = self._pattern(informative), self._centred(informative)
        std = np.empty(rows.shape)
        width = rows.shape[1] * self.user_prior_means_.shape[1]
        for at, part, entries in parts(pattern, width):
            sums, squares, inner = torch.zeros(3, *part.shape, dtype=torch.float64)
            for s in range(n_samples):
                problem = self._problem(s, part, ratings[entries])
                mean, cholesky = condition(**problem)
                vectors = problem["vectors"]
                centres = (mean @ vectors.T).cpu() + self._item_biases(s).cpu()
                half = torch.linalg.solve_triangular(cholesky, vectors.T, upper=False)
                sums += centres
                squares += centres.square()
                inner += half.square().sum(1).cpu()
            between = squares / n_samples - (sums / n_samples).square()
            variance = between.clamp(min=0) + inner / n_samples
            std[at] = np.sqrt(variance.numpy() + self.noise_variances_.mean())
        std[np.diff(informative.indptr) == 0] = self.rating_std_
        std[:, ~self._is_rated] = self.rating_std_
        return std

    def _centred(self, rows) -> Tensor:
        return self._tensor(rows.data - self.intercept_)

    def _problem(self, s, pattern, ratings) -> dict[str, Any]:
        """What a sample says of the users in some rows; see `condition`."""
        n_samples = len(self.noise_variances_)
        factors = np.split(self.item_factors_, n_samples, axis=1)[s]
        vectors = self._tensor(np.column_stack([factors, np.ones(len(factors))]))
        prior = self._tensor(self.user_prior_means_[s]).expand(pattern.shape[0], -1)
        links = self._links(s)
        if links is not None:
            prior = prior + implicit_means(pattern, links)
        return {
            "pattern": pattern,
            "ratings": ratings - self._item_biases(s).index_select(0, pattern.col),
            "vectors": vectors,
            "prior": prior,
            "precision": self._tensor(self.user_prior_precisions_[s]),
            "noise": torch.full_like(ratings, 1 / self.noise_variances_[s]),
        }

    def _item_biases(self, s) -> Tensor:
        return self._tensor(self.item_bias_samples_[:, s])

    def _links(self, s) -> Tensor | None:
        return None if self.user_links_ is None else self._tensor(self.user_links_[s])

    def _tensor(self, array) -> Tensor:
        array = np.ascontiguousarray(array, dtype=np.float64)
        return as_tensor(array, device=inference_device(self.device))


def _std(ratings: Ratings, mean: float) -> float:
    """The weighted standard deviation of the ratings."""
    squares = (ratings.values - mean) ** 2
    return float(np.sqrt(np.average(squares, weights=ratings.weights)))


def _describe(samples: list[_Sample]) -> dict[str, Any]:
    """The fitted attributes that samples amount to."""
    links = [sample.links for sample in samples if sample.links is not None]
    users = np.stack([sample.users for sample in samples], axis=1)
    items = np.stack([sample.items for sample in samples], axis=1)
    described: dict[str, Any] = {
        "user_prior_means_": np.stack([sample.mean for sample in samples]),
        "user_prior_precisions_": np.stack([sample.precision for sample in samples]),
        "user_links_": np.stack(links) if links else None,
        "noise_variances_": np.array([sample.noise for sample in samples]),
    }
    for side, vectors in ("user", users), ("item", items):
        # The product of all that stands side by side is to be a mean.
        divisor = len(samples) if side == "user" else 1
        factors = vectors[:, :, :-1].reshape(len(vectors), -1) / divisor
        biases = vectors[:, :, -1].copy()
        described |= {
            f"{side}_factors_": factors,
            f"{side}_bias_samples_": biases,
            f"{side}_biases_": biases.mean(axis=1),
        }
    return described
