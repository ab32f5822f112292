"""What features of items and users are worth, on splits of ratings and on new users.

Random splits of ratings, 10 % for validation and 10 % for test, and the given share of
the ratings for training. BiasedMF, SVD++ and ConvMF know nothing, genres and years,
plots as well, or features that say nothing. The factorization machine of myfm, if it is
installed (optional dependencies `bench`), knows genres and years. With --users, five
folds of users without ratings, who have age, gender, occupation and zip code.

    python examples/benchmarks/features.py --data latest-small
    python examples/benchmarks/features.py --data 1m --share 0.2
    python examples/benchmarks/features.py --data 1m --users
"""

import argparse
import time
import warnings
from importlib.util import find_spec

import numpy as np
import pandas as pd
from factorization_machine import FactorizationMachine
from sklearn.base import clone
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GroupKFold

from skrec import BiasedMFRegressor, ConvMFRegressor, SVDppRegressor
from skrec.datasets import fetch_movielens
from skrec.text import ItemTexts

# Numbers of training ratings of an item
COUNTS = {"0": (0, 0), "1-5": (1, 5), "6-20": (6, 20), "more": (21, np.inf)}


def cases(movies, users):
    """Yield the name, the estimator and the arguments of each fit."""
    known = movies[[c for c in ("genres", "year") if c in movies]]
    noise = np.random.default_rng(0).normal(size=(len(movies), 30))
    biased, implicit = BiasedMFRegressor(), SVDppRegressor()
    yield "BiasedMF", biased, {}
    yield (
        "BiasedMF, 30 columns of noise",
        biased,
        {"item_features": pd.DataFrame(noise, movies.index)},
    )
    shuffled = known.sample(frac=1, random_state=0).set_axis(movies.index)
    yield "BiasedMF, shuffled genres and years", biased, {"item_features": shuffled}
    yield "BiasedMF, genres and years", biased, {"item_features": known}
    if find_spec("myfm"):
        machine = FactorizationMachine(rank=20, n_iter=100)
        yield "myfm, genres and years", machine, {"item_features": known}
    everything = {"item_features": known}
    if "plot" in movies:
        everything = {"item_features": known.join(movies["plot"])}
        yield "BiasedMF, genres, years, plots", biased, everything
    if users is not None:
        everything["user_features"] = users
        yield "BiasedMF, all of items and users", biased, everything
    yield "SVD++", implicit, {}
    yield "SVD++, everything", implicit, everything
    if "plot" in movies:
        everything["item_features"] = known
        texts = {"item_texts": ItemTexts(movies["plot"])}
        yield "ConvMF", ConvMFRegressor(), texts
        yield "ConvMF, everything", ConvMFRegressor(), everything | texts


def by_count(X, train, test, errors):
    """Return the RMSE by the number of training ratings of the item."""
    counts = pd.Series(X[train, 1]).value_counts()
    counts = counts.reindex(X[test, 1], fill_value=0).to_numpy()
    found = {}
    for name, (low, high) in COUNTS.items():
        inside = (counts >= low) & (counts <= high)
        found[name] = np.sqrt(np.mean(errors[inside] ** 2)) if inside.any() else np.nan
    return found


def measure(estimator, arguments, X, y, train, test):
    """Return the squared-error summary and the seconds of a fit."""
    start = time.perf_counter()
    model = clone(estimator).set_params(random_state=0)
    model.fit(X[train], y[train], **arguments)
    seconds = time.perf_counter() - start
    errors = y[test] - model.predict(X[test])
    return {
        "RMSE": np.sqrt(np.mean(errors**2)),
        **by_count(X, train, test, errors),
        "seconds": seconds,
    }


def on_ratings(data, options):
    X, y = data.data.to_numpy(), data.target.to_numpy()
    n = len(y)
    for name, estimator, arguments in cases(data.movies, data.users):
        if not any(part in name for part in options.models or [name]):
            continue
        found = []
        for seed in options.seeds:
            order = np.random.default_rng(seed).permutation(n)
            train, test = order[: round(options.share * n)], order[round(0.9 * n) :]
            found.append(measure(estimator, arguments, X, y, train, test))
        means = pd.DataFrame(found).mean()
        figures = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
        print(f"{name:36} {figures}", flush=True)


def on_users(data):
    """Users without ratings: the items' means, and the users' attributes."""
    X, y = data.data.to_numpy(), data.target.to_numpy()
    folds = GroupKFold(5, shuffle=True, random_state=0).split(X, groups=X[:, 0])
    for train, test in folds:
        model = BiasedMFRegressor(random_state=0)
        means = model.fit(X[train], y[train]).predict(X[test])
        model.fit(X[train], y[train], user_features=data.users)
        errors = [
            root_mean_squared_error(y[test], predicted)
            for predicted in (means, model.predict(X[test]))
        ]
        print("items' means {:.4f}, attributes {:.4f}".format(*errors), flush=True)


def main(options):
    data = fetch_movielens(options.data)
    warnings.filterwarnings("ignore", ".* have an unseen (user|item)", UserWarning)
    if options.users:
        on_users(data)
    else:
        on_ratings(data, options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="latest-small")
    parser.add_argument("--share", type=float, default=0.8, help="for training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="*", help="parts of the models' names")
    parser.add_argument("--users", action="store_true", help="users without ratings")
    main(parser.parse_args())
