"""What the scripts for the tables of the papers share: cells, and how they are run.

A cell is one number of a table: a system on one split. Its result is written as soon as
it is there, so that a script that was interrupted goes on where it stopped.
"""

import json
import os
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import (
    GridSearchCV,
    ParameterGrid,
    ShuffleSplit,
    train_test_split,
)

from skrec.datasets import fetch_movielens, load_netflix

DATASETS = ("ml-100k-u1", "ml-1m", "ml-10m", "netflix")


def load(dataset):
    """Ratings as (X, y), or None where the data are not to be had."""
    try:
        if dataset == "netflix":
            return load_netflix(return_X_y=True)
        version = dataset.split("-")[1]
        return fetch_movielens(version, download_if_missing=False, return_X_y=True)
    except OSError:
        return None


def split(dataset, seed):
    """Training and test ratings: the canonical split u1, or 90 % and 10 % at random."""
    if dataset == "ml-100k-u1":
        movielens = fetch_movielens("100k", download_if_missing=False)
        X, y = movielens.data.to_numpy(), movielens.target.to_numpy()
        train, test = movielens.splits["u1"]
        return X[train], X[test], y[train], y[test]
    X, y = load(dataset)
    return train_test_split(
        X.to_numpy(), y.to_numpy(), test_size=0.1, random_state=seed
    )


def tune_and_test(estimator, grid, dataset, seed):
    """Choose parameters on a tenth of the training ratings, then measure on the test.

    Returns
    -------
    result : dict
        "rmse" on the test ratings, the "params" chosen, and "validation", the RMSE of
        each candidate. A grid of one candidate leaves nothing to choose.
    """
    X_train, X_test, y_train, y_test = split(dataset, seed)
    if len(ParameterGrid(grid)) == 1:
        (params,) = ParameterGrid(grid)
        model = estimator.set_params(**params).fit(X_train, y_train)
        return {"rmse": root_mean_squared_error(y_test, model.predict(X_test))}
    search = GridSearchCV(
        estimator,
        grid,
        scoring="neg_root_mean_squared_error",
        cv=ShuffleSplit(1, test_size=0.1, random_state=seed),
    )
    search.fit(X_train, y_train)
    rmse = root_mean_squared_error(y_test, search.predict(X_test))
    scores = -search.cv_results_["mean_test_score"]
    return {
        "rmse": rmse,
        "params": {name: repr(value) for name, value in search.best_params_.items()},
        "validation": [
            [repr(params), score]
            for params, score in zip(search.cv_results_["params"], scores, strict=True)
        ],
    }


def run_cells(run, cells, path, n_jobs):
    """Run cells that have no result yet, each in a process of its own.

    Parameters
    ----------
    run : callable
        Called with the arguments of a cell; returns what JSON can hold.

    cells : dict of str to tuple
        The arguments of each cell, by a key that says all that decides its result.

    path : path-like
        The JSON file of the results, with those of earlier runs.

    n_jobs : int
        Cells at a time. They share the cores.

    Returns
    -------
    results : dict
        The result of each cell, earlier ones included.
    """
    path = Path(path)
    results = json.loads(path.read_text()) if path.exists() else {}
    missing = [cell for cell in cells.items() if cell[0] not in results]
    n_threads = max(1, (os.cpu_count() or 1) // n_jobs)
    parallel = joblib.Parallel(n_jobs, return_as="generator_unordered")
    calls = (joblib.delayed(_run_one)(run, *cell, n_threads) for cell in missing)
    for done, (cell, result) in enumerate(parallel(calls), 1):
        results[cell] = result
        _write_atomically(path, json.dumps(results, indent=1))
        print(f"[{done}/{len(missing)}] {cell}: {result['rmse']:.4f}", flush=True)
    return results


def summarise(values):
    """Mean and spread of RMSEs over seeds, as text."""
    if not values:
        return "not measured here"
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread} ({len(values)})"


def _run_one(run, key, arguments, n_threads):
    torch.set_num_threads(n_threads)
    return key, run(*arguments)


def _write_atomically(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
