import copy
import math

import pytest
import torch

from skrec._core.interrupts import Interrupts
from skrec._core.optimizers import Adam, RProp
from skrec._core.training import (
    SCHEDULES,
    Descent,
    PenalizedLoss,
    Stopping,
    iterate,
    run_sweeps,
)


class Quadratic:
    """Sum of squared distances of a point to targets; batches are parts of these."""

    def __init__(self, dtype=torch.float64):
        self.x = torch.nn.Parameter(torch.zeros(3, dtype=dtype))
        self.targets = torch.arange(12, dtype=dtype).view(4, 3)
        self.n_evaluations = 0

    def loss(self, batch):
        self.n_evaluations += 1
        return (self.x - batch).square().sum()

    def objective(self, penalty=0.0):
        return PenalizedLoss(self.loss, [self.x], [self.x], penalty)


def run(problem, *, penalty=0.0, batches=None, stopping=None, **options):
    batches = [problem.targets] if batches is None else batches
    stopping = stopping or Stopping(1000, 1e-9, 10)
    callables = {
        name: options.pop(name)
        for name in ["validate", "begin_epoch", "end_epoch"]
        if name in options
    }
    descent = Descent(
        problem.objective(penalty),
        batches,
        [1 / len(batches)] * len(batches),
        n_epochs=stopping.max_iter,
        **({"solver": "adam", "learning_rate": 0.1} | options),
    )
    return iterate(
        descent.step,
        [problem.x],
        stopping,
        may_settle=descent.settles,
        **callables,
    )


@pytest.mark.parametrize("solver", ["adam", "rprop", "lbfgs"])
@pytest.mark.parametrize("penalty", [0.0, 8.0])
def test_every_solver_finds_the_minimum(solver, penalty):
    problem = Quadratic()
    run(problem, penalty=penalty, solver=solver)
    # d/dx: 2 sum(x - t) + penalty x = 0
    expected = 2 * problem.targets.sum(0) / (2 * 4 + penalty)
    torch.testing.assert_close(problem.x.detach(), expected, atol=1e-3, rtol=1e-3)


def test_some_parameters_have_penalties_of_their_own():
    x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    y = torch.nn.Parameter(torch.tensor([3.0]))
    objective = PenalizedLoss(
        lambda batch: (x.sum() * y).sum(), [x, y], [x], 0.5, [(y, 4.0)]
    )
    # 9 + 0.5 / 4 * 5 + 4 / 4 * 9
    assert objective(None, share=0.5) == pytest.approx(9 + 0.625 + 9)
    torch.testing.assert_close(x.grad, 3 + 0.25 * x.detach())
    torch.testing.assert_close(y.grad, 3 + 2 * y.detach())


def test_batches_carry_their_share_of_the_penalty():
    problem = Quadratic()
    run(
        problem,
        penalty=8.0,
        batches=problem.targets.split(1),
        schedule="linear",
        generator=torch.Generator().manual_seed(0),
    )
    expected = 2 * problem.targets.sum(0) / 16
    torch.testing.assert_close(problem.x.detach(), expected, atol=1e-2, rtol=1e-2)


def test_the_loss_curve_has_the_penalized_loss_before_each_step():
    problem = Quadratic()
    history = run(problem, penalty=2.0, stopping=Stopping(2, 0, 10))
    assert history.loss_curve[0] == pytest.approx(problem.targets.square().sum().item())
    assert len(history.loss_curve) == 2
    assert history.reason == "max_iter"


def test_training_stops_when_the_loss_has_converged():
    history = run(Quadratic(), stopping=Stopping(5000, 1e-4, 5))
    assert history.reason == "converged"
    assert len(history.loss_curve) < 5000
    recent = history.loss_curve[-6:]
    assert recent[0] - recent[-1] <= 5 * 1e-4 * recent[0]


def test_a_decreasing_step_size_runs_to_the_last_epoch():
    history = run(Quadratic(), schedule="linear", stopping=Stopping(300, 0.1, 2))
    assert len(history.loss_curve) == 300
    assert history.reason == "max_iter"


