"""Definition of the tables of both papers, and the code that computes their cells.

A cell is one number of a table: a system on one split. Results are written as soon as
they are available, so an interrupted script can continue.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning

# Upper limits of the parameters for a short training.
SHORT = {"max_iter": 10, "burn_in": 0, "n_models": 5}
# Alternating least squares of the ratings as they are
LEAST_SQUARES = {
    "n_factors": 15,
    "lambda_u": 40.0,
    "lambda_v": 5.0,
    "tol": 1e-4,
    "normalize_y": False,
}


@dataclass
class Line:
    """A row of a table: a system, its search grid, and the published error."""

    name: str
    estimator: BaseEstimator
    grid: dict[str, list] = field(default_factory=dict)
    paper: float | None = None
    # Further arguments of the table's `measure`.
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Table:
    """A table or a figure.

    Attributes
    ----------
    title : str
        Title.

    datasets : tuple of str
        Data sets of the table.

    measure : callable
        Function that is called with an estimator, a grid, a data set, a seed and
        options. It returns a JSON-serializable dict with the key "rmse".

    lines : callable
        Function that is called with a data set and returns the rows.

    axis : str or None
        For curves, label of the horizontal axis. The name of a row begins with its
        number on the axis. The name of its curve follows after a comma.

    seconds : bool
        Whether to show the seconds of a fit, from the key "seconds" of the results.
    """

    title: str
    datasets: tuple[str, ...]
    measure: Callable[..., dict]
    lines: Callable[[str], Iterable[Line]]
    axis: str | None = None
    seconds: bool = False


def seeded(estimator, seed, quick):
    """Seed an estimator, or each estimator of an ensemble; limit it if `quick`."""
    estimator = clone(estimator)
    parts = [part for _, part in getattr(estimator, "estimators", [("", estimator)])]
    for i, part in enumerate(parts):
        part.set_params(random_state=100 * seed + i)
        if quick:
            params = part.get_params()
            names = SHORT.keys() & params
            part.set_params(**{name: min(params[name], SHORT[name]) for name in names})
    return estimator


def key_of(line, dataset, seed, quick):
    """Return the key of a cell, which is the same for equal rows of two tables.

    It includes all parameters, so results are recomputed if a default changes.
    """
    # The representation of an estimator leaves out all but its first 30 parameters.
    with config_context(print_changed_only=False):
        params = repr(sorted(line.estimator.get_params().items()))
    system = f"{type(line.estimator).__name__} {' '.join(params.split())}"
    length = "quick" if quick else "full"
    how = [line.grid, line.options, dataset, f"seed {seed}", length]
    return " | ".join([system, *map(str, how)])


def run_cells(cells, path, n_jobs, quick=False):
    """Compute the cells without a result, in several processes.

    Parameters
    ----------
    cells : dict of str to tuple
        Function, arguments (estimator, grid, data set, seed) and options of each cell,
        by its key (see `key_of`).

    path : path-like
        Path of the JSON file with the results, including those of earlier runs.

    n_jobs : int
        Number of cells that run at the same time. They share the cores.

    quick : bool
        Whether trainings are too short to converge. Convergence warnings are then
        ignored.

    Returns
    -------
    results : dict
        Result of each cell, including those of earlier runs.
    """
    path = Path(path)
    results = json.loads(path.read_text()) if path.exists() else {}
    missing = [cell for cell in cells.items() if cell[0] not in results]
    n_threads = max(1, torch.get_num_threads() // n_jobs)
    parallel = joblib.Parallel(n_jobs, return_as="generator_unordered")
    calls = (
        joblib.delayed(_run_one)(key, *cell, n_threads, quick) for key, cell in missing
    )
    for done, (cell, result) in enumerate(parallel(calls), 1):
        results[cell] = result
        write_atomically(path, json.dumps(results, indent=1))
        _, (estimator, _, dataset, seed), options = cells[cell]
        which = [" ".join(repr(estimator).split()), dataset, f"seed {seed}"]
        which += [f"{name} {value}" for name, value in options.items()]
        progress = f"[{done}/{len(missing)}] {', '.join(which)}"
        print(f"{progress}: {result['rmse']:.4f}", flush=True)
    return results


def summarize(values):
    """Format the mean and standard deviation of RMSEs over seeds."""
    if not values:
        return "not measured here"
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread} ({len(values)})"


def write_atomically(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _run_one(key, measure, arguments, options, n_threads, quick):
    torch.set_num_threads(n_threads)
    with warnings.catch_warnings():
        if quick:
            warnings.simplefilter("ignore", ConvergenceWarning)
        return key, measure(*arguments, **options)
