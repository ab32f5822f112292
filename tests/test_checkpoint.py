"""Checkpoints: a killed fit continues to the same bits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from helpers import MODELS, TEXT_CLASSES, TEXTS, Interrupt, name_of, small
from sklearn.base import clone
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.preprocessing import FunctionTransformer

import skrec
from skrec import (
    AutoRecRegressor,
    BaselineRegressor,
    BiasedMFRegressor,
    Checkpoint,
    CTRRegressor,
)
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


def kill_after(monkeypatch, n_epochs, model, *args, **params):
    """Fit until a checkpoint is written, and no further."""

    def save(self, epoch, loop):
        original(self, epoch, loop)
        if epoch == n_epochs:
            raise Killed

    original = module.FitCheckpoint.save
    with monkeypatch.context() as context:
        context.setattr(module.FitCheckpoint, "save", save)
        with pytest.raises(Killed):
            model.fit(*args, **params)


@pytest.mark.parametrize("n_epochs", [1, 2])
@pytest.mark.parametrize("estimator", ITERATIVE, ids=name_of)
def test_an_ended_fit_resumes_to_equal_bits(
    estimator, n_epochs, R, tmp_path, monkeypatch
):
    texts = {"item_texts": TEXTS} if isinstance(estimator, TEXT_CLASSES) else {}
    path = tmp_path / "fit"
    whole = clone(estimator).fit(R, **texts)
    model = clone(estimator).set_callbacks(Checkpoint(path, every=0))
    kill_after(monkeypatch, n_epochs, model, R, **texts)
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


WARM = [m for m in MODELS if hasattr(m, "warm_start")]


@pytest.mark.parametrize("estimator", WARM, ids=name_of)
def test_killed_warm_starts_resume_from_the_same_earlier_fit(
    estimator, R, tmp_path, monkeypatch
):
    texts = {"item_texts": TEXTS} if isinstance(estimator, TEXT_CLASSES) else {}
    model = clone(estimator).set_params(warm_start=True, max_iter=4, tol=0.0)
    earlier, later = R.copy(), R.copy()
    earlier.data = earlier.data[::-1].copy()
    skrec.save(model.fit(earlier, **texts), tmp_path / "earlier")
    whole = skrec.load(tmp_path / "earlier").fit(later, **texts)
    callback = Checkpoint(tmp_path / "fit", every=0)
    kill_after(monkeypatch, 2, model.set_callbacks(callback), later, **texts)
    other = clone(model).set_callbacks().fit(later, **texts).set_callbacks(callback)
    with pytest.raises(ValueError, match=r"another fit: initial weights .*warm_start"):
        other.fit(later, **texts)
    resumed = skrec.load(tmp_path / "earlier").set_callbacks(callback)
    resumed.fit(later, **texts)
    assert resumed.loss_curve_ == whole.loss_curve_
    np.testing.assert_array_equal(resumed.predict(R), whole.predict(R))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_fits_of_a_search_have_checkpoints_of_their_own(
    n_jobs, pairs, tmp_path, monkeypatch
):
    model = small(BiasedMFRegressor, max_iter=4, tol=0.0)
    grid, cv = {"n_factors": [1, 2]}, KFold(2, shuffle=True, random_state=0)
    expected = GridSearchCV(clone(model), grid, cv=cv).fit(*pairs)
    folder = tmp_path / "fits"
    folder.mkdir()
    model.set_callbacks(Checkpoint(folder, every=0))
    kill_after(monkeypatch, 2, model, *pairs)
    kill_after(monkeypatch, 2, clone(model).set_params(n_factors=1), *pairs)
    assert len(list(folder.iterdir())) == 2
    search = GridSearchCV(model, grid, cv=cv, n_jobs=n_jobs, error_score="raise")
    with joblib.parallel_backend("threading"):
        found = search.fit(*pairs)
    for one, other in zip(
        found.cv_results_["mean_test_score"],
        expected.cv_results_["mean_test_score"],
        strict=True,
    ):
        assert one == pytest.approx(other, rel=1e-9)


def test_places_are_refused_before_the_work(R, tmp_path):
    model = small(BiasedMFRegressor)
    model.set_callbacks(Checkpoint(tmp_path / "no" / "fit"))
    with pytest.raises(FileNotFoundError, match="is no folder"):
        model.fit(R)
    assert not hasattr(model, "users_")


def test_a_fit_goes_on_if_its_checkpoint_cannot_be_written(R, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError("disk full")

    model = small(BiasedMFRegressor, max_iter=3, tol=0.0)
    whole = clone(model).fit(R)
    monkeypatch.setattr(os, "fsync", fail)
    model.set_callbacks(Checkpoint(tmp_path / "fit", every=0))
    with pytest.warns(UserWarning, match=r"fit could not be written .*disk full") as w:
        model.fit(R)
    assert w[0].filename == __file__
    np.testing.assert_array_equal(model.predict(R), whole.predict(R))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: b"x" + c])
def test_damaged_checkpoints_are_refused(damage, R, tmp_path, monkeypatch):
    path = tmp_path / "fit"
    model = small(BiasedMFRegressor).set_callbacks(Checkpoint(path, every=0))
    kill_after(monkeypatch, 1, model, R)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"fit is .*damaged"):
        model.fit(R)


def digests():
    values = [
        small(CTRRegressor, vectorizer=CountVectorizer(stop_words=ENGLISH_STOP_WORDS)),
        pd.DataFrame({"genres": [frozenset("abcdef"), frozenset("xy")]}),
    ]
    return [module._digest("name", value) for value in values]


def test_digests_are_the_same_in_all_processes():
    """Another process has another order of sets."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    code += "import test_checkpoint; print(*test_checkpoint.digests())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == digests()
    assert len(set(digests())) == 2


def test_parameters_that_no_later_process_has_are_refused(R, tmp_path):
    encoder = FunctionTransformer(lambda values: values)
    model = small(BiasedMFRegressor, item_encoder=encoder)
    model.set_callbacks(Checkpoint(tmp_path / "fit"))
    with pytest.raises(
        ValueError, match=r"needs a value of item_encoder .* functions and cla"
    ):
        model.fit(R)


def test_an_interrupted_fit_resumes(R, tmp_path):
    model = small(AutoRecRegressor, tol=0.0)
    whole = clone(model).fit(R)
    checkpoint = Checkpoint(tmp_path / "fit", every=0)
    with pytest.raises(KeyboardInterrupt):
        model.set_callbacks(checkpoint, Interrupt(4)).fit(R)
    assert model.n_iter_ == 5
    model.set_callbacks(checkpoint).fit(R)
    assert model.loss_curve_ == whole.loss_curve_
    np.testing.assert_array_equal(model.predict(R), whole.predict(R))


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
