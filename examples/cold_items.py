"""Prediction of cold-start items, which have no ratings, from texts and features.

GroupKFold over items holds out all ratings of some items at a time. ConvMF and AutoRec
read the texts of these items, BiasedMF and SVD++ know their genres and years, too.
Without either, the best prediction is the mean of the user.

    python examples/cold_items.py                # synthetic, two minutes
    python examples/cold_items.py --data 1m      # with plots, half an hour

Vectors of the items that another model has made, such as sentence embeddings, are read
from an NPZ file with the arrays "item" and "embedding" (--embeddings).

The MovieLens archives have no plots: their texts are title and genres, unless the
folder SKREC_DATA has a file with plots.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.base import clone
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GroupKFold

from skrec import (
    AutoRecRegressor,
    BiasedMFRegressor,
    ConvMFRegressor,
    SVDppRegressor,
)
from skrec.datasets import fetch_movielens, make_ratings
from skrec.model_selection import ratings_to_samples
from skrec.text import ItemTexts


def load(name):
    """Load pairs, ratings, and a frame of what is known of the items."""
    if name == "synthetic":
        data = make_ratings(600, 400, density=0.1, text_words=60, random_state=0)
        return *ratings_to_samples(data.R), pd.DataFrame({"plot": data.item_texts})
    data = fetch_movielens(name)
    return data.data.to_numpy(), data.target.to_numpy(), data.movies


def models(name, items):
    """Return the models by name, each with the columns that it knows.

    ConvMF reads one column as texts. The other models get a frame.
    """
    network = {"lambda_u": 40, "lambda_v": 5, "lambda_w": 60, "word_dropout": 0.7}
    if name == "synthetic":
        network = {
            "network_epochs": 10,
            "n_factors": 10,
            "lambda_u": 10,
            "lambda_w": 1.0,
        }
        network |= {"word_dropout": 0.0, "learning_rate_init": 0.001, "lambda_v": 5}
    text = "plot" if "plot" in items else "genres"
    yield "global mean", None, None
    yield "user mean", BiasedMFRegressor(random_state=0), None
    yield "ConvMF, the paper's penalties", ConvMFRegressor(**network), text
    yield "ConvMF, network alone", ConvMFRegressor(text_prior="network"), text
    yield "ConvMF, linear path alone", ConvMFRegressor(text_prior="linear"), text
    yield "ConvMF", ConvMFRegressor(), text
    yield "AutoRec with texts", AutoRecRegressor(), text
    columns = [c for c in ("genres", "year", "plot") if c in items]
    sets = [columns[:n] for n in range(1, len(columns) + 1)]
    if "plot" in columns:
        sets.insert(0, ["plot"])
    if "embedding" in items:
        sets += [["embedding"], [*columns, "embedding"]]
    for known in sets if len(columns) > 1 else []:
        yield f"BiasedMF, {', '.join(known)}", BiasedMFRegressor(), known
    if len(columns) > 1:
        yield f"SVD++, {', '.join(columns)}", SVDppRegressor(), columns


def measure(model, known, X, y, items, train, test):
    """Return the RMSE on the held-out items."""
    if model is None:
        return root_mean_squared_error(y[test], np.full(len(test), y[train].mean()))
    params = {}
    if isinstance(known, str):
        params = {"item_texts": ItemTexts(items[known])}
    elif known is not None:
        params = {"item_features": items[known]}
    model = clone(model).set_params(random_state=0).fit(X[train], y[train], **params)
    return root_mean_squared_error(y[test], model.predict(X[test]))


def main(options):
    X, y, items = load(options.data)
    if options.embeddings:
        with np.load(options.embeddings) as file:
            vectors = list(file["embedding"].astype(float))
            items = items.join(pd.Series(vectors, file["item"], name="embedding"))
    # Models that do not read texts are meant to predict unseen items here.
    warnings.filterwarnings("ignore", ".* have an unseen item", UserWarning)
    folds = GroupKFold(5, shuffle=True, random_state=0).split(X, groups=X[:, 1])
    folds = list(folds)[: options.folds]
    lines = {}
    for name, model, known in models(options.data, items):
        chosen = ["user mean", *(options.models or [name])]
        if not any(part in name for part in chosen):
            continue
        lines[name] = [measure(model, known, X, y, items, *fold) for fold in folds]
        print(f"{name:32} {np.round(lines[name], 4)}", flush=True)
    table = pd.DataFrame(lines).T
    # Errors vary more between folds than between models, so models are compared fold by
    # fold: 95 % intervals of the mean difference, by Student's t distribution.
    below = table.loc["user mean"] - table
    half = below.sem(axis=1) * stats.t.ppf(0.975, len(folds) - 1)
    summary = pd.DataFrame(
        {
            "mean": table.mean(axis=1),
            "lowest": table.min(axis=1),
            "highest": table.max(axis=1),
            "below user mean": below.mean(axis=1),
            "from": below.mean(axis=1) - half,
            "to": below.mean(axis=1) + half,
        }
    )
    print(f"\nRMSE on items without ratings, {len(folds)} folds, {options.data}")
    print(summary.to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--embeddings", help="NPZ file with vectors of the items")
    parser.add_argument("--models", nargs="*", help="parts of the models' names")
    main(parser.parse_args())
