"""Tune ConvMF on MovieLens 1M by a halving search with progress bars.

Many candidates are fitted for few iterations, the better third of them for three times
as many iterations, and so on. The vectorized texts are the same for all candidates, so
they are computed once and cached by `memory`.

    python examples/tune_convmf.py               # MovieLens 1M with plots, half an hour
    python examples/tune_convmf.py --data 100k   # five minutes

The ratings are downloaded or read from the folder SKREC_DATA. Texts are title and
genres, unless this folder has a file with plots.
"""

import argparse
import tempfile
import time

import numpy as np
import pandas as pd
from sklearn.callback import ProgressBar
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import (
    HalvingRandomSearchCV,
    ShuffleSplit,
    train_test_split,
)

from skrec import ConvMFRegressor
from skrec.datasets import fetch_movielens
from skrec.text import ItemTexts

GRID = {
    "lambda_u": [10, 20, 40, 80],
    "lambda_v": [2.5, 5, 10, 20],
    "n_factors": [10, 15, 20],
    "embedding_dim": [20, 50, 100],
}


def main(options):
    data = fetch_movielens(options.data)
    X, X_test, y, y_test = train_test_split(
        data.data, data.target, test_size=0.1, random_state=0
    )
    with tempfile.TemporaryDirectory() as memory:
        search = HalvingRandomSearchCV(
            ConvMFRegressor(
                lambda_w=60,
                word_dropout=0.7,
                tol=1e-4,
                n_iter_no_change=10,
                memory=memory,
                random_state=0,
            ),
            GRID,
            resource="max_iter",
            min_resources=4,
            max_resources=36,
            n_candidates=options.candidates,
            factor=3,
            scoring="neg_root_mean_squared_error",
            cv=ShuffleSplit(1, test_size=0.1, random_state=0),
            random_state=0,
        )
        search.set_callbacks(ProgressBar())
        start = time.perf_counter()
        search.fit(X, y, item_texts=ItemTexts(data.item_texts))
        total = time.perf_counter() - start
    results = pd.DataFrame(search.cv_results_)
    columns = ["iter", "n_resources", *(f"param_{name}" for name in GRID)]
    table = results[columns].assign(RMSE=-results["mean_test_score"])
    print(table.to_string(index=False, float_format="{:.4f}".format))
    inside = np.sum(results["mean_fit_time"] + results["mean_score_time"])
    outside = total - inside - search.refit_time_
    print(f"\nBest: {search.best_params_}")
    rmse = root_mean_squared_error(y_test, search.predict(X_test))
    print(f"RMSE on the held-out tenth of the ratings: {rmse:.4f}")
    print(f"{total:.0f} s, of which {outside / total:.1%} outside fit and score")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="1m", help="100k or 1m")
    parser.add_argument("--candidates", type=int, default=27)
    main(parser.parse_args())
