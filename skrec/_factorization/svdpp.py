"""SVD++: matrix factorization with implicit feedback."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from .._base import (
    STOPPING_CONSTRAINTS,
    WARM_START_CONSTRAINTS,
    ProbabilisticRecommender,
)
from .._core.device import as_tensor
from .._core.normal_rows import condition, implicit_means, leave_out, parts
from .._core.ridge import positive_penalty
from .._data.ids import positions_of
from .._fitting import Fit, fit_method
from .._sklearn_compat import Interval, StrOptions
from .alternation import (
    DIVERGENCE_REMEDY,
    FACTORIZATION_CONSTRAINTS,
    PENALTY_OR_AUTO,
    AlternationTrainer,
    mean_item_prior,
    penalties_are_auto,
)
from .features import FEATURE_CONSTRAINTS, FeatureMixin, refuse_features
from .models import FactorState, RidgeModel
from .priors import ImplicitPrior
from .variational_model import VariationalModel
from .variational_trainer import VariationalTrainer


class SVDppRegressor(FeatureMixin, ProbabilisticRecommender):
    r"""SVD++: matrix factorization with implicit feedback.

    The prediction is that of `BiasedMFRegressor`, with implicit feedback: every item
    that a user has rated contributes a link vector to the expected factors and bias of
    the user, whatever the rating [1]_. By default every rater contributes to the
    expected vector of an item as well, and all penalties are estimated from the ratings
    by variational Bayes.

    Parameters
    ----------
    n_factors : int, default=20
        Number of latent factors k. With estimated penalties it is a maximum: factors
        that explain nothing are dropped.

    lambda_u : float or "auto", default="auto"
        Penalty on the squared norm of a user's own vector, on the scale of half the sum
        of squared errors of the standardized ratings (see Notes). "auto" estimates the
        prior of the vectors, and needs ``lambda_v="auto"``.

    lambda_v : float or "auto", default="auto"
        Penalty on the squared distance of an item's vector from the mean item, on the
        same scale. "auto" needs ``lambda_u="auto"``.

    lambda_y : float, default=160.0
        Penalty on the squared norm of an item's link vector, on the same scale. Must be
        positive. Ignored with ``lambda_u="auto"``, which estimates it.

    implicit : {"users", "items", "both"}, default="both"
        Side whose expected vectors depend on who has rated what: users on the items
        that they have rated, items on their raters, or both. Penalties given as numbers
        mean "users", the model of [1]_, whatever this parameter is.

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
        Maximum number of iterations. Each iteration solves for all users, all items and
        all links in turn.

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

    item_links_ : ndarray of shape (n_items, n_kept + 1) or None
        Link vectors: contributions of the items to the factors and the bias of their
        raters, before the division by the square root of the number of items that the
        user has rated. None with ``implicit="items"``.

    user_links_ : ndarray of shape (n_users, n_kept + 1) or None
        The same from the users to the items that they have rated. None with
        ``implicit="users"``.

    noise_variance_ : float
        Variance of a rating around its prediction; only with estimated penalties.

    user_prior_mean_, item_prior_mean_ : ndarray of shape (n_kept + 1,)
        Prior means of the vectors; only with estimated penalties.

    user_prior_covariance_, item_prior_covariance_ : ndarray
        Prior covariances of the vectors, of shape (n_kept + 1, n_kept + 1); only with
        estimated penalties.

    intercept_ : float
        Global mean; 0 with `normalize_y` or without `fit_intercept`.

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
    BiasedMFRegressor : The same model without implicit feedback.
    BayesianMFRegressor : Posterior samples by Gibbs sampling; slower. It uses implicit
        feedback with ``implicit=True``.

    Notes
    -----
    With ``lambda_u="auto"`` and ``lambda_v="auto"``, the model and the solver are those
    of `BiasedMFRegressor`, with different prior means. The vector of a user, and that
    of an item, has the prior mean

    .. math:: m_U + |N(u)|^{-1/2} \sum_{j \in N(u)} y_j, \quad
              m_V + |N(i)|^{-1/2} \sum_{j \in N(i)} x_j

    where N(u) is the set of items that the user has rated, and N(i) the set of raters
    of the item. The links y are `item_links_`, and x are `user_links_`. They maximize
    the evidence bound with the vectors integrated out, by conjugate gradients. The
    precision of their own prior is estimated, too.

    With penalties given as numbers, the predicted rating is

    .. math:: \hat{r}_{ui} = \mu + b_u + c_i + q_i^T p_u + |N(u)|^{-1/2}
              \sum_{j \in N(u)} (z_j + q_i^T y_j)

    This is the model of [1]_ plus z, the contribution of the rated items to the user's
    bias. With the weight w of each rating, the objective is

    .. math:: \frac{1}{2} \sum_{(u, i)} w_{ui} (r_{ui} - \hat{r}_{ui})^2
              + \frac{\lambda_U}{2} \sum_u (b_u^2 + \|p_u\|^2)
              + \frac{\lambda_V}{2}
              \sum_i \left((c_i - \bar{c})^2 + \|q_i - \bar{q}\|^2\right)
              + \frac{\lambda_Y}{2} \sum_j (z_j^2 + \|y_j\|^2)

    With `normalize_y`, the ratings r are standardized, mu is 0, and the parameters are
    on this scale: the predicted rating is ``global_mean_ + rating_std_ * z``, where z
    is the sum of `intercept_`, the biases and the product of the factors. A penalty for
    ratings as they are, such as a paper's, has the same effect on factors if it is
    divided by the standard deviation of the ratings. With ratings, penalties and
    squared factors multiplied by s, the objective is multiplied by the square of s.

    This solver works with whole user vectors, which include the contributions of the
    rated items; `user_factors_` and `user_biases_` are these vectors. Each user is a
    ridge regression that is shrunk toward the sum of these contributions. Items are
    solved for as in `BiasedMFRegressor`. The links z and y are a ridge regression of
    the users on the pattern of ratings, solved by conjugate gradients.

    The prior mean of a user or an item with features x is moved by ``W' (x - center)``,
    where W is `user_feature_weights_` or `item_feature_weights_`. W is solved for with
    the vectors integrated out. The entries of W have normal priors whose variances are
    estimated, one for each block of columns and each factor: features that say nothing
    get weights near 0. Items without ratings are predicted from their features, plus
    the mean difference of the user's rated items from their features' predictions:
    users choose what they rate. This correction is multiplied by the probability that
    an item without ratings is new, not one that nobody chooses, which is estimated from
    the numbers of items with few ratings.

    In `predict`, each row of a matrix is a new user described by that row alone.
    `score` of a matrix without y predicts each rating from the other ratings in its
    row, exactly: the rating is removed from the sums of links, too.

    References
    ----------
    .. [1] Yehuda Koren. 2008. "Factorization Meets the Neighborhood: a Multifaceted
       Collaborative Filtering Model". KDD '08.
       https://doi.org/10.1145/1401890.1401944

    Examples
    --------
    >>> from skrec import SVDppRegressor
    >>> from skrec.datasets import make_ratings
    >>> R = make_ratings(n_users=300, n_items=100, random_state=0).R
    >>> model = SVDppRegressor(random_state=0).fit(R[:250])
    >>> round(model.score(R[250:]), 1)
    0.6
    """

    _divergence_remedy = DIVERGENCE_REMEDY

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ProbabilisticRecommender._parameter_constraints,
        **STOPPING_CONSTRAINTS,
        **WARM_START_CONSTRAINTS,
        **FACTORIZATION_CONSTRAINTS,
        **FEATURE_CONSTRAINTS,
        "lambda_u": PENALTY_OR_AUTO,
        "lambda_v": PENALTY_OR_AUTO,
        "implicit": [StrOptions({"users", "items", "both"})],
        "lambda_y": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        n_factors: int = 20,
        lambda_u: float | Literal["auto"] = "auto",
        lambda_v: float | Literal["auto"] = "auto",
        lambda_y: float = 160.0,
        implicit: Literal["users", "items", "both"] = "both",
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
        self.lambda_y = lambda_y
        self.implicit = implicit
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
        self : SVDppRegressor

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
        return fit.run(_variational(fit) if is_auto else _least_squares(fit))

    def _make_model(self, device):
        return (VariationalModel if self._lambda_u is None else SVDppModel)(
            self, device
        )


class SVDppModel(RidgeModel):
    """Ridge model that shrinks a new user toward the sum of the rated items' links."""

    def fold_in(self, rows):
        vectors = [condition(**problem).mean for problem, _ in self._problems(rows)]
        found = torch.cat(vectors).to(self.item_factors.dtype)
        return FactorState.split(found)

    def left_out(self, rows):
        predicted = [
            leave_out(**problem, links=links) for problem, links in self._problems(rows)
        ]
        return torch.cat(predicted).cpu().numpy() + self.offsets(rows)

    def prior_parts(self, case, precision):
        links = self.fitted.item_links_[case.rows.indices] / np.sqrt(case.rows.nnz)
        ids = self.fitted.items_[case.rows.indices]
        return [("seen item", ids, links @ precision)]

    def _problems(self, rows):
        """Yield the ridge regressions of new users in batches; see `condition`."""
        vectors = self.tensor(self.design())
        links = self.tensor(self.fitted.item_links_.astype(np.float64))
        targets = self.tensor(rows.data - self.offsets(rows))
        eye = torch.eye(vectors.shape[1], dtype=vectors.dtype, device=self.device)
        precision = positive_penalty(self.fitted._lambda_u, vectors) * eye
        for _, part, entries in parts(self.pattern(rows), vectors.shape[1] ** 2):
            problem = {
                "pattern": part,
                "ratings": targets[entries],
                "vectors": vectors,
                "prior": implicit_means(part, links),
                "prior_precision": precision,
                "rating_precisions": torch.ones_like(targets[entries]),
            }
            yield problem, links


