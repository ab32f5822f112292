"""AutoRec: autoencoders that predict ratings."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

from .._base import STOPPING_CONSTRAINTS, WARM_START_CONSTRAINTS, BaseRecommender
from .._core.networks import ACTIVATIONS
from .._core.training import SCHEDULES
from .._fitting import Fit
from .._sklearn_compat import Interval, StrOptions, fit_method
from .autorec_model import ItemAutoRec, UserAutoRec
from .autorec_trainer import AutoRecTrainer


class AutoRecRegressor(BaseRecommender):
    r"""Autoencoder that predicts ratings (AutoRec).

    Each item (or user) is the sparse vector of its ratings. An autoencoder compresses
    it to a code and reconstructs all ratings from that, the missing ones included.
    The work and the memory of an epoch are proportional to the number of ratings.

    Read more in the Notes. With ``input_scaling=0`` and ``input_dropout=0`` this is
    the model of [1]_.

    Parameters
    ----------
    kind : {"item", "user"}, default="item"
        Whether the rows that are reconstructed are items (I-AutoRec) or users
        (U-AutoRec). Items are usually more accurate.

    hidden_layer_sizes : int or array-like of shape (n_layers,), default=(500,)
        Units of each hidden layer. The last is the number of factors.

    activation : {"identity", "sigmoid", "tanh", "relu", "elu", "selu"}, \
default="sigmoid"
        g, the activation of the hidden layers.

    out_activation : {"identity", "sigmoid", "tanh", "relu", "elu", "selu"}, \
