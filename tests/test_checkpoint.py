"""Checkpoints: a killed fit continues to the same bits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import MODELS, TEXT_CLASSES, TEXTS, name_of, small
from sklearn.base import clone

import skrec
from skrec import AutoRecRegressor, BaselineRegressor, BiasedMFRegressor, Checkpoint
from skrec import _checkpoint as module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*stopped at max_iter:sklearn.exceptions.ConvergenceWarning"
)
ITERATIVE = [
    *(m for m in MODELS if not isinstance(m, BaselineRegressor)),
    small(AutoRecRegressor, early_stopping=True),
    small(BiasedMFRegressor, early_stopping=True),
]


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("n_epochs", [1, 2])
@pytest.mark.parametrize("estimator", ITERATIVE, ids=name_of)
def test_an_ended_fit_resumes_to_equal_bits(
    estimator, n_epochs, R, tmp_path, monkeypatch
):
    texts = {"item_texts": TEXTS} if isinstance(estimator, TEXT_CLASSES) else {}
    path = tmp_path / "fit"
    whole = clone(estimator).fit(R, **texts)

    def save(self, epoch, loop):
        original(self, epoch, loop)
        if epoch == n_epochs:
            raise Killed

    original = module.FitCheckpoint.save
    with monkeypatch.context() as context:
        context.setattr(module.FitCheckpoint, "save", save)
        with pytest.raises(Killed):
            clone(estimator).set_callbacks(Checkpoint(path, every=0)).fit(R, **texts)
    assert path.exists()
    resumed = clone(estimator).set_callbacks(Checkpoint(path, every=0)).fit(R, **texts)
    assert not path.exists()
    assert resumed.loss_curve_ == whole.loss_curve_
    np.testing.assert_array_equal(resumed.predict(R), whole.predict(R))


CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from helpers import small
from skrec import AutoRecRegressor, Checkpoint, _checkpoint
from skrec.datasets import make_ratings

R = make_ratings(80, 50, density=0.3, noise=0.3, random_state=0).R
original = _checkpoint.FitCheckpoint.save
def save(self, epoch, loop):
    original(self, epoch, loop)
    if epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)
_checkpoint.FitCheckpoint.save = save
small(AutoRecRegressor, tol=0.0).set_callbacks(Checkpoint({path!r}, every=0)).fit(R)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_process_resumes_to_equal_bits(R, tmp_path):
    path = str(tmp_path / "fit")
    code = CHILD.format(tests=str(Path(__file__).parent), path=path)
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    model = small(AutoRecRegressor, tol=0.0)
    whole = clone(model).fit(R)
    resumed = model.set_callbacks(Checkpoint(path, every=0)).fit(R)
    np.testing.assert_array_equal(resumed.predict(R), whole.predict(R))


def test_other_data_and_parameters_are_refused(R, tmp_path, monkeypatch):
    path = tmp_path / "fit"
    model = small(BiasedMFRegressor).set_callbacks(Checkpoint(path, every=0))
    with monkeypatch.context() as context:
        context.setattr(module.FitCheckpoint, "remove", lambda self: None)
        model.fit(R)
    with pytest.raises(ValueError, match="another fit: n_factors differ"):
        small(BiasedMFRegressor, n_factors=3).set_callbacks(Checkpoint(path)).fit(R)
    with pytest.raises(ValueError, match="another fit: data differ"):
        small(BiasedMFRegressor).set_callbacks(Checkpoint(path, every=0)).fit(R * 2)


def test_models_are_saved_without_callbacks(R, tmp_path):
    model = small(BiasedMFRegressor).set_callbacks(Checkpoint(tmp_path / "fit")).fit(R)
    skrec.save(model, tmp_path / "model")
    assert not hasattr(skrec.load(tmp_path / "model"), "_skl_callbacks")
    assert model._skl_callbacks


def test_unrepeatable_fits_are_refused(R, tmp_path):
    model = small(BiasedMFRegressor, random_state=None)
    with pytest.raises(ValueError, match="needs an integer random_state, not None"):
        model.set_callbacks(Checkpoint(tmp_path / "fit")).fit(R)


def test_checkpoints_are_written_when_it_is_time(R, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(module, "write_state", lambda path, state: written.append(path))
    model = small(BiasedMFRegressor, max_iter=3, tol=0.0)
    clone(model).set_callbacks(Checkpoint(tmp_path / "fit")).fit(R)
    assert not written
    clone(model).set_callbacks(Checkpoint(tmp_path / "fit", every=0)).fit(R)
    assert len(written) >= 2


@pytest.mark.parametrize("every", [-1, True, "1", float("nan")])
def test_every_is_a_number_of_seconds(every):
    with pytest.raises(ValueError, match="every is"):
        Checkpoint("fit", every=every)
