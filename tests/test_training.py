import math

import pytest
import torch

from skrec._core.training import Descent, PenalizedLoss, Stopping, iterate


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
    from skrec._core.training import SCHEDULES

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
