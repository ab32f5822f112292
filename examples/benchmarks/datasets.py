"""Accuracy of each estimator on real data sets, beside those of other libraries.

Fits each estimator with its defaults, the global mean, the effects of users and items
(BaselineRegressor) and, if they are installed, the models of other_libraries.py to each
data set of the folder SKREC_DATA. Predictions are clipped to the range of the training
ratings.

    pip install -e ".[plot,bench]"
    python examples/benchmarks/datasets.py --plot results/datasets.png
    python examples/benchmarks/datasets.py --estimators BiasedMF --validation

Data sets with a split (ml-100k: u1) keep it, and seeds differ only in the random state
of the estimator. The others are split randomly 90/10, anew for each seed. With
`--validation`, the test ratings are left out, and a random tenth of the training
ratings is predicted: choices are made with it, never on test ratings.

ConvMF, CTR and CDL are skipped where items have no texts. The text of an item of Amazon
is the reviews of its training ratings. The titles and genres of ml-latest-small serve
as texts, without the tags, which may come from users with test ratings.

Each result is written to a JSON file as soon as it is available, and not computed again
unless the estimator's parameters or the version of the other library have changed, or
with `--again`. The tables show all current results of the file for the data sets and
seeds, also those of estimators that are not chosen.
"""

import argparse
import functools
import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from other_libraries import PEERS
from sklearn import config_context
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

import skrec
from skrec.datasets import (
    fetch_movielens,
    join_reviews,
    load_amazon,
    load_douban,
    load_filmtrust,
    load_jester,
)
from skrec.text import ItemTexts

READ_TEXTS = ("ConvMF", "CTR", "CDL")
MEAN, EFFECTS = "global mean", "effects"
SKREC, PEER, REFERENCE = "skrec", "peers", "reference"
COUNTS = ("0", "1-2", "3-5", "6-10", "11-20", ">20")
COUNT_LIMITS = (0, 2, 5, 10, 20)
# Ratio to the RMSE of the effects from which an estimator is reported.
WORSE = 1.005


# -- data sets -----------------------------------------------------------------------


@dataclass
class Data:
    """Ratings with their split.

    Attributes
    ----------
    X, y : ndarray
        Pairs of user and item ids, and ratings.

    is_test : ndarray of bool or None
        Test ratings. None means a random tenth.

    texts : callable or None
        Function that is called with the positions of the training ratings and returns
        the texts of items. None if there are no texts.
    """

    X: np.ndarray
    y: np.ndarray
    is_test: np.ndarray | None = None
    texts: Callable | None = None

    def split(self, seed, validation):
        """Return the positions of the training and of the predicted ratings."""
        if self.is_test is None:
            train, test = tenth(np.arange(len(self.y)), seed)
        else:
            train, test = np.flatnonzero(~self.is_test), np.flatnonzero(self.is_test)
        return tenth(train, seed) if validation else (train, test)


def tenth(positions, seed):
    return train_test_split(positions, test_size=0.1, random_state=seed)


def load_movielens(version):
    raw = fetch_movielens(version, download_if_missing=False)
    is_test = None
    if version == "100k":
        if "u1" not in raw.splits:
            raise OSError("The split u1 is missing.")
        is_test = np.zeros(len(raw.target), dtype=bool)
        is_test[raw.splits["u1"][1]] = True
    texts = raw.item_texts
    return Data(raw.data.to_numpy(), raw.target.to_numpy(), is_test, lambda _: texts)


def load_split(loader):
    """Load a data set that may have a split and texts."""
    raw = loader()
    texts = raw.get("item_texts")
    has_texts = texts is not None and len(texts) > 0
    return Data(
        raw.data.to_numpy(),
        raw.target.to_numpy(),
        raw.is_test,
        (lambda _: texts) if has_texts else None,
    )


def load_reviews(category):
    """Load Amazon reviews, which are the texts of the items."""
    raw = load_amazon(category)

    def texts(train):
        return join_reviews(raw.data.iloc[train], raw.reviews.iloc[train])

    return Data(raw.data.to_numpy(), raw.target.to_numpy(), texts=texts)


DATASETS = {
    "filmtrust": functools.partial(load_split, load_filmtrust),
    "amazon": functools.partial(load_reviews, "Musical_Instruments"),
    "jester": functools.partial(load_split, load_jester),
    "ml-100k": functools.partial(load_movielens, "100k"),
    "ml-latest-small": functools.partial(load_movielens, "latest-small"),
    "douban": functools.partial(load_split, load_douban),
    "ml-1m": functools.partial(load_movielens, "1m"),
}


