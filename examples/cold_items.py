"""Prediction of cold-start items, which have no ratings, from their texts alone.

GroupKFold over items holds out all ratings of some items at a time. ConvMF and AutoRec
read the texts of these items. Without texts, the best prediction is the mean of the
user.

    python examples/cold_items.py                    # synthetic, two minutes
    python examples/cold_items.py --data 1m          # with plots, half an hour

The MovieLens archives have no plots: their texts are title and genres, unless the
folder SKREC_DATA has a file with plots.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GroupKFold

from skrec import AutoRecRegressor, BiasedMFRegressor, ConvMFRegressor
from skrec.datasets import fetch_movielens, make_ratings
from skrec.model_selection import ratings_to_samples
from skrec.text import ItemTexts


def load(name):
    """Load pairs, ratings and texts."""
    if name == "synthetic":
        data = make_ratings(600, 400, density=0.1, text_words=60, random_state=0)
        return *ratings_to_samples(data.R), dict(enumerate(data.item_texts))
    movielens = fetch_movielens(name)
    return movielens.data.to_numpy(), movielens.target.to_numpy(), movielens.item_texts


def models(name):
    """Return the models by name, and whether each reads texts."""
    small = {"cnn_epochs": 10, "n_factors": 10, "lambda_u": 10, "lambda_w": 1.0}
    small |= {"word_dropout": 0.0, "learning_rate_init": 0.001}
    convmf = small if name == "synthetic" else {}
    return {
        "global mean": (None, False),
        "user mean": (BiasedMFRegressor(random_state=0), False),
        "ConvMF": (ConvMFRegressor(random_state=0, **convmf), True),
        "AutoRec with texts": (AutoRecRegressor(random_state=0), True),
    }


def measure(model, reads_texts, X, y, texts, train, test):
    """Return the RMSE on the held-out items."""
    if model is None:
        predicted = np.full(len(test), y[train].mean())
    else:
        params = {"item_texts": ItemTexts(texts)} if reads_texts else {}
        predicted = model.fit(X[train], y[train], **params).predict(X[test])
    return root_mean_squared_error(y[test], predicted)


def main(options):
    X, y, texts = load(options.data)
    # Models that do not read texts are meant to predict unseen items here.
    warnings.filterwarnings("ignore", ".* have an unseen item", UserWarning)
    folds = GroupKFold(5, shuffle=True, random_state=0).split(X, groups=X[:, 1])
    folds = list(folds)[: options.folds]
    lines = {}
    for name, (model, reads_texts) in models(options.data).items():
        lines[name] = [
            measure(model, reads_texts, X, y, texts, *fold) for fold in folds
        ]
        print(f"{name:20} {np.round(lines[name], 4)}", flush=True)
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
    main(parser.parse_args())
