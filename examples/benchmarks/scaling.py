"""Time of a fit against the number of ratings, on one machine.

Fits estimators with a fixed number of sweeps or epochs to synthetic ratings whose users
and items have long-tailed numbers of ratings, as in MovieLens: a million ratings by
about 7,000 users, and the same number of ratings a user at all sizes. Prints the CPU
seconds of one thread, the bytes a rating of resident memory at the peak beyond the
arguments of `fit`, and the exponent of the time from each size to the next; 1 means
that the time is proportional to the number of ratings. Each fit runs in a process of
its own.

    python examples/benchmarks/scaling.py [--sizes 1e6 3e6 1e7] [--only BiasedMF]

Ten million ratings take 2 GB of memory; about half of it is for making them.
"""

import argparse
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

PER_USER, N_SWEEPS, N_EPOCHS = 150, 2, 3
# Items grow more slowly than ratings: about 4,000 for 1e6 and 20,000 for 3e7, as in
# MovieLens.
ITEMS_OF_A_MILLION, ITEM_EXPONENT = 4_000, 0.5


def estimators():
    """Estimators with default widths by name; ConvMF has a small network."""
    import skrec

    few = {"max_iter": N_SWEEPS, "tol": 0.0, "random_state": 0}
    text = {"embedding_dim": 16, "n_filters": 8, "n_hidden": 16, "network_epochs": 1}
    return {
        "BiasedMF": skrec.BiasedMFRegressor(**few),
        "SVDpp": skrec.SVDppRegressor(**few),
        "AutoRec": skrec.AutoRecRegressor(max_iter=N_EPOCHS, random_state=0),
        "ConvMF": skrec.ConvMFRegressor(**text, **few),
    }


def make(n_ratings, path):
    """Store ratings, as a matrix of 32-bit numbers, and texts."""
    from skrec.datasets import make_ratings

    n_users = n_ratings // PER_USER
    n_items = int(ITEMS_OF_A_MILLION * (n_ratings / 1e6) ** ITEM_EXPONENT)
    density = n_ratings / (n_users * n_items)
    data = make_ratings(n_users, n_items, density=density, random_state=0)
    with open(path, "wb") as file:
        pickle.dump((data.R.astype(np.float32), data.item_texts), file)


def status(name):
    """Return a field of the memory of this process, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024


def measure(name, path):
    """Fit in this process; print CPU seconds, and bytes a rating."""
    import torch
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    from skrec.datasets import make_ratings
    from skrec.text import ItemTexts

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".* stopped at max_iter", ConvergenceWarning)
    model = estimators()[name]

    def fit(R, texts):
        options = {"item_texts": ItemTexts(dict(enumerate(texts)))}
        start = time.process_time()
        model.fit(R, **(options if name == "ConvMF" else {}))
        return time.process_time() - start

    with threadpool_limits(1):
        small = make_ratings(100, 50, random_state=0)
        fit(small.R, small.item_texts)  # imports what a fit needs
        with open(path, "rb") as file:
            R, texts = pickle.load(file)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        seconds = fit(R, texts)
        print(seconds, (status("VmHWM") - before) / R.nnz)


def run(*arguments):
    """Run a part of this script in another process; return what it prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.split()


def table(options, folder):
    """Measure all estimators at all sizes."""
    lines, found = [], {}
    for n in options.sizes:
        path = Path(folder) / "ratings.pkl"
        run("--make", int(n), path)
        for name in options.only or estimators():
            found[name, n] = tuple(map(float, run("--measure", name, path)[-2:]))
            print(
                f"{name}, {n:.0e} ratings: {found[name, n][0]:.2f} s", file=sys.stderr
            )
    for name in options.only or estimators():
        for i, n in enumerate(options.sizes):
            seconds, size = found[name, n]
            line = {
                "estimator": name,
                "ratings": f"{n:.0e}",
                "CPU seconds": seconds,
                "us a rating": 1e6 * seconds / n,
                "bytes a rating": size,
            }
            if i:
                before, n_before = lines[-1]["CPU seconds"], options.sizes[i - 1]
                line["exponent"] = np.log(seconds / before) / np.log(n / n_before)
            lines.append(line)
    return pd.DataFrame(lines).set_index(["estimator", "ratings"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(estimators()))
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e6, 3e6, 1e7])
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        make(int(given.make[0]), given.make[1])
    elif given.measure:
        measure(*given.measure)
    else:
        with tempfile.TemporaryDirectory() as root:
            print(table(given, root).round(2).to_string(na_rep=""))
