"""Minimising a loss over epochs: steps, schedules, stopping, and the best state."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

_MAX_LINE_SEARCH = 25

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}


@dataclass
class Stopping:
    """When to stop.

    Attributes
    ----------
    max_iter : int
        The largest number of epochs.

    tol : float
        What counts as an improvement: of the loss a decrease by this part of it, of a
        validation score an increase by this much.

    n_iter_no_change : int
        Stop after this many epochs in a row without improvement. A loss does not stop
        a training whose step size falls: its last epochs are what that is for.
    """

    max_iter: int
    tol: float
    n_iter_no_change: int


@dataclass
class History:
    """What happened in the training.

    Attributes
    ----------
    loss_curve : list of float
        The loss in each epoch.

    validation_scores : list of float
        The validation score after each epoch, if there is one.

    reason : {"max_iter", "converged", "callback", "diverged", "interrupted"}
        Why it ended.

    interrupt : KeyboardInterrupt or None
        What interrupted it, for the caller to raise again.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    reason: Literal["max_iter", "converged", "callback", "diverged", "interrupted"] = (
        "max_iter"
    )
    interrupt: KeyboardInterrupt | None = None


class Snapshot:
    """A copy of the parameters to come back to."""

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = list(parameters)
        self.copies = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def save(self) -> None:
        torch._foreach_copy_(self.copies, self.parameters)

    @torch.no_grad()
    def restore(self) -> None:
        torch._foreach_copy_(self.parameters, self.copies)


class PenalisedLoss:
    """A sum of losses over batches plus penalty / 2 * ||weights||^2.

    Parameters
    ----------
    loss : callable
        Takes a batch, returns its loss as a scalar tensor with a gradient.

    parameters : sequence of Tensor
        All that is trained.

    weights : sequence of Tensor
        The parameters that are penalised.

    penalty : float
        The penalty.
    """

    def __init__(self, loss, parameters, weights, penalty: float):
        self.loss = loss
        self.parameters, self.weights = list(parameters), list(weights)
        self.penalty = penalty

    def __call__(self, batch, share: float = 1.0) -> float:
        """Evaluate one batch, with `share` of the penalty, and set the gradients."""
        for parameter in self.parameters:
            parameter.grad = None
        loss = self.loss(batch)
        loss.backward()
        penalty = share * self.penalty
        if penalty == 0:
            return loss.item()
        with torch.no_grad():
            grads = [w.grad for w in self.weights]
            torch._foreach_add_(grads, self.weights, alpha=penalty)
            norms = torch._foreach_norm(self.weights)
            return loss.item() + penalty / 2 * sum(n.item() ** 2 for n in norms)


def train(
    objective: PenalisedLoss,
    batches: Sequence,
    shares: Sequence[float],
    stopping: Stopping,
    *,
    solver: Literal["adam", "rprop", "lbfgs"],
    learning_rate: float,
    schedule: Literal["constant", "linear", "cosine"] = "constant",
    generator: torch.Generator | None = None,
    validate: Callable[[], float] | None = None,
    begin_epoch: Callable[[], None] = lambda: None,
    end_epoch: Callable[[History], bool] = lambda history: False,
) -> History:
    """Minimise `objective` in place.

    The parameters end as they were at the best validation score, if there is one, and
    otherwise after the last epoch. A loss that is not finite, or an interrupt, takes
    them back to the last state that was evaluated, or to the best validation score.

    Parameters
    ----------
    objective : PenalisedLoss
        What is minimised.

    batches : sequence
        What `objective` is evaluated on, in an order drawn anew for each epoch.

    shares : sequence of float
        The share of the penalty that goes with each batch.

    stopping : Stopping
        When to stop.

    solver : {"adam", "rprop", "lbfgs"}
        The optimiser. The last two want all data in one batch.

    learning_rate : float
        The step size of Adam, or the first one of RProp.

    schedule : {"constant", "linear", "cosine"}
        How Adam's step size falls, to 0 after `max_iter` epochs unless constant.

    generator : torch.Generator or None
        Draws the order of the batches. On the CPU.

    validate : callable or None
        Returns a score of the present parameters; larger is better.

    begin_epoch, end_epoch : callable
        Called around each epoch; training ends if the latter returns True.

    Returns
    -------
    history : History
    """
    optimizer = _make_optimizer(solver, objective.parameters, learning_rate)
    evaluate = _Remembered(objective) if solver == "lbfgs" else objective
    falls = solver == "adam" and schedule != "constant"

    def step(epoch, keep):
        if falls:
            factor = SCHEDULES[schedule](epoch / stopping.max_iter)
            optimizer.param_groups[0]["lr"] = learning_rate * factor
        return run_epoch(evaluate, batches, shares, optimizer, generator, keep)

    return iterate(
        step,
        objective.parameters,
        stopping,
        validate=validate,
        begin_epoch=begin_epoch,
        end_epoch=end_epoch,
        may_settle=not falls,
    )


