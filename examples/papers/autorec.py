"""The tables of the AutoRec paper: ours beside the published figures.

    python examples/papers/autorec.py            # everything, five seeds: two hours
    python examples/papers/autorec.py --quick    # one seed, few epochs: ten minutes

Ratings are split 90/10 at random, a new split for each seed (ML-100K: the canonical
split u1, where seeds differ in the initial weights only). Hyper-parameters are chosen
on a tenth of the training ratings, anew for each split; the test ratings are predicted
once. Results go to a JSON file as soon as they are there, and a script that was
interrupted goes on from it. A data set is read from the folder SKREC_DATA; where it has
none the table says so.

Reference: Sedhain, Menon, Sanner, Xie. AutoRec: Autoencoders Meet Collaborative
Filtering. WWW 2015 Companion. https://doi.org/10.1145/2740908.2742726
"""

import argparse
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from protocol import DATASETS, load, run_cells, summarise, tune_and_test
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import VotingRegressor

from skrec import AutoRecRegressor

# The model of the paper: its input is neither scaled nor dropped. How the solver runs
# was chosen on validation ratings.
PLAIN = {"input_scaling": 0.0, "input_dropout": 0.0}
ITEM = {"batch_size": 512, "learning_rate_init": 0.001, "max_iter": 50}
LINEAR = {"learning_rate_init": 0.0005}
UNITS = (10, 20, 50, 100, 200, 300, 400, 500)
TABLES = {
    "kinds": "Table 1a: item-based and user-based AutoRec, as in the paper",
    "activations": "Table 1b: output activation f and hidden activation g",
    "units": "Figure 2: RMSE over the number of hidden units",
    "depth": "Section 3: one and three hidden layers",
    "extensions": "Beyond the paper",
}
HEADLINE = ("kinds", "extensions")  # what is measured on each data set
I_AUTOREC = {"ml-1m": 0.831, "ml-10m": 0.782, "netflix": 0.823}


@dataclass
class Row:
    """A row of a table: a system, what is searched, and the published figures."""

    table: str
    name: str
    estimator: BaseEstimator
    grid: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)

    def is_measured_on(self, dataset):
        return dataset == "ml-1m" or self.table in HEADLINE


def plain(**params):
    return AutoRecRegressor(**(PLAIN | params))


def plain_item(**params):
    linear = params.get("activation") == "identity"
    return plain(**(LINEAR if linear else ITEM), **params)


def rows():
    """All rows of all tables."""
    alphas = {"alpha": [100, 200, 300]}
    yield Row("kinds", "I-AutoRec", plain_item(), alphas, I_AUTOREC)
    u_autorec = {"ml-1m": 0.874, "ml-10m": 0.867}
    yield Row("kinds", "U-AutoRec", plain(kind="user"), alphas, u_autorec)
    for f, g, paper in [
        ("identity", "identity", 0.872),
        ("sigmoid", "identity", 0.852),
        ("identity", "sigmoid", 0.831),
        ("sigmoid", "sigmoid", 0.836),
    ]:
        estimator = plain_item(out_activation=f, activation=g)
        grid = {"alpha": [1000, 3000, 10000]} if g == "identity" else alphas
        yield Row("activations", f"f {f}, g {g}", estimator, grid, {"ml-1m": paper})
    # What suits 500 units leaves a few far from converged.
    rates = alphas | {"learning_rate_init": [0.001, 0.003, 0.01]}
    for k in UNITS:
        yield Row("units", f"k = {k}", plain_item(hidden_layer_sizes=(k,)), rates)
    for name, sizes, paper in [
        ("one layer of 500", (500,), 0.831),
        ("layers of 500, 250, 500", (500, 250, 500), 0.827),
    ]:
        estimator = plain_item(hidden_layer_sizes=sizes)
        yield Row("depth", name, estimator, alphas, {"ml-1m": paper})
    yield Row("extensions", "the defaults of skrec", AutoRecRegressor())
    user = AutoRecRegressor(
        kind="user", alpha=100, input_dropout=0.3, center_input=True
    )
    items = [(f"item{i}", AutoRecRegressor()) for i in range(3)]
    mean = VotingRegressor([*items, ("user", user)])
    yield Row("extensions", "mean of three item-based and one user-based", mean)


def make(row, seed, quick):
    """The row's estimator, and each in a mean, seeded; short trainings if `quick`."""
    estimator = clone(row.estimator)
    parts = [part for _, part in getattr(estimator, "estimators", [("", estimator)])]
    for i, part in enumerate(parts):
        part.set_params(random_state=100 * seed + i)
        if quick:
            part.set_params(max_iter=20)
    return estimator


def key(row, dataset, seed, quick):
    """What decides a cell's result, so that equal rows of two tables are one cell."""
    system = " ".join(repr(row.estimator).split())
    length = "quick" if quick else "full"
    return f"{system} | {row.grid} | {dataset} | seed {seed} | {length}"


def print_tables(results, seeds, tables, quick):
    for table in tables:
        print(f"\n{TABLES[table]}. RMSE, mean ± deviation over (number of) seeds")
        lines = []
        for row in (row for row in rows() if row.table == table):
            for dataset in filter(row.is_measured_on, DATASETS):
                cells = [key(row, dataset, seed, quick) for seed in seeds]
                found = [results[cell]["rmse"] for cell in cells if cell in results]
                published = row.paper.get(dataset, "-")
                lines.append([row.name, dataset, published, summarise(found)])
        columns = ["system", "data", "paper", "here"]
        print(pd.DataFrame(lines, columns=columns).to_string(index=False))


def main(options):
    seeds = range(1 if options.quick else options.seeds)
    available = [dataset for dataset in options.data if load(dataset) is not None]
    cells = {
        key(row, dataset, seed, options.quick): (
            make(row, seed, options.quick),
            row.grid,
            dataset,
            seed,
        )
        for row in rows()
        for dataset in available
        for seed in seeds
        if row.table in options.tables and row.is_measured_on(dataset)
    }
    results = run_cells(tune_and_test, cells, options.results, options.n_jobs)
    print_tables(results, seeds, options.tables, options.quick)
    print(f"\nThe parameters that were chosen stand in {options.results}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--data", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs")
    parser.add_argument("--n-jobs", type=int, default=2, help="cells at a time")
    parser.add_argument("--results", default="results/autorec.json")
    main(parser.parse_args())
