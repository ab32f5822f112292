"""Training over epochs: optimizer steps, schedules, stopping, and the best state."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from .collectives import ALONE, Group
from .interrupts import Interrupts
from .optimizers import Adam, Optimizer, RProp

_MAX_LINE_SEARCH = 25

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}


@dataclass
class Stopping:
    """Stopping criterion.

    Attributes
    ----------
    max_iter : int
        Maximum number of epochs.

    tol : float
        Minimum improvement: the relative decrease of the loss or, with validation, the
        absolute increase of the score.

    n_iter_no_change : int
        Number of successive epochs without improvement that stops the training.
    """

    max_iter: int
    tol: float
    n_iter_no_change: int


@dataclass
class History:
    """Record of a training.

    Attributes
    ----------
    loss_curve : list of float
        Loss in each epoch.

    validation_scores : list of float
        Validation score after each epoch; empty without validation.

    reason : {"max_iter", "converged", "callback", "diverged", "interrupted"}
        Reason for the end of the training.

    interrupt : KeyboardInterrupt or None
        Interrupt that ended the training, for the caller to raise again.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    reason: Literal["max_iter", "converged", "callback", "diverged", "interrupted"] = (
        "max_iter"
    )
    interrupt: KeyboardInterrupt | None = None


class Snapshot:
    """Copy of the parameters that can be restored."""

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = list(parameters)
        self.copies = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def save(self) -> None:
        torch._foreach_copy_(self.copies, self.parameters)

    @torch.no_grad()
    def restore(self) -> None:
        torch._foreach_copy_(self.parameters, self.copies)


class PenalizedLoss:
    """Sum of losses over batches plus penalty / 2 * ||weights||^2 for some weights.

    Parameters
    ----------
    loss : callable
        Function that takes a batch and returns its loss, a scalar tensor with a
        gradient.

    parameters : sequence of Tensor
        Parameters that are trained.

    weights : sequence of Tensor
        Parameters that are penalized.

    penalty : float
        Penalty.

    others : sequence of (Tensor, float)
        Further parameters that are penalized, each with its penalty.

    group : Group
        Ranks that have parts of the batches.

    own : sequence of Tensor or None
        Parameters that belong to this rank; the loss has complete gradients of the
        others, which are the same on all ranks. None means that all are the same, and
        that their gradients are sums over the ranks.
    """

    def __init__(
        self,
        loss,
        parameters,
        weights,
        penalty: float,
        others: Sequence[tuple[Tensor, float]] = (),
        group: Group = ALONE,
        own: Sequence[Tensor] | None = None,
    ):
        self.loss = loss
        self.parameters, self.weights = list(parameters), list(weights)
        self.penalty = penalty
        self.penalized = [(self.weights, penalty)] if penalty else []
        self.penalized += [([weight], penalty) for weight, penalty in others]
        self.group, self.has_parts = group, own is None and group.size > 1
        # Rank 0 counts the penalties of parameters that all ranks have.
        self.counted = None if group.rank == 0 else {id(p) for p in own or ()}

    def __call__(self, batch, share: float = 1.0) -> float:
        """Return the loss of a batch plus `share` of the penalty; set the gradients."""
        for parameter in self.parameters:
            parameter.grad = None
        loss = self.loss(batch)
        loss.backward()
        if self.has_parts:
            for parameter in self.parameters:
                parameter.grad = self.group.sum(parameter.grad)
        norms: list[Tensor] = []
        # The gradients of the penalties are added directly, which needs no graph.
        with torch.no_grad():
            for weights, penalty in self.penalized:
                grads = [w.grad for w in weights]
                torch._foreach_add_(grads, weights, alpha=share * penalty)
                norms += torch._foreach_norm(weights)
        total, *lengths = _to_floats([loss.detach(), *norms])
        rest = iter(lengths)
        for weights, penalty in self.penalized:
            for weight in weights:
                square = next(rest) ** 2
                if self.counted is None or id(weight) in self.counted:
                    total += share * penalty / 2 * square
        return self.group.total(total)


