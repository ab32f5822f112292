"""Ctrl-C at any moment: what a fit leaves behind."""

import copy
import os
import signal
import threading
from contextlib import suppress

import numpy as np
import pytest
from helpers import MODELS, TEXT_CLASSES, TEXTS, StopAfter, name_of, small
from sklearn.base import clone

from skrec import AutoRecRegressor, BaselineRegressor, BiasedMFRegressor, _fitting
from skrec._core import training
from skrec._core.interrupts import Interrupts
from skrec._networks.autorec_trainer import AutoRecTrainer

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*stopped at max_iter:sklearn.exceptions.ConvergenceWarning"
    ),
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]
ITERATIVE = [
    *(m for m in MODELS if not isinstance(m, BaselineRegressor)),
    small(AutoRecRegressor, early_stopping=True),
    small(BiasedMFRegressor, early_stopping=True),
]


def interrupt():
    """Do what Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


def texts_of(estimator):
    return {"item_texts": TEXTS} if isinstance(estimator, TEXT_CLASSES) else {}


def after(function, n_calls, action):
    """Return a function that runs an action before the n-th call and all later ones."""
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(1)
        if len(calls) >= n_calls:
            action()
        return function(*args, **kwargs)

    return wrapped


class Moment:
    """Callback for one moment of each epoch."""

    def __init__(self, action, name="epoch"):
        self.action, self.name = action, name

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context):
        if context.task_name == self.name:
            self.action()


@pytest.mark.parametrize("estimator", ITERATIVE, ids=name_of)
def test_an_interrupt_after_an_epoch_leaves_the_state_of_that_epoch(estimator, R):
    model = clone(estimator)
    expected = clone(model).set_callbacks(StopAfter(2)).fit(R, **texts_of(model))
    with pytest.raises(KeyboardInterrupt):
        model.set_callbacks(Begin(2)).fit(R, **texts_of(model))
    assert model.n_iter_ == 2
    assert model.loss_curve_ == expected.loss_curve_
    np.testing.assert_array_equal(model.predict(R), expected.predict(R))


class Begin(Moment):
    """Callback that interrupts at the begin of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == self.epoch:
            interrupt()

    def on_fit_task_end(self, estimator, context): ...


def test_all_moments_of_an_interrupt_leave_a_model(R, monkeypatch):
    """The old model in the first epoch, and later one that has learned."""
    model = small(AutoRecRegressor, max_iter=4, tol=0.0)
    old = clone(model).fit(R[::-1])
    before = old.predict(R)
    floor = model.fit(R).loss_curve_[0]
    n_kept = n_stored = 0
    for n in range(1, 60, 3):
        fitted = copy.deepcopy(old)
        with monkeypatch.context() as context:
            # Moments: every copy, every norm, every step of Adam and every shuffle.
            for name in ("_foreach_copy_", "_foreach_norm", "_fused_adam_", "randperm"):
                function = getattr(training.torch, name)
                context.setattr(training.torch, name, at_call(n, function))
            at_call.calls = 0
            with suppress(KeyboardInterrupt):
                fitted.fit(R)
            if at_call.calls < n:
                break
        if len(fitted.loss_curve_) == 4 and np.array_equal(fitted.predict(R), before):
            n_kept += 1
            continue
        n_stored += 1
        assert 1 <= fitted.n_iter_ <= 4
        assert np.isfinite(fitted.predict(R)).all()
        assert fitted.loss_curve_[0] == floor
    assert n_kept >= 1
    assert n_stored >= 3


def at_call(n, function):
    def wrapped(*args, **kwargs):
        at_call.calls += 1
        if at_call.calls == n:
            interrupt()
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize("estimator", ITERATIVE, ids=name_of)
def test_more_interrupts_while_the_first_one_is_handled_lose_nothing(
    estimator, R, monkeypatch
):
    model = clone(estimator)
    once = clone(model).set_callbacks(Moment(interrupt))
    with pytest.raises(KeyboardInterrupt):
        once.fit(R, **texts_of(model))
    for name in ("_attributes", "_store"):
        function = getattr(_fitting.Fit, name)
        monkeypatch.setattr(_fitting.Fit, name, after(function, 1, interrupt))
    restore = training.Snapshot.restore
    monkeypatch.setattr(training.Snapshot, "restore", after(restore, 1, interrupt))
    with pytest.raises(KeyboardInterrupt):
        model.set_callbacks(Moment(interrupt)).fit(R, **texts_of(model))
    assert model.n_iter_ == once.n_iter_ == 1
    np.testing.assert_array_equal(model.predict(R), once.predict(R))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_after_the_last_epoch_waits_for_the_model(R, monkeypatch):
    model = small(BiasedMFRegressor)
    expected = clone(model).fit(R)
    original = _fitting.Fit._attributes
    monkeypatch.setattr(_fitting.Fit, "_attributes", after(original, 1, interrupt))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    np.testing.assert_array_equal(model.predict(R), expected.predict(R))


def test_an_interrupt_in_the_first_validation_leaves_the_old_model(R, monkeypatch):
    model = small(AutoRecRegressor, early_stopping=True).fit(R)
    before, losses = model.predict(R), model.loss_curve_
    validate = after(AutoRecTrainer.validate, 1, interrupt)
    monkeypatch.setattr(AutoRecTrainer, "validate", validate)
    with pytest.raises(KeyboardInterrupt):
        model.fit(R[::-1])
    assert model.loss_curve_ is losses
    np.testing.assert_array_equal(model.predict(R), before)


def test_an_interrupt_that_got_lost_is_raised_after_the_epoch(R):
    """As in a destructor, from which no exception leaves."""

    def swallow():
        with suppress(KeyboardInterrupt):
            interrupt()

    model = small(AutoRecRegressor, tol=0.0).set_callbacks(Moment(swallow))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 1


def test_handlers_of_the_program_and_other_threads_are_left_alone(R):
    seen = []
    previous = signal.signal(signal.SIGINT, lambda *args: seen.append(1))
    try:
        with Interrupts():
            interrupt()
        model = small(BiasedMFRegressor).set_callbacks(Moment(interrupt)).fit(R)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert len(seen) == 1 + model.n_iter_
    thread = threading.Thread(target=model.set_callbacks().fit, args=(R,))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
