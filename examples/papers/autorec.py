"""The tables of the AutoRec paper: ours beside the published figures.

    python examples/papers/autorec.py                 # everything, five seeds: hours
    python examples/papers/autorec.py --quick         # one seed, few epochs: minutes

Ratings are split 90/10 at random, a new split for each seed (ML-100K: the canonical
split u1). Hyper-parameters are chosen on a tenth of the training ratings, anew for each
split; the test ratings are predicted once. Results go to a JSON file as soon as they
are there, and a script that was interrupted goes on from it. A data set is read from
the folder SKREC_DATA; where it has none the table says so.

Reference: Sedhain, Menon, Sanner, Xie. AutoRec: Autoencoders Meet Collaborative
Filtering. WWW 2015 Companion. https://doi.org/10.1145/2740908.2742726
"""

import argparse
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from protocol import DATASETS, load, run_cells, summarise, tune_and_test

from skrec import AutoRecRegressor

# The model of the paper: its input is neither scaled nor dropped.
PLAIN = {"input_scaling": 0.0, "input_dropout": 0.0, "max_iter": 150}
UNITS = (10, 20, 50, 100, 200, 300, 400, 500)


@dataclass
class Row:
    """A row of a table: a system, what is searched, and the published figures."""

    table: str
    name: str
    params: dict[str, Any]
    alphas: tuple[float, ...]
    paper: dict[str, float] = field(default_factory=dict)


def rows():
    published = {"ml-1m": 0.831, "ml-10m": 0.782, "netflix": 0.823}
    user = PLAIN | {"kind": "user"}
    yield Row("1", "I-AutoRec", PLAIN, (200, 300, 400), published)
    yield Row(
        "1", "U-AutoRec", user, (100, 200, 400), {"ml-1m": 0.874, "ml-10m": 0.867}
    )
    for f, g, paper in [
        ("identity", "identity", 0.872),
        ("sigmoid", "identity", 0.852),
        ("identity", "sigmoid", 0.831),
        ("sigmoid", "sigmoid", 0.836),
    ]:
        params = PLAIN | {"out_activation": f, "activation": g}
        yield Row("2", f"f {f}, g {g}", params, (200, 300, 400), {"ml-1m": paper})
    for k in UNITS:
        params = PLAIN | {"hidden_layer_sizes": (k,)}
        yield Row("3", f"{k} hidden units", params, (100, 200, 300))
    deep = PLAIN | {"hidden_layer_sizes": (500, 250, 500)}
    yield Row("4", "three hidden layers", deep, (200, 300), {"ml-1m": 0.827})
    yield Row("4", "defaults of skrec", {}, (AutoRecRegressor().alpha,), published)


def run(cell):
    table, name, dataset, seed, quick = cell.split(" | ")
    row = next(row for row in rows() if (row.table, row.name) == (table, name))
    params = row.params | ({"max_iter": 20} if quick == "quick" else {})
    estimator = AutoRecRegressor(random_state=int(seed), **params)
    return tune_and_test(estimator, {"alpha": row.alphas}, dataset, int(seed))
