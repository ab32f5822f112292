"""Time, model size and accuracy of each estimator.

Fits each estimator with its defaults to 90 % of MovieLens 1M, one after the other in
one process, and predicts the other ratings. The table has the fit time, its ratio to
the fit time of BiasedMF, predictions per second, the size of the pickle, and the RMSE.
If the folder SKREC_DATA does not have the data, synthetic ratings and texts of a tenth
of the size are used.

    python examples/benchmarks/estimators.py [--threads 2] [--only CTR RBM]
"""

import argparse
import pickle
import time
import warnings

import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

import skrec
from skrec.datasets import fetch_movielens, make_ratings
from skrec.model_selection import ratings_to_samples
from skrec.text import ItemTexts

READ_TEXTS = ("ConvMF", "CTR", "CDL")


def load():
    """Load pairs, ratings and texts."""
    try:
        movielens = fetch_movielens("1m", download_if_missing=False)
    except OSError:
        data = make_ratings(2_000, 1_200, density=0.045, text_words=80, random_state=0)
        return *ratings_to_samples(data.R), pd.Series(data.item_texts)
    return movielens.data.to_numpy(), movielens.target.to_numpy(), movielens.item_texts


def estimators():
    """Return all estimators by name, with both variants of RBM and Bayesian MF."""
    suffix = "Regressor"
    names = [name.removesuffix(suffix) for name in dir(skrec) if name.endswith(suffix)]
    found = {name: getattr(skrec, name + suffix)(random_state=0) for name in names}
    found["RBM, user-based"] = skrec.RBMRegressor(kind="user", random_state=0)
    implicit = skrec.BayesianMFRegressor(implicit=True, random_state=0)
    found["BayesianMF, implicit"] = implicit
    # The baseline comes first.
    return {"BiasedMF": found.pop("BiasedMF")} | found


def main(options):
    X, y, texts = load()
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.1, random_state=0
    )
    # Fits with a fixed number of iterations need not converge.
    warnings.filterwarnings("ignore", ".* stopped at max_iter", ConvergenceWarning)
    # Warm-up.
    skrec.BiasedMFRegressor(max_iter=2).fit(X_train, y_train).predict(X_test)
    lines = []
    for name, estimator in estimators().items():
        wanted = not options.only or name == "BiasedMF" or name in options.only
        if not wanted:
            continue
        given = {"item_texts": ItemTexts(texts)} if name in READ_TEXTS else {}
        start = time.perf_counter()
        estimator.fit(X_train, y_train, **given)
        fitted = time.perf_counter()
        predicted = estimator.predict(X_test)
        done = time.perf_counter()
        size = len(pickle.dumps(estimator)) / 2**20
        rmse = root_mean_squared_error(y_test, predicted)
        rate = len(y_test) / (done - fitted)
        lines.append([name, fitted - start, rate, size, rmse])
        print(f"{name}: {fitted - start:.1f} s", flush=True)
    columns = ["estimator", "fit, s", "predictions / s", "MiB", "RMSE"]
    table = pd.DataFrame(lines, columns=columns).set_index("estimator")
    table.insert(1, "times BiasedMF", table["fit, s"] / table["fit, s"].iloc[0])
    decimals = {"predictions / s": 0, "MiB": 0, "RMSE": 4}
    formats = {name: f"{{:,.{decimals.get(name, 1)}f}}".format for name in table}
    print(table.to_string(formatters=formats))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", help="rows of the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        main(options)