@functools.cache
def load(name):
    """Load a data set, or return None if it is missing."""
    try:
        return DATASETS[name]()
    except OSError:
        return None


# -- estimators ----------------------------------------------------------------------


@dataclass
class System:
    """A row of the tables.

    Attributes
    ----------
    kind : {SKREC, PEER, REFERENCE}
        Where it comes from.

    make : callable
        Function that is called with a seed and a number of threads.

    parameters : str or None
        All parameters, or the version of the library; None if it is not installed.

    random : bool
        Whether results depend on the seed.

    reads_texts : bool
        Whether it needs texts.
    """

    kind: str
    make: Callable
    parameters: str | None
    random: bool = True
    reads_texts: bool = False


def systems():
    """Return all estimators by name, with the variants of some."""
    suffix = "Regressor"
    names = [name.removesuffix(suffix) for name in dir(skrec) if name.endswith(suffix)]
    found = {name: getattr(skrec, name + suffix)() for name in names}
    found["AutoRec, user-based"] = skrec.AutoRecRegressor(kind="user")
    found["RBM, user-based"] = skrec.RBMRegressor(kind="user")
    found["BayesianMF, implicit"] = skrec.BayesianMFRegressor(implicit=True)
    found = {EFFECTS: found.pop("Baseline")} | dict(sorted(found.items()))
    made = {MEAN: System(REFERENCE, lambda *_: DummyRegressor(), "", random=False)}
    for name, estimator in found.items():
        made[name] = System(
            REFERENCE if name == EFFECTS else SKREC,
            functools.partial(seeded, estimator),
            parameters_of(estimator),
            name != EFFECTS and "random_state" in estimator.get_params(),
            name in READ_TEXTS,
        )
    for name, peer in PEERS.items():
        made[name] = System(PEER, peer, peer.version(), peer.random)
    return made


def seeded(estimator, seed, threads):
    params = {"random_state": seed} if "random_state" in estimator.get_params() else {}
    return clone(estimator).set_params(**params)


def parameters_of(estimator):
    with config_context(print_changed_only=False):
        return " ".join(estimator.__repr__(N_CHAR_MAX=10**6).split())


# -- cells ---------------------------------------------------------------------------


def measure(system, data, seed, validation, threads):
    """Fit and predict; return errors and fit time, or why there are none."""
    if system.reads_texts and data.texts is None:
        return {"none": "no texts"}
    train, test = data.split(seed, validation)
    X, y, X_test, y_test = data.X[train], data.y[train], data.X[test], data.y[test]
    given = {}
    if system.reads_texts:
        given = {"item_texts": ItemTexts(data.texts(train))}
    try:
        model = system.make(seed, threads)
        start = time.perf_counter()
        model.fit(X, y, **given)
        seconds = time.perf_counter() - start
        predicted = np.clip(model.predict(X_test), y.min(), y.max())
    except ValueError as error:
        return {"none": "refused", "reason": str(error)}
    except Exception as error:
        # The other cells of a long run shall not be lost.
        return {"none": "failed", "reason": f"{type(error).__name__}: {error}"}
    if not np.isfinite(predicted).all():
        return {"none": "failed", "reason": "predictions are not finite"}
    squares = (predicted - y_test) ** 2
    return {
        "rmse": float(np.sqrt(squares.mean())),
        "mae": float(mean_absolute_error(y_test, predicted)),
        "seconds": seconds,
        "by_count": {
            side: by_count(X[:, i], X_test[:, i], squares)
            for i, side in enumerate(("user", "item"))
        },
    }


def by_count(ids, test_ids, squares):
    """Return number and sum of squared errors by the number of training ratings."""
    counts = pd.Series(test_ids).map(pd.Series(ids).value_counts()).fillna(0)
    groups = np.searchsorted(COUNT_LIMITS, counts)
    return {
        name: [int(np.sum(groups == i)), float(squares[groups == i].sum())]
        for i, name in enumerate(COUNTS)
    }


