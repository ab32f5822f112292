"""What the tables of both papers share: what a table is, and how its cells are run.

A cell is one number of a table: a system on one split. Its result is written as soon as
it is there, so that a script that was interrupted goes on where it stopped.
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

# What makes a training short.
SHORT = {"max_iter": 10, "burn_in": 0, "n_models": 5}


@dataclass
class Line:
    """A line of a table: a system, what is searched, and the published figure."""

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
        What it shows.

    datasets : tuple of str
        The data sets that it exists for.

    measure : callable
        Called with an estimator, a grid, a data set, a seed and options; returns a dict
        that JSON can hold, with the key "rmse".

    lines : callable
        Called with a data set, returns the lines.

    axis : str or None
        For curves: what the number is that each line's name begins with. What follows
        it after a comma is the name of the curve.
    """

    title: str
    datasets: tuple[str, ...]
    measure: Callable[..., dict]
    lines: Callable[[str], Iterable[Line]]
    axis: str | None = None


def seeded(estimator, seed, quick):
    """The estimator, and each in a mean, seeded; short trainings if `quick`."""
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
    """What decides a cell's result, so that equal lines of two tables are one cell.

    All parameters are in it: a result does not outlive the defaults it was found with.
    """
    with config_context(print_changed_only=False):
        system = " ".join(line.estimator.__repr__(N_CHAR_MAX=10**6).split())
    length = "quick" if quick else "full"
    how = [line.grid, line.options, dataset, f"seed {seed}", length]
    return " | ".join([system, *map(str, how)])


def run_cells(cells, path, n_jobs, quick=False):
    """Run cells that have no result yet, each in one of several processes.

    Parameters
    ----------
    cells : dict of str to tuple
        What to call for each cell, its arguments (estimator, grid, data set, seed) and
        its options, by a key that says all that decides the result.

    path : path-like
        The JSON file of the results, with those of earlier runs.

    n_jobs : int
        Cells at a time. They share the cores.

    quick : bool
        Whether trainings are too short to converge, and need not warn of it.

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


def summarise(values):
    """Mean and spread of RMSEs over seeds, as text."""
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
