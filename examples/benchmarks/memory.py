"""Memory of a fit: bytes a rating at the peak, and those that a fitted model holds.

Fits each estimator to synthetic ratings of the same users and items, once to some and
once to twice as many, as pairs and as a matrix. What the second fit needs more, divided
by its additional ratings, are the bytes a rating: whatever grows with the users, items
and factors alone cancels out. Columns of the table:

- peak: the largest resident memory of the process during `fit`, beyond what it had
  before, which includes the arguments of `fit`. It counts PyTorch's tensors.
- held: resident memory after `fit`, beyond the same.
- pickle: size of the pickled model.

The arguments themselves take 24 bytes a rating as pairs (two ids of 8 bytes and a
rating of 8), and 12 as a matrix. Each fit runs in a process of its own. Needs Linux.

    python examples/benchmarks/memory.py [--only BiasedMF AutoRec] [--ratings 2000000]
"""

import argparse
import ctypes
import gc
import pickle
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

N_USERS, N_ITEMS, WIDTH, N_EPOCHS = 10_000, 4_000, 8, 2
# Freed blocks of this size return to the system at once.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def estimators():
    """Estimators with few factors or hidden units, by name."""
    import skrec

    k, common = {"n_factors": WIDTH}, {"random_state": 0, "max_iter": N_EPOCHS}
    papers = {"lambda_u": 5.0, "lambda_v": 5.0}
    text = {"embedding_dim": 8, "n_filters": 4, "n_hidden": 8, "network_epochs": 1}
    autorec, rbm = skrec.AutoRecRegressor, skrec.RBMRegressor
    hidden = {"hidden_layer_sizes": (WIDTH,)}
    return {
        "Baseline": skrec.BaselineRegressor(),
        "BiasedMF": skrec.BiasedMFRegressor(**k, **common),
        "BiasedMF, ridge": skrec.BiasedMFRegressor(**k, **papers, **common),
        "PMF": skrec.PMFRegressor(**k, **common),
        "SVDpp": skrec.SVDppRegressor(**k, **common),
        "BayesianMF": skrec.BayesianMFRegressor(**k, **common, burn_in=1),
        "LLORMA": skrec.LLORMARegressor(**k, **common, n_models=2),
        "AutoRec, item": autorec(**hidden, **common),
        "AutoRec, user": autorec(kind="user", **hidden, **common),
        "RBM": rbm(n_hidden=WIDTH, **common),
        "ConvMF": skrec.ConvMFRegressor(**k, **text, **common),
        "CTR": skrec.CTRRegressor(**k, **common),
        "CDL": skrec.CDLRegressor(**k, **common),
    }


def make_data(folder, n_ratings):
    """Store ratings and texts in a folder, as pairs and as a matrix."""
    from skrec.datasets import make_ratings

    density = n_ratings / (N_USERS * N_ITEMS)
    data = make_ratings(N_USERS, N_ITEMS, density=density, random_state=0)
    R = data.R.tocoo()
    rng = np.random.default_rng(0)
    order = rng.permutation(R.nnz)
    folder.mkdir()
    np.save(folder / "X.npy", np.column_stack([R.row, R.col])[order].astype(np.int64))
    np.save(folder / "y.npy", R.data[order])
    with open(folder / "matrix.pkl", "wb") as file:
        pickle.dump((data.R, data.item_texts), file)


def load(folder, form):
    """Load the arguments of `fit`, and texts."""
    with open(folder / "matrix.pkl", "rb") as file:
        R, texts = pickle.load(file)
    if form == "matrix":
        return (R,), texts
    del R
    return (np.load(folder / "X.npy"), np.load(folder / "y.npy")), texts


def status(name):
    """Return a field of the memory of this process, in bytes."""
    fields = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text().split("\n")
        if ":" in line
    )
    return int(fields[name].split()[0]) * 1024


def settle():
    """Return free memory to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def measure(name, form, folder):
    """Fit in this process; print memory at the peak, held, and the pickle's size."""
    import torch
    from sklearn.exceptions import ConvergenceWarning

    from skrec.datasets import make_ratings
    from skrec.text import ItemTexts

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".* stopped at max_iter", ConvergenceWarning)
    model = estimators()[name]
    with_texts = name in ("ConvMF", "CTR", "CDL")

    def fit(arguments, texts):
        options = {"item_texts": ItemTexts(dict(enumerate(texts)))}
        return model.fit(*arguments, **(options if with_texts else {}))

    small = make_ratings(100, 50, random_state=0)
    fit((small.R,), small.item_texts)  # imports what a fit needs
    arguments, texts = load(folder, form)
    settle()
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    fit(arguments, texts)
    peak = status("VmHWM") - before
    settle()
    print(peak, status("VmRSS") - before, len(pickle.dumps(model)))


def run(name, form, folder):
    """Measure in another process."""
    import os

    command = [sys.executable, __file__, "--measure", name, form, str(folder)]
    done = subprocess.run(
        command, env=os.environ | ALLOCATOR, check=True, capture_output=True, text=True
    )
    return np.array(done.stdout.split()[-3:], float)


def main(options):
    lines = []
    sizes = options.ratings, 2 * options.ratings
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root) / str(size) for size in sizes]
        for folder, size in zip(folders, sizes, strict=True):
            make_data(folder, size)
        for name in estimators():
            if options.only and name.split(",")[0] not in options.only:
                continue
            line = {"estimator": name}
            for form in options.forms:
                some, more = (run(name, form, folder) for folder in folders)
                found = (more - some) / options.ratings
                for what, value in zip(("peak", "held", "pickle"), found, strict=True):
                    line[f"{form}: {what}"] = value
            lines.append(line)
    print(f"Bytes a rating, from {sizes[0]} to {sizes[1]} ratings:")
    print(pd.DataFrame(lines).set_index("estimator").round(1).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted({name.split(",")[0] for name in estimators()})
    parser.add_argument("--only", nargs="+", choices=names)
    parser.add_argument("--forms", nargs="+", default=["pairs", "matrix"])
    parser.add_argument("--ratings", type=int, default=2_000_000)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(*given.measure[:2], Path(given.measure[2]))
    else:
        main(given)