def run(cells, options):
    """Compute cells without a current result; return all, and why some have none.

    Parameters
    ----------
    cells : list of tuple
        Name of the data set, name of the estimator, and seed.
    """
    known, missing = systems(), {}
    results = read(options.json)
    for dataset, name, seed in cells:
        key = key_of(dataset, name, seed, options.validation)
        if not options.again and is_current(results.get(key), known[name]):
            continue
        if load(dataset) is None:
            continue
        data = load(dataset)
        found = measure(known[name], data, seed, options.validation, options.threads)
        what = f"{dataset}, {name}, seed {seed}"
        if "none" in found:
            if (dataset, name) not in missing:
                reason = f" ({found['reason']})" if "reason" in found else ""
                print(f"{what}: {found['none']}{reason}", flush=True)
            missing[dataset, name] = found["none"]
            continue
        about = {"dataset": dataset, "estimator": name, "seed": seed}
        about |= {"part": part_of(options.validation)}
        about |= {"parameters": known[name].parameters}
        # Read again, as another process may have written in the meantime.
        results = read(options.json) | {key: about | found}
        write_atomically(options.json, json.dumps(results, indent=1))
        print(f"{what}: {found['rmse']:.4f}, {found['seconds']:.1f} s", flush=True)
    return results, missing


def cells_of(options):
    """Return the cells to compute, all estimators of a seed before the next seed."""
    known = systems()
    absent = [name for name in options.estimators if known[name].parameters is None]
    if absent:
        print(f"Not installed (the optional dependencies bench): {', '.join(absent)}")
    names = [name for name in options.estimators if name not in absent]
    cells = []
    for seed in range(options.seeds):
        for dataset in options.datasets:
            data = load(dataset)
            splits_differ = data and (data.is_test is None or options.validation)
            for name in names:
                if seed == 0 or known[name].random or splits_differ:
                    cells.append((dataset, name, seed))
    return cells


def key_of(dataset, name, seed, validation):
    return f"{dataset} | {name} | {part_of(validation)} | seed {seed}"


def part_of(validation):
    return "validation" if validation else "test"


def is_current(result, system):
    """Tell whether a result is there and has the parameters of the estimator."""
    if result is None:
        return False
    return system.parameters in (None, result["parameters"])


def read(path):
    return json.loads(path.read_text()) if path.exists() else {}


