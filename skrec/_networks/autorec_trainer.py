"""Training of AutoRec networks."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.batches import InputTransform, Rows, drop
from .._core.device import as_tensor, make_generator
from .._core.networks import Autoencoder, AutoencoderWeights, OutputActivation
from .._core.training import Descent, PenalizedLoss
from .._data.ids import positions_of
from .._data.ratings import Ratings
from .._data.texts import reduce_texts
from .._fitting import Fit, Trainer, r_squared

# Fraction of the rows whose ratings are dropped, leaving their text; drawn each step.
_COLD_RATE = 0.1


class AutoRecTrainer(Trainer):
    """Trainer of an autoencoder of rows of ratings.

    Parameters
    ----------
    fit : Fit
        Fit of an `AutoRecRegressor`.

    sizes : list of int
        Sizes of the hidden layers.
    """

    def __init__(self, fit: Fit, sizes: list[int]):
        params = self.params = fit.estimator
        self.n_epochs = params.max_iter
        self.is_item = params.kind == "item"
        self.input = self._input_transform(fit)
        self.rows = self._orient(fit, fit.training, self.input)
        if fit.texts is not None and fit.known._has_text.any():
            side = reduce_texts(fit.texts, params.text_components, fit.random_state)
            fit.known._has_text = np.asarray(side.any(axis=1))
            self.rows = self.rows._replace(side=torch.tensor(side).to(self.rows.inputs))
        self.network = self._make_network(fit, sizes)
        order = make_generator(fit.draw_seed())
        self.dropout_generator = make_generator(fit.draw_seed(), fit.device)
        batches = self.rows.cut(params.batch_size, order)
        self.descent = Descent(
            PenalizedLoss(
                self._loss,
                self.network.parameters(),
                self.network.penalized(),
                params.alpha,
            ),
            batches,
            [batch.pattern.nnz / self.rows.pattern.nnz for batch in batches],
            solver=params.solver,
            learning_rate=params.learning_rate_init,
            schedule=params.learning_rate,
            n_epochs=params.max_iter,
            generator=order,
        )
        self.may_settle = self.must_settle = self.descent.settles
        if fit.held_out is not None:
            self.held_out = self._orient(fit, fit.held_out, InputTransform())

    def parameters(self):
        return list(self.network.parameters())

    def optimizers(self):
        return [self.descent.optimizer]

    def generators(self):
        return [self.descent.generator, self.dropout_generator]

    def step(self, epoch, keep):
        return self.descent.step(epoch, keep)

    @torch.no_grad()
    def validate(self):
        targets = self.held_out
        predicted = self.network.decode(targets.pattern, self._codes())
        return r_squared(targets.targets, predicted, targets.weights)

    @torch.no_grad()
    def attributes(self) -> dict[str, Any]:
        codes = self._codes().cpu().numpy()
        weights = self.network.weights()
        encoded = codes, np.zeros(len(codes), codes.dtype)
        decoded = weights.decoder.numpy(), weights.decoder_bias.numpy()
        users, items = (decoded, encoded) if self.is_item else (encoded, decoded)
        params = self.params
        return {
            "user_factors_": users[0],
            "item_factors_": items[0],
            "user_biases_": users[1],
            "item_biases_": items[1],
            "intercept_": 0.0,
            "encoder_coefs_": [w.numpy() for w in weights.encoder],
            "encoder_intercepts_": [b.numpy() for b in weights.encoder_biases],
            "text_coefs_": None if weights.side is None else weights.side.numpy(),
            "_kind": params.kind,
            "_alpha": float(params.alpha),
            "_activations": (params.activation, params.out_activation),
            "_input": self.input,
        }

    def _input_transform(self, fit: Fit) -> InputTransform:
        ratings, params = fit.training, self.params
        rated = ratings.indices if self.is_item else ratings.rows
        mean_count = ratings.n_ratings / len(np.unique(rated))
        center = fit.known.global_mean_ if params.center_input else 0.0
        return InputTransform(center, mean_count, params.input_scaling)

    def _orient(self, fit: Fit, ratings: Ratings, transform: InputTransform) -> Rows:
        """Convert ratings to input rows of the network, which are users or items."""
        pattern, values, weights = fit.tensors(ratings, device=torch.device("cpu"))
        rows = Rows(pattern, values, values, weights)
        if self.is_item:
            rows = rows.arrange(pattern.transposed, pattern.order)
        inputs = transform(rows.pattern, rows.targets)
        return rows._replace(inputs=inputs).to(fit.device)

    def _make_network(self, fit: Fit, sizes: list[int]) -> Autoencoder:
        params, ratings, side = self.params, fit.ratings, self.rows.side
        visible = ratings.users if self.is_item else ratings.items
        low, high = ratings.values.min(), ratings.values.max()
        output = OutputActivation(params.out_activation, float(low), float(high))
        weights = AutoencoderWeights.draw(
            len(visible),
            sizes,
            params.activation,
            output.start(float(ratings.values.mean())),
            make_generator(fit.draw_seed()),
            fit.dtype,
            0 if side is None else side.shape[1],
        )
        if fit.previous is not None:
            _continue(weights, sizes, visible, params.kind, fit.previous)
        return Autoencoder(weights, params.activation, output, fit.device)

    def _codes(self) -> Tensor:
        """Codes of all rows."""
        rows = self.rows
        return self.network.encode(rows.pattern, rows.inputs, rows.side)

    def _loss(self, rows: Rows) -> Tensor:
        """Weighted sum of squared errors of the reconstructed ratings."""
        params, generator = self.params, self.dropout_generator
        inputs = drop(rows.inputs, params.input_dropout, generator)
        drop_units = functools.partial(drop, rate=params.dropout, generator=generator)
        if rows.side is not None and params.solver != "lbfgs":
            inputs = inputs * _keep_rows(rows, generator)
        codes = self.network.encode(rows.pattern, inputs, rows.side, drop_units)
        error = self.network.decode(rows.pattern, codes) - rows.targets
        weighted = error if rows.weights is None else error * rows.weights
        return torch.dot(error, weighted)


def fitted_weights(fitted: Any) -> AutoencoderWeights:
    """Fitted weights as tensors that share memory with the attributes."""
    is_item = fitted._kind == "item"
    return AutoencoderWeights(
        [as_tensor(w) for w in fitted.encoder_coefs_],
        [as_tensor(b) for b in fitted.encoder_intercepts_],
        as_tensor(fitted.user_factors_ if is_item else fitted.item_factors_),
        as_tensor(fitted.user_biases_ if is_item else fitted.item_biases_),
    )


def _continue(weights, sizes, visible, kind, previous):
    """Replace initial weights with those of the previous fit, where available."""
    old = fitted_weights(previous)
    if previous._kind != kind or sizes != [len(b) for b in old.encoder_biases]:
        raise ValueError(
            "warm_start=True cannot continue a fit of another kind or other "
            "hidden_layer_sizes: use warm_start=False."
        )
    is_item = kind == "item"
    known = previous.users_ if is_item else previous.items_
    positions = positions_of(visible, known, "user" if is_item else "item")
    new = np.flatnonzero(positions >= 0)
    positions = positions[new]
    for tensor, source in [
        (weights.encoder[0], old.encoder[0]),
        (weights.decoder, old.decoder),
        (weights.decoder_bias, old.decoder_bias),
    ]:
        tensor[new] = source[positions].to(tensor.dtype)
    dtype = weights.decoder.dtype
    weights.encoder[1:] = [w.to(dtype) for w in old.encoder[1:]]
    weights.encoder_biases = [b.to(dtype) for b in old.encoder_biases]


def _keep_rows(rows: Rows, generator: torch.Generator) -> Tensor:
    """Mask of shape (n_ratings,): 0 for the ratings of some rows, 1 for the others.

    Rows with all ratings masked must be predicted from their side information.
    """
    draws = torch.rand(
        rows.pattern.shape[0], generator=generator, device=rows.inputs.device
    )
    return (draws >= _COLD_RATE).to(rows.inputs.dtype)[rows.pattern.row]
