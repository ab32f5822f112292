"""AutoRec: autoencoders that predict ratings."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from .._base import STOPPING_CONSTRAINTS, WARM_START_CONSTRAINTS, BaseRecommender
from .._core.networks import ACTIVATIONS
from .._core.training import SCHEDULES
from .._factorization.features import FEATURE_CONSTRAINTS
from .._fitting import Fit, fit_method
from .._limits import is_count
from .._sklearn_compat import Interval, StrOptions
from .autorec_model import ItemAutoRec, UserAutoRec
from .autorec_trainer import AutoRecTrainer


class AutoRecRegressor(BaseRecommender):
    r"""Autoencoder that predicts ratings (AutoRec).

    Each item (or user) is the sparse vector of its ratings. An autoencoder compresses
    the vector to a code and reconstructs all ratings, including the missing ones, from
    the code. The time and memory of an epoch are proportional to the number of ratings.

    By default, the network learns what damped effects of users and items leave of the
    ratings. With ``baseline=False``, ``normalize_y=False``, ``input_scaling=0`` and
    ``input_dropout=0`` this is the model of [1]_. See the Notes for details.

    Parameters
    ----------
    kind : {"item", "user"}, default="item"
        Rows to reconstruct: items (I-AutoRec) or users (U-AutoRec). "item" is usually
        more accurate.

    hidden_layer_sizes : int or array-like of shape (n_layers,), default=(500,)
        Number of hidden units in each hidden layer. The last one is the number of
        latent factors.

    pretraining : bool, default=False
        Whether to train the layers of a deep network one after another, from the
        outside in, before all layers are trained together. Requires
        `hidden_layer_sizes` that read the same backward, such as (500, 250, 500). No
        effect with one hidden layer, or if a warm start continues a fit.

    activation : str, default="sigmoid"
        Activation function g of the hidden layers: "identity", "sigmoid", "tanh",
        "relu", "elu" or "selu".

    out_activation : str, default="identity"
        Activation function f of the output: "identity", "sigmoid", "tanh", "relu",
        "elu" or "selu". "sigmoid" and "tanh" are mapped onto the range of the training
        ratings. All but "identity" require ``baseline=False``.

    baseline : bool, default=True
        Whether to subtract damped user and item effects from the ratings, those of
        `BaselineRegressor`, and to add effects to the output of the network. False
        leaves the levels of users and items to the network, which is less accurate for
        those with few ratings.

    alpha : float or "auto", default="auto"
        Penalty lambda on the squared weights (weight decay), on the scale of the sum of
        squared errors. Biases are not penalized, except for effects. "auto" is 20 times
        the square root of the mean number of ratings of a row, times the mean weight.

    solver : {"adam", "rprop", "lbfgs"}, default="adam"
        Optimizer. "rprop" and "lbfgs" use all ratings in each step. "lbfgs" does not
        support `dropout` or `input_dropout`. `learning_rate_init` applies to "adam" and
        "rprop".

    batch_size : int or None, default=None
        Number of rows (items or users) in each step of "adam". None means all rows.

    learning_rate : {"constant", "linear", "cosine"}, default="linear"
        Schedule of the step size of Adam: constant, or decreasing to 0 over `max_iter`
        epochs.

    learning_rate_init : float, default=0.003
        Initial step size of the optimizer.

    max_iter : int, default=150
        Maximum number of epochs, or of iterations of "lbfgs". With a decreasing step
        size, all epochs are run unless `early_stopping` ends the fit.

    tol : float, default=1e-5
        Minimum relative decrease of the objective, or minimum increase of the
        validation score, that counts as an improvement.

    normalize_y : bool, default=True
        Whether to standardize the ratings inside the fit. Predictions are then the same
        whatever the unit of the ratings. False uses the ratings as they are, as the
        papers do.

    center_input : bool, default=False
        Whether to subtract the mean from the input, so that missing ratings count as
        ratings at the mean (with effects: as predicted by them). With ``kind="item"``
        the zeros of the input indicate which users did not rate, which is more
        informative. For ``kind="user"`` without `baseline`, True is recommended.

    input_scaling : float, default=0.5
        Exponent of the input scaling: each input row is divided by its number of
        ratings, relative to the mean number, to this power. With 0 (no scaling, as in
        the paper) the large sums of popular items saturate the hidden units.

    input_dropout : float, default=0.5
        Probability that a rating is dropped from the input, in [0, 1). The dropped
        ratings are drawn again in each epoch. The remaining ratings are scaled up.

    dropout : float, default=0.0
        Probability that a hidden unit is dropped in training, in [0, 1).

    n_text_components : int, default=50
        Number of components to which each text is reduced. Ignored without texts.

    item_encoder, user_encoder : transformer or None, default=None
        Transformers that turn the tables of features into numbers, such as a
        `ColumnTransformer` or a `Pipeline`. None means
        :class:`skrec.features.FeatureEncoder`, which looks at the columns. Columns are
        centered and scaled in blocks: those of `output_indices_`, if the encoder has
        this attribute, or else all of them.

    memory : str, object with the interface of joblib.Memory, or None, default=None
        Folder in which to cache the fitted encoders.

    early_stopping : bool, default=False
        Whether to hold out ratings, to stop when their score has not improved for
        `n_iter_no_change` iterations, and to keep the best parameters.

    validation_fraction : float, default=0.1
        Fraction of the ratings that is held out with `early_stopping`.

    n_iter_no_change : int, default=10
        Number of iterations without improvement after which to stop.

    warm_start : bool, default=False
        Whether to start from the weights of the previous fit, if there is one. Users
        and items are matched by id. New users and items, and the weights of texts and
        features, are initialized at random.

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
    user_factors_ : ndarray of shape (n_users, n_components)
        Factors of the users: what `transform` returns for the users in `fit`. They are
        the rows of the decoder weights W with ``kind="item"``, or the codes of the
        users with ``kind="user"``.

    item_factors_ : ndarray of shape (n_items, n_components)
        Codes of the items with ``kind="item"``, or their rows of the decoder weights W
        with ``kind="user"``.

    user_biases_ : ndarray of shape (n_users,)
        Biases of the users.

    item_biases_ : ndarray of shape (n_items,)
        Biases of the items.

    user_effects_, item_effects_ : ndarray of shape (n_users,), (n_items,) or None
        Effects that are subtracted from the ratings in the input; None without
        `baseline`.

    intercept_ : float
        Mean of the ratings on the scale of the model (0 with `normalize_y`). Without
        `baseline` it is 0, since the biases include the mean.

    alpha_ : float
        Penalty that was used.

    encoder_coefs_ : list of ndarray
        Encoder weights: V of shape (n_users, k_1), or (n_items, k_1) with
        ``kind="user"``, then a matrix of shape (k_i, k_i+1) for each further hidden
        layer.

    encoder_intercepts_ : list of ndarray of shape (k_i,)
        Biases of the hidden layers.

    text_coefs_ : ndarray of shape (n_text_components, k_1) or None
        Weights of the text components in the first hidden layer.

    item_encoder_, user_encoder_ : transformer or None
        Fitted encoders of the features; None without features.

    item_feature_weights_, user_feature_weights_ : ndarray or None
        Weights of the encoded features in the first hidden layer, of shape (n_columns,
        k_1).

    item_feature_names_, user_feature_names_ : ndarray of shape (n_columns,) or None
        Names of the columns of the encoded features.

    item_feature_blocks_, user_feature_blocks_ : dict of str to slice or None
        Columns of each block: those that encode a column of the table.

    item_feature_center_, user_feature_center_ : ndarray of shape (n_columns,) or None
        Means of the encoded features, which are subtracted from them.

    loss_curve_ : list of float
        Objective in each epoch, evaluated before each step.

    validation_scores_ : list of float
        R² of the held-out ratings after each iteration; empty without
        `early_stopping`.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_
        Common to all recommenders, see :ref:`shared-attributes`.

    rating_std_, n_iter_, n_features_in_, feature_names_in_, device_
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    skrec.model_selection.ratings_to_samples : Convert a rating matrix to pairs.

    Notes
    -----
    For a row of ratings r, observed at O, the model

    .. math:: h(r; \theta) = f(W \, g(V r + \mu) + b)

    minimizes, with the weight w of each rating,

    .. math:: \sum_r \sum_{i \in O} w_i (r_i - h(r; \theta)_i)^2
              + \frac{\lambda}{2} (\|W\|^2 + \|V\|^2)

    The weights of further layers, of texts and of features are penalized in the same
    way. The output biases b are `user_biases_` with ``kind="item"`` and `item_biases_`
    with ``kind="user"``.

    With `normalize_y`, the ratings are standardized, and the network sees them with the
    mean 3.5 and the standard deviation 0.9. Factors and biases predict standardized
    ratings if f is the identity: a prediction is `global_mean_` plus `rating_std_`
    times the sum of `intercept_`, both biases and the product of the factors.

    With `baseline`, the damped effects b of users and c of items are estimated from the
    ratings as by `BaselineRegressor`. The rows r are the residuals of the ratings. With
    `normalize_y`, they are scaled to the mean and standard deviation above, otherwise
    the global mean is added. For ``kind="item"``, the model is

    .. math:: \hat r_{ui} = \mu + c_i + b_u + w_u' (g(V r_i + \mu_1) - g(\mu_1))

    where :math:`w_u` is a row of W. The code of an empty row is subtracted, so that the
    effects alone predict a row without information. The bias :math:`b_u` starts at the
    effect of the user, and its penalty :math:`\lambda_U b_u^2` is that of the effects.
    For ``kind="user"``, users and items change places. Without `baseline`, no code is
    subtracted, and the biases of the rows that are encoded are 0. `user_means_` and
    `item_means_` are the global mean plus the effect, as in `BaselineRegressor`.

    With `pretraining`, a deep network is trained greedily, as in [1]_, whose authors do
    not describe the stages. Here, stage n has the first n hidden layers and the last
    n - 1, which mirror them, such as (500,), then (500, 250, 500). It starts from the
    weights of the stage before and trains all of its layers for up to `max_iter`
    epochs, with the same penalty, schedule and stopping criterion as the last stage,
    which has all layers. Only the epochs of the last stage are counted and reported.
    The other stages are a part of its first epoch, in which an interrupt leaves the
    estimator unchanged.

    With item texts, h has additional inputs, as in [2]_: the tf-idf of the text,
    reduced to `n_text_components` components by a singular value decomposition.
    Features are further inputs, in blocks of encoded columns with a mean square length
    of 9. A cold-start item, without ratings, then has its own code. To train the
    network for such items, each step drops all ratings of a tenth of the items from the
    input, and their effect from the baseline. This is not done with ``solver="lbfgs"``,
    which needs a deterministic loss. With ``kind="user"`` the same holds for features
    of users. Users whom `predict` knows only by a row of a matrix have average
    features. Rows without ratings have no effects of their own, so that features move
    them only through the network, without the correction for self-selected items. This
    estimator is not meant for cold-start items: `BiasedMFRegressor` predicts them
    better.

    In `predict`, each row of a matrix is a new user described by that row alone. With
    ``kind="user"`` the network is evaluated, and the user's effect is the sum of the
    row's residuals divided by their number plus the penalty. With ``kind="item"`` the
    user's decoder row is the ridge regression of the ratings on the codes of the items,
    with penalty lambda / 2, and with the effect of the user as intercept, which has the
    penalty of the effects. This is the solution to which training would converge for
    that row. If f is not the identity, the Gauss-Newton method is used.

    `score` of a matrix without y predicts each rating from the other ratings in its
    row. This leave-one-out prediction is exact unless ``kind="item"`` and f is not the
    identity. In that case it is exact for the problem linearized at the row's solution
    (approximate leave-one-out). With ``alpha=0`` rows are solved with the smallest
    penalty that the precision allows.

    References
    ----------
    .. [1] Suvash Sedhain, Aditya Krishna Menon, Scott Sanner and Lexing Xie. 2015.
       "AutoRec: Autoencoders Meet Collaborative Filtering". WWW '15 Companion.
       https://doi.org/10.1145/2740908.2742726
    .. [2] Florian Strub, Romaric Gaudel and Jérémie Mary. 2016. "Hybrid Recommender
       System based on Autoencoders". DLRS '16.
       https://doi.org/10.1145/2988450.2988456

    Examples
    --------
    >>> from skrec import AutoRecRegressor
    >>> from skrec.datasets import make_ratings
    >>> R = make_ratings(n_users=300, n_items=100, random_state=0).R
    >>> model = AutoRecRegressor(hidden_layer_sizes=20, alpha=10, random_state=0)
    >>> round(model.fit(R[:250]).score(R[250:]), 1)
    0.4
    >>> model.recommend(R[250:251], n_items=3).round(1)
       user  item  rating
    0     0     8     4.6
    1     0    73     4.5
    2     0    44     4.5

    Samples can also be single ratings, given as user-item pairs:

    >>> model.fit([["ann", "up"], ["ann", "alien"], ["bob", "up"]], [5, 2, 4])
    AutoRecRegressor(...)
    >>> model.predict([["bob", "alien"], ["eve", "up"]]).round(1)
    array([2.5, 4.3])
    """

    _divergence_remedy = "Lower learning_rate_init or raise alpha"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        **STOPPING_CONSTRAINTS,
        **WARM_START_CONSTRAINTS,
        "kind": [StrOptions({"item", "user"})],
        "hidden_layer_sizes": [
            "array-like",
            Interval(Integral, 1, None, closed="left"),
        ],
        "pretraining": ["boolean"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "out_activation": [StrOptions(set(ACTIVATIONS))],
        "baseline": ["boolean"],
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "solver": [StrOptions({"adam", "rprop", "lbfgs"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "normalize_y": ["boolean"],
        "center_input": ["boolean"],
        "input_scaling": [Interval(Real, 0, 1, closed="both")],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "n_text_components": [Interval(Integral, 1, None, closed="left")],
        **FEATURE_CONSTRAINTS,
    }

    # Metadata routing passes texts and features to this estimator without a request.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {
        "item_texts": True,
        "item_features": True,
        "user_features": True,
    }

    def __init__(
        self,
        *,
        kind: Literal["item", "user"] = "item",
        hidden_layer_sizes: int | Sequence[int] = (500,),
        pretraining: bool = False,
        activation: str = "sigmoid",
        out_activation: str = "identity",
        baseline: bool = True,
        alpha: float | Literal["auto"] = "auto",
        solver: Literal["adam", "rprop", "lbfgs"] = "adam",
        batch_size: int | None = None,
        learning_rate: Literal["constant", "linear", "cosine"] = "linear",
        learning_rate_init: float = 0.003,
        max_iter: int = 150,
        tol: float = 1e-5,
        normalize_y: bool = True,
        center_input: bool = False,
        input_scaling: float = 0.5,
        input_dropout: float = 0.5,
        dropout: float = 0.0,
        n_text_components: int = 50,
        item_encoder: Any = None,
        user_encoder: Any = None,
        memory: Any = None,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.pretraining = pretraining
        self.activation = activation
        self.out_activation = out_activation
        self.baseline = baseline
        self.alpha = alpha
        self.solver = solver
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.tol = tol
        self.normalize_y = normalize_y
        self.center_input = center_input
        self.input_scaling = input_scaling
        self.input_dropout = input_dropout
        self.dropout = dropout
        self.n_text_components = n_text_components
        self.item_encoder = item_encoder
        self.user_encoder = user_encoder
        self.memory = memory
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
        item_texts: Any = None,
        item_features: Any = None,
        user_features: Any = None,
    ) -> Self:
        """Fit the model to ratings, and to what is known of items or users.

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

        item_texts : mapping, Series, ItemTexts or sequence, default=None
            Texts by item id; with a matrix, also one text for each column. Items may
            have no text, or a text and no ratings. For cross-validation, use
            :class:`skrec.text.ItemTexts`: scikit-learn splits other sized objects with
            as many entries as there are samples. Texts require ``kind="item"``.

        item_features : DataFrame, mapping, Series, array-like, sparse or Features, \
