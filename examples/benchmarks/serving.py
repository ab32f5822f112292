"""CPU time of serving: one user's top ten, top ten for all users, pairs, explanations.

Fits estimators to MovieLens 1M, and the factorizations to synthetic ratings of 10,000
items, and prints the CPU time of one thread: the smallest of several runs. If the
folder SKREC_DATA does not have MovieLens, all ratings are synthetic. If implicit is
installed (extra `bench`), its alternating least squares with 20 factors serves the same
users. It has no predictions for pairs: the row has those of NumPy from its factors.

    python examples/benchmarks/serving.py [--only BiasedMF SVDpp]
"""

import argparse
import time
import warnings
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix
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
from skrec.model_selection import samples_to_ratings

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


def measure_implicit(X, y, pairs):
    """Fit implicit and return a line of the table, or None if it is not installed."""
    try:
        from implicit.als import AlternatingLeastSquares
    except ImportError:
        return None
    R, users, items = samples_to_ratings(X, y)
    R = csr_matrix(R)
    model = AlternatingLeastSquares(
        factors=20, iterations=5, num_threads=1, random_state=0
    )
    model.fit(R, show_progress=False)
    everyone = np.arange(len(users))

    def predict():
        at_user, at_item = (
            ids.get_indexer(pairs[:, side])
            for side, ids in enumerate((pd.Index(users), pd.Index(items)))
        )
        vectors = model.user_factors[at_user], model.item_factors[at_item]
        return np.einsum("ij,ij->i", *vectors)

    return {
        "estimator": f"implicit {version('implicit')}",
        "items": len(items),
        "ratings": len(y),
        "top ten of a user, ms": 1e3
        * cpu_time(lambda: model.recommend(7, R[7], N=10), 200),
        "explanation, ms": 1e3 * cpu_time(lambda: model.explain(7, R, 7), 20),
        "top ten of all, s": cpu_time(lambda: model.recommend(everyone, R, N=10)),
        "1e6 pairs, s": cpu_time(predict),
    }


def main(options):
    warnings.filterwarnings("ignore", ".* stopped at max_iter", ConvergenceWarning)
    X, y = movielens()
    rng = np.random.default_rng(0)
    pairs = X[rng.integers(len(X), size=10**6)]
    lines = []
    for name, estimator in ESTIMATORS.items():
        if not options.only or name in options.only:
            lines.append(measure(name, estimator, X, y, pairs))
    if not options.only or "implicit" in options.only:
        lines += filter(None, [measure_implicit(X, y, pairs)])
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
    parser.add_argument("--only", nargs="+", choices=[*ESTIMATORS, "implicit"])
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main(parser.parse_args())
