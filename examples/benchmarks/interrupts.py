"""Ctrl-C: how long a fit to the ratings of MovieLens 1M takes to return after it.

For each estimator, a process starts fits, waits until the second iteration has ended,
and sends SIGINT to itself at a random moment of the third. The table has the CPU time
of the second iteration and, of the CPU time between the signal and the
KeyboardInterrupt that `fit` raises, the median and the maximum. `usable` counts the
fits that left a model whose predictions are finite. Ratings are those of MovieLens 1M
in the folder SKREC_DATA, or random ones of the same size.

    python examples/benchmarks/interrupts.py [--signals 5] [--estimators PMF AutoRec]
"""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import skrec

ESTIMATORS = ("BiasedMF", "PMF", "SVDpp", "BayesianMF", "LLORMA", "AutoRec", "RBM")


def load():
    """Return the ratings of MovieLens 1M, or random ones, as (X, y)."""
    path = Path(os.environ.get("SKREC_DATA", "")) / "ml-1m" / "ratings.npz"
    if path.is_file():
        with np.load(path) as file:
            X = np.column_stack([file["user"], file["item"]]).astype(np.int64)
            return X, file["rating"].astype(np.float64)
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(0, 6040 * 3706, 1_022_000))[:1_000_000]
    X = np.column_stack(np.divmod(cells, 3706))
    return X, rng.integers(1, 6, len(X)).astype(np.float64)


class Signal:
    """Callback that sends SIGINT after a part of the third iteration."""

    def __init__(self, part):
        self.part = part
        self.begun = time.process_time()
        self.epoch = self.sent = None

    def setup(self, estimator, context):
        """Do nothing."""

    def teardown(self, estimator, context):
        """Do nothing."""

    def on_fit_task_begin(self, estimator, context):
        """Remember the time at which an iteration begins."""
        if context.task_name == "epoch":
            self.begun = time.process_time()

    def on_fit_task_end(self, estimator, context):
        """Start the clock of the signal when the first iterations have ended."""
        if context.task_name == "epoch" and context.task_id == 1:
            # The first iteration also pays for what is computed once.
            self.epoch = time.process_time() - self.begun
            threading.Thread(target=self.send, daemon=True).start()

    def send(self):
        """Send the signal in the middle of an iteration, by CPU time."""
        end = time.process_time() + self.part * self.epoch
        while time.process_time() < end:
            time.sleep(0.001)
        self.sent = time.process_time()
        os.kill(os.getpid(), signal.SIGINT)


def measure(name, n_signals):
    """Print a row of the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    X, y = load()
    rng = np.random.default_rng(0)
    epochs, delays, n_usable = [], [], 0
    for _ in range(n_signals):
        model = getattr(skrec, f"{name}Regressor")(random_state=0, max_iter=1000)
        if "tol" in model.get_params():
            model.set_params(tol=0.0)
        callback = Signal(rng.random())
        with contextlib.suppress(KeyboardInterrupt):
            model.set_callbacks(callback).fit(X, y)
        delays.append(time.process_time() - callback.sent)
        epochs.append(callback.epoch)
        n_usable += bool(np.isfinite(model.predict(X[:1000])).all())
    epoch, median = statistics.median(epochs), statistics.median(delays)
    row = f"{epoch:14.3f} {median:10.3f} {max(delays):10.3f}"
    print(f"{name:12}{row} {n_usable:6} of {n_signals}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--signals", type=int, default=5)
    parser.add_argument("--estimators", nargs="+", default=ESTIMATORS)
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        measure(arguments.estimators[0], arguments.signals)
        return
    title = f"{'iteration s':>14} {'median s':>10} {'maximum s':>10} {'usable':>11}"
    print(f"{'estimator':12}{title}", flush=True)
    for name in arguments.estimators:
        options = ["--in-process", "--signals", str(arguments.signals)]
        command = [sys.executable, __file__, *options, "--estimators", name]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
