"""What features of a new item are worth in ratings.

A fifth of the items with many ratings become new: all but n of their ratings are
removed from the training ratings, at random. The error is that of their test ratings,
which are the same for each n: all but the last 64. The features of a new item are worth
as many ratings as a model without features needs for the error that the model with
features has without any rating.

    python examples/benchmarks/features_in_ratings.py --data latest-small
    python examples/benchmarks/features_in_ratings.py --data 1m --plot features.png

The plot needs matplotlib (optional dependencies `plot`).
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from sklearn.metrics import root_mean_squared_error

from skrec import BiasedMFRegressor
from skrec.datasets import fetch_movielens

# Numbers of training ratings of the new items, and the least number of test ratings
COUNTS = (0, 1, 2, 4, 8, 16, 32, 64)
N_TEST = 16


def renew_items(items, seed):
    """Choose new items, and number the ratings of each in a random order.

    Returns
    -------
    place : ndarray of shape (n_ratings,)
        Place of each rating among those of its item; -1 for items that are not new.
    """
    rng = np.random.default_rng(seed)
    shuffled = pd.Series(items).sample(frac=1, random_state=rng)
    place = shuffled.groupby(shuffled).cumcount().sort_index().to_numpy()
    known, counts = np.unique(items, return_counts=True)
    frequent = known[counts >= COUNTS[-1] + N_TEST]
    new = rng.choice(frequent, len(frequent) // 5, replace=False)
    return np.where(np.isin(items, new), place, -1)


def measure(X, y, features, seed):
    """Return the error for each number of ratings, without and with features."""
    place = renew_items(X[:, 1], seed)
    test = place >= COUNTS[-1]
    found = pd.DataFrame(index=pd.Index(COUNTS, name="ratings"))
    for name, known in features.items():
        arguments = {} if known is None else {"item_features": known}
        for count in COUNTS:
            train = place < count
            model = BiasedMFRegressor(random_state=0).fit(
                X[train], y[train], **arguments
            )
            predicted = model.predict(X[test])
            found.loc[count, name] = root_mean_squared_error(y[test], predicted)
        print(seed, found[name].round(4).to_dict(), name, flush=True)
    return found


def worth(table):
    """Return how many ratings have the error of each kind of features without any.

    The error without features, its lowest up to each number, is interpolated in the
    logarithm of 1 plus the number.
    """
    plain = np.minimum.accumulate(table.iloc[:, 0].to_numpy())[::-1]
    numbers = np.log1p(table.index.to_numpy())[::-1]
    return np.expm1(np.interp(table.iloc[0, 1:], plain, numbers)).round(1)


def plot(table, name, file):
    """Draw the errors by the number of ratings."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    places = np.arange(len(table))
    for column in table:
        axes.plot(places, table[column], marker="o", markersize=3, label=column)
    axes.set_xticks(places, table.index)
    axes.set(xlabel="training ratings of the item", ylabel="RMSE", title=name)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=100)


def main(options):
    data = fetch_movielens(options.data)
    warnings.filterwarnings("ignore", ".* have an unseen item", UserWarning)
    columns = [c for c in ("genres", "year", "plot") if c in data.movies]
    features = {"no features": None}
    features |= {
        ", ".join(columns[:n]): data.movies[columns[:n]]
        for n in range(1, len(columns) + 1)
    }
    X, y = data.data.to_numpy(), data.target.to_numpy()
    tables = [measure(X, y, features, seed) for seed in options.seeds]
    table = sum(tables) / len(tables)
    print(table.round(4).to_string())
    print("Ratings that features are worth:")
    print(pd.Series(worth(table), table.columns[1:]).to_string())
    if options.plot:
        plot(table, f"MovieLens, {options.data}", options.plot)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="latest-small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plot", help="file of the plot")
    main(parser.parse_args())
