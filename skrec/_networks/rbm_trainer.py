"""Training of restricted Boltzmann machines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from .._core.batches import Rows
from .._core.collectives import ALONE, Group
from .._core.device import as_tensor, make_generator
from .._core.rbm import Cases, Machine, at_levels
from .._core.training import Descent, PenalizedLoss
from .._data.ids import positions_of
from .._data.ratings import PRIOR_RATINGS, Ratings, average
from .._fitting import Fit, Trainer, r_squared
from .effects import Effects

# Ratings with more distinct values are continuous measurements, not levels.
_MAX_LEVELS = 100
# With residuals as levels, hidden units are centered at their mean without ratings, so
# that they add nothing to the effects there.
_CENTER = 0.5
# Steps of an epoch with ``batch_size="auto"``. With as many on all data sets, the same
# number of epochs and step size suit them all.
_N_BATCHES = 8
# Iterations of `quantize`, and halvings that find a quantile to the last bit
_MAX_ROUNDS, _N_HALVINGS = 1000, 100


class RBMTrainer(Trainer):
    """Trainer of a restricted Boltzmann machine by contrastive divergence.

    Parameters
    ----------
    fit : Fit
        Fit of an `RBMRegressor`.
    """

    keeps_first = True  # as `run_epoch` does

    def __init__(self, fit: Fit):
        params = self.params = fit.estimator
        self.n_epochs = params.max_iter
        self.is_item = params.kind == "item"
        self.scale, self.group = fit.known._scale, fit.group
        self.effects, self.shift = None, 0.0
        if params.baseline:
            self.effects = Effects.of(fit.training, fit.mean, fit.group)
            residuals = fit.training.values - self._offsets(fit.training)
            self.shift = average(residuals, fit.training.weights, fit.group.total)
            del residuals
        self.levels = self._find_levels(fit)
        levels = torch.as_tensor(self._places(fit.training))
        self.rows = self._orient(fit, fit.training, levels)
        del levels
        self.machine = self._make_machine(fit)
        order = make_generator(fit.draw_seed())
        self.sampler = make_generator(fit.draw_seed() + fit.group.rank, fit.device)
        self.batches = self._make_batches(fit, order)
        n_ratings = fit.group.total(np.array([len(b.levels) for b in self.batches]))
        self.descent = Descent(
            _ContrastiveDivergence(
                self.machine,
                params.alpha,
                (params.n_gibbs, params.persistent, self.sampler),
                fit.group,
            ),
            self.batches,
            (n_ratings / n_ratings.sum()).tolist(),
            solver="adam",
            learning_rate=params.learning_rate_init,
            schedule=params.learning_rate,
            n_epochs=params.max_iter,
            generator=order,
        )
        self.may_settle = self.must_settle = self.descent.settles
        if fit.held_out is not None:
            offsets = torch.as_tensor(self._offsets(fit.held_out))
            self.held_out = self._orient(fit, fit.held_out, offsets)

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
        probabilities = self.machine.log_visible(targets.pattern, h).exp()
        predicted = as_tensor(self.levels) @ probabilities.cpu().double()
        predicted += targets.inputs.cpu()
        return r_squared(targets.targets, predicted, targets.weights, self.group)

    @torch.no_grad()
    def attributes(self) -> dict[str, Any]:
        machine, rows, effects = self.machine, self.rows, self.effects
        bias = machine.visible_bias.cpu().numpy().copy()
        weights = machine.weights.cpu().numpy().copy()
        found = {
            "levels_": self.levels,
            "hidden_probabilities_": machine.hidden(rows.pattern, rows.inputs)
            .cpu()
            .numpy(),
            "weights_": weights.reshape(*bias.shape, -1),
            "visible_biases_": bias,
            "hidden_biases_": machine.hidden_bias.cpu().numpy().copy(),
            "user_effects_": None if effects is None else effects.users,
            "item_effects_": None if effects is None else effects.items,
            "_kind": self.params.kind,
            "_alpha": float(self.params.alpha),
            "_shift": self.shift,
            "_lambda_u": None if effects is None else effects.lambda_u,
        }
        if effects is not None:
            found |= {
                "user_means_": self.scale.restore(effects.users),
                "item_means_": self.scale.restore(effects.items),
            }
        return found

    def _offsets(self, ratings: Ratings) -> np.ndarray:
        """Part of each rating that the machine does not predict."""
        if self.effects is None:
            return np.zeros(ratings.n_ratings)
        return self.effects.at(ratings)

    def _find_levels(self, fit: Fit) -> np.ndarray:
        """Levels in ascending order: ratings or, with effects, residuals."""
        if self.effects is None:
            return _check_levels(fit.ratings, fit.group)
        residuals = fit.training.values - self._offsets(fit.training) - self.shift
        weights, n_levels = fit.training.weights, self.params.n_levels
        return quantize(residuals, weights, n_levels, fit.group)

    def _places(self, ratings: Ratings) -> np.ndarray:
        """Position of the level of each rating."""
        residuals = ratings.values - self._offsets(ratings) - self.shift
        dtype = np.uint8 if len(self.levels) <= 256 else np.int64
        return nearest_levels(self.levels, residuals).astype(dtype)

    def _orient(self, fit: Fit, ratings: Ratings, inputs: torch.Tensor) -> Rows:
        """Arrange inputs and ratings in rows, which are users or items."""
        pattern, values, weights = fit.tensors(ratings, device=torch.device("cpu"))
        rows = Rows(pattern, inputs, values, weights)
        if self.is_item:
            rows = rows.arrange(pattern.transposed, pattern.order)
        return rows.to(fit.device)

    def _make_machine(self, fit: Fit) -> Machine:
        """Initial machine, with weights of the previous fit where available."""
        ratings = fit.ratings
        generator = make_generator(fit.draw_seed())
        n_levels, is_separate = len(self.levels), self.effects is None
        log_rates = _log_rates(self.rows, n_levels, is_separate, fit.group)
        machine = Machine.draw(
            log_rates.to(fit.dtype),
            self.params.n_hidden,
            generator,
            0.0 if self.effects is None else _CENTER,
        )
        if self.effects is not None:
            # Effects take the place of both biases.
            machine.visible_bias.requires_grad_(False)
            machine.hidden_bias.requires_grad_(False)
        if fit.previous is not None:
            visible = ratings.users if self.is_item else ratings.items
            self._continue(machine, visible, fit.previous)
        return machine.to(fit.device)

    @torch.no_grad()
    def _continue(self, machine, visible, previous):
        """Replace initial weights with those of the previous fit, where available."""
        old = fitted_machine(previous, torch.device("cpu"))
        same = previous._kind == self.params.kind
        same &= (previous.user_effects_ is None) == (self.effects is None)
        if self.effects is None:
            same &= np.array_equal(previous.levels_, self.levels)
        else:
            same &= len(previous.levels_) == len(self.levels)
        if not same or len(old.hidden_bias) != self.params.n_hidden:
            raise ValueError(
                "warm_start=True cannot continue a fit of another kind, with another "
                "baseline, another n_hidden or other levels of ratings: use "
                "warm_start=False."
            )
        known = previous.users_ if self.is_item else previous.items_
        positions = positions_of(visible, known, "user" if self.is_item else "item")
        new = np.flatnonzero(positions >= 0)
        continued = [(machine.weights, old.weights)]
        if self.effects is None:
            continued.append((machine.visible_bias, old.visible_bias))
            machine.hidden_bias.copy_(old.hidden_bias)
        for tensor, source in continued:
            n_levels = len(self.levels)
            shape = -1, n_levels, tensor.numel() // (len(visible) * n_levels)
            found = source.view(shape)[positions[new]]
            tensor.view(shape)[new] = found.to(tensor.dtype)

    def _make_batches(self, fit: Fit, order: torch.Generator) -> list[Cases]:
        """Cut the rows into batches, as many on each rank."""
        batch_size = self.params.batch_size
        if batch_size == "auto":
            n_rows = fit.group.total(self.rows.pattern.shape[0])
            batch_size = math.ceil(n_rows / _N_BATCHES)
        if fit.group.size > 1:
            # All ranks visit the batches in one order, and cut rows of their own.
            order = make_generator(fit.draw_seed() + fit.group.rank)
        batches = self.rows.cut(batch_size, order, fit.group)
        return [self._cases(rows) for rows in batches]

    def _cases(self, rows: Rows) -> Cases:
        dtype = self.machine.weights.dtype
        return Cases(rows.pattern, rows.inputs, rows.weights, len(self.levels), dtype)


class _ContrastiveDivergence(PenalizedLoss):
    """Loss whose gradient the machine estimates by sampling."""

    def __init__(self, machine: Machine, alpha: float, options: tuple, group: Group):
        trained = [p for p in machine.parameters() if p.requires_grad]
        weights = [machine.weights]
        super().__init__(machine.contrast, trained, weights, alpha, group=group)
        self.options = options

    def __call__(self, batch, share: float = 1.0) -> float:
        """Set the gradients, including the fraction `share` of the penalty."""
        loss = self.group.total(float(self.loss(batch, *self.options)))
        for parameter in self.parameters:
            parameter.grad = self.group.sum(parameter.grad)
        for weights in self.weights:
            weights.grad.add_(weights.detach(), alpha=share * self.penalty)
        return loss


def fitted_machine(fitted: Any, device: torch.device) -> Machine:
    """Fitted machine on a device."""
    return Machine(
        as_tensor(fitted.weights_, device=device).flatten(0, 1),
        as_tensor(fitted.visible_biases_, device=device),
        as_tensor(fitted.hidden_biases_, device=device),
        0.0 if fitted.user_effects_ is None else _CENTER,
    )


def nearest_levels(levels: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Position of the level nearest to each rating."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, ratings)


def quantize(
    values: np.ndarray,
    weights: np.ndarray | None,
    n_levels: int,
    group: Group = ALONE,
) -> np.ndarray:
    """Levels that have the smallest squared distance to the values (Lloyd-Max).

    Starting at quantiles, each level becomes the mean of the values that are nearest to
    it, until nothing changes.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Values.

    weights : ndarray of shape (n,) or None
        Weight of each squared distance. None means 1 each.

    n_levels : int
        Number of levels.

    group : Group
        Ranks that have the values.

    Returns
    -------
    levels : ndarray of shape (n_levels,) or shorter
        Levels in ascending order; as many as there are distinct values at most.
    """
    # Weight and weighted sum of all values before each position
    sums = np.zeros(len(values) + 1)
    if weights is None:
        values, counts = np.sort(values), np.arange(len(values) + 1.0)
        np.cumsum(values, out=sums[1:])
    else:
        order = np.argsort(values, kind="stable")
        values, weights, counts = values[order], weights[order], np.zeros_like(sums)
        np.cumsum(weights, out=counts[1:])
        np.cumsum(weights * values, out=sums[1:])
    shares = (np.arange(n_levels) + 0.5) / n_levels
    levels = np.unique(_quantiles(values, counts, shares, group))
    cuts = None
    for _ in range(_MAX_ROUNDS):
        inner = np.searchsorted(values, (levels[1:] + levels[:-1]) / 2)
        found = np.concatenate([[0], inner, [len(values)]])
        if group.all(cuts is not None and np.array_equal(found, cuts)):
            break
        cuts = found
        weight, weighted = (group.total(np.diff(x[cuts])) for x in (counts, sums))
        levels = weighted[weight > 0] / weight[weight > 0]
    return levels


def _quantiles(
    values: np.ndarray, counts: np.ndarray, shares: np.ndarray, group: Group
) -> np.ndarray:
    """Smallest values up to which there are these shares of the weight, by bisection.

    The values of a rank are in ascending order, and `counts` are the weights before
    each position.
    """
    extremes = group.gather((values[0], values[-1]))
    lowest, highest = min(e[0] for e in extremes), max(e[1] for e in extremes)
    low = np.full(len(shares), np.nextafter(lowest, -np.inf))
    high = np.full(len(shares), highest)
    targets = shares * group.total(float(counts[-1]))
    for _ in range(_N_HALVINGS):
        middle = low + (high - low) / 2
        weight = group.total(counts[np.searchsorted(values, middle, side="right")])
        low = np.where(weight < targets, middle, low)
        high = np.where(weight < targets, high, middle)
    return high


def _check_levels(ratings: Ratings, group: Group) -> np.ndarray:
    """Rating levels in ascending order; reject ratings with too many levels."""
    levels = np.unique(ratings.values)
    if group.size > 1:
        few = [some[: _MAX_LEVELS + 1] for some in group.gather(levels)]
        levels = np.unique(np.concatenate(few))
    if len(levels) > _MAX_LEVELS:
        raise ValueError(
            f"RBMRegressor takes ratings of at most {_MAX_LEVELS} different values, as "
            f"a scale of stars has, but found {len(levels)}: round the ratings to the "
            "levels of a scale, or use baseline=True."
        )
    return levels


def _log_rates(rows: Rows, n_levels: int, separate: bool, group: Group) -> torch.Tensor:
    """Log relative frequencies of the levels of each visible unit.

    Those of `separate` units are, like means, shrunk toward the relative frequencies of
    all ratings. Otherwise each unit has the latter.
    """
    n_visible = rows.pattern.shape[1]
    counts = torch.bincount(
        at_levels(rows.pattern, rows.inputs, n_levels).col.cpu(),
        None if rows.weights is None else rows.weights.cpu().double(),
        minlength=n_visible * n_levels,
    )
    counts = group.sum(counts.view(n_visible, n_levels).double())
    if not separate:
        overall = counts.sum(0)
        return (overall / overall.sum()).log().expand(n_visible, -1)
    # Levels found only in held-out ratings get a small, nonzero probability.
    overall = counts.sum(0) + 1
    prior = PRIOR_RATINGS * overall / overall.sum()
    return ((counts + prior) / (counts.sum(1, keepdim=True) + PRIOR_RATINGS)).log()
