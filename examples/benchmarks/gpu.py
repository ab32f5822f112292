"""Epochs, sweeps, fits and serving on a GPU and on the CPU, beside plain PyTorch.

Measures, on each device, with MovieLens 1M (ratings like them without SKREC_DATA) or
with synthetic ratings of any size:

- the bandwidth of a copy, and the share of it that the two sparse kernels reach,
- seconds of an epoch or sweep of each estimator, from a short and a long fit,
- seconds of a fit with few sweeps, from start to end, with all transfers,
- serving: a million pairs, and the top ten of many users,
- plain PyTorch: an epoch of Adam on embeddings, and of a dense autoencoder, if the
  matrix is small enough to be dense.

The wall times are the smallest of several runs. Bytes are those that a kernel must
read and write if no row of the dense factor stays in a cache; a share may exceed 1.

    python examples/benchmarks/gpu.py                      # MovieLens 1M
    python examples/benchmarks/gpu.py --netflix            # 480,000 x 17,700, 1e8
    python examples/benchmarks/gpu.py --users 2000 --items 500 --ratings 50000
"""

import argparse
import time
import warnings

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skrec import (
    AutoRecRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    PMFRegressor,
    RBMRegressor,
    SVDppRegressor,
)
from skrec._core.sparse import Pattern, sddmm, spmm
from skrec.datasets import fetch_movielens
from skrec.model_selection import samples_to_ratings

NETFLIX = 480_000, 17_700, 100_000_000
N_RUNS = 3
N_PAIRS, N_TOP_USERS = 1_000_000, 10_000
# Users whose ratings are drawn at once
BLOCK = 20_000
# Largest matrix that plain PyTorch processes as a dense one
MOST_DENSE = 50_000_000
BATCH = 2**16
# Epochs or sweeps of the short and of the long fit
STEPS = {"AutoRec": (2, 6), "RBM": (2, 6)}
ESTIMATORS = {
    "BiasedMF": BiasedMFRegressor(random_state=0, tol=0),
    "SVDpp": SVDppRegressor(random_state=0, tol=0),
    "PMF": PMFRegressor(n_factors=50, random_state=0, tol=0),
    "BayesianMF": BayesianMFRegressor(random_state=0, burn_in=0, thinning=2),
    "AutoRec": AutoRecRegressor(random_state=0, tol=0),
    "RBM": RBMRegressor(random_state=0, tol=0),
}


def movielens():
    """Load the ratings of MovieLens 1M, or draw as many."""
    try:
        data = fetch_movielens("1m", download_if_missing=False)
    except OSError:
        return synthetic(6_040, 3_706, 1_000_209)
    return samples_to_ratings(data.data.to_numpy(), data.target.to_numpy())[0]


def synthetic(n_users, n_items, n_ratings, seed=0):
    """Draw ratings from 1 to 5 of users who differ in activity, items in popularity.

    A pair that is drawn twice counts once, so that there are somewhat fewer ratings.
    """
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0, 1, n_users)
    counts = rng.poisson(activity * (n_ratings / activity.sum())).clip(1, n_items)
    quality = rng.normal(3.5, 0.5, n_items)
    blocks = []
    for start in range(0, n_users, BLOCK):
        own = counts[start : start + BLOCK]
        row = np.repeat(np.arange(len(own)), own)
        item = (n_items * rng.random(len(row)) ** 2).astype(np.int64)
        keys = np.unique(row * n_items + item)
        row, item = np.divmod(keys, n_items)
        values = quality[item] + rng.normal(0, 1, len(item))
        values = values.round().clip(1, 5).astype(np.float32)
        indptr = np.searchsorted(row, np.arange(len(own) + 1))
        block = (values, item.astype(np.int32), indptr)
        blocks.append(sp.csr_array(block, shape=(len(own), n_items)))
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def seconds(function, device, n_runs=N_RUNS):
    """Smallest wall time of a call, with all that it has started on the device."""
    found = []
    for _ in range(n_runs):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(device, what, value, unit, note=""):
    print(f"{device.type:5} {what:34} {value:12.4g} {unit:5} {note}", flush=True)


def bandwidth(device, n_numbers):
    """Bytes per second that a copy reads and writes."""
    source = torch.ones(n_numbers, device=device)
    target = torch.empty_like(source)
    time_of_copy = seconds(lambda: target.copy_(source), device, 10)
    return 2 * 4 * n_numbers / time_of_copy


def measure_kernels(R, device, copied):
    """SpMM and SDDMM with few and with many columns."""
    pattern = Pattern(torch.tensor(R.indptr), torch.tensor(R.indices), R.shape)
    pattern = pattern.to(device)
    values = torch.tensor(R.data, dtype=torch.float32, device=device)
    n_rows, n_columns = R.shape
    for k in (11, 66, 500):
        n_bytes = 4 * (R.nnz * (2 + k) + n_rows * (1 + k))
        if 8 * k * (n_rows + n_columns) + n_bytes / 10 > free_memory(device):
            report(device, f"kernels, {k} columns", np.nan, "s", "too little memory")
            continue
        left = torch.randn(n_rows, k, device=device)
        right = torch.randn(n_columns, k, device=device)
        for name, kernel in (
            ("SpMM", lambda right=right: spmm(pattern, values, right)),
            ("SDDMM", lambda left=left, right=right: sddmm(pattern, left, right)),
        ):
            kernel()
            taken = seconds(kernel, device)
            share = n_bytes / taken / copied
            note = f"{share:.2f} of the bandwidth of a copy"
            report(device, f"{name}, {k} columns", taken, "s", note)


