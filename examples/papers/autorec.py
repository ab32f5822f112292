"""Tables of the AutoRec paper.

Ratings are split randomly 90/10, with a new split for each seed (ML-100K: the canonical
split u1, where seeds differ only in the initial weights). Hyperparameters are chosen on
a tenth of the training ratings, separately for each split. The test ratings are
predicted once.

Reference: Sedhain, Menon, Sanner, Xie. AutoRec: Autoencoders Meet Collaborative
Filtering. WWW 2015 Companion. https://doi.org/10.1145/2740908.2742726
"""

import time

from protocol import LEAST_SQUARES, Line, Table
from sklearn.base import clone
from sklearn.ensemble import VotingRegressor
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import (
    GridSearchCV,
    ParameterGrid,
    ShuffleSplit,
    train_test_split,
)

from skrec import (
    AutoRecRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    LLORMARegressor,
    RBMRegressor,
    SVDppRegressor,
)
from skrec.datasets import fetch_movielens, load_netflix

DATASETS = ("ml-100k", "ml-1m", "ml-10m", "netflix")
# The model of the paper, on the ratings as they are, without input scaling and input
# dropout. The parameters of the solver were chosen on validation ratings.
RAW = {"baseline": False, "normalize_y": False}
PLAIN = {**RAW, "input_scaling": 0.0, "input_dropout": 0.0}
ITEM = {"batch_size": 512, "learning_rate_init": 0.001, "max_iter": 50}
LINEAR = {"learning_rate_init": 0.0005}
# Search spaces, with the same number of candidates for every system.
ALPHAS = {"alpha": [100, 200, 300]}
# RProp and L-BFGS get closer to the minimum of the objective, which needs more penalty.
BATCH_ALPHAS = {"alpha": [200, 300, 500]}
RBM_ALPHAS = {"alpha": [8, 16, 32]}
RBM = {"baseline": False, "n_hidden": 500, "batch_size": 500}
RBM |= {"max_iter": 40, "learning_rate_init": 0.003}
LOCAL_LEAST_SQUARES = LEAST_SQUARES | {"tol": 1e-3}
MF_PENALTIES = {"lambda_u": [20, 40, 80]}
LOCAL_PENALTIES = {"local_penalty_scale": [0.1, 0.2, 0.4]}
IMPLICIT_PENALTIES = {"lambda_y": [80, 160, 320]}
FACTORS = {"n_factors": [10, 20, 40]}
IMPLICIT_FACTORS = {"n_factors": [10, 16, 24]}
UNITS = (10, 20, 50, 100, 200, 300, 400, 500)
PAPER = {
    "I-RBM": {"ml-1m": 0.854, "ml-10m": 0.825},
    "U-RBM": {"ml-1m": 0.881, "ml-10m": 0.823, "netflix": 0.845},
    "I-AutoRec": {"ml-1m": 0.831, "ml-10m": 0.782, "netflix": 0.823},
    "U-AutoRec": {"ml-1m": 0.874, "ml-10m": 0.867},
    "BiasedMF": {"ml-1m": 0.845, "ml-10m": 0.803, "netflix": 0.844},
    "LLORMA": {"ml-1m": 0.833, "ml-10m": 0.782, "netflix": 0.834},
}


def load(dataset):
    """Load ratings as (X, y). Raises OSError if they are not available."""
    if dataset == "netflix":
        return load_netflix(return_X_y=True)
    version = dataset.removeprefix("ml-")
    return fetch_movielens(version, download_if_missing=False, return_X_y=True)


def split(dataset, seed):
    """Split into training and test ratings: canonical split u1, or randomly 90/10."""
    if dataset == "ml-100k":
        movielens = fetch_movielens("100k", download_if_missing=False)
        X, y = movielens.data.to_numpy(), movielens.target.to_numpy()
        train, test = movielens.splits["u1"]
        return X[train], X[test], y[train], y[test]
    X, y = load(dataset)
    return train_test_split(
        X.to_numpy(), y.to_numpy(), test_size=0.1, random_state=seed
    )


def measure(estimator, grid, dataset, seed):
    """Choose parameters on a tenth of the training ratings, then measure the test RMSE.

    Returns
    -------
    result : dict
        "rmse" on the test ratings, "seconds" of the processor for the last fit and,
        unless there is only one candidate, the chosen "params" and "validation", the
        RMSE of each candidate.
    """
    X_train, X_test, y_train, y_test = split(dataset, seed)
    params, choice = next(iter(ParameterGrid(grid))), {}
    if len(ParameterGrid(grid)) > 1:
        search = GridSearchCV(
            estimator,
            grid,
            scoring="neg_root_mean_squared_error",
            cv=ShuffleSplit(1, test_size=0.1, random_state=seed),
            refit=False,
        )
        params = search.fit(X_train, y_train).best_params_
        results = search.cv_results_
        scores = zip(results["params"], -results["mean_test_score"], strict=True)
        choice = {
            "params": {name: repr(value) for name, value in params.items()},
            "validation": [[repr(tried), score] for tried, score in scores],
        }
    model = clone(estimator).set_params(**params)
    start = time.process_time()
    model.fit(X_train, y_train)
    seconds = time.process_time() - start
    rmse = root_mean_squared_error(y_test, model.predict(X_test))
    return {"rmse": rmse, "seconds": seconds} | choice


