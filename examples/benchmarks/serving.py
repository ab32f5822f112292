"""CPU time of serving: one user's top ten, top ten for all users, pairs, explanations.

Fits estimators to MovieLens 1M, and the factorizations to synthetic ratings of 10,000
items, and prints the CPU time of one thread: the smallest of several runs. If the
folder SKREC_DATA does not have MovieLens, all ratings are synthetic.

    python examples/benchmarks/serving.py [--only BiasedMF SVDpp]
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from skrec import (
    AutoRecRegressor,
    BiasedMFRegressor,
    PMFRegressor,
    RBMRegressor,
    SVDppRegressor,
)
from skrec.datasets import fetch_movielens

N_RUNS = 5
ESTIMATORS = {
    "BiasedMF": BiasedMFRegressor(max_iter=10, random_state=0),
    "SVDpp": SVDppRegressor(max_iter=10, random_state=0),
    "PMF": PMFRegressor(n_factors=20, max_iter=5, random_state=0),
    "AutoRec": AutoRecRegressor(max_iter=5, random_state=0),
    "RBM": RBMRegressor(max_iter=2, random_state=0),
}


def movielens():
    """Load the pairs and ratings of MovieLens 1M, or make some like them."""
    try:
        data = fetch_movielens("1m", download_if_missing=False)
    except OSError:
        return synthetic(6_040, 3_706, 1_000_209)
    return data.data.to_numpy(), data.target.to_numpy()


def synthetic(n_users, n_items, n_ratings):
    """Draw distinct pairs at random, with ratings from 1 to 5."""
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(n_users * n_items, size=n_ratings))
    X = np.column_stack(np.divmod(pairs, n_items))
    return X, rng.integers(1, 6, size=len(X)).astype(float)


def cpu_time(function, n_calls=1):
    """Smallest CPU time of a call, in seconds."""
    function()
    found = []
    for _ in range(N_RUNS):
        start = time.process_time()
        for _ in range(n_calls):
            function()
        found.append((time.process_time() - start) / n_calls)
    return min(found)


def measure(name, estimator, X, y, pairs, *, whole=True):
    """Fit an estimator and return a line of the table."""
    model = estimator.fit(X, y)
    user, item = model.users_[7].item(), model.items_[7].item()
    line = {
        "estimator": name,
        "items": len(model.items_),
        "ratings": len(y),
        "top ten of a user, ms": 1e3 * cpu_time(lambda: model.recommend([user]), 200),
        "explanation, ms": 1e3 * cpu_time(lambda: model.explain(user, item), 20),
    }
    if whole:
        everyone = model.users_
        line["top ten of all, s"] = cpu_time(lambda: model.recommend(everyone))
        line["1e6 pairs, s"] = cpu_time(lambda: model.predict(pairs))
    return line


def main(options):
    warnings.filterwarnings("ignore", ".* stopped at max_iter", ConvergenceWarning)
    X, y = movielens()
    rng = np.random.default_rng(0)
    pairs = X[rng.integers(len(X), size=10**6)]
    lines = []
    for name, estimator in ESTIMATORS.items():
        if not options.only or name in options.only:
            lines.append(measure(name, estimator, X, y, pairs))
    for n_ratings in (10**5, 10**6):
        others = synthetic(6_000, 10_000, n_ratings)
        for name in ("BiasedMF", "PMF"):
            if not options.only or name in options.only:
                lines.append(
                    measure(name, ESTIMATORS[name], *others, pairs, whole=False)
                )
    table = pd.DataFrame(lines).set_index("estimator")
    print(table.round(3).to_string(na_rep=""))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", help="rows of the table")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main(parser.parse_args())
