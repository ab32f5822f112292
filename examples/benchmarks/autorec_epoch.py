"""Time and memory of a full-batch epoch, compared with plain dense PyTorch.

Both sides compute the same loss, gradient and Adam step of an item-based AutoRec with
500 hidden units: skrec with products that are evaluated at the ratings only, the
baseline with dense matrices and a mask. Times are measured alternately in one process.
Memory is the peak above the resident memory just before, each side in its own process.

    python examples/benchmarks/autorec_epoch.py [--data ml-1m synthetic] [--repeats 5]
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time

import numpy as np
import torch

from skrec import AutoRecRegressor
from skrec.datasets import fetch_movielens, make_ratings
from skrec.model_selection import samples_to_ratings

ALPHA, K, LEARNING_RATE = 200.0, 500, 1e-3


def load(name):
    """Load a rating matrix of shape (n_users, n_items)."""
    if name == "ml-1m":
        X, y = fetch_movielens("1m", download_if_missing=False, return_X_y=True)
        return samples_to_ratings(X, y)[0]
    return make_ratings(20_000, 20_000, density=0.01, random_state=0).R


class EpochTimes:
    """Callback that records the duration of epochs."""

    def __init__(self):
        self.seconds = []

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "epoch":
            self.start = time.perf_counter()

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            self.seconds.append(time.perf_counter() - self.start)


def fit_sparse(R, n_epochs):
    """Run epochs of skrec; return the seconds of each and the first loss."""
    times = EpochTimes()
    model = AutoRecRegressor(
        hidden_layer_sizes=(K,),
        baseline=False,
        alpha=ALPHA,
        normalize_y=False,
        learning_rate_init=LEARNING_RATE,
        max_iter=n_epochs,
        batch_size=None,
        input_scaling=0.0,
        input_dropout=0.0,
        device="cpu",
        random_state=0,
    )
    model.set_callbacks(times).fit(R)
    return times.seconds, model.loss_curve_[0]


def fit_dense(R, n_epochs):
    """Run the same epochs with dense matrices and a mask."""
    rows = torch.tensor(R.T.toarray(), dtype=torch.float32)
    mask = rows != 0
    n_visible = rows.shape[1]
    # Same initial weights: the first random number of the estimator seeds them.
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    generator = torch.Generator().manual_seed(int(seed))

    def normal():
        weights = torch.empty(n_visible, K).normal_(0, 0.01, generator=generator)
        return weights.requires_grad_()

    V, W = normal(), normal()
    mu = torch.zeros(K, requires_grad=True)
    b = torch.full((n_visible,), float(R.data.mean()), requires_grad=True)
    optimizer = torch.optim.Adam([V, mu, W, b], lr=LEARNING_RATE)
    seconds = []
    for epoch in range(n_epochs):
        start = time.perf_counter()
        optimizer.zero_grad()
        output = torch.sigmoid(rows @ V + mu) @ W.T + b
        loss = ((output - rows) * mask).square().sum()
        loss = loss + ALPHA / 2 * (W.square().sum() + V.square().sum())
        loss.backward()
        optimizer.step()
        if epoch == 0:
            first_loss = loss.item()
        seconds.append(time.perf_counter() - start)
    return seconds, first_loss


SIDES = {"sparse": fit_sparse, "dense": fit_dense}


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def peak_above_start(function, *arguments):
    """Return the peak of resident bytes during a call, minus those before it."""
    start, peak, done = resident_bytes(), 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    function(*arguments)
    done.set()
    watcher.join()
    return peak - start


def measure_memory(name, side):
    """Return the peak memory of two epochs, in a new process."""
    command = [sys.executable, __file__, "--memory-of", side, "--data", name]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output)


def compare(name, repeats):
    R = load(name)
    print(f"{name}: {R.shape[0]} users, {R.shape[1]} items, {R.nnz} ratings, k = {K}")
    times = {side: [] for side in SIDES}
    losses = {}
    for _ in range(repeats):
        for side, fit in SIDES.items():
            seconds, losses[side] = fit(R, 3)
            times[side] += seconds[1:]  # the first epoch includes the setup
    medians = {side: statistics.median(t) for side, t in times.items()}
    ratios = np.divide(times["dense"], times["sparse"])
    memory = {side: measure_memory(name, side) / 2**20 for side in SIDES}
    for side in SIDES:
        print(
            f"  {side:6}  {medians[side] * 1e3:8.0f} ms per epoch "
            f"({min(times[side]) * 1e3:.0f} to {max(times[side]) * 1e3:.0f}), "
            f"{memory[side]:8.0f} MiB above the start"
        )
    print(
        f"  speedup {np.median(ratios):.1f} ({ratios.min():.1f} to "
        f"{ratios.max():.1f}), memory {memory['sparse'] / memory['dense']:.2f} of dense"
    )
    difference = abs(losses["sparse"] / losses["dense"] - 1)
    print(f"  relative difference of the first losses: {difference:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["ml-1m", "synthetic"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        R = load(options.data[0])
        print(peak_above_start(SIDES[options.memory_of], R, 2))
    else:
        for name in options.data:
            compare(name, options.repeats)