class Descent:
    """Gradient descent on an objective, in epochs of one step on each batch.

    Parameters
    ----------
    objective : PenalizedLoss
        Objective.

    batches : sequence
        Batches of the objective, which come in a new random order in each epoch.

    shares : sequence of float
        Share of the penalty that is added to the loss of each batch.

    solver : {"adam", "rprop", "lbfgs"}
        Optimizer. "rprop" and "lbfgs" need all data in one batch.

    learning_rate : float
        Step size of Adam, or initial step size of RProp. L-BFGS ignores it.

    schedule : {"constant", "linear", "cosine"}
        Schedule of Adam's step size, which decreases to 0 after `n_epochs` epochs
        unless it is constant. The other solvers ignore it.

    n_epochs : int
        Number of epochs of the schedule.

    generator : torch.Generator or None
        Generator of the order of the batches, on the CPU. None means the global one.
    """

    def __init__(
        self,
        objective: PenalizedLoss,
        batches: Sequence,
        shares: Sequence[float],
        *,
        solver: Literal["adam", "rprop", "lbfgs"],
        learning_rate: float,
        schedule: Literal["constant", "linear", "cosine"] = "constant",
        n_epochs: int = 1,
        generator: torch.Generator | None = None,
    ):
        self.optimizer = _make_optimizer(solver, objective.parameters, learning_rate)
        self.evaluate = _Remembered(objective) if solver == "lbfgs" else objective
        self.batches, self.shares, self.generator = batches, shares, generator
        self.learning_rate, self.n_epochs = learning_rate, n_epochs
        # The factor of the step size as a function of progress; None: constant.
        self.factor = SCHEDULES[schedule] if solver == "adam" else None
        if schedule == "constant":
            self.factor = None

    @property
    def settles(self) -> bool:
        """Whether the training may stop when the loss stops decreasing.

        A decreasing step size has its effect in the last epochs of its schedule.
        """
        return self.factor is None

    def step(self, epoch: int, keep: Callable[[], None] = lambda: None) -> float:
        """Run an epoch and return its loss; see `run_epoch`."""
        if self.factor is not None:
            rate = self.learning_rate * self.factor(epoch / self.n_epochs)
            self.optimizer.learning_rate = rate
        return run_epoch(
            self.evaluate,
            self.batches,
            self.shares,
            self.optimizer,
            self.generator,
            keep,
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
    keeps_first: bool = False,
    checkpoint: Any = None,
    group: Group = ALONE,
    interrupts: Interrupts | None = None,
) -> History:
    """Repeat a step that changes parameters in place, and keep their best state.

    With validation, the parameters end in the state with the best score, and otherwise
    in the state after the last epoch. If the loss is not finite, or after an interrupt
    during a step, they return to the state with the best score or, without validation,
    to the state that was kept last.

    Parameters
    ----------
    step : callable
        Function of the number of the epoch and a function `keep`, which returns the
        loss. It may call `keep` while the parameters are those of the loss, so that a
        later failure returns to them.

    parameters : sequence of Tensor
        Parameters that the step changes.

    stopping : Stopping
        Stopping criterion.

    validate : callable or None
        Function that returns a score of the current parameters; larger is better.

    begin_epoch, end_epoch : callable
        Functions called around each epoch. The training ends if `end_epoch`, which
        takes the history, returns True.

    may_settle : bool, default=True
        Whether the training may stop when the loss stops decreasing. A validation score
        can always stop it.

    keeps_first : bool, default=False
        Whether `step` calls `keep` before it changes a parameter.

    checkpoint : object or None
        Object with `load`, which returns the state that `save` was last given or None,
        and `save`, which takes the number of complete epochs and the state.

    group : Group
        Ranks that train together. They take all decisions alike.

    interrupts : Interrupts or None
        Context of the training; after the last epoch, interrupts wait for its end.

    Returns
    -------
    history : History
    """
    snapshot = Snapshot(parameters)
    history = History()
    watch = _Watch(stopping, higher_is_better=validate is not None)
    interrupts = Interrupts() if interrupts is None else interrupts
    is_changed = False  # by a step that has not ended

    saved = None if checkpoint is None else checkpoint.load()
    if saved is not None:
        history.loss_curve, history.validation_scores = saved["curves"]
        watch.best, watch.n_stalled = saved["watch"]
        for copy, best in zip(snapshot.copies, saved["best"], strict=True):
            copy.copy_(best)

    def keep():
        nonlocal is_changed
        if validate is None and group.all(_all_finite(parameters)):
            snapshot.save()
        is_changed = True

    try:
        for epoch in range(len(history.loss_curve), stopping.max_iter):
            group.enter(f"epoch {epoch + 1}")
            begin_epoch()
            is_changed = not keeps_first
            loss = group.first(step(epoch, keep))
            if not math.isfinite(loss) or not group.all(_all_finite(parameters)):
                history.reason = "diverged"
                break
            current = loss
            if validate is not None:
                current = group.first(validate())
                history.validation_scores.append(current)
            if watch.update(current) and validate is not None:
                snapshot.save()
            history.loss_curve.append(loss)
            is_changed = False
            if group.first(end_epoch(history)):
                history.reason = "callback"
                break
            if watch.is_over and (may_settle or validate is not None):
                history.reason = "converged"
                break
            if checkpoint is not None:
                state = {
                    "curves": (history.loss_curve, history.validation_scores),
                    "watch": (watch.best, watch.n_stalled),
                    "best": snapshot.copies,
                }
                checkpoint.save(epoch + 1, state)
            interrupts.check()
        interrupts.may_raise = False
    except KeyboardInterrupt as interrupt:
        interrupts.settle()
        history.reason, history.interrupt = "interrupted", interrupt
        # Of an epoch whose loss is not there
        del history.validation_scores[len(history.loss_curve) :]
    if (
        validate is not None
        or history.reason == "diverged"
        or (history.reason == "interrupted" and is_changed)
    ):
        snapshot.restore()
    return history


