"""Fit AutoRec to MovieLens and compare it with simple baselines.

    python examples/movielens.py --version 1m

The data are downloaded once, unless the folder SKREC_DATA has them.
"""

import argparse
import time

import pandas as pd
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split

from skrec import AutoRecRegressor
from skrec.datasets import fetch_movielens


def main(version, device):
    movielens = fetch_movielens(version)
    X_train, X_test, y_train, y_test = train_test_split(
        movielens.data, movielens.target, test_size=0.1, random_state=0
    )
    model = AutoRecRegressor(random_state=0, device=device)
    start = time.perf_counter()
    model.fit(X_train, y_train)
    print(f"Fitted {len(y_train)} ratings in {time.perf_counter() - start:.0f} s")

    def of(ids, known, means):
        return pd.Series(means, known).reindex(ids).fillna(model.global_mean_)

    users, items = X_test["user"], X_test["item"]
    predictions = {
        "global mean": [model.global_mean_] * len(y_test),
        "user mean": of(users, model.users_, model.user_means_),
        "item mean": of(items, model.items_, model.item_means_),
        "AutoRec": model.predict(X_test),
    }
    for name, predicted in predictions.items():
        print(f"{name:12} RMSE {root_mean_squared_error(y_test, predicted):.4f}")

    user = X_train["user"].iloc[0]
    best = model.recommend([user], n_items=5)
    best["title"] = movielens.movies["title"].reindex(best["item"]).to_numpy()
    print(f"\nFor user {user}:\n{best.to_string(index=False)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--version", default="1m")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    main(options.version, options.device)
