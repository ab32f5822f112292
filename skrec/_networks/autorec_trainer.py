"""Training of AutoRec networks."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.batches import InputTransform, Rows, drop
from .._core.collectives import WHOLE, Layout
from .._core.device import as_tensor, make_generator
from .._core.networks import Autoencoder, AutoencoderWeights, OutputActivation
from .._core.training import Descent, PenalizedLoss, Stopping, iterate
from .._data.ids import positions_of
from .._data.ratings import Ratings, average, take_in_chunks
from .._fitting import Fit, Trainer, pattern_of, r_squared
from .effects import Effects
from .side_input import SideInput

# Fraction of the rows whose ratings are dropped, leaving what is known of them; drawn
# each step.
_COLD_RATE = 0.1
# Mean and standard deviation of normalized ratings in the input of the network. Missing
# ratings are zeros there, so ratings must be far from zero for the network to see who
# rated. The values are about those of ratings by stars, to which the default step size
# and the initial weights belong.
_LEVEL, _SPREAD = 3.5, 0.9
# The penalty "auto" relative to the root of the mean number of ratings in a row. It was
# chosen on validation ratings of seven data sets with 8,000 to 800,000 ratings.
_PENALTY_PER_ROOT = 20.0


class AutoRecTrainer(Trainer):
    """Trainer of an autoencoder of rows of ratings.

    Parameters
    ----------
    fit : Fit
        Fit of an `AutoRecRegressor`.

    sizes : list of int
        Sizes of the hidden layers.
    """

    keeps_first = True  # as `run_epoch` does

    def __init__(self, fit: Fit, sizes: list[int]):
        params = self.params = fit.estimator
        self.n_epochs = params.max_iter
        self.is_item = params.kind == "item"
        self.mean, self.scale, self.group = fit.mean, fit.known._scale, fit.group
        # Of the rows of the network, which are items or users
        self.layout = WHOLE
        if fit.group.size > 1:
            kind = "entries" if self.is_item else "rows"
            self.layout = Layout(**{kind: fit.group})
        self.effects = None
        if params.baseline:
            self.effects = Effects.of(fit.training, fit.mean, fit.group)
        self.shift, self.unit = self._output_scale(fit.training)
        self.input = self._input_transform(fit.training)
        self.alpha = self._resolve_alpha(fit.training)
        residuals = torch.from_numpy(self._residuals(fit.training)).to(fit.dtype)
        rows = self._orient(fit, fit.training, residuals)
        del residuals
        inputs = self.input(rows.pattern, rows.inputs, self.layout.entries)
        self.rows = rows._replace(inputs=inputs)
        self.side = SideInput.of(fit)
        if self.side.values is not None:
            side = self.side.values.to(self.rows.inputs)
            self.rows = self.rows._replace(side=side)
            if self.effects is not None:
                own = self.effects.items if self.is_item else self.effects.users
                effects = torch.tensor(own / self.unit).to(self.rows.inputs)
                self.rows = self.rows._replace(effects=effects)
        self.network = self._make_network(fit, sizes)
        order = make_generator(fit.draw_seed())
        seed = fit.draw_seed()
        self.input_generator = make_generator(seed + fit.group.rank, fit.device)
        # Items have the same units on all ranks.
        self.unit_generator = self.input_generator
        if self.layout.entries.size > 1:
            self.unit_generator = make_generator(fit.draw_seed(), fit.device)
        self.batches = self.rows.cut(params.batch_size, order)
        self.descent = self._make_descent(order)
        self.may_settle = self.must_settle = self.descent.settles
        # The weights of a previous fit need no pre-training.
        pretrains = params.pretraining and fit.previous is None
        self.n_stages = len(sizes) // 2 if pretrains else 0
        self.stops_early = fit.held_out is not None
        if fit.held_out is not None:
            offsets = (self._offsets(fit.held_out) - self.shift) / self.unit
            inputs = torch.from_numpy(offsets).to(fit.dtype)
            self.held_out = self._orient(fit, fit.held_out, inputs)

    def parameters(self):
        return list(self.network.parameters())

    def optimizers(self):
        return [self.descent.optimizer]

    def generators(self):
        found = [self.descent.generator, self.input_generator]
        if self.unit_generator is not self.input_generator:
            found.append(self.unit_generator)
        return found

    def step(self, epoch, keep):
        if epoch == 0 and self.n_stages:
            self._pretrain()
        return self.descent.step(epoch, keep)

    @torch.no_grad()
    def validate(self):
        rows = self.held_out
        predicted = self.network.decode(rows.pattern, self._codes())
        # R² of the ratings, not of what the network reconstructs of them
        ratings, predicted = rows.targets + rows.inputs, predicted + rows.inputs
        return r_squared(ratings, predicted, rows.weights, self.group)

    @torch.no_grad()
    def attributes(self) -> dict[str, Any]:
        params, effects, output = self.params, self.effects, self.network.out_activation
        codes = self._codes().cpu().numpy()
        weights = self.network.weights()
        W, b = weights.decoder.numpy(), weights.decoder_bias.numpy()
        if output.is_identity:  # otherwise only the model's output has the unit
            W, b = W * self.unit, b * self.unit + self.shift
        own = np.zeros(len(codes))
        if effects is not None:
            own = effects.items if self.is_item else effects.users
        encoded, decoded = (codes, own.astype(codes.dtype)), (W, b)
        users, items = (decoded, encoded) if self.is_item else (encoded, decoded)
        found = {
            "user_factors_": users[0],
            "item_factors_": items[0],
            "user_biases_": users[1],
            "item_biases_": items[1],
            "intercept_": 0.0 if effects is None else self.mean,
            "user_effects_": None if effects is None else effects.users,
            "item_effects_": None if effects is None else effects.items,
            "encoder_coefs_": [w.numpy() for w in weights.encoder],
            "encoder_intercepts_": [b.numpy() for b in weights.encoder_biases],
            **self.side.attributes(weights.side),
            "alpha_": self.alpha,
            "_kind": params.kind,
            "_lambda_u": None if effects is None else effects.lambda_u,
            "_activations": (params.activation, params.out_activation),
            "_output_range": output.range,
            "_output_scale": (self.shift, self.unit),
            "_input": self.input,
        }
        if effects is not None:
            found |= {
                "user_means_": self.scale.restore(self.mean + effects.users),
                "item_means_": self.scale.restore(self.mean + effects.items),
            }
        return found

    def _pretrain(self) -> None:
        """Train the outer layers, in stages with more and more of the layers within.

        All layers are in use afterwards.
        """
        params = self.params
        stopping = Stopping(params.max_iter, params.tol, params.n_iter_no_change)
        for stage in range(self.n_stages):
            self.network.use_outer(stage + 1)
            descent = self._make_descent(self.descent.generator)
            history = iterate(
                descent.step,
                self.network.used(),
                stopping,
                validate=self.validate if self.stops_early else None,
                may_settle=descent.settles,
            )
            if history.interrupt is not None:
                raise history.interrupt
        self.network.use_outer(len(self.network.encoder))

    def _make_descent(self, generator: torch.Generator | None) -> Descent:
        """Descent of the layers in use."""
        params, n_ratings = self.params, self.rows.pattern.nnz
        network, own = self.network, None
        if self.layout.entries.size > 1:
            own = [network.encoder[0], network.decoder, network.decoder_bias]
        return Descent(
            PenalizedLoss(
                self._loss,
                self.network.used(),
                self.network.penalized(),
                self.alpha,
                self._penalized_biases(),
                self.group,
                own,
            ),
            self.batches,
            [batch.pattern.nnz / n_ratings for batch in self.batches],
            solver=params.solver,
            learning_rate=params.learning_rate_init,
            schedule=params.learning_rate,
            n_epochs=params.max_iter,
            generator=generator,
        )

    def _output_scale(self, ratings: Ratings) -> tuple[float, float]:
        """Value that is 0 and unit of the network's ratings, in those of the model."""
        if not self.params.normalize_y:
            return 0.0, 1.0
        if self.effects is None:
            return -_LEVEL / _SPREAD, 1 / _SPREAD
        squares = self._residuals(ratings)
        squares *= squares
        std = math.sqrt(average(squares, ratings.weights, self.group.total))
        return 0.0, (std or 1.0) / _SPREAD

    def _resolve_alpha(self, ratings: Ratings) -> float:
        if self.params.alpha != "auto":
            return float(self.params.alpha)
        # In the unit of the squared errors, which have weights
        weights, total = ratings.weights, self.group.total
        sum_of_weights = ratings.n_ratings if weights is None else weights.sum()
        weight = float(total(float(sum_of_weights)) / total(ratings.n_ratings))
        return _PENALTY_PER_ROOT * weight * math.sqrt(self.input.mean_count)

    def _residuals(self, ratings: Ratings) -> np.ndarray:
        """Ratings that the network sees: less the mean and both effects, if any."""
        if self.effects is None:
            return ratings.values
        residuals = ratings.values
        residuals -= self.mean
        residuals -= self.effects.at(ratings)
        return residuals

    def _offsets(self, ratings: Ratings) -> np.ndarray:
        """Part of each rating that the network does not reconstruct."""
        if self.effects is None:
            return np.full(ratings.n_ratings, self.shift)
        if self.is_item:
            return self.mean + take_in_chunks(self.effects.items, ratings.indices)
        return self.mean + np.repeat(self.effects.users, np.diff(ratings.indptr))

    def _input_transform(self, ratings: Ratings) -> InputTransform:
        params = self.params
        counts = np.diff(ratings.indptr)
        if self.is_item:
            counts = np.bincount(ratings.indices, minlength=len(ratings.items))
        n_rated = np.count_nonzero(self.layout.entries.total(counts))
        mean_count = self.group.total(ratings.n_ratings)
        mean_count /= self.layout.rows.total(n_rated)
        # Center and level of the ratings in the input, in the unit of the model
        center = self.mean if self.effects is None else 0.0
        level = _LEVEL * self.unit if params.normalize_y else self.mean
        if params.center_input:
            level = 0.0
        return InputTransform(
            center - level, mean_count, params.input_scaling, self.unit
        )

    def _orient(self, fit: Fit, ratings: Ratings, inputs: Tensor) -> Rows:
        """Convert ratings to rows of the network, which are users or items."""
        residuals = ratings.values
        residuals -= self._offsets(ratings)
        residuals /= self.unit
        targets = torch.from_numpy(residuals).to(fit.dtype)
        del residuals
        cpu = torch.device("cpu")
        pattern, weights = pattern_of(ratings, cpu), fit.weights(ratings, cpu)
        rows = Rows(pattern, inputs, targets, weights)
        if self.is_item:
            order, transposed = pattern.transpose()
            rows = rows.arrange(transposed, order)
        return rows.to(fit.device)

    def _make_network(self, fit: Fit, sizes: list[int]) -> Autoencoder:
        params, ratings, side = self.params, fit.ratings, self.rows.side
        visible = ratings.users if self.is_item else ratings.items
        total = fit.group.total
        mean = total(ratings.values.sum()) / total(ratings.n_ratings)
        low, high = fit.known._scale.standardize(np.array(fit.known.rating_range_))
        low, mean, high = (
            (float(value) - self.shift) / self.unit for value in (low, mean, high)
        )
        output = OutputActivation(params.out_activation, low, high)
        weights = AutoencoderWeights.draw(
            len(visible),
            sizes,
            params.activation,
            output.start(mean),
            make_generator(fit.draw_seed()),
            fit.dtype,
            0 if side is None else side.shape[1],
            fit.share if self.is_item else None,
        )
        if self.effects is not None:
            own = self.effects.users if self.is_item else self.effects.items
            weights.decoder_bias = torch.tensor(own / self.unit, dtype=fit.dtype)
        if fit.previous is not None:
            self._continue(weights, sizes, visible, fit.previous)
        return Autoencoder(
            weights,
            params.activation,
            output,
            fit.device,
            self.effects is not None,
            self.layout.entries,
        )

    def _penalized_biases(self) -> list[tuple[Tensor, float]]:
        """Biases of the output that are effects, and their penalty."""
        if self.effects is None:
            return []
        penalty = self.effects.lambda_u if self.is_item else self.effects.lambda_v
        # The penalty of the effects has no factor 1/2 beside the squared errors.
        return [(self.network.decoder_bias, 2 * penalty)]

    def _continue(self, weights, sizes, visible, previous):
        """Replace initial weights with those of the previous fit, where available."""
        params, old = self.params, fitted_weights(previous)
        if (
            previous._kind != params.kind
            or sizes != [len(b) for b in old.encoder_biases]
            or (previous._lambda_u is None) == params.baseline
        ):
            raise ValueError(
                "warm_start=True cannot continue a fit of another kind, with another "
                "baseline or other hidden_layer_sizes: use warm_start=False."
            )
        decoder, bias = old.decoder, old.decoder_bias
        if previous._activations[1] == "identity":
            # Back to the unit of the network
            shift, unit = previous._output_scale
            decoder, bias = decoder / unit, (bias - shift) / unit
        known = previous.users_ if self.is_item else previous.items_
        positions = positions_of(visible, known, "user" if self.is_item else "item")
        new = np.flatnonzero(positions >= 0)
        positions = positions[new]
        for tensor, source in [
            (weights.encoder[0], old.encoder[0]),
            (weights.decoder, decoder),
            (weights.decoder_bias, bias),
        ]:
            tensor[new] = source[positions].to(tensor.dtype)
        dtype = weights.decoder.dtype
        weights.encoder[1:] = [w.to(dtype) for w in old.encoder[1:]]
        weights.encoder_biases = [b.to(dtype) for b in old.encoder_biases]

    def _codes(self) -> Tensor:
        """Codes of all rows."""
        rows = self.rows
        return self.network.encode(rows.pattern, rows.inputs, rows.side)

    def _loss(self, rows: Rows) -> Tensor:
        """Weighted sum of squared errors of the reconstructed ratings."""
        params, generator = self.params, self.input_generator
        inputs = drop(rows.inputs, params.input_dropout, generator)
        targets = rows.targets
        drop_units = functools.partial(
            drop, rate=params.dropout, generator=self.unit_generator
        )
        if rows.side is not None and params.solver != "lbfgs":
            kept = _keep_rows(rows, generator)
            inputs = inputs * kept
            if rows.effects is not None:
                # The effect of a row without ratings must come from its side input.
                effects = rows.effects.index_select(0, rows.pattern.row)
                targets = targets + (1 - kept) * effects
        codes = self.network.encode(rows.pattern, inputs, rows.side, drop_units)
        error = self.network.decode(rows.pattern, codes) - targets
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


def _keep_rows(rows: Rows, generator: torch.Generator) -> Tensor:
    """Mask of shape (n_ratings,): 0 for the ratings of some rows, 1 for the others.

    Rows with all ratings masked must be predicted from their side information.
    """
    draws = torch.rand(
        rows.pattern.shape[0], generator=generator, device=rows.inputs.device
    )
    return (draws >= _COLD_RATE).to(rows.inputs.dtype)[rows.pattern.row]
