"""Tables of the ConvMF paper.

As in the paper, users with fewer than three ratings and items without text are removed,
ratings are split randomly into training, validation and test ratings (80/10/10), and
one rating of every user and every item is kept in training. Parameters are chosen on
the validation ratings. The reported error is the test error of the model with the
lowest validation error. (The authors' code reports the lowest test error of all
iterations.)

Reference: Kim, Park, Oh, Lee, Yu. Convolutional Matrix Factorization for Document
Context-Aware Recommendation. RecSys 2016. https://doi.org/10.1145/2959100.2959165
"""

import numpy as np
import pandas as pd
from protocol import LEAST_SQUARES, Line, Table
from sklearn.base import clone
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import ParameterGrid
from word_vectors import available, find_glove
from word_vectors import load as load_vectors

from skrec import (
    BiasedMFRegressor,
    CDLRegressor,
    ConvMFRegressor,
    CTRRegressor,
    PMFRegressor,
)
from skrec.datasets import (
    fetch_movielens,
    join_reviews,
    load_amazon,
)
from skrec.text import ItemTexts

DATASETS = ("ml-1m", "ml-10m", "aiv")
# Amazon's reviews: Instant Video, and Musical Instruments
AMAZON = {"aiv": "Amazon_Instant_Video", "ami": "Musical_Instruments_5"}
PAPER = {
    "PMF": {"ml-1m": 0.8971, "ml-10m": 0.8311, "aiv": 1.4118},
    "CTR": {"ml-1m": 0.8969, "ml-10m": 0.8275, "aiv": 1.5496},
    "CDL": {"ml-1m": 0.8879, "ml-10m": 0.8186, "aiv": 1.3594},
    "ConvMF": {"ml-1m": 0.8531, "ml-10m": 0.7958, "aiv": 1.1337},
    "ConvMF+": {"ml-1m": 0.8549, "ml-10m": 0.7930, "aiv": 1.1279},
}
# Table 4, MovieLens 1M.
SPARSE = {
    ("PMF", 0.2): 1.0168,
    ("ConvMF", 0.2): 0.9745,
    ("PMF", 0.8): PAPER["PMF"]["ml-1m"],
    ("ConvMF", 0.8): PAPER["ConvMF"]["ml-1m"],
}
# The best (lambda_u, lambda_v) of the paper.
BEST = {"ml-1m": (100, 10), "ml-10m": (10, 100), "aiv": (1, 100)}
RATIOS = (0.2, 0.4, 0.6, 0.8)
PENALTIES = (1, 10, 100)
SIZES = (50, 100, 200, 300)
USER_PENALTIES = (10, 40, 100)
# The search of Table 4: beyond those candidates of Table 3 that were always chosen, the
# smallest for PMF and the largest for ConvMF. `lambda_v` is that of the paper.
SEARCH = {
    "PMF": {"lambda_u": [1, 3, 10, 40, 100]},
    "ConvMF": {"lambda_u": [40, 100, 200]},
}


def load_raw(dataset):
    """Load a data set with texts. Raises OSError if it is not available."""
    if dataset in AMAZON:
        return load_amazon(AMAZON[dataset])
    return fetch_movielens(dataset.removeprefix("ml-"), download_if_missing=False)


def load(dataset):
    """Load pairs, ratings and texts, filtered as in the paper."""
    raw = load_raw(dataset)
    texts = raw.item_texts
    data = raw.data.assign(rating=raw.target)
    data = data[data["item"].isin(texts.index)]
    data = data[data.groupby("user")["item"].transform("size") >= 3]
    rated = data["item"].unique()
    X, y = data[["user", "item"]].to_numpy(), data["rating"].to_numpy()
    return X, y, texts[texts.index.isin(rated)]


