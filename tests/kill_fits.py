"""Kill fits at random moments, call them again, and compare with uninterrupted fits.

Run it as ``python kill_fits.py`` in this folder, on a system with `os.fork`. Each fit
writes a checkpoint after each iteration. Its process gets SIGKILL at a random moment,
and a new process makes the same call, until one of them ends. One more fit of each
estimator is killed in each phase of the writing of a checkpoint.
"""

import argparse
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

# A fork of a process whose PyTorch has threads could not use them.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import skops.io  # noqa: F401 - not in each process again
from helpers import MODELS, TEXT_CLASSES, TEXTS, name_of, small
from sklearn.base import clone

from skrec import AutoRecRegressor, BaselineRegressor, BiasedMFRegressor, Checkpoint
from skrec.datasets import make_ratings

R = make_ratings(80, 50, density=0.3, noise=0.3, random_state=0).R
ESTIMATORS = {
    **{name_of(m): m for m in MODELS if not isinstance(m, BaselineRegressor)},
    "AutoRecRegressorearly": small(AutoRecRegressor, early_stopping=True),
    "AutoRecRegressorlbfgs": small(AutoRecRegressor, solver="lbfgs"),
    "AutoRecRegressorbatches": small(
        AutoRecRegressor, batch_size=16, dropout=0.2, input_dropout=0.3
    ),
    "BiasedMFRegressorearly": small(BiasedMFRegressor, early_stopping=True),
}
MAX_PROCESSES = 50  # of one fit, each of which is killed


def fit(estimator, checkpoint=None):
    """Return what a fit leaves: its losses and its predictions."""
    model = clone(estimator)
    if checkpoint is not None:
        model.set_callbacks(Checkpoint(checkpoint, every=0))
    texts = {"item_texts": TEXTS} if isinstance(estimator, TEXT_CLASSES) else {}
    model.fit(R, **texts)
    return model.loss_curve_, model.predict(R)


def start(estimator, checkpoint, result, patch=lambda: None):
    """Fit in a new process, which writes to the file `result`; return its number."""
    child = os.fork()
    if child:
        return child
    try:
        patch()
        result.write_bytes(pickle.dumps(fit(estimator, checkpoint)))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run(estimator, folder, delay=None, patch=lambda: None):
    """Fit in a process that is killed after a delay; return whether it was."""
    child = start(estimator, folder / "fit", folder / "result", patch)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"{name_of(estimator)} failed")
    return os.WIFSIGNALED(status)


def die_at(owner, name, n_calls):
    """Return a function that makes the process die in the n-th call of another."""

    def patch():
        original, calls = getattr(owner, name), []

        def replacement(*args, **kwargs):
            calls.append(1)
            if len(calls) == n_calls:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, replacement)

    return patch


# A checkpoint calls `fsync` for the file, `replace`, and `fsync` for the folder.
PHASES = [(os, "fsync", 3), (Path, "replace", 2), (os, "fsync", 4)]


def equals(result, expected):
    losses, predictions = pickle.loads(result.read_bytes())
    return losses == expected[0] and np.array_equal(predictions, expected[1])


def kill(estimator, n_moments, rng):
    """Return the numbers of kills, of files found, of fits and of equal bits."""
    expected, counts = fit(estimator), np.zeros(4, int)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.perf_counter()
        run(estimator, folder)
        duration = time.perf_counter() - begin
        for moment in range(n_moments):
            (folder / "result").unlink(missing_ok=True)
            for _ in range(MAX_PROCESSES):
                if not run(estimator, folder, duration * rng.uniform()):
                    break
                counts[:2] += 1, (folder / "fit").exists()
            else:
                run(estimator, folder)
            counts[2:] += 1, equals(folder / "result", expected)
            if list(folder.iterdir()) != [folder / "result"]:
                raise SystemExit(f"{name_of(estimator)} left files, moment {moment}")
        for phase in PHASES:
            (folder / "result").unlink(missing_ok=True)
            if run(estimator, folder, patch=die_at(*phase)):
                counts[:2] += 1, (folder / "fit").exists()
                run(estimator, folder)
            counts[2:] += 1, equals(folder / "result", expected)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of estimators")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rng, total = np.random.default_rng(options.seed), np.zeros(4, int)
    for name in options.only or ESTIMATORS:
        counts = kill(ESTIMATORS[name], options.moments, rng)
        total += counts
        print(f"{name:28}", *counts, flush=True)
    print(f"{'kills, checkpoints, fits, equal':28}", *total)
    sys.exit(int(total[2] != total[3] or not total[1]))


if __name__ == "__main__":
    main()