default="identity"
        f, the activation of the output. "sigmoid" and "tanh" are mapped onto the range
        of the training ratings.

    alpha : float, default=150.0
        The penalty lambda on the squared weights, on the scale of the sum of squared
        errors. Biases are not penalized.

    solver : {"adam", "rprop", "lbfgs"}, default="adam"
        The optimiser. "rprop" and "lbfgs" see all ratings in every step; "lbfgs" goes
        with no kind of dropout.

    batch_size : int or None, default=None
        Rows (items or users) in a step of "adam". None takes all in one step.

    learning_rate : {"constant", "linear", "cosine"}, default="linear"
        How the step size of "adam" falls: not at all, or to zero in `max_iter` epochs.

    learning_rate_init : float, default=0.003
        The first step size of "adam" or "rprop".

    max_iter : int, default=150
        The largest number of epochs; iterations of "lbfgs". All are made where the
        step size falls, unless `early_stopping` ends them.

    tol : float, default=1e-5
        Minimum relative decrease of the objective, or minimum increase of the
        validation score, that counts as an improvement.

    center_input : bool, default=False
        Subtract the global mean from the input, so that a rating that is not there
        counts as one of the mean. Worth it with ``kind="user"``. With ``kind="item"``
        the zeros of the raw input say who did not rate, which tells more.

    input_scaling : float, default=0.5
        The power of its number of ratings by which each row of the input is divided,
        relative to the mean number. Without it (0, as in the paper) the sums of much
        rated items drive the hidden units into saturation.

    input_dropout : float, default=0.5
        Probability that a rating is left out of the input, in [0, 1), drawn anew in
        each epoch. The rest is scaled up.

    dropout : float, default=0.0
        Probability that a hidden unit is left out, in [0, 1).

    text_components : int, default=50
        Numbers that a text is reduced to, if there are texts.

    early_stopping : bool, default=False
        Whether to hold out ratings, to stop when their score has not improved for
        `n_iter_no_change` iterations, and to keep the best parameters.

    validation_fraction : float, default=0.1
        Fraction of the ratings that is held out with `early_stopping`.

    n_iter_no_change : int, default=10
        Number of iterations without improvement after which to stop.

    warm_start : bool, default=False
        Start from the weights of the last fit, if there was one. Users and items are
        matched by id; new ones start at random, and so do the weights of texts.

    clip : bool, default=True
        Whether to keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        Device to compute on: "cpu", "cuda", "cuda:0", ...; "auto" takes a GPU where
        there is one. A fitted model falls back to the CPU where the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        Precision of the parameters.

    random_state : int, RandomState instance or None, default=None
        Determines initial weights, batches, dropout and held-out ratings. An int gives
        the same model in each call, bit for bit with the same number of threads.

    verbose : bool or int, default=False
        Whether to print the objective after each iteration. For progress bars set a
        callback: ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, n_components)
        Factors of the users: what `transform` returns for the users in `fit`.

    item_factors_ : ndarray of shape (n_items, n_components)
        Codes of the items, or their decoder rows (W) if ``kind="user"``.

    user_biases_, item_biases_ : ndarray of shape (n_users,) and (n_items,)
        The output biases b on the side of the decoder, zero on the other.

    intercept_ : float
        0: the biases have it all.

    encoder_coefs_ : list of ndarray
        V of shape (n_users, k_1), or (n_items, k_1) if ``kind="user"``, followed by a
        matrix of shape (k_i, k_i+1) for each further hidden layer.

    encoder_intercepts_ : list of ndarray of shape (k_i,)
        The biases of the hidden layers.

    text_coefs_ : ndarray of shape (n_text_components, k_1) or None
        The weights of the texts' numbers in the first hidden layer.

    loss_curve_ : list of float
        Objective after each iteration.

    validation_scores_ : list of float
        R² of the held-out ratings after each iteration; empty without
        `early_stopping`.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_ : see guide
        Common to all recommenders, see :ref:`shared-attributes`.

    n_iter_, n_features_in_, feature_names_in_, device_ : see guide
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    skrec.model_selection.ratings_to_samples : From a matrix to pairs.

    Notes
    -----
    With the ratings r of a row, observed at O, the model

    .. math:: h(r; \theta) = f(W \, g(V r + \mu) + b)

    minimises, with the weight w of each rating,

    .. math:: \sum_r \sum_{i \in O} w_i (r_i - h(r; \theta)_i)^2
              + \frac{\lambda}{2} (\|W\|^2 + \|V\|^2)

    and penalises the weights of further layers and of texts alike.

    With texts of the items, h is given further inputs beside r, as in [2]_: the text's
    tf-idf, reduced to `text_components` numbers by a singular value decomposition.
    An item without ratings then has a code of its own. For the network to learn what
    to make of it, a tenth of the items show no ratings in each step (but all do with
    ``solver="lbfgs"``, which needs a loss without chance).

    A row of a matrix in `predict` is a user who is known by that row alone. With
    ``kind="user"`` the network is evaluated. With ``kind="item"`` the user's decoder
    row is the ridge regression of the ratings on the codes of the items, with penalty
    lambda / 2, which is where training would converge for that row. If f is not the
    identity, it is found by Gauss-Newton.

    `score` of a matrix without y predicts each rating from the others in its row.
    That is exact, except if ``kind="item"`` and f is not the identity: then it is
    exact for the problem linearised at the row's solution (approximate
    leave-one-out). With ``alpha=0`` rows are solved with the smallest penalty that
    the precision allows.

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
    >>> model.fit(R[:250]).predict(R[250:]).shape
    (50, 100)
    >>> model.recommend(R[250:252], n_items=2)["user"].tolist()
    [0, 0, 1, 1]

    The samples may be ratings instead of users:

    >>> model.fit([["ann", "up"], ["ann", "alien"], ["bob", "up"]], [5, 2, 4])
    AutoRecRegressor(...)
    >>> model.predict([["bob", "alien"], ["eve", "up"]]).shape
    (2,)
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
        "activation": [StrOptions(set(ACTIVATIONS))],
        "out_activation": [StrOptions(set(ACTIVATIONS))],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions({"adam", "rprop", "lbfgs"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "center_input": ["boolean"],
        "input_scaling": [Interval(Real, 0, 1, closed="both")],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "text_components": [Interval(Integral, 1, None, closed="left")],
    }

    # Texts belong to this estimator: with metadata routing they come unasked.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"item_texts": True}

    def __init__(
        self,
        *,
        kind="item",
        hidden_layer_sizes=(500,),
        activation="sigmoid",
        out_activation="identity",
        alpha=150.0,
        solver="adam",
        batch_size=None,
        learning_rate="linear",
        learning_rate_init=0.003,
        max_iter=150,
        tol=1e-5,
        center_input=False,
        input_scaling=0.5,
        input_dropout=0.5,
        dropout=0.0,
        text_components=50,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.out_activation = out_activation
        self.alpha = alpha
        self.solver = solver
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.tol = tol
        self.center_input = center_input
        self.input_scaling = input_scaling
        self.input_dropout = input_dropout
        self.dropout = dropout
        self.text_components = text_components
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
    def fit(self, X, y=None, *, sample_weight=None, item_texts=None):
        """Fit the model to ratings, and to texts of the items.

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
            Item id to text; beside a matrix also one text for each column. Only with
            ``kind="item"``. See :class:`skrec.text.ItemTexts`, which passes whole
            through cross-validation.

        Returns
        -------
        self : AutoRecRegressor

        Raises
        ------
        TypeError, ValueError
            If the ratings or parameters are not what they should be; see the message.

        Warns
        -----
        ConvergenceWarning
            If the loss became infinite, or had not settled in `max_iter` epochs of a
            step size that does not fall.
        """
        sizes = self._check_parameters(item_texts)
        fit = Fit(self, X, y, sample_weight, item_texts)
        return fit.run(AutoRecTrainer(fit, sizes))

    def _check_parameters(self, item_texts) -> list[int]:
        """Refuse parameters that do not go together; return the sizes of the layers."""
        sizes = self.hidden_layer_sizes
        sizes = [sizes] if isinstance(sizes, Integral) else list(sizes)
        if not sizes or not all(isinstance(s, Integral) and int(s) > 0 for s in sizes):
            raise ValueError(
                "hidden_layer_sizes must be a positive integer or a sequence of them, "
                f"got {self.hidden_layer_sizes!r}."
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
        if item_texts is not None and self.kind != "item":
            raise ValueError(
                "item_texts go with kind='item', whose rows they belong to, got "
                f"kind={self.kind!r}: leave them out, or use kind='item'."
            )
        return [int(size) for size in sizes]

    def _make_model(self, device):
        return (ItemAutoRec if self._kind == "item" else UserAutoRec)(self, device)