def split(X, ratio, seed):
    """Split the ratings, with at least one of each user and item in training."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    firsts = [np.unique(X[order, side], return_index=True)[1] for side in (0, 1)]
    kept = np.unique(np.concatenate(firsts))
    if len(kept) > round(ratio * len(X)):
        raise ValueError(
            f"{ratio:.0%} of the ratings are too few to keep one of each user and "
            "item: use a larger ratio."
        )
    order = np.concatenate([order[kept], np.delete(order, kept)])
    train, rest = np.split(order, [round(ratio * len(X))])
    validation, test = np.array_split(rest, 2)
    return train, validation, test


def measure(estimator, grid, dataset, seed, ratio=0.8, shuffle=False, vectors=None):
    """Measure the test error of the candidate with the lowest validation error.

    `vectors` is a source of `word_vectors` (ConvMF+).

    Returns
    -------
    result : dict
        "rmse" on the test ratings, the RMSE on the "validation" ratings, the chosen
        "params", and "all", the results of each candidate.
    """
    X, y, texts = load(dataset)
    train, validation, test = split(X, ratio, seed)
    if shuffle:
        order = np.random.default_rng(seed).permutation(len(texts))
        texts = pd.Series(texts.to_numpy()[order], texts.index)
    if vectors is not None:
        pretrained = load_vectors(vectors, texts)
        estimator = clone(estimator).set_params(word_vectors=pretrained)
    plain = isinstance(estimator, (PMFRegressor, BiasedMFRegressor))
    given = {} if plain else {"item_texts": ItemTexts(texts)}
    return choose(estimator, grid, X, y, (train, validation, test), given)


def measure_reviews(estimator, grid, dataset, seed, documents="training"):
    """Measure as `measure`, with documents of reviews.

    `documents` is "all" for documents of all reviews, as in the paper, or "training"
    for documents without the reviews of the validation and test ratings.
    """
    raw = load_raw(dataset)
    is_kept = raw.data.groupby("user")["item"].transform("size") >= 3
    data, reviews = raw.data[is_kept], raw.reviews[is_kept]
    X, y = data.to_numpy(), raw.target[is_kept].to_numpy()
    parts = split(X, 0.8, seed)
    given = {}
    if not isinstance(estimator, (PMFRegressor, BiasedMFRegressor)):
        used = slice(None) if documents == "all" else parts[0]
        texts = join_reviews(data.iloc[used], reviews.iloc[used])
        given = {"item_texts": ItemTexts(texts)}
    return choose(estimator, grid, X, y, parts, given)


def choose(estimator, grid, X, y, parts, given):
    """Fit all candidates, and return the results of the best one on validation ratings.

    `parts` are the positions of training, validation and test ratings, `given` further
    arguments of `fit`.
    """
    train, validation, test = parts
    found = []
    for params in ParameterGrid(grid):
        model = clone(estimator).set_params(**params).fit(X[train], y[train], **given)
        errors = [
            root_mean_squared_error(y[part], model.predict(X[part]))
            for part in (validation, test)
        ]
        found.append([*errors, repr(params), model.n_iter_])
    best = min(found, key=lambda candidate: candidate[0])
    return {"rmse": best[1], "validation": best[0], "params": best[2], "all": found}


def paper_model(dataset="ml-1m", **params):
    """Make the ConvMF of the paper: ratings as they are, no biases, no word dropout."""
    lambda_u, lambda_v = BEST[dataset]
    fixed = {
        "n_factors": 50,
        "lambda_u": lambda_u,
        "lambda_v": lambda_v,
        "lambda_w": 30,
        "normalize_y": False,
        "fit_biases": False,
        "dropout": 0.2,
        "word_dropout": 0.0,
        "network_epochs": 2,
        "learning_rate_init": 0.001,
        "max_iter": 50,
        "tol": 1e-4,
        "n_iter_no_change": 10,
    }
    return ConvMFRegressor(**(fixed | params))


# A network with word dropout as the only path from texts, and penalties for MovieLens.
NETWORK_ALONE = {
    "n_factors": 15,
    "lambda_u": 40,
    "lambda_v": 5,
    "lambda_w": 60,
    "word_dropout": 0.7,
    "max_iter": 40,
    "tol": 1e-4,
    "n_iter_no_change": 10,
    "normalize_y": False,
}


def grid(dataset):
    """Return the grid for every system, which includes the paper's choice."""
    return {"lambda_u": sorted({*USER_PENALTIES, BEST[dataset][0]})}


def systems(dataset):
    systems = {
        "PMF": PMFRegressor(normalize_y=False),
        "CTR": CTRRegressor(normalize_y=False),
        "CDL": CDLRegressor(normalize_y=False, batch_size=256, max_iter=40),
    }
    systems["ConvMF"] = paper_model(dataset)
    if find_glove():
        systems["ConvMF+"] = paper_model(dataset, word_vectors=find_glove())
    for name, system in systems.items():
        yield Line(name, system, grid(dataset), PAPER[name][dataset])


def at_ratio(ratio, name, system, grid=None, paper=None):
    how = options_of(ratio)
    return Line(f"{100 * ratio:.0f}, {name}", system, grid or {}, paper, how)