def write_atomically(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


# -- tables --------------------------------------------------------------------------


def summarize(results, options):
    """Return mean errors over the seeds, by data set and estimator."""
    known = systems()
    rows = []
    for result in results.values():
        name = result["estimator"]
        if (
            name in known
            and is_current(result, known[name])
            and result["dataset"] in options.datasets
            and result["part"] == part_of(options.validation)
            and result["seed"] < options.seeds
        ):
            rows.append({"kind": known[name].kind} | result)
    if not rows:
        return pd.DataFrame()
    order = [list(options.datasets), list(known)]
    table = pd.DataFrame(rows).groupby(["dataset", "estimator"])
    table = table.agg(
        kind=("kind", "first"),
        rmse=("rmse", "mean"),
        spread=("rmse", "std"),
        mae=("mae", "mean"),
        seconds=("seconds", "mean"),
        seeds=("seed", "count"),
    )
    table = table.reindex(pd.MultiIndex.from_product(order)).dropna(subset=["rmse"])
    is_effects = table.index.get_level_values(1) == EFFECTS
    effects = table.loc[is_effects, "rmse"].droplevel(1)
    ratios = table["rmse"] / table.index.get_level_values(0).map(effects)
    return table.assign(ratio=ratios)


def show(table, missing, options):
    """Print the table of each data set, and one of all RMSEs."""
    print(f"\nMeans over seeds, on {part_of(options.validation)} ratings")
    for dataset in options.datasets:
        print(f"\n{dataset}")
        if load(dataset) is None:
            print("not in SKREC_DATA")
        if dataset in table.index:
            print(lines_of(table.loc[dataset]).to_string())
        for (where, name), reason in missing.items():
            if where == dataset:
                print(f"{name}: {reason}")
    rmse = table["rmse"].map("{:.4f}".format).unstack(level=0)
    shown = {*rmse.index, *(name for _, name in missing)}
    names = [name for name in systems() if name in shown]
    rmse = rmse.reindex(index=names, columns=options.datasets).astype(object)
    for (dataset, name), reason in missing.items():
        if pd.isna(rmse.loc[name, dataset]):
            rmse.loc[name, dataset] = reason
    for dataset in options.datasets:
        if load(dataset) is None:
            rmse[dataset] = rmse[dataset].fillna("not in SKREC_DATA")
    print(f"\nRMSE\n{rmse.fillna('-').to_string()}")


def lines_of(table):
    spread = table["spread"].map(" ± {:.4f}".format).where(table["seeds"] > 1, "")
    return pd.DataFrame(
        {
            "RMSE": table["rmse"].map("{:.4f}".format) + spread,
            "to effects": (100 * table["ratio"] - 100).map("{:+.1f} %".format),
            "MAE": table["mae"].map("{:.4f}".format),
            "fit, s": table["seconds"].map("{:.1f}".format),
            "seeds": table["seeds"].astype(int),
        }
    )


def show_by_count(results, table, options):
    """Print the RMSE by the number of training ratings of the user and of the item."""
    for dataset in options.datasets:
        names = [name for name in options.estimators if (dataset, name) in table.index]
        for side in ("user", "item") if names else ():
            lines = {}
            for name in names:
                keys = [
                    key_of(dataset, name, seed, options.validation)
                    for seed in range(options.seeds)
                ]
                found = [results[key]["by_count"] for key in keys if key in results]
                groups = np.array([list(counts[side].values()) for counts in found])
                numbers, squares = groups.mean(axis=0).T
                lines[name] = [
                    f"{np.sqrt(square / number):.4f}" if number else "-"
                    for number, square in zip(numbers, squares, strict=True)
                ]
            lines["number of predicted ratings"] = [f"{n:.0f}" for n in numbers]
            title = f"{dataset}, by the number of training ratings of the {side}: RMSE"
            print(f"\n{title}\n{pd.DataFrame(lines, index=COUNTS).T.to_string()}")


def conclude(table):
    """Print the best of each data set, and what is worse than the effects."""
    print()
    for dataset, part in table.groupby(level=0, sort=False):
        best = []
        for kind in (SKREC, PEER):
            rmse = part.loc[part["kind"] == kind, "rmse"].droplevel(0)
            found = f"{rmse.idxmin()} {rmse.min():.4f}" if len(rmse) else "none"
            best.append(f"best of {kind} {found}")
        print(f"{dataset}: {', '.join(best)}")
    worse = table[(table["ratio"] > WORSE) & (table["kind"] != REFERENCE)]
    print(f"\nRMSE more than {100 * WORSE - 100:.1f} % above the effects:")
    for (dataset, name), row in worse.iterrows():
        excess = f"{100 * row['ratio'] - 100:+.1f} %"
        print(f"{dataset}, {name}: {row['rmse']:.4f} ({excess})")
    if worse.empty:
        print("none")


def draw(table, path):
    """Draw the RMSE as percentages above that of the effects, for each data set."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    table = table[table["kind"] != REFERENCE]
    if table.empty:
        return
    datasets = table.index.unique(level=0)
    names = [name for name in systems() if name in table.index.unique(level=1)]
    size = (2 + 1.8 * len(datasets), 1.5 + 0.25 * len(names))
    figure, all_axes = plt.subplots(
        1, len(datasets), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, dataset in zip(all_axes.flat, datasets, strict=True):
        for kind, marker in ((SKREC, "o"), (PEER, "s")):
            part = table.loc[dataset]
            part = part[part["kind"] == kind]
            at = [names.index(name) for name in part.index]
            spread = 100 * part["spread"].fillna(0) * part["ratio"] / part["rmse"]
            values = 100 * part["ratio"] - 100
            axes.errorbar(values, at, xerr=spread, fmt=marker, label=kind)
        axes.axvline(0, color="gray", linewidth=0.8)
        axes.set(title=dataset)
    axes = all_axes.flat[0]
    axes.set_yticks(range(len(names)), labels=names)
    axes.invert_yaxis()
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
    figure.supxlabel("RMSE, % above the effects of users and items")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(options):
    # Fits with a fixed number of iterations need not converge.
    warnings.filterwarnings("ignore", ".* stopped at max_iter", ConvergenceWarning)
    results, missing = run(cells_of(options), options)
    table = summarize(results, options)
    if table.empty:
        print("No results.")
        return
    show(table, missing, options)
    if options.by_count:
        show_by_count(results, table, options)
    conclude(table)
    if options.plot:
        draw(table, options.plot)


def chosen(options):
    """Return the names of the estimators to fit, always with the references."""
    names = []
    for name, system in systems().items():
        wanted = not options.estimators or name in options.estimators
        wanted = wanted and (options.peers or system.kind != PEER)
        if wanted or system.kind == REFERENCE:
            names.append(name)
    return names


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(DATASETS)
    parser.add_argument("--datasets", nargs="+", choices=names, default=names)
    rows = list(systems())
    parser.add_argument("--estimators", nargs="+", choices=rows, help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--by-count", action="store_true")
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("results/datasets.json"))
    parser.add_argument("--plot", type=Path, help="PNG file")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    options.estimators = chosen(options)
    return options


if __name__ == "__main__":
    options = parse()
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        main(options)
