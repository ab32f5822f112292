"""Training of restricted Boltzmann machines."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._core.batches import Rows
from .._core.device import as_tensor, make_generator
from .._core.rbm import Cases, Machine, all_levels
from .._core.training import Descent, PenalizedLoss
from .._data.ids import positions_of
from .._data.ratings import PRIOR_RATINGS, Ratings
from .._fitting import Fit, Trainer, r_squared

# Ratings with more distinct values are continuous measurements, not levels.
_MAX_LEVELS = 100


class RBMTrainer(Trainer):
    """Trainer of a restricted Boltzmann machine by contrastive divergence.

    Parameters
    ----------
    fit : Fit
        Fit of an `RBMRegressor`.
    """

    def __init__(self, fit: Fit):
        params = self.params = fit.estimator
        self.n_epochs = params.max_iter
        self.is_item = params.kind == "item"
        self.levels = _check_levels(fit.ratings)
        self.rows = self._orient(fit, fit.training)
        self.machine = self._make_machine(fit)
        order = make_generator(fit.draw_seed())
        self.sampler = make_generator(fit.draw_seed(), fit.device)
        self.batches = [
            self._cases(rows) for rows in self.rows.cut(params.batch_size, order)
        ]
        self.descent = Descent(
            _ContrastiveDivergence(
                self.machine,
                params.alpha,
                (params.n_gibbs, params.persistent, self.sampler),
            ),
            self.batches,
            [len(batch.levels) / self.rows.pattern.nnz for batch in self.batches],
            solver="adam",
            learning_rate=params.learning_rate_init,
            schedule=params.learning_rate,
            n_epochs=params.max_iter,
            generator=order,
        )
        self.may_settle = self.must_settle = self.descent.settles
        if fit.held_out is not None:
            self.held_out = self._orient(fit, fit.held_out)

    def parameters(self):
        return list(self.machine.parameters())

    def optimizers(self):
        return [self.descent.optimizer]

    def generators(self):
        return [self.descent.generator, self.sampler]

    @property
    def chains(self) -> list[torch.Tensor | None]:
        """Chain of each batch; used if chains are persistent."""
        return [batch.chain for batch in self.batches]

    @chains.setter
    def chains(self, chains):
        for batch, chain in zip(self.batches, chains, strict=True):
            batch.chain = chain

    def extras(self):
        return {"chains": self.chains}

    def step(self, epoch, keep):
        return self.descent.step(epoch, keep)

    @torch.no_grad()
    def validate(self):
        targets = self.held_out
        h = self.machine.hidden(self.rows.pattern, self.rows.inputs)
        every = all_levels(targets.pattern, len(self.levels))
        probabilities = self.machine.log_visible(every, h).exp()
        predicted = probabilities.cpu().double() @ as_tensor(self.levels)
        return r_squared(targets.targets, predicted, targets.weights)

    @torch.no_grad()
    def attributes(self) -> dict[str, Any]:
        machine, rows = self.machine, self.rows
        bias = machine.visible_bias.cpu().numpy().copy()
        weights = machine.weights.cpu().numpy().copy()
        return {
            "levels_": self.levels,
            "hidden_probabilities_": machine.hidden(rows.pattern, rows.inputs)
            .cpu()
            .numpy(),
            "weights_": weights.reshape(*bias.shape, -1),
            "visible_biases_": bias,
            "hidden_biases_": machine.hidden_bias.cpu().numpy().copy(),
            "_kind": self.params.kind,
            "_alpha": float(self.params.alpha),
        }

    def _orient(self, fit: Fit, ratings: Ratings) -> Rows:
        """Arrange levels and ratings in rows, which are users or items."""
        pattern, values, weights = fit.tensors(ratings, device=torch.device("cpu"))
        places = torch.as_tensor(nearest_levels(self.levels, ratings.values))
        rows = Rows(pattern, places, values, weights)
        if self.is_item:
            rows = rows.arrange(pattern.transposed, pattern.order)
        return rows.to(fit.device)

    def _make_machine(self, fit: Fit) -> Machine:
        """Initial machine, with weights of the previous fit where available."""
        ratings = fit.ratings
        generator = make_generator(fit.draw_seed())
        log_rates = _log_rates(self.rows, len(self.levels)).to(fit.dtype)
        machine = Machine.draw(log_rates, self.params.n_hidden, generator)
        if fit.previous is not None:
            visible = ratings.users if self.is_item else ratings.items
            self._continue(machine, visible, fit.previous)
        return machine.to(fit.device)

    @torch.no_grad()
    def _continue(self, machine, visible, previous):
        """Replace initial weights with those of the previous fit, where available."""
        old = fitted_machine(previous, torch.device("cpu"))
        same = previous._kind == self.params.kind
        same &= np.array_equal(previous.levels_, self.levels)
        if not same or len(old.hidden_bias) != self.params.n_hidden:
            raise ValueError(
                "warm_start=True cannot continue a fit of another kind, another "
                "n_hidden or other levels of ratings: use warm_start=False."
            )
        known = previous.users_ if self.is_item else previous.items_
        positions = positions_of(visible, known, "user" if self.is_item else "item")
        new = np.flatnonzero(positions >= 0)
        for tensor, source in [
            (machine.weights, old.weights),
            (machine.visible_bias, old.visible_bias),
        ]:
            n_levels = len(self.levels)
            shape = -1, n_levels, tensor.numel() // (len(visible) * n_levels)
            found = source.view(shape)[positions[new]]
            tensor.view(shape)[new] = found.to(tensor.dtype)
        machine.hidden_bias.copy_(old.hidden_bias)

    def _cases(self, rows: Rows) -> Cases:
        dtype = self.machine.weights.dtype
        return Cases(rows.pattern, rows.inputs, rows.weights, len(self.levels), dtype)


class _ContrastiveDivergence(PenalizedLoss):
    """Loss whose gradient the machine estimates by sampling."""

    def __init__(self, machine: Machine, alpha: float, options: tuple):
        super().__init__(
            machine.contrast, list(machine.parameters()), [machine.weights], alpha
        )
        self.options = options

    def __call__(self, batch, share: float = 1.0) -> float:
        """Set the gradients, including the fraction `share` of the penalty."""
        loss = self.loss(batch, *self.options)
        for weights in self.weights:
            weights.grad.add_(weights.detach(), alpha=share * self.penalty)
        return loss


def fitted_machine(fitted: Any, device: torch.device) -> Machine:
    """Fitted machine on a device."""
    return Machine(
        as_tensor(fitted.weights_, device=device).flatten(0, 1),
        as_tensor(fitted.visible_biases_, device=device),
        as_tensor(fitted.hidden_biases_, device=device),
    )


def nearest_levels(levels: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Position of the level nearest to each rating."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, ratings)


def _check_levels(ratings: Ratings) -> np.ndarray:
    """Rating levels in ascending order; reject ratings with too many levels."""
    levels = np.unique(ratings.values)
    if len(levels) > _MAX_LEVELS:
        raise ValueError(
            f"RBMRegressor takes ratings of at most {_MAX_LEVELS} different values, as "
            f"a scale of stars has, but found {len(levels)}: round the ratings to the "
            "levels of a scale."
        )
    return levels


def _log_rates(rows: Rows, n_levels: int) -> torch.Tensor:
    """Log relative frequencies of the levels of each visible unit.

    Like means, they are shrunk toward the relative frequencies of all ratings.
    """
    n_visible = rows.pattern.shape[1]
    counts = torch.bincount(
        rows.pattern.col.cpu().long() * n_levels + rows.inputs.cpu(),
        None if rows.weights is None else rows.weights.cpu().double(),
        minlength=n_visible * n_levels,
    )
    counts = counts.view(n_visible, n_levels).double()
    # Levels found only in held-out ratings get a small, nonzero probability.
    overall = counts.sum(0) + 1
    prior = PRIOR_RATINGS * overall / overall.sum()
    return ((counts + prior) / (counts.sum(1, keepdim=True) + PRIOR_RATINGS)).log()