def options_of(ratio, shuffle=False):
    """Return the options of `measure` that differ from its defaults."""
    options = {} if ratio == 0.8 else {"ratio": ratio}
    return options | ({"shuffle": True} if shuffle else {})


def sparsity(dataset):
    systems = {"PMF": PMFRegressor(normalize_y=False), "ConvMF": paper_model(dataset)}
    for ratio in RATIOS:
        for name, system in systems.items():
            paper = SPARSE.get((name, ratio))
            yield at_ratio(ratio, name, system, SEARCH[name], paper)


def defaults(dataset):
    systems = {
        "PMF": PMFRegressor(normalize_y=False),
        "BiasedMF": BiasedMFRegressor(**LEAST_SQUARES),
        "ConvMF": ConvMFRegressor(**NETWORK_ALONE),
    }
    for ratio in RATIOS:
        for name, system in systems.items():
            yield at_ratio(ratio, name, system)


def shuffled(dataset):
    for system, name in [
        (ConvMFRegressor(**NETWORK_ALONE), "the defaults"),
        (paper_model(dataset), "the model of the paper"),
    ]:
        for ratio in (0.2, 0.8):
            for shuffle in (False, True):
                whose = "other items' texts" if shuffle else "own texts"
                options = options_of(ratio, shuffle)
                yield Line(f"{ratio:.0%} {name}, {whose}", system, options=options)


def surface(dataset):
    for lambda_u in PENALTIES:
        for lambda_v in PENALTIES:
            system = paper_model(dataset, lambda_u=lambda_u, lambda_v=lambda_v)
            yield Line(f"{lambda_v}, lambda_u = {lambda_u}", system)


def embedding(dataset):
    for p in SIZES:
        yield Line(str(p), paper_model(dataset, embedding_dim=p))


def pretrained(dataset):
    for lambda_v in PENALTIES:
        for name, vectors in [("ConvMF", None), ("ConvMF+", find_glove())]:
            if name == "ConvMF" or vectors:
                system = paper_model(dataset, lambda_v=lambda_v, word_vectors=vectors)
                yield Line(f"{lambda_v}, {name}", system)


def sources(dataset):
    for ratio in (0.2, 0.8):
        for source in (None, *available()):
            vectors = {} if source is None else {"vectors": source}
            name = f"{ratio:.0%} {source or 'random vectors'}"
            options = options_of(ratio) | vectors
            yield Line(name, paper_model(dataset), options=options)


def reviewed(dataset):
    paper = paper_model("aiv")
    yield Line("PMF", PMFRegressor(normalize_y=False), grid("aiv"))
    yield Line("BiasedMF with its defaults", BiasedMFRegressor())
    for documents in ("all", "training"):
        whose = f"{documents} reviews"
        options = {"documents": documents}
        yield Line(f"ConvMF of the paper, {whose}", paper, grid("aiv"), None, options)
        convmf = ConvMFRegressor()
        yield Line(f"ConvMF with its defaults, {whose}", convmf, {}, None, options)


ML_1M = ("ml-1m",)
SHARE = "% of the ratings for training"
TABLES = {
    "convmf-3": Table(
        "Table 3: 80 % of the ratings for training", DATASETS, measure, systems
    ),
    "convmf-4": Table(
        "Table 4: 20 to 80 % of the ratings", ML_1M, measure, sparsity, SHARE
    ),
    "convmf-reviews": Table(
        "Documents of all reviews, and of the training reviews",
        ("ami",),
        measure_reviews,
        reviewed,
    ),
    "convmf-defaults": Table(
        "The penalties of skrec on 20 to 80 % of the ratings",
        ML_1M,
        measure,
        defaults,
        SHARE,
    ),
    "convmf-shuffled": Table(
        "ConvMF with the texts shuffled across items", ML_1M, measure, shuffled
    ),
    "convmf-surface": Table(
        "RMSE of ConvMF by lambda_u and lambda_v", ML_1M, measure, surface, "lambda_v"
    ),
    "convmf-fig5": Table(
        "Figure 5: RMSE by the size p of word vectors", ML_1M, measure, embedding, "p"
    ),
    "convmf-fig6": Table(
        "Figure 6: ConvMF+ and ConvMF by lambda_v",
        ML_1M,
        measure,
        pretrained,
        "lambda_v",
    ),
    "convmf-vectors": Table(
        "ConvMF+ with word vectors from several sources", ML_1M, measure, sources
    ),
}
