"""Bayesian matrix factorization by Gibbs sampling."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from .._base import BaseRecommender, ProbabilisticRecommender
from .._fitting import Fit, fit_method
from .._sklearn_compat import Interval
from .bayesian_model import BayesianModel
from .bayesian_trainer import GibbsTrainer
from .features import FEATURE_CONSTRAINTS, FeatureMixin


class BayesianMFRegressor(FeatureMixin, ProbabilisticRecommender):
    r"""Bayesian matrix factorization by Gibbs sampling.

    The predicted rating is the sum of the global mean, the bias of the user, the bias
    of the item, and the dot product of their latent factors. The prediction is averaged
    over posterior samples of these parameters [1]_. Their priors are estimated from the
    ratings by variational Bayes [2]_, so that there is no penalty to choose. `predict`
    can return standard deviations.

    Parameters
    ----------
    n_factors : int, default=10
        Number of latent factors k. Superfluous factors are shrunk to zero and only cost
        time. With too few factors, the estimated priors may be poor.

    implicit : bool, default=False
        Whether to use implicit feedback: the vectors are shrunk toward a mean that
        depends on who has rated what, whatever the ratings, as in SVD++ for users [3]_.
        More accurate, and slower to fit.

    item_encoder, user_encoder : transformer or None, default=None
        Transformers that turn the tables of features into numbers, such as a
        `ColumnTransformer` or a `Pipeline`. None means
        :class:`skrec.features.FeatureEncoder`, which looks at the columns. Columns are
        centered and scaled in blocks: those of `output_indices_`, if the encoder has
        this attribute, or else all of them.

    memory : str, object with the interface of joblib.Memory, or None, default=None
        Folder in which to cache the fitted encoders.

    max_iter : int, default=200
        Number of Gibbs sweeps, after at most 50 sweeps of variational Bayes. Each sweep
        draws all vectors once.

    burn_in : int, default=10
        Number of sweeps before the first kept sample.

    thinning : int, default=2
        Number of sweeps per kept sample: after `burn_in`, the first of every `thinning`
        sweeps is kept. More samples are more accurate. The memory and time of a
        prediction are proportional to the number of samples. By default, the vectors of
        10,000 users and items with 10 factors take 40 MB.

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
    user_factors_ : ndarray of shape (n_users, n_samples * n_factors)
        Factors of the users: what `transform` returns for the users in `fit`. They are
        the factors in all samples, side by side, divided by the number of samples. The
        product with `item_factors_` is therefore the mean of the samples' products.

    item_factors_ : ndarray of shape (n_items, n_samples * n_factors)
        Factors of the items in all samples, side by side.

    user_biases_ : ndarray of shape (n_users,)
        Biases of the users.

    item_biases_ : ndarray of shape (n_items,)
        Biases of the items.

    user_bias_samples_ : ndarray of shape (n_users, n_samples)
        Bias of each user in each sample.

    item_bias_samples_ : ndarray of shape (n_items, n_samples)
        Bias of each item in each sample.

    user_prior_mean_, item_prior_mean_ : ndarray of shape (n_factors + 1,)
        Prior means of the factors and the bias, for average features.

    user_prior_covariance_, item_prior_covariance_ : ndarray
        Covariances of these priors, of shape (n_factors + 1, n_factors + 1).

    item_encoder_, user_encoder_ : transformer or None
        Fitted encoders of the features; None without features.

    item_feature_weights_, user_feature_weights_ : ndarray or None
        Linear maps from the encoded features to prior means of the vectors, of shape
        (n_columns, n_factors + 1).

    item_feature_names_, user_feature_names_ : ndarray of shape (n_columns,) or None
        Names of the columns of the encoded features.

    item_feature_blocks_, user_feature_blocks_ : dict of str to slice or None
        Columns of each block: those that encode a column of the table.

    item_feature_center_, user_feature_center_ : ndarray of shape (n_columns,) or None
        Means of the encoded features, which are subtracted from them.

    user_links_ : ndarray of shape (n_samples, n_items, n_factors + 1) or None
        Contribution of each rated item to the prior mean; None without `implicit`.

    noise_variance_ : float
        Variance of a rating around its prediction.

    intercept_ : float
        Always 0: the model sees standardized ratings.

    loss_curve_ : list of float
        Mean squared error of the standardized training ratings in each sweep. It
        fluctuates around a constant when the chain has converged.

    validation_scores_ : list of float
        Always empty: the estimator has no early stopping.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_
        Common to all recommenders, see :ref:`shared-attributes`.

    rating_std_, n_iter_, n_features_in_, feature_names_in_, device_
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    BiasedMFRegressor : One estimate instead of samples; smaller, and predicts faster.

    Notes
    -----
    The ratings are standardized. All parameters are on this scale: the predicted rating
    is ``global_mean_ + rating_std_ * z``, where z is the sum of the biases and the
    product of the factors. With the vectors :math:`u = (p_u, b_u)` and
    :math:`v = (q_i, c_i)`, the model is

    .. math:: r_{ui} \sim N(b_u + c_i + p_u^T q_i, \; \tau / w_{ui}), \quad
              u \sim N(m_U, C_U), \quad v \sim N(m_V, C_V)

    with the weight w of each rating. Biases and factors have a joint covariance.
    `user_biases_` and `item_biases_` are means over the samples.

    The noise variance :math:`\tau`, the means m and the covariances C are estimated
    once, by variational Bayes, as in `BiasedMFRegressor`: they maximize the evidence
    bound. The chain starts from the expected vectors of that fit and draws the vectors
    only (empirical Bayes). Sampling the priors as well, from vague hyper-priors as in
    [1]_, fails where users have few ratings: the chain drifts to large vectors and
    little noise, which overfit.

    With `implicit`, the prior mean of a user who has rated the items N(u) becomes

    .. math:: m_U + |N(u)|^{-1/2} \sum_{j \in N(u)} y_j, \quad
              y_j \sim N(0, \Lambda_Y^{-1})

    The prior mean of an item likewise depends on its raters. The diagonal precision
    matrices of the y are estimated with the other priors. The y are drawn by a
    ridge regression with perturbed targets [4]_.

    With features x of an item, the product :math:`W^T (x - \bar x)` is added to its
    prior mean, and likewise for users. The weights W, and a precision for each block of
    columns and each entry of a vector, are estimated with the other priors and stay
    fixed. Macau [4]_ draws the weights as well; this took several times as long and was
    not more accurate.

    A user or an item that has features and no ratings has its prior mean in all
    samples, as have those added by `extend_users` and `extend_items`. The prior
    covariance is added to the variances of its ratings. A user's predictions of such
    items are corrected for self-selection: users rate items that they like better than
    the features tell. The correction is the user's mean difference, over the rated
    items, between the predictions from item vectors and from features. `predict` for
    rows of a matrix knows nothing of their users but the ratings.

    All rows of a half step are drawn together, or as many as fit in memory. Their
    precision matrices are one product of the sparse ratings with the products of the
    entries of the other side's vectors. The time of a sweep is proportional to the
    number of ratings times the square of the number of factors.

    In `predict`, each row of a matrix is a new user described by that row alone. For
    each sample, the user's vector is its conditional mean, given the row and the items
    and links of the sample. The standard deviation includes the spread of this
    conditional distribution. `score` of a matrix without y predicts each rating from
    the other ratings in its row, exactly: with `implicit` the rating is removed from
    the features of its user, too.

    References
    ----------
    .. [1] Ruslan Salakhutdinov and Andriy Mnih. 2008. "Bayesian Probabilistic Matrix
       Factorization using Markov Chain Monte Carlo". ICML '08.
       https://doi.org/10.1145/1390156.1390267
    .. [2] Yew Jin Lim and Yee Whye Teh. 2007. "Variational Bayesian Approach to Movie
       Rating Prediction". KDD Cup and Workshop 2007.
    .. [3] Yehuda Koren. 2008. "Factorization Meets the Neighborhood: a Multifaceted
       Collaborative Filtering Model". KDD '08.
       https://doi.org/10.1145/1401890.1401944
    .. [4] Jaak Simm et al. 2017. "Macau: Scalable Bayesian Factorization with
       High-Dimensional Side Information Using MCMC". MLSP 2017.
       https://doi.org/10.1109/MLSP.2017.8168143

    Examples
    --------
    >>> from skrec import BayesianMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> R = make_ratings(n_users=300, n_items=100, random_state=0).R
    >>> model = BayesianMFRegressor(max_iter=60, random_state=0)
    >>> model.fit(R[:250])
    BayesianMFRegressor(...)
    >>> round(model.score(R[250:]), 1)
    0.6
    >>> mean, std = model.predict(R[250:], return_std=True)
    >>> mean[0, 6:9].round(1), std[0, 6:9].round(1)
    (array([3.4, 3.6, 4.9]), array([0.7, 0.8, 0.7]))
    """

    # Not a parameter: there is no penalty that depends on the scale of the ratings.
    normalize_y = True

    _divergence_remedy = "Use dtype='float64', or smaller weights"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "implicit": ["boolean"],
        **FEATURE_CONSTRAINTS,
        "burn_in": [Interval(Integral, 0, None, closed="left")],
        "thinning": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        n_factors: int = 10,
        implicit: bool = False,
        item_encoder: Any = None,
        user_encoder: Any = None,
        memory: Any = None,
        max_iter: int = 200,
        burn_in: int = 10,
        thinning: int = 2,
        clip: bool = True,
        device: str | torch.device = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_factors = n_factors
        self.implicit = implicit
        self.item_encoder = item_encoder
        self.user_encoder = user_encoder
        self.memory = memory
        self.max_iter = max_iter
        self.burn_in = burn_in
        self.thinning = thinning
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

        An interrupted fit keeps its samples, or the last state if there is no sample.
        The model remains as it was if the estimation of the priors or the first sweep
        is interrupted.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
            User and item ids; or a matrix whose stored entries are the ratings, a
            stored 0 included.

        y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
            Ratings of the pairs. With a matrix, further ratings of it or None.

        sample_weight : array-like or sparse, default=None
            Relative precision of each rating, of shape (n_ratings,); with a matrix,
            sparse with its entries or of shape (n_users,). Ratings of weight 0 are
            ignored.

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
        self : BayesianMFRegressor

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is invalid; see the message.

        Warns
        -----
        ConvergenceWarning
            If the objective became infinite because a draw failed. Weights of very
            different sizes may cause this.
        """
        self._check_burn_in()
        features = {"item_features": item_features, "user_features": user_features}
        fit = Fit(self, X, y, sample_weight, **features)
        return fit.run(GibbsTrainer(fit))

    def _check_burn_in(self) -> None:
        if self.burn_in >= self.max_iter:
            raise ValueError(
                f"burn_in={self.burn_in} leaves no sample of max_iter={self.max_iter} "
                "sweeps: use a smaller burn_in or a larger max_iter."
            )

    def _extended(self, what, vectors, merge):
        found = super()._extended(what, vectors, merge)
        if what == "item" and self.user_links_ is not None:
            links = merge(self.user_links_.swapaxes(0, 1), 0)
            found["user_links_"] = links.swapaxes(0, 1)
        return found

    def _new_rows(self, what, vectors):
        n_samples = self.user_bias_samples_.shape[1]
        factors, biases = vectors[:, :-1], vectors[:, -1]
        # As in the fit, the users' factors are divided by the number of samples.
        divisor = n_samples if what == "user" else 1
        return {
            f"{what}_factors_": np.tile(factors / divisor, n_samples),
            f"{what}_biases_": biases,
            f"{what}_bias_samples_": biases[:, np.newaxis],
        }

    def _make_model(self, device):
        return BayesianModel(self, device)