default=None
            Features by item id: a DataFrame whose index holds the ids, with columns of
            any kind, or a mapping from id to vector. With a matrix, the ids are its
            column numbers, or an array has one row for each column. Items without
            ratings become known. For cross-validation, use
            :class:`skrec.features.Features`: scikit-learn splits other sized objects
            with as many entries as there are samples. Requires ``kind="item"``.

        user_features : DataFrame, mapping, Series, array-like, sparse or Features, \
default=None
            The same by user id. With a matrix, a table or array with one row for each
            row of X, in the same order, which scikit-learn splits with X. Requires
            ``kind="user"``.

        Returns
        -------
        self : AutoRecRegressor

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
        sizes = self._check_parameters()
        self._check_side(item_texts, item_features, user_features)
        fit = Fit(self, X, y, sample_weight, item_texts, item_features, user_features)
        return fit.run(AutoRecTrainer(fit, sizes))

    def _check_parameters(self) -> list[int]:
        """Reject inconsistent parameters; return the sizes of the hidden layers."""
        given: Any = self.hidden_layer_sizes
        sizes = [given] if isinstance(given, Integral) else list(given)
        if not sizes or not all(map(is_count, sizes)):
            raise ValueError(
                "hidden_layer_sizes must be a positive integer or a sequence of them, "
                f"got {self.hidden_layer_sizes!r}."
            )
        if self.pretraining and sizes != sizes[::-1]:
            raise ValueError(
                "pretraining=True needs hidden_layer_sizes that read the same "
                f"backward, such as (500, 250, 500), got {self.hidden_layer_sizes!r}: "
                "change them, or use pretraining=False."
            )
        if self.baseline and self.out_activation != "identity":
            raise ValueError(
                f"out_activation={self.out_activation!r} cannot reconstruct what "
                "effects leave of the ratings: use baseline=False, or "
                "out_activation='identity'."
            )
        if self.solver != "adam" and self.batch_size is not None:
            raise ValueError(
                f"solver={self.solver!r} needs all ratings in each step: use "
                f"batch_size=None (got {self.batch_size}) or solver='adam'."
            )
        if self.solver == "lbfgs" and (self.input_dropout or self.dropout):
            raise ValueError(
                "solver='lbfgs' needs a deterministic loss: use input_dropout=0 and "
                f"dropout=0 (got {self.input_dropout} and {self.dropout}) or "
                "solver='adam'."
            )
        return [int(size) for size in sizes]

    def _check_side(self, item_texts, item_features, user_features) -> None:
        """Reject what is known of rows that the network does not encode."""
        for name, given, kind in (
            ("item_texts", item_texts, "item"),
            ("item_features", item_features, "item"),
            ("user_features", user_features, "user"),
        ):
            if given is not None and self.kind != kind:
                raise ValueError(
                    f"{name} go with kind={kind!r}, which encodes {kind}s: with kind="
                    f"{self.kind!r}, the {kind}s are weights of the output, without "
                    f"input. Leave {name} out, or use kind={kind!r}."
                )

    def _make_model(self, device):
        return (ItemAutoRec if self._kind == "item" else UserAutoRec)(self, device)
