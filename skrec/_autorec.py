"""AutoRec: autoencoders that predict ratings."""

from __future__ import annotations

import functools
import math
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from ._base import BaseRecommender, EpochReports
from ._core.batches import Rows, drop, scale_rows
from ._core.device import (
    as_tensor,
    inference_device,
    make_generator,
    resolve_device,
)
from ._core.networks import (
    ACTIVATIONS,
    Autoencoder,
    AutoencoderWeights,
    OutputActivation,
)
from ._core.ridge import solve_rows
from ._core.sparse import Pattern, spmm
from ._core.training import SCHEDULES, History, PenalisedLoss, Stopping, train
from ._ids import positions_of
from ._ratings import Ratings

# Numbers that leaving one out holds at once.
_CHUNK = 2**24
# The smallest penalty in folding a user in, relative to the squared length of a code.
_SMALLEST_PENALTY = 1e-8


class AutoRecRegressor(BaseRecommender):
    """Autoencoder that predicts ratings (AutoRec)."""

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
        "input_scaling": [Interval(Real, 0, 1, closed="both")],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        *,
        kind="item",
        hidden_layer_sizes=(500,),
        activation="sigmoid",
        out_activation="identity",
        alpha=100.0,
        solver="adam",
        batch_size=None,
        learning_rate="linear",
        learning_rate_init=0.003,
        max_iter=150,
        tol=1e-5,
        input_scaling=0.5,
        input_dropout=0.2,
        dropout=0.0,
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
        self.input_scaling = input_scaling
        self.input_dropout = input_dropout
        self.dropout = dropout
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
        device = resolve_device(self.device)
        sizes = self._check_layers()
        ratings, known = self._check_fit(X, y, sample_weight)
        random_state = check_random_state(self.random_state)
        training, held_out = self._hold_out(ratings, random_state)
        network = self._make_network(sizes, ratings, random_state, device)
        rows = self._orient(training, device)
        known["_mean_count"] = _mean_count(rows.pattern)

        def fitted():
            return known | self._describe(network, rows)

        reports = EpochReports(self, X, y, sample_weight, fitted)
        history = self._train(network, rows, held_out, random_state, reports)
        for name, value in (fitted() | {"device_": str(device)}).items():
            setattr(self, name, value)
        self._conclude(
            history, settles=self.solver != "adam" or self.learning_rate == "constant"
        )
        reports.end()
        return self

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

    def _hold_out(self, ratings, random_state) -> tuple[Ratings, Ratings | None]:
        """Split ratings into those to train on and those to stop early by."""
        if not self.early_stopping:
            return ratings, None
        n_held_out = math.ceil(self.validation_fraction * ratings.n_ratings)
        if n_held_out == ratings.n_ratings:
            raise ValueError(
                f"early_stopping=True leaves no rating to train on out of "
                f"{ratings.n_ratings}: use early_stopping=False."
            )
        is_held_out = random_state.permutation(ratings.n_ratings) < n_held_out
        return ratings.select(~is_held_out), ratings.select(is_held_out)

    def _make_network(self, sizes, ratings, random_state, device) -> Autoencoder:
        visible = ratings.users if self.kind == "item" else ratings.items
        low, high = ratings.values.min(), ratings.values.max()
        output = OutputActivation(self.out_activation, float(low), float(high))
        weights = AutoencoderWeights.draw(
            len(visible),
            sizes,
            output.start(float(ratings.values.mean())),
            make_generator(_draw_seed(random_state)),
            getattr(torch, self.dtype),
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

    def _orient(self, ratings: Ratings, device) -> Rows:
        """Ratings as rows of the network's input: users or items."""
        pattern = Pattern(
            torch.tensor(ratings.indptr), torch.tensor(ratings.indices), ratings.shape
        )
        dtype = getattr(torch, self.dtype)
        values = torch.tensor(ratings.values, dtype=dtype)
        weights = None
        if ratings.weights is not None:
            weights = torch.tensor(ratings.weights, dtype=dtype)
        rows = Rows(pattern, values, values, weights)
        if self.kind == "item":
            rows = rows.arrange(pattern.transposed, pattern.order)
        mean_count = _mean_count(rows.pattern)
        return rows._replace(
            inputs=self._scale(rows.pattern, rows.targets, mean_count)
        ).to(device)

    def _scale(self, pattern, values, mean_count):
        """The input of the network: ratings, scaled by how many their row has."""
        counts = pattern.crow.diff().index_select(0, pattern.row)
        return scale_rows(values, counts, mean_count, self.input_scaling)

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
            targets = self._orient(held_out, network.device)
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
        codes = network.encode(rows.pattern, inputs, drop_units)
        error = network.decode(rows.pattern, codes) - rows.targets
        weighted = error if rows.weights is None else error * rows.weights
        return torch.dot(error, weighted)

    @torch.no_grad()
    def _validation_score(self, network, rows: Rows, targets: Rows) -> float:
        codes = network.encode(rows.pattern, rows.inputs)
        predicted = network.decode(targets.pattern, codes).cpu().numpy()
        weights = None if targets.weights is None else targets.weights.cpu().numpy()
        return r2_score(targets.targets.cpu(), predicted, sample_weight=weights)

    @torch.no_grad()
    def _describe(self, network, rows: Rows) -> dict[str, Any]:
        """The fitted attributes that the present weights amount to."""
        codes = torch.cat(network.encode(rows.pattern, rows.inputs), 1).cpu().numpy()
        weights = network.weights()
        sides = ("item", "user") if self.kind == "item" else ("user", "item")
        encoded, decoded = sides
        return {
            "_kind": self.kind,
            "encoder_coefs_": [w.numpy() for w in weights.encoder],
            "encoder_intercepts_": [b.numpy() for b in weights.encoder_biases],
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
        return OutputActivation(self.out_activation, *self.rating_range_)

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
        pattern, ratings = self._input(rows)
        inputs = self._scale(pattern, ratings, self._mean_count)
        codes = torch.cat(self._user_network().encode(pattern, inputs), 1)
        return codes.cpu().numpy(), np.zeros(len(codes), self.user_biases_.dtype)

    def _leave_one_out(self, rows):
        if self._kind == "item":
            return self._solve_users(rows, leave_one_out=True).left_out.cpu().numpy()
        return self._evaluate_left_out(rows)

    def _solve_users(self, rows, leave_one_out=False):
        """Decoder rows of new users: ridge regressions on the codes of the items."""
        device = inference_device(self.device)
        factors = as_tensor(self.item_factors_, device=device).double()
        smallest = _SMALLEST_PENALTY * float(factors.square().sum(1).max())
        output = self._output()
        return solve_rows(
            as_tensor(rows.indptr, device=device),
            as_tensor(rows.indices, device=device),
            as_tensor(rows.data, device=device),
            factors,
            max(self.alpha / 2, smallest),  # the loss has no factor 1/2
            link=None if output.is_identity else output,
            start=output.start(self.global_mean_),
            leave_one_out=leave_one_out,
        )

    def _user_network(self) -> Autoencoder:
        device = inference_device(self.device)
        return Autoencoder(self._weights(), self.activation, self._output(), device)

    def _input(self, rows) -> tuple[Pattern, torch.Tensor]:
        device = inference_device(self.device)
        pattern = Pattern(as_tensor(rows.indptr), as_tensor(rows.indices), rows.shape)
        values = as_tensor(rows.data).to(getattr(torch, self.dtype))
        return pattern.to(device), values.to(device)

    @torch.no_grad()
    def _evaluate_left_out(self, rows):
        """Evaluate the network for each rating with that rating taken out.

        Without rating j, the sums V r of the first layer lack V_j r_j, and the row has
        one rating less to be scaled by.
        """
        network = self._user_network()
        pattern, values = self._input(rows)
        counts = pattern.crow.diff()
        V, W, b = (
            as_tensor(array, values.device)
            for array in (self.encoder_coefs_[0], self.item_factors_, self.item_biases_)
        )
        sums = spmm(pattern, values, V)
        parts = [values.new_empty(0)]
        for part in torch.arange(pattern.nnz, device=values.device).split(
            max(1, _CHUNK // max(V.shape[1], W.shape[1]))
        ):
            row, item = pattern.row[part], pattern.col[part]
            without = sums[row] - values[part].unsqueeze(1) * V[item]
            without = scale_rows(
                without, counts[row] - 1, self._mean_count, self.input_scaling
            )
            codes = torch.cat(network.finish([without]), 1)
            parts.append(network.out_activation((codes * W[item]).sum(1) + b[item]))
        return torch.cat(parts).cpu().numpy()


def _mean_count(pattern: Pattern) -> float:
    """The mean number of ratings in the rows that have any."""
    return pattern.nnz / int(pattern.crow.diff().count_nonzero())


def _draw_seed(random_state) -> int:
    return int(random_state.randint(np.iinfo(np.int32).max))