def plain(**params):
    return AutoRecRegressor(**(PLAIN | params))


def plain_item(**params):
    linear = params.get("activation") == "identity"
    return plain(**(LINEAR if linear else ITEM), **params)


def line(name, dataset, estimator, grid=None):
    return Line(name, estimator, grid or {}, PAPER[name].get(dataset))


def rbm(dataset):
    yield line("I-RBM", dataset, RBMRegressor(kind="item", **RBM), RBM_ALPHAS)
    yield line("U-RBM", dataset, RBMRegressor(kind="user", **RBM), RBM_ALPHAS)


def kinds(dataset):
    yield from rbm(dataset)
    yield line("I-AutoRec", dataset, plain_item(), ALPHAS)
    yield line("U-AutoRec", dataset, plain(kind="user"), ALPHAS)


def activations(dataset):
    for f, g, paper in [
        ("identity", "identity", 0.872),
        ("sigmoid", "identity", 0.852),
        ("identity", "sigmoid", 0.831),
        ("sigmoid", "sigmoid", 0.836),
    ]:
        estimator, grid = plain_item(out_activation=f, activation=g), ALPHAS
        if g == "identity":
            grid = {"alpha": [1000, 3000, 10000]}
            if f == "sigmoid":
                estimator.set_params(learning_rate_init=0.001)
                grid = {"alpha": [1000, 2000, 3000]}
        yield Line(f"f {f}, g {g}", estimator, grid, paper)


def systems(dataset):
    biased = BiasedMFRegressor(**LEAST_SQUARES)
    yield line("BiasedMF", dataset, biased, MF_PENALTIES)
    yield from rbm(dataset)
    llorma = LLORMARegressor(**LOCAL_LEAST_SQUARES)
    yield line("LLORMA", dataset, llorma, LOCAL_PENALTIES)
    yield line("I-AutoRec", dataset, plain_item(), ALPHAS)


def units(dataset):
    # The learning rate for 500 units leaves models with few units far from converged.
    rates = ALPHAS | {"learning_rate_init": [0.001, 0.003, 0.01]}
    for k in UNITS:
        yield Line(str(k), plain_item(hidden_layer_sizes=(k,)), rates)


def depth(dataset):
    yield Line("(500,)", plain_item(), ALPHAS, 0.831)
    deep = plain_item(hidden_layer_sizes=(500, 250, 500))
    yield Line("(500, 250, 500)", deep, ALPHAS)
    pretrained = clone(deep).set_params(pretraining=True)
    yield Line("(500, 250, 500), pre-trained", pretrained, ALPHAS, 0.827)


def solvers(dataset):
    yield Line("Adam, batches of 512 items", plain_item(), ALPHAS)
    yield Line("RProp", plain(solver="rprop"), BATCH_ALPHAS)
    yield Line("L-BFGS", plain(solver="lbfgs"), BATCH_ALPHAS)


def beyond(dataset):
    yield Line("AutoRec with the defaults of skrec", AutoRecRegressor())
    yield Line("AutoRec without effects", AutoRecRegressor(alpha=150, **RAW))
    user = AutoRecRegressor(
        kind="user", alpha=100, input_dropout=0.3, center_input=True, **RAW
    )
    items = [(f"item{i}", AutoRecRegressor(alpha=150, **RAW)) for i in range(3)]
    mean = VotingRegressor([*items, ("user", user)])
    yield Line("mean of three item-based and one user-based AutoRec", mean)
    yield Line("SVD++", SVDppRegressor(**LEAST_SQUARES), IMPLICIT_PENALTIES)
    yield Line("Bayesian MF", BayesianMFRegressor(), FACTORS)
    implicit = BayesianMFRegressor(implicit=True)
    yield Line("Bayesian MF with implicit features", implicit, IMPLICIT_FACTORS)


TABLES = {
    "autorec-1": Table(
        "Table 1a: RBM and AutoRec, item-based and user-based", DATASETS, measure, kinds
    ),
    "autorec-2": Table(
        "Table 1b: output activation f and hidden activation g",
        ("ml-1m",),
        measure,
        activations,
    ),
    "autorec-3": Table(
        "Table 1c: AutoRec and other systems", DATASETS, measure, systems
    ),
    "autorec-units": Table(
        "Figure 2: RMSE by the number of hidden units",
        ("ml-1m",),
        measure,
        units,
        "hidden units",
    ),
    "autorec-depth": Table(
        "Section 3: one and three hidden layers", ("ml-1m",), measure, depth
    ),
    "autorec-solvers": Table(
        "Section 3: optimizers", ("ml-1m",), measure, solvers, seconds=True
    ),
    "autorec-beyond": Table("Beyond the paper", DATASETS, measure, beyond),
}