def _variational(fit: Fit) -> VariationalTrainer:
    """Create the trainer that estimates the penalties."""
    implicit = fit.estimator.implicit
    user_links, item_links = implicit != "items", implicit != "users"
    return VariationalTrainer(fit, user_links=user_links, item_links=item_links)


def _least_squares(fit: Fit) -> AlternationTrainer:
    """Create the trainer for penalties given as numbers."""
    refuse_features(fit)
    penalty = fit.estimator.lambda_y
    return AlternationTrainer(
        fit,
        has_biases=True,
        user_prior=ImplicitPrior(
            fit.training_pattern, _initial_links(fit), penalty, fit.group
        ),
        item_prior=mean_item_prior(fit, fit.training),
    )


def _initial_links(fit: Fit) -> torch.Tensor:
    """Return the links of the previous fit for known items, and zeros otherwise."""
    ids, k = fit.ratings.items, fit.estimator.n_factors + 1
    links = torch.zeros(len(ids), k, dtype=fit.dtype)
    old = fit.previous
    if old is not None and old.item_links_.shape[1] == k:
        positions = positions_of(ids, old.items_, "item")
        new = np.flatnonzero(positions >= 0)
        links[new] = as_tensor(old.item_links_[positions[new]]).to(links.dtype)
    return links.to(fit.device)