def free_memory(device):
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else np.inf


def measure_estimator(name, R, device):
    """Epochs or sweeps, a short fit, and serving."""
    few, many = STEPS.get(name, (1, 4))
    estimator = clone(ESTIMATORS[name]).set_params(device=device.type)

    def run(n_steps):
        return estimator.set_params(max_iter=n_steps).fit(R)

    short = seconds(lambda: run(few), device, 2)
    long = seconds(lambda: run(many), device, 2)
    step = (long - short) / (many - few)
    report(
        device, f"{name}: epoch or sweep", step, "s", f"{R.nnz / step:.3g} ratings/s"
    )
    report(device, f"{name}: fit with {few} of them", short, "s")
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(n, size=N_PAIRS) for n in R.shape])
    report(
        device, f"{name}: {N_PAIRS:,} pairs", serve(estimator.predict, X, device), "s"
    )
    users = np.arange(min(N_TOP_USERS, R.shape[0]))
    taken = serve(estimator.recommend, users, device)
    report(device, f"{name}: top ten of {len(users):,} users", taken, "s")


def serve(function, X, device):
    function(X)  # the model moves to the device once
    return seconds(lambda: function(X), device)


def measure_plain(R, device):
    """Epochs of plain PyTorch."""
    taken = seconds(plain_factorization(R, device), device, 2)
    note = f"{R.nnz / taken:.3g} ratings/s"
    report(device, "PyTorch: embeddings, Adam", taken, "s", note)
    if R.shape[0] * R.shape[1] <= MOST_DENSE:
        taken = seconds(plain_autoencoder(R, device), device, 2)
        note = f"{R.nnz / taken:.3g} ratings/s"
        report(device, "PyTorch: dense autoencoder", taken, "s", note)


def plain_factorization(R, device, k=10):
    """Epoch of Adam on embeddings and biases, in batches."""
    row = np.repeat(np.arange(R.shape[0]), np.diff(R.indptr))
    pairs = torch.tensor(np.column_stack([row, R.indices]), device=device)
    ratings = torch.tensor(R.data, dtype=torch.float32, device=device)
    sides = [torch.nn.Embedding(n, k + 1, device=device) for n in R.shape]
    optimizer = torch.optim.Adam([p for side in sides for p in side.parameters()])

    def epoch():
        for batch in torch.randperm(len(pairs), device=device).split(BATCH):
            u, v = (side(pairs[batch, i]) for i, side in enumerate(sides))
            sums = (u[:, :-1] * v[:, :-1]).sum(1) + u[:, -1] + v[:, -1]
            loss = (ratings[batch] - 3.5 - sums).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def plain_autoencoder(R, device, n_hidden=500):
    """Full-batch epoch of an item-based autoencoder with dense products."""
    dense = torch.tensor(R.T.toarray(), dtype=torch.float32, device=device)
    mask = dense != 0
    network = torch.nn.Sequential(
        torch.nn.Linear(R.shape[0], n_hidden),
        torch.nn.Sigmoid(),
        torch.nn.Linear(n_hidden, R.shape[0]),
    ).to(device)
    optimizer = torch.optim.Adam(network.parameters())

    def epoch():
        loss = ((network(dense) - dense) * mask).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return epoch


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--netflix", action="store_true", help="the size of Netflix")
    parser.add_argument("--users", type=int, help="number of synthetic users")
    parser.add_argument("--items", type=int, default=1_000)
    parser.add_argument("--ratings", type=int, default=100_000)
    parser.add_argument("--only", nargs="+", choices=ESTIMATORS, default=ESTIMATORS)
    parser.add_argument("--devices", nargs="+", choices=["cpu", "cuda"])
    options = parser.parse_args(arguments)
    if options.netflix:
        R = synthetic(*NETFLIX)
    elif options.users is not None:
        R = synthetic(options.users, options.items, options.ratings)
    else:
        R = movielens()
    print(f"{R.shape[0]:,} users, {R.shape[1]:,} items, {R.nnz:,} ratings")
    has_gpu = torch.cuda.is_available()
    names = options.devices or (["cuda", "cpu"] if has_gpu else ["cpu"])
    if not has_gpu:
        names = [name for name in names if name != "cuda"]
        print("not measured on a GPU: PyTorch finds none on this machine")
    for device in map(torch.device, names):
        kind = f"{torch.get_num_threads()} threads"
        if device.type == "cuda":
            kind = torch.cuda.get_device_name(device)
        print(f"{device.type}: {kind}, PyTorch {torch.__version__}")
        copied = bandwidth(device, min(10**8, max(10**6, R.nnz)))
        report(device, "copy", copied / 2**30, "GiB/s", "read and written")
        measure_kernels(R, device, copied)
        for name in options.only:
            measure_estimator(name, R, device)
        measure_plain(R, device)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        main()
