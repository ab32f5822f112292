"""Checkpoints of fits to MovieLens 1M: their size, and their time beside an iteration.

For each estimator, a fit writes a checkpoint after each of a few iterations. The table
has the CPU seconds of an iteration and of a checkpoint (means; the first iteration,
which also pays for what is computed once, is left out), and the size of the file. By
default, a fit writes one checkpoint a minute: `share` is the part of its time that this
takes, in percent. Ratings are those of MovieLens 1M in the folder SKREC_DATA, or random
ones of the same size.

    python examples/benchmarks/checkpoints.py [--estimators PMF AutoRec]
"""

import argparse
import os
import tempfile
import time
import warnings
from unittest import mock

import numpy as np
import torch
from interrupts import ESTIMATORS, load

import skrec
from skrec import _checkpoint

N_ITERATIONS = 5


def measure(name, X, y):
    """Print a row of the table."""
    model = getattr(skrec, f"{name}Regressor")(random_state=0, max_iter=N_ITERATIONS)
    if "tol" in model.get_params():
        model.set_params(tol=0.0)
    if "burn_in" in model.get_params():
        model.set_params(burn_in=1)
    begun, ended, sizes = [], [], []
    write = _checkpoint.write_state

    def timed(path, state):
        write(path, state)
        ended.append(time.process_time())
        sizes.append(os.path.getsize(path))

    save = _checkpoint.FitCheckpoint.save

    def saved(self, *arguments):
        begun.append(time.process_time())
        save(self, *arguments)

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(_checkpoint, "write_state", timed),
        mock.patch.object(_checkpoint.FitCheckpoint, "save", saved),
    ):
        path = os.path.join(folder, "fit.checkpoint")
        model.set_callbacks(skrec.Checkpoint(path, every=0)).fit(X, y)
    checkpoint = np.mean(np.subtract(ended, begun)[1:])
    iteration = np.mean(np.subtract(begun[1:], ended[:-1]))
    size, share = sizes[-1] / 1e6, 100 * checkpoint / (60 + checkpoint)
    print(f"{name:12}{iteration:11.3f}{checkpoint:12.3f}{size:9.1f}{share:9.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--estimators", nargs="+", default=ESTIMATORS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    X, y = load()
    print(f"{'estimator':12}{'iteration':>11}{'checkpoint':>12}{'MB':>9}{'share':>9}")
    for name in arguments.estimators:
        measure(name, X, y)


if __name__ == "__main__":
    main()
