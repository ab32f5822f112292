"""AutoRec: autoencoders that predict ratings."""

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

from .._base import BaseRecommender, EpochReports
from .._core.batches import InputTransform, Rows, drop
from .._core.device import (
    as_tensor,
    inference_device,
    make_generator,
    resolve_device,
)
from .._core.networks import (
    ACTIVATIONS,
    Autoencoder,
    AutoencoderWeights,
    OutputActivation,
)
from .._core.ridge import positive_penalty, solve_rows
from .._core.sparse import Pattern
from .._core.training import SCHEDULES, History, PenalisedLoss, Stopping, train
from .._data.ids import positions_of
from .._data.ratings import Ratings
from .._data.texts import reduce_texts

# Share of the rows that show no rating but only their text, drawn anew in each step.
_COLD_RATE = 0.1


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
        errors. Biases are not penalised.

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
        What counts as an improvement: a decrease of the loss by this part, or an
        increase of the validation score by this much.

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
        Hold out ratings, stop when their score has not improved for
        `n_iter_no_change` epochs, and keep the best weights.

    validation_fraction : float, default=0.1
        The part of the ratings that is held out.

    n_iter_no_change : int, default=10
        Epochs without improvement after which to stop.

    warm_start : bool, default=False
        Start from the weights of the last fit, if there was one. Users and items are
        matched by id; new ones start at random, and so do the weights of texts.

    clip : bool, default=True
        Keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        "cpu", "cuda", "cuda:0", ...; "auto" takes a GPU where there is one. A fitted
        model falls back to the CPU where the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        The precision of the weights.

    random_state : int, RandomState instance or None, default=None
        Determines initial weights, batches, dropout and held-out ratings. An int gives
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

    user_factors_ : ndarray of shape (n_users, n_components)
        Decoder rows of the users (W), or their codes if ``kind="user"``.

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

    user_means_, item_means_ : ndarray of shape (n_users,) and (n_items,)
        Mean ratings, drawn to the global mean as by 5 ratings more.

    global_mean_ : float
        The mean rating.

    rating_range_ : tuple of (float, float)
        The lowest and the highest training rating.

    loss_curve_ : list of float
        The penalised loss in each epoch.

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

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sample_weight=None, item_texts=None):
        """Fit the model to ratings, and to texts of the items.

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
            good as absent, from the input too.

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
        device = resolve_device(self.device)
        sizes = self._check_layers()
        ratings, texts, known = self._check_fit(X, y, sample_weight, item_texts)
        random_state = check_random_state(self.random_state)
        training, held_out = self._hold_out(ratings, random_state)
        known["_input"] = self._input_transform(training, known["global_mean_"])
        rows = self._orient(training, known["_input"], device)
        if known["_has_text"].any():
            side = reduce_texts(texts, self.text_components, random_state)
            known["_has_text"] = side.any(axis=1)
            rows = rows._replace(side=torch.tensor(side).to(rows.inputs))
        network = self._make_network(sizes, ratings, rows.side, random_state, device)

        def fitted():
            return known | self._describe(network, rows)

        metadata = {"sample_weight": sample_weight, "item_texts": item_texts}
        reports = EpochReports(self, X, y, metadata, fitted)
        history = self._train(network, rows, held_out, random_state, reports)
        self._conclude(
            fitted() | {"device_": str(device)},
            history,
            reports,
            settles=self.solver != "adam" or self.learning_rate == "constant",
            stacklevel=5,
        )
        return self

    def _check_fit(self, X, y, sample_weight, item_texts=None):
        if item_texts is not None and self.kind != "item":
            raise ValueError(
                "item_texts go with kind='item', whose rows they belong to, got "
                f"kind={self.kind!r}: leave them out, or use kind='item'."
            )
        return super()._check_fit(X, y, sample_weight, item_texts)

    def _check_layers(self) -> list[int]:
        """The sizes of the hidden layers; refuse what does not go together."""
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
                "solver='lbfgs' needs a loss without chance: use input_dropout=0 and "
                f"dropout=0 (got {self.input_dropout} and {self.dropout}) or "
                "solver='adam'."
            )
        return [int(size) for size in sizes]

    def _make_network(self, sizes, ratings, side, random_state, device) -> Autoencoder:
        visible = ratings.users if self.kind == "item" else ratings.items
        low, high = ratings.values.min(), ratings.values.max()
        output = OutputActivation(self.out_activation, float(low), float(high))
        weights = AutoencoderWeights.draw(
            len(visible),
            sizes,
            self.activation,
            output.start(float(ratings.values.mean())),
            make_generator(_draw_seed(random_state)),
            getattr(torch, self.dtype),
            0 if side is None else side.shape[1],
        )
        if self.warm_start and hasattr(self, "encoder_coefs_"):
            self._continue_from_fit(weights, sizes, visible)
        return Autoencoder(weights, self.activation, output, device)

    def _continue_from_fit(self, weights, sizes, visible):
        """Overwrite initial weights by those of the last fit, where there are any."""
        old = self._weights()
        if self._kind != self.kind or sizes != [len(b) for b in old.encoder_biases]:
            raise ValueError(
                "warm_start=True cannot continue a fit of another kind or other "
                "hidden_layer_sizes: use warm_start=False."
            )
        ids = self.users_ if self.kind == "item" else self.items_
        positions = positions_of(visible, ids, self.kind)
        new = np.flatnonzero(positions >= 0)
        positions = positions[new]
        for tensor, source in [
            (weights.encoder[0], old.encoder[0]),
            (weights.decoder, old.decoder),
            (weights.decoder_bias, old.decoder_bias),
        ]:
            tensor[new] = source[positions].to(tensor.dtype)
        weights.encoder[1:] = [w.to(weights.decoder.dtype) for w in old.encoder[1:]]
        weights.encoder_biases = [
            b.to(weights.decoder.dtype) for b in old.encoder_biases
        ]

    def _input_transform(self, ratings: Ratings, mean) -> InputTransform:
        rated = ratings.indices if self.kind == "item" else ratings.rows
        mean_count = ratings.n_ratings / len(np.unique(rated))
        return InputTransform(
            mean if self.center_input else 0.0, mean_count, self.input_scaling
        )

    def _orient(self, ratings: Ratings, transform: InputTransform, device) -> Rows:
        """Ratings as rows of the network's input: users or items."""
        pattern, values, weights = self._to_tensors(ratings, 0.0, torch.device("cpu"))
        rows = Rows(pattern, values, values, weights)
        if self.kind == "item":
            rows = rows.arrange(pattern.transposed, pattern.order)
        return rows._replace(inputs=transform(rows.pattern, rows.targets)).to(device)

    def _train(self, network, rows, held_out, random_state, reports) -> History:
        order = make_generator(_draw_seed(random_state))
        noise = make_generator(_draw_seed(random_state), network.device)
        objective = PenalisedLoss(
            functools.partial(self._loss, network, noise),
            network.parameters(),
            network.penalised(),
            self.alpha,
        )
        batches = rows.cut(self.batch_size, order)
        validate = None
        if held_out is not None:
            targets = self._orient(held_out, InputTransform(), network.device)
            validate = functools.partial(self._validation_score, network, rows, targets)
        return train(
            objective,
            batches,
            [batch.pattern.nnz / rows.pattern.nnz for batch in batches],
            Stopping(self.max_iter, self.tol, self.n_iter_no_change),
            solver=self.solver,
            learning_rate=self.learning_rate_init,
            schedule=self.learning_rate,
            generator=order,
            validate=validate,
            begin_epoch=reports.begin_epoch,
            end_epoch=reports.end_epoch,
        )

    def _loss(self, network, noise, rows: Rows) -> torch.Tensor:
        """The weighted squared errors of the reconstructed ratings."""
        inputs = drop(rows.inputs, self.input_dropout, noise)
        drop_units = functools.partial(drop, rate=self.dropout, generator=noise)
        if rows.side is not None and self.solver != "lbfgs":
            inputs = inputs * _keep_rows(rows, noise)
        codes = network.encode(rows.pattern, inputs, rows.side, drop_units)
        error = network.decode(rows.pattern, codes) - rows.targets
        weighted = error if rows.weights is None else error * rows.weights
        return torch.dot(error, weighted)

    @torch.no_grad()
    def _validation_score(self, network, rows: Rows, targets: Rows) -> float:
        codes = network.encode(rows.pattern, rows.inputs, rows.side)
        predicted = network.decode(targets.pattern, codes).cpu().numpy()
        weights = None if targets.weights is None else targets.weights.cpu().numpy()
        return r2_score(targets.targets.cpu(), predicted, sample_weight=weights)

    @torch.no_grad()
    def _describe(self, network, rows: Rows) -> dict[str, Any]:
        """The fitted attributes that the present weights amount to."""
        codes = network.encode(rows.pattern, rows.inputs, rows.side).cpu().numpy()
        weights = network.weights()
        sides = ("item", "user") if self.kind == "item" else ("user", "item")
        encoded, decoded = sides
        return {
            "_kind": self.kind,
            "_alpha": float(self.alpha),
            "_activations": (self.activation, self.out_activation),
            "intercept_": 0.0,
            "encoder_coefs_": [w.numpy() for w in weights.encoder],
            "encoder_intercepts_": [b.numpy() for b in weights.encoder_biases],
            "text_coefs_": None if weights.side is None else weights.side.numpy(),
            f"{encoded}_factors_": codes,
            f"{encoded}_biases_": np.zeros(len(codes), codes.dtype),
            f"{decoded}_factors_": weights.decoder.numpy(),
            f"{decoded}_biases_": weights.decoder_bias.numpy(),
        }

    def _weights(self) -> AutoencoderWeights:
        """The fitted weights as tensors that share the memory of the attributes."""
        decoded = "user" if self._kind == "item" else "item"
        return AutoencoderWeights(
            [as_tensor(w) for w in self.encoder_coefs_],
            [as_tensor(b) for b in self.encoder_intercepts_],
            as_tensor(getattr(self, f"{decoded}_factors_")),
            as_tensor(getattr(self, f"{decoded}_biases_")),
        )

    def _output(self) -> OutputActivation:
        return OutputActivation(self._activations[1], *self.rating_range_)

    def _link(self, sums):
        return self._output()(sums)

    @torch.no_grad()
    def _fold_in(self, rows):
        if self._kind == "item":
            solutions = self._solve_users(rows)
            dtype = self.user_factors_.dtype
            return (
                solutions.coef.cpu().numpy().astype(dtype),
                solutions.intercept.cpu().numpy().astype(dtype),
            )
        pattern, ratings = self._tensors(rows)
        inputs = self._input(pattern, ratings)
        codes = self._user_network().encode(pattern, inputs)
        return codes.cpu().numpy(), np.zeros(len(codes), self.user_biases_.dtype)

    def _leave_one_out(self, rows):
        if self._kind == "item":
            return self._solve_users(rows, leave_one_out=True).left_out.cpu().numpy()
        network = self._user_network()
        return network.leave_one_out(*self._tensors(rows), self._input).cpu().numpy()

    def _solve_users(self, rows, leave_one_out=False):
        """Decoder rows of new users: ridge regressions on the codes of the items."""
        device = inference_device(self.device)
        factors = as_tensor(self.item_factors_, device=device).double()
        output = self._output()
        return solve_rows(
            as_tensor(rows.indptr, device=device),
            as_tensor(rows.indices, device=device),
            as_tensor(rows.data, device=device),
            factors,
            positive_penalty(self._alpha / 2, factors),  # the loss has no factor 1/2
            link=None if output.is_identity else output,
            start=output.start(self.global_mean_),
            leave_one_out=leave_one_out,
        )

    def _user_network(self) -> Autoencoder:
        device = inference_device(self.device)
        return Autoencoder(
            self._weights(), self._activations[0], self._output(), device
        )

    def _tensors(self, rows) -> tuple[Pattern, torch.Tensor]:
        pattern, dtype = self._pattern(rows), getattr(torch, self.dtype)
        return pattern, as_tensor(rows.data).to(pattern.col.device, dtype)


def _keep_rows(rows: Rows, generator: torch.Generator) -> torch.Tensor:
    """0 for the ratings of some rows and 1 for the others, of shape (n_ratings,).

    A row without any rating of its own has to be known by its side information.
    """
    draws = torch.rand(
        rows.pattern.shape[0], generator=generator, device=rows.inputs.device
    )
    return (draws >= _COLD_RATE).to(rows.inputs.dtype)[rows.pattern.row]


def _draw_seed(random_state) -> int:
    return int(random_state.randint(np.iinfo(np.int32).max))