def run_sweeps(
    model: Any,
    stopping: Stopping,
    keep: Callable[[], None] = lambda: None,
    group: Group = ALONE,
) -> None:
    """Improve a model by its method `sweep` until the loss that it returns settles.

    The model also has the method `parameters`. `keep` is called after each sweep. The
    ranks of `group` take all decisions alike. An interrupt is raised again.
    """

    def step(epoch, keep_sweep):
        loss = model.sweep()
        keep_sweep()
        keep()
        return loss

    history = iterate(step, model.parameters(), stopping, group=group)
    if history.interrupt is not None:
        raise history.interrupt


class _Watch:
    """Counter of the successive epochs without improvement."""

    def __init__(self, stopping: Stopping, higher_is_better: bool):
        self.stopping = stopping
        self.sign = -1.0 if higher_is_better else 1.0
        self.best = math.inf
        self.n_stalled = 0

    def update(self, value: float) -> bool:
        """Add the value of an epoch; return whether it is the best one so far."""
        # The smallest value is the best. `tol` is absolute for a score, else relative.
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
    optimizer: Optimizer,
    generator: torch.Generator | None = None,
    keep: Callable[[], None] = lambda: None,
) -> float:
    """Take a step on each batch, in a new random order.

    The function calls `keep` after the first batch has been evaluated, before the first
    step.

    Returns
    -------
    loss : float
        Sum of the losses of the batches, each before its step. A batch whose loss is
        not finite ends the epoch, and the sum is not finite.
    """
    order = torch.randperm(len(batches), generator=generator).tolist()
    total = 0.0
    for position, i in enumerate(order):
        loss = objective(batches[i], shares[i])
        total += loss
        if not math.isfinite(loss):
            break
        # The loss of these parameters is finite, and no step has changed them yet.
        if position == 0:
            keep()
        if isinstance(optimizer, torch.optim.LBFGS):
            # L-BFGS has one batch, whose share of the penalty is 1.
            optimizer.step(functools.partial(objective, batches[i]))
        else:
            optimizer.step()
    return total


class _Remembered:
    """Objective that is not evaluated twice in a row for the same parameters.

    An iteration of L-BFGS begins at the parameters that the last line search evaluated.
    """

    def __init__(self, objective: PenalizedLoss):
        self.objective, self.parameters = objective, objective.parameters
        self.last = Snapshot(self.parameters)
        self.loss: float | None = None

    def __call__(self, batch, share: float = 1.0) -> float:
        pairs = zip(self.parameters, self.last.copies, strict=True)
        if self.loss is None or not all(torch.equal(p, copy) for p, copy in pairs):
            self.loss = self.objective(batch, share)
            self.last.save()
        return self.loss


def _make_optimizer(solver, parameters, learning_rate) -> Any:
    if solver == "adam":
        return Adam(parameters, learning_rate)
    if solver == "rprop":
        return RProp(parameters, learning_rate)
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
    return all(map(math.isfinite, _to_floats(torch._foreach_norm(list(parameters)))))


def _to_floats(scalars: Sequence[Tensor]) -> list[float]:
    """Read scalars in one transfer, so that a GPU is waited for once, not for each."""
    return torch.stack(list(scalars)).tolist()
