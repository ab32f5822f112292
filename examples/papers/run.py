"""Run the tables and figures of the AutoRec and the ConvMF papers.

    python examples/papers/run.py --table autorec-1 --budget quick   # minutes
    python examples/papers/run.py --table convmf-3 --seeds 3
    python examples/papers/run.py                    # everything: days on two cores

Prints the measured and the published errors, and writes a PNG and the results as JSON
to the folder `results`. Each result is written as soon as it is available, so an
interrupted run can continue. Data sets are read from the folder SKREC_DATA; missing
data sets are reported. `--budget quick` uses one seed, one candidate of each search and
few iterations, to test the code, not to measure. The docstrings of autorec.py and
convmf.py describe the protocols.
"""

import argparse
import functools
import json
from pathlib import Path

import autorec
import convmf
import figures
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from protocol import key_of, run_cells, seeded, summarize, write_atomically

TABLES = autorec.TABLES | convmf.TABLES
NAMES = [*TABLES, *figures.FIGURES]
# Ratio of largest to smallest value from which an axis is logarithmic.
_LOG_FROM = 20
LOADERS = {"autorec": autorec.load, "convmf": convmf.load_raw}


@functools.cache
def is_here(paper, dataset):
    try:
        LOADERS[paper](dataset)
    except OSError:
        return False
    return True


def datasets_of(name, wanted):
    datasets = TABLES[name].datasets if name in TABLES else convmf.DATASETS
    return [d for d in datasets if wanted is None or d in wanted]


def cells_of(name, dataset, seeds, quick):
    """Return function, arguments and options of all cells of a table, by key."""
    table = TABLES[name]
    return {
        key_of(line, dataset, seed, quick): (
            table.measure,
            (
                seeded(line.estimator, seed, quick),
                first_of(line.grid) if quick else line.grid,
                dataset,
                seed,
            ),
            line.options,
        )
        for line in table.lines(dataset)
        for seed in seeds
    }


def first_of(grid):
    """Return a grid with only the first candidate."""
    return {name: values[:1] for name, values in grid.items()}


def tabulate(name, dataset, results, seeds, quick):
    """Return a table of the published and the measured errors."""
    rows = []
    for line in TABLES[name].lines(dataset):
        keys = [key_of(line, dataset, seed, quick) for seed in seeds]
        done = [results[key] for key in keys if key in results]
        found = [result["rmse"] for result in done]
        row = {"system": line.name, "paper": line.paper, "here": summarize(found)}
        if TABLES[name].seconds:
            row["seconds"] = np.mean([r["seconds"] for r in done]) if done else np.nan
        rows.append(row | {"rmse": found})
    return pd.DataFrame(rows)


def to_text(table):
    """Format a table of `tabulate`, with a dash where the paper has no error."""
    shown = table.drop(columns="rmse").assign(
        paper=table["paper"].astype(object).fillna("-")
    )
    return shown.to_string(index=False, float_format="{:.4g}".format)


def draw(name, table, axes):
    """Draw the measured errors with standard deviations, and the published errors."""
    shown = pd.DataFrame(
        {
            "system": table["system"],
            "mean": table["rmse"].map(lambda rmse: np.mean(rmse) if rmse else np.nan),
            "spread": table["rmse"].map(lambda x: np.std(x, ddof=1) if x[1:] else 0),
            "paper": table["paper"].astype(float),
        }
    )
    if TABLES[name].axis is None:
        draw_points(shown, axes)
    else:
        draw_curves(shown, TABLES[name].axis, axes)
    axes.legend()


def draw_points(shown, axes):
    at = np.arange(len(shown))
    axes.errorbar(shown["mean"], at, xerr=shown["spread"], fmt="o", label="here")
    axes.plot(shown["paper"], at, "x", label="paper")
    axes.set_yticks(at, labels=shown["system"])
    axes.invert_yaxis()
    axes.set(xlabel="RMSE")


def draw_curves(shown, axis, axes):
    """Draw curves; the name of a row has its number on the axis and its curve."""
    names = shown["system"].str.partition(", ")
    shown = shown.assign(x=names[0].astype(float), curve=names[2])
    for curve, part in shown.groupby("curve", sort=False):
        here, *_ = axes.errorbar(
            part["x"],
            part["mean"],
            part["spread"],
            marker="o",
            label=f"{curve} here".strip(),
        )
        if part["paper"].notna().any():
            label = f"{curve} paper".strip()
            axes.plot(part["x"], part["paper"], "x", c=here.get_color(), label=label)
    if shown["x"].max() >= _LOG_FROM * shown["x"].min():
        axes.set_xscale("log")
    axes.set(xlabel=axis, ylabel="RMSE")


def save(draw_on, title, path):
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    draw_on(axes)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def show_table(name, dataset, options, seeds, quick):
    path = options.results / "cells.json"
    cells = {}
    if is_here(name.split("-")[0], dataset):
        cells = cells_of(name, dataset, seeds, quick)
    else:
        print(f"\n{dataset} is not in the folder SKREC_DATA.")
    results = run_cells(cells, path, options.n_jobs, quick)
    table = tabulate(name, dataset, results, seeds, quick)
    title = f"{TABLES[name].title} ({dataset})"
    print(f"\n{title}. RMSE, mean ± standard deviation (number of seeds)")
    print(to_text(table), flush=True)
    stem = options.results / f"{name}-{dataset}-{options.budget}"
    write_atomically(stem.with_suffix(".json"), table.to_json(orient="records"))
    if cells:
        save(lambda axes: draw(name, table, axes), title, stem.with_suffix(".png"))


def show_figure(name, dataset, options, quick):
    title = figures.FIGURES[name].__doc__.splitlines()[0].rstrip(".")
    if not is_here(name.split("-")[0], dataset):
        print(f"\n{title}: {dataset} is not in the folder SKREC_DATA.")
        return
    table, draw_on = figures.FIGURES[name](dataset, quick)
    print(f"\n{title} ({dataset})\n{table.to_string()}", flush=True)
    stem = options.results / f"{name}-{dataset}-{options.budget}"
    records = json.loads(table.reset_index().to_json(orient="records"))
    write_atomically(stem.with_suffix(".json"), json.dumps(records, indent=1))
    save(draw_on, title, stem.with_suffix(".png"))


def main(options):
    mpl.use("agg")
    quick = options.budget == "quick"
    seeds = range(1 if quick else options.seeds)
    for name in options.table:
        for dataset in datasets_of(name, options.dataset):
            if name in TABLES:
                show_table(name, dataset, options, seeds, quick)
            else:
                show_figure(name, dataset, options, quick)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = sorted({*autorec.DATASETS, *convmf.DATASETS, *convmf.AMAZON})
    parser.add_argument("--table", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--dataset", nargs="+", choices=every)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", choices=["quick", "full"], default="full")
    parser.add_argument(
        "--n-jobs",
        type=int,
        default=2,
        help="simultaneous cells",
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    main(parser.parse_args())
