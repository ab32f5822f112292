"""Fits and predictions in other processes: the same results, whatever came before."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

# On two threads, as many ratings as pay for them
CHILD = """
import os, pickle, sys, warnings
import torch
from skrec import AutoRecRegressor, BiasedMFRegressor
from skrec._core import threads
from skrec.datasets import make_ratings

threads.RATINGS_PER_THREAD = 1000
threads.cpu_count = lambda: 2
torch.set_num_threads(2)
R = make_ratings(1500, 800, density=0.05, random_state=0).R
MODELS = (
    AutoRecRegressor(max_iter=2, hidden_layer_sizes=(32,), random_state=0, tol=1.0),
    BiasedMFRegressor(max_iter=2, n_factors=4, random_state=0, tol=1.0),
)

def results():
    warnings.simplefilter("ignore")
    return [m.fit(R).predict(R[:3]) for m in MODELS], torch.get_num_threads()

first, n_first = results()
if len(sys.argv) > 1:
    if not os.fork():
        with open(sys.argv[1], "wb") as file:
            pickle.dump((first, n_first, *results()), file)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is for POSIX")
def test_processes_forked_after_a_fit_on_threads_compute(tmp_path):
    result = tmp_path / "result"
    subprocess.run(
        [sys.executable, "-c", CHILD, str(result)],
        check=True,
        timeout=120,  # as a fork that waits for threads would forever
    )
    first, n_first, second, n_second = pickle.loads(result.read_bytes())
    assert (n_first, n_second) == (2, 1)
    # One thread sums in another order than two.
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