def iterate(
    step: Callable[[int, Callable[[], None]], float],
    parameters: Sequence[Tensor],
    stopping: Stopping,
    *,
    validate: Callable[[], float] | None = None,
    begin_epoch: Callable[[], None] = lambda: None,
    end_epoch: Callable[[History], bool] = lambda history: False,
    may_settle: bool = True,
) -> History:
    """Repeat a step that changes parameters in place, and keep their best state.

    Where the parameters end is said in `train`.

    Parameters
    ----------
    step : callable
        Called with the number of the epoch and a function `keep`; returns the loss. It
        may call `keep` when the parameters are as evaluated, for a later failure to
        come back to.

    parameters : sequence of Tensor
        What is changed.

    stopping : Stopping
        When to stop.

    validate, begin_epoch, end_epoch : callable
        As for `train`.

    may_settle : bool, default=True
        Whether to stop when the loss does not fall any more.

    Returns
    -------
    history : History
    """
    snapshot = Snapshot(parameters)
    history = History()
    watch = _Watch(stopping, higher_is_better=validate is not None)

    def keep():
        if validate is None and _all_finite(parameters):
            snapshot.save()

    try:
        for epoch in range(stopping.max_iter):
            begin_epoch()
            loss = step(epoch, keep)
            if not math.isfinite(loss) or not _all_finite(parameters):
                history.reason = "diverged"
                break
            history.loss_curve.append(loss)
            current = loss
            if validate is not None:
                current = validate()
                history.validation_scores.append(current)
            improved = watch.update(current)
            if validate is not None and improved:
                snapshot.save()
            if end_epoch(history):
                history.reason = "callback"
                break
            if watch.is_over and (may_settle or validate is not None):
                history.reason = "converged"
                break
    except KeyboardInterrupt as interrupt:
        history.reason, history.interrupt = "interrupted", interrupt
    if validate is not None or history.reason in ("diverged", "interrupted"):
        snapshot.restore()
    return history


class _Watch:
    """Counts the epochs without improvement."""

    def __init__(self, stopping: Stopping, higher_is_better: bool):
        self.stopping = stopping
        self.sign = -1.0 if higher_is_better else 1.0
        self.best = math.inf
        self.n_stalled = 0

    def update(self, value: float) -> bool:
        """Take in the value of an epoch and say whether it is the best so far."""
        value *= self.sign
        relative = 1.0 if self.sign < 0 else abs(value)
        stalled = value >= self.best - self.stopping.tol * relative
        self.n_stalled = self.n_stalled + 1 if stalled else 0
        improved = value < self.best
        self.best = min(self.best, value)
        return improved

    @property
    def is_over(self) -> bool:
        return self.n_stalled >= self.stopping.n_iter_no_change


def run_epoch(
    objective: Callable[..., float],
    batches: Sequence,
    shares: Sequence[float],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator | None = None,
    keep: Callable[[], None] = lambda: None,
) -> float:
    """Take a step on each batch, in an order drawn anew; see `train`.

    Returns
    -------
    loss : float
        The sum over the batches, each before its step. Not finite if one was not,
        which ends the epoch.
    """
    order = torch.randperm(len(batches), generator=generator).tolist()
    total = 0.0
    for position, i in enumerate(order):
        loss = objective(batches[i], shares[i])
        total += loss
        if not math.isfinite(loss):
            break
        if position == 0:
            keep()
        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(functools.partial(objective, batches[i]))
        else:
            optimizer.step()
    return total


class _Remembered:
    """An objective that does not evaluate the same parameters twice in a row.

    An iteration of L-BFGS begins where the line search of the last one has ended.
    """

    def __init__(self, objective: PenalisedLoss):
        self.objective, self.parameters = objective, objective.parameters
        self.last = Snapshot(self.parameters)
        self.loss: float | None = None

    def __call__(self, batch, share: float = 1.0) -> float:
        pairs = zip(self.parameters, self.last.copies, strict=True)
        if self.loss is None or not all(torch.equal(p, copy) for p, copy in pairs):
            self.loss = self.objective(batch, share)
            self.last.save()
        return self.loss


def _make_optimizer(solver, parameters, learning_rate) -> torch.optim.Optimizer:
    if solver == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    if solver == "rprop":
        return torch.optim.Rprop(parameters, lr=learning_rate)
    return torch.optim.LBFGS(
        parameters,
        lr=1.0,
        max_iter=1,  # an epoch is one iteration, so that each can be reported
        max_eval=_MAX_LINE_SEARCH,
        history_size=10,
        line_search_fn="strong_wolfe",
    )


@torch.no_grad()
def _all_finite(parameters) -> bool:
    return all(
        math.isfinite(norm.item()) for norm in torch._foreach_norm(list(parameters))
    )
