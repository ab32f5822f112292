"""Fits and predictions do not depend on what the program has set in PyTorch."""

import contextlib
import os
import threading

import numpy as np
import pytest
import torch
from helpers import MODELS, TEXT_CLASSES, TEXTS, Interrupt, name_of, small
from sklearn.base import clone

from skrec import AutoRecRegressor
from skrec._core.device import own_settings

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*stopped at max_iter:sklearn.exceptions.ConvergenceWarning"
)


@contextlib.contextmanager
def changed(set_, old, new):
    set_(new)
    try:
        yield
    finally:
        set_(old)


SETTINGS = {
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "another device": lambda: torch.device("meta"),
    "the default device": lambda: changed(torch.set_default_device, None, "meta"),
    "double precision": lambda: changed(
        torch.set_default_dtype, torch.float32, torch.float64
    ),
    "deterministic": lambda: changed(torch.use_deterministic_algorithms, False, True),
}


def state():
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_device(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
    )


def results(estimator, R):
    texts = {"item_texts": TEXTS} if isinstance(estimator, TEXT_CLASSES) else {}
    model = clone(estimator).fit(R, **texts)
    return model, model.predict(R), model.score(R), model.predict([[0, 1], [2, 3]])


@pytest.fixture(scope="module")
def expected(R):
    return {name_of(m): results(m, R)[1:] for m in MODELS}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("estimator", MODELS, ids=name_of)
def test_settings_of_the_program_do_not_matter(estimator, setting, R, expected):
    with SETTINGS[setting]():
        before = state()
        model, *found = results(estimator, R)
        lists = model.recommend(model.users_[:2], 3)
        assert state() == before
    for one, other in zip(found, expected[name_of(estimator)], strict=True):
        np.testing.assert_array_equal(one, other)
    # The model works after the setting is gone.
    np.testing.assert_array_equal(model.predict(R), found[0])
    assert len(lists) == 6


def test_settings_are_restored_after_an_error(R):
    with torch.inference_mode(), torch.device("meta"):
        before = state()
        with pytest.raises(ValueError, match="fitted on"):
            clone(MODELS[0]).fit(R).predict(R[:, :3])
        assert state() == before


def test_a_fit_in_double_precision_does_not_notice_that_another_one_ends(R):
    class Wait(Interrupt):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch" and context.task_id == 1:
                begun.set()
                assert ended.wait(60)

    begun, ended = threading.Event(), threading.Event()
    model = small(AutoRecRegressor, solver="adam", max_iter=4)
    expected = clone(model).fit(R).predict(R)
    waiting = clone(model).set_callbacks(Wait(0))
    with SETTINGS["double precision"]():
        with own_settings():
            thread = threading.Thread(target=waiting.fit, args=(R,))
            thread.start()
            assert begun.wait(60)
        assert torch.get_default_dtype() == torch.float32  # the thread needs it
        ended.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64
    np.testing.assert_array_equal(waiting.predict(R), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is for POSIX")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_within_a_fit_keeps_the_setting_of_the_program():
    with SETTINGS["double precision"]():
        with own_settings():
            child = os.fork()
            if not child:
                # The thread that is inside does not exist in the child.
                os._exit(torch.get_default_dtype() != torch.float64)
        assert os.waitpid(child, 0)[1] == 0