def test_lbfgs_does_not_evaluate_the_end_of_a_line_search_again():
    problem = Quadratic()
    history = run(problem, solver="lbfgs", stopping=Stopping(5, 0, 10))
    # One initial evaluation, and on a quadratic one per line search.
    assert problem.n_evaluations <= len(history.loss_curve) + 3


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_decrease_from_one_toward_zero(schedule):
    factors = [SCHEDULES[schedule](i / 10) for i in range(11)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(0)


def test_the_best_validation_score_is_kept():
    problem = Quadratic()
    seen, scores = [], iter([0.1, 0.3, 0.9, 0.2, 0.4, 0.5])

    def validate():
        seen.append(problem.x.detach().clone())
        return next(scores)

    history = run(problem, validate=validate, stopping=Stopping(6, 0, 100))
    assert history.validation_scores == [0.1, 0.3, 0.9, 0.2, 0.4, 0.5]
    torch.testing.assert_close(problem.x.detach(), seen[2])


def test_patience_counts_from_the_best_validation_score():
    scores = iter([0.5, 0.4, 0.45, 0.46, 0.47, 0.48])
    history = run(
        Quadratic(), validate=lambda: next(scores), stopping=Stopping(100, 0, 3)
    )
    assert history.reason == "converged"
    assert len(history.loss_curve) == 4


@pytest.mark.parametrize("validates", [False, True])
def test_an_interrupt_keeps_the_best_state_and_is_returned(validates):
    problem = Quadratic()
    states = []

    def end_epoch(history):
        states.append(problem.x.detach().clone())
        if len(states) == 4:
            raise KeyboardInterrupt
        return False

    scores = iter([0.9, 0.1, 0.1, 0.1])
    history = run(
        problem,
        end_epoch=end_epoch,
        validate=(lambda: next(scores)) if validates else None,
    )
    assert history.reason == "interrupted"
    assert isinstance(history.interrupt, KeyboardInterrupt)
    # Without validation: the state after epoch 4, which is complete.
    torch.testing.assert_close(problem.x.detach(), states[0 if validates else 3])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_nonfinite_loss_restores_the_last_finite_state(bad):
    problem = Quadratic()
    plain = problem.loss
    problem.loss = lambda batch: (
        plain(batch) * (bad if problem.n_evaluations > 3 else 1)
    )
    states = []
    history = run(
        problem,
        end_epoch=lambda history: states.append(problem.x.detach().clone()),
    )
    assert history.reason == "diverged"
    assert all(math.isfinite(loss) for loss in history.loss_curve)
    torch.testing.assert_close(problem.x.detach(), states[1])


def test_a_loss_that_is_never_finite_keeps_the_initial_state():
    problem = Quadratic()
    problem.targets[:] = math.nan
    history = run(problem)
    assert history.reason == "diverged"
    assert history.loss_curve == []
    assert (problem.x == 0).all()


def test_steps_that_overflow_are_reverted():
    problem = Quadratic(torch.float32)
    history = run(problem, learning_rate=1e38, stopping=Stopping(10, 0, 10))
    assert history.reason == "diverged"
    assert problem.x.isfinite().all()


def test_a_callback_can_stop_the_training():
    begun = []
    history = run(
        Quadratic(),
        begin_epoch=lambda: begun.append(1),
        end_epoch=lambda history: len(history.loss_curve) == 3,
    )
    assert history.reason == "callback"
    assert len(begun) == len(history.loss_curve) == 3


# What `iterate` decides, with prescribed losses


def iterate_over(losses, stopping, **options):
    """Iterate with x = 1, 2, ... after each epoch; return x and the history."""
    x = torch.zeros(1)

    def step(epoch, keep):
        x.fill_(epoch + 1)
        return losses[epoch]

    history = iterate(step, [x], stopping, **options)
    return float(x), history


def test_a_decrease_of_the_loss_counts_relative_to_the_loss():
    _, history = iterate_over([100, 95, 95], Stopping(3, 0.1, 1))
    assert len(history.loss_curve) == 2
    _, history = iterate_over([100, 90, 81], Stopping(3, 0.1, 1))
    assert len(history.loss_curve) == 3


@pytest.mark.parametrize(("second", "n_epochs"), [(0.58, 2), (0.65, 3)])
def test_an_increase_of_the_score_counts_absolutely(second, n_epochs):
    scores = iter([0.5, second, 0.9])
    _, history = iterate_over(
        [1.0] * 3, Stopping(3, 0.1, 1), validate=lambda: next(scores)
    )
    assert len(history.loss_curve) == n_epochs


def test_a_loss_that_stays_counts_as_no_improvement():
    _, history = iterate_over([5.0] * 9, Stopping(9, 0, 2))
    assert history.reason == "converged"
    assert len(history.loss_curve) == 3
    _, history = iterate_over([5.0] * 9, Stopping(9, 0, 2), may_settle=False)
    assert history.reason == "max_iter"


def test_the_first_of_equal_scores_is_kept():
    x, _ = iterate_over([1.0] * 3, Stopping(3, 0, 9), validate=lambda: 0.5)
    assert x == 1


def test_an_interrupted_step_is_undone_unless_it_kept_nothing_yet():
    for keeps_first, expected in [(False, 1), (True, 2)]:
        x = torch.ones(1)

        def step(epoch, keep, x=x):
            x.fill_(2)
            raise KeyboardInterrupt

        history = iterate(step, [x], Stopping(3, 0, 9), keeps_first=keeps_first)
        assert history.reason == "interrupted"
        assert float(x) == expected


def test_interrupts_wait_once_the_training_has_ended():
    interrupts = Interrupts()
    iterate_over([1.0], Stopping(1, 0, 9), interrupts=interrupts)
    assert not interrupts.may_raise


class Checkpoint:
    """Checkpoint in memory."""

    def __init__(self):
        self.saved, self.n_epochs = None, []

    def load(self):
        return self.saved

    def save(self, n_epochs, state):
        self.n_epochs.append(n_epochs)
        self.saved = copy.deepcopy(state)


def test_a_resumed_training_ends_as_if_it_had_not_stopped():
    losses, scores = [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], [0.1, 0.9, 0.2, 0.3, 0.4, 0.5]

    def run(first, **options):
        rest = iter(scores[first:])
        return iterate_over(
            losses, Stopping(6, 0, 3), validate=lambda: next(rest), **options
        )

    x, expected = run(0)
    assert x == 2  # the state with the best score
    assert len(expected.loss_curve) == 5
    checkpoint = Checkpoint()

    def interrupt(history):
        if len(history.loss_curve) == 4:
            raise KeyboardInterrupt

    run(0, end_epoch=interrupt, checkpoint=checkpoint)
    assert checkpoint.n_epochs == [1, 2, 3]
    x, history = run(3, checkpoint=checkpoint)
    assert x == 2
    assert history == expected


class Sweeping:
    """Model whose sweeps have prescribed losses."""

    def __init__(self, losses):
        self.x, self.losses = torch.zeros(1), iter(losses)

    def parameters(self):
        return [self.x]

    def sweep(self):
        self.x += 1
        loss = next(self.losses)
        if loss is None:
            raise KeyboardInterrupt
        return loss


def test_sweeps_end_once_their_loss_settles():
    model, kept = Sweeping([3.0, 2.0, 2.0, 1.0]), []
    run_sweeps(model, Stopping(9, 0, 1), lambda: kept.append(float(model.x)))
    assert kept == [1, 2, 3]
    assert float(model.x) == 3


def test_an_interrupted_sweep_is_undone():
    model = Sweeping([3.0, 2.0, None])
    with pytest.raises(KeyboardInterrupt):
        run_sweeps(model, Stopping(9, 0, 1))
    assert float(model.x) == 2


# Epochs and optimizers


def test_the_loss_of_an_epoch_is_the_sum_over_its_batches():
    problem = Quadratic()
    options = {"solver": "adam", "learning_rate": 1e-12}
    batches = problem.targets.split(1)
    descent = Descent(problem.objective(), batches, [1 / 4] * 4, **options)
    assert descent.step(0) == pytest.approx(problem.targets.square().sum().item())


def test_the_order_of_the_batches_is_drawn_by_the_generator():
    problem, seen = Quadratic(), []
    plain = problem.loss
    problem.loss = lambda batch: seen.append(int(batch[0, 0]) // 3) or plain(batch)
    descent = Descent(
        problem.objective(), problem.targets.split(1), [1 / 4] * 4, solver="adam",
        learning_rate=0.1, generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    for epoch in range(3):
        descent.step(epoch)
    same = torch.Generator().manual_seed(3)
    orders = [torch.randperm(4, generator=same) for _ in range(3)]
    assert seen == torch.cat(orders).tolist()


def test_only_adam_follows_a_schedule():
    for solver in ("adam", "rprop", "lbfgs"):
        descent = Descent(
            Quadratic().objective(), [], [], solver=solver, learning_rate=1.0,
            schedule="linear", n_epochs=4,
        )  # fmt: skip
        assert descent.settles == (solver != "adam")
        descent.step(3)
        if solver == "adam":
            # The fourth of four epochs has a quarter of the step size.
            assert descent.optimizer.learning_rate == 0.25


@pytest.mark.parametrize(
    ("solver", "kind"), [("adam", Adam), ("rprop", RProp), ("lbfgs", torch.optim.LBFGS)]
)
def test_solvers_are_named_after_their_optimizers(solver, kind):
    problem = Quadratic()
    descent = Descent(problem.objective(), [], [], solver=solver, learning_rate=1.0)
    assert type(descent.optimizer) is kind


def test_lbfgs_searches_for_a_step_that_decreases_the_loss():
    problem = Quadratic()
    # A first step of length 1 / |gradient| along the gradient would be 2 long.
    problem.loss = lambda batch: (problem.x - 1).square().square().sum() * 1e3
    history = run(problem, solver="lbfgs", stopping=Stopping(50, 0, 50))
    assert history.loss_curve == sorted(history.loss_curve, reverse=True)
    assert history.loss_curve[-1] < 1e-6 * history.loss_curve[0]
