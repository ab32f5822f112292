"""What a fit by two processes costs: bytes sent, CPU seconds and agreement.

    python examples/benchmarks/distributed.py --ratings 3000000 --factors 15 50

fits each model to synthetic ratings in one process and in two on this machine,
which exchange sums with gloo. It prints the CPU seconds of each process, without its
start, the bytes that each rank hands to the collectives in one iteration, and the
largest difference between the predictions.
"""

import argparse
import datetime
import tempfile
import time
import warnings

import numpy as np
import torch
import torch.distributed as dist
from sklearn.exceptions import ConvergenceWarning

import skrec.distributed
from skrec import (
    AutoRecRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    PMFRegressor,
    RBMRegressor,
    SVDppRegressor,
)

PENALTIES = {"lambda_u": 5.0, "lambda_v": 5.0}
N_COMPARED = 100_000


def models(k: int, n_iter: int) -> dict:
    """Models with k factors or units that run n_iter iterations."""
    common = {"max_iter": n_iter, "tol": 0.0, "random_state": 0}
    network = {"hidden_layer_sizes": (k,), "input_dropout": 0.0}
    return {
        "BiasedMF, variational": BiasedMFRegressor(n_factors=k, **common),
        "BiasedMF, ridge": BiasedMFRegressor(n_factors=k, **PENALTIES, **common),
        "PMF": PMFRegressor(n_factors=k, **common),
        "SVD++, variational": SVDppRegressor(n_factors=k, **common),
        "AutoRec, items": AutoRecRegressor(**network, **common),
        "AutoRec, users": AutoRecRegressor(kind="user", **network, **common),
        # Their random numbers, and thus predictions, depend on the number of ranks. The
        # iterations of the former come after a variational fit.
        "BayesianMF": BayesianMFRegressor(
            n_factors=k, max_iter=n_iter, burn_in=0, random_state=0
        ),
        "RBM, users": RBMRegressor(kind="user", n_hidden=k, **common),
    }


def make_pairs(n_ratings: int) -> tuple[np.ndarray, np.ndarray]:
    """Ratings of popular and other items with a structure of rank 5."""
    rng = np.random.default_rng(0)
    n_users, n_items = n_ratings // 100, 5_000
    users = rng.integers(n_users, size=2 * n_ratings)
    items = (n_items * rng.random(2 * n_ratings) ** 2).astype(np.int64)
    X = np.unique(users * n_items + items)
    X = np.sort(rng.permutation(X)[:n_ratings])
    X = np.column_stack([X // n_items, X % n_items])
    U, V = rng.normal(size=(n_users, 5)), rng.normal(size=(n_items, 5))
    noise = rng.normal(size=len(X))
    return X, 3.5 + 0.3 * (U[X[:, 0]] * V[X[:, 1]]).sum(1) + 0.8 * noise


class Meter:
    """Counter of the bytes that a rank hands to collectives."""

    def __init__(self):
        self.n_bytes = 0
        for name in ("all_reduce", "broadcast"):
            setattr(dist, name, self._counted(getattr(dist, name)))

    def _counted(self, operation):
        def call(x, *args, **options):
            self.n_bytes += x.nbytes
            return operation(x, *args, **options)

        return call


def run(rank, n_ranks, store, args, results):
    """Fit all models on a rank."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, y = make_pairs(args.ratings)
    middle = X[len(X) // 2, 0]
    if n_ranks > 1:
        mine = (X[:, 0] < middle) == (rank == 0)
        timeout = datetime.timedelta(minutes=10)
        store = dist.FileStore(store, n_ranks)
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=n_ranks, timeout=timeout
        )
        meter = Meter()
    for k in args.factors:
        for name, model in models(k, args.iterations).items():
            if args.models and not any(m in name for m in args.models):
                continue
            start = time.process_time()
            if n_ranks == 1:
                model.fit(X, y)
            else:
                meter.n_bytes = 0
                skrec.distributed.fit(model, X[mine], y[mine])
            seconds = time.process_time() - start
            sent = meter.n_bytes / model.n_iter_ if n_ranks > 1 else 0
            whole = model if n_ranks == 1 else skrec.distributed.gather(model)
            predicted = None if whole is None else whole.predict(X[:N_COMPARED])
            results.put((n_ranks, rank, k, name, seconds, sent, predicted))


def main():
    """Run one process, then two, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ratings", type=int, default=3_000_000)
    parser.add_argument("--factors", type=int, nargs="+", default=[15, 50])
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--models", nargs="+", help="parts of names; default: all")
    args = parser.parse_args()
    results = torch.multiprocessing.get_context("spawn").SimpleQueue()
    found = {}
    for n_ranks in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            context = torch.multiprocessing.spawn(
                run,
                (n_ranks, f"{folder}/store", args, results),
                nprocs=n_ranks,
                join=False,
            )
            while not context.join(timeout=0.1):
                while not results.empty():
                    ranks, rank, k, name, *values = results.get()
                    found[k, name, ranks, rank] = values
            while not results.empty():
                ranks, rank, k, name, *values = results.get()
                found[k, name, ranks, rank] = values
    print("  k  model                  CPU s: one  rank 0  rank 1  MB/iteration  diff.")
    for k, name in dict.fromkeys(key[:2] for key in found):
        one, first, second = (found[k, name, *r] for r in ((1, 0), (2, 0), (2, 1)))
        print(
            f"{k:3}  {name:22} {one[0]:10.1f} {first[0]:7.1f} {second[0]:7.1f} "
            f"{first[1] / 1e6:13.2f}  {abs(one[2] - first[2]).max():.0e}"
        )


if __name__ == "__main__":
    main()
