"""CPU time, memory and accuracy of each default fit in two versions of skrec.

Fits each estimator with its defaults to the training ratings of a data set of
datasets.py, alternately with the code of one folder and of another, each time in a
process of its own with one thread, and predicts the test ratings. The table has the CPU
seconds of the fits, their ratio (the median and the range over the repetitions), the
RMSE and its change, and the peak memory above that before the fit.

    git worktree add --detach ../before REVISION
    python examples/benchmarks/compare_versions.py ../before . --data ml-1m

Each result is added to a CSV file as soon as it is known, and a later call continues
there, so a run can be made in pieces (`--minutes`). Fits that take longer than `--slow`
are not repeated.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from tables import rst_table

COLUMNS = ("data", "estimator", "repetition", "side", "cpu", "rmse", "peak")
SIDES = ("before", "after")
ESTIMATORS = (
    "effects",
    "PMF",
    "BiasedMF",
    "SVDpp",
    "BayesianMF",
    "BayesianMF, implicit",
    "LLORMA",
    "AutoRec",
    "AutoRec, user-based",
    "RBM",
    "RBM, user-based",
    "CTR",
    "ConvMF",
    "CDL",
)


# -- one process ---------------------------------------------------------------------


def measure(dataset, name):
    """Fit once and print the result."""
    import warnings

    import numpy as np
    import torch
    from datasets import READ_TEXTS, load, systems
    from threadpoolctl import threadpool_limits

    from skrec.text import ItemTexts

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data, system = load(dataset), systems()[name]
    if data is None:
        raise OSError(f"SKREC_DATA names no folder with {dataset}.")
    train, test = data.split(0, validation=False)
    X, y = data.X[train], data.y[train]
    given = {}
    if name in READ_TEXTS:
        given = {"item_texts": ItemTexts(data.texts(train))}
    model = system.make(0, 1)
    with threadpool_limits(1):
        reset_peak()
        before = peak_memory()
        cpu = time.process_time()
        model.fit(X, y, **given)
        cpu = time.process_time() - cpu
        peak = peak_memory() - before
        errors = model.predict(data.X[test]).clip(y.min(), y.max()) - data.y[test]
    rmse = float(np.sqrt(np.mean(errors**2)))
    print(json.dumps({"cpu": cpu, "rmse": rmse, "peak": peak}))


def reset_peak():
    """Let the kernel count the peak memory of this process anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory():
    """Peak memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "VmHWM" in line) / 1024


# -- all processes -------------------------------------------------------------------


def run(options):
    deadline = time.time() + 60 * options.minutes
    for repetition in range(options.repetitions):
        for dataset in options.data:
            for name in options.estimators:
                for side in SIDES:
                    row = {"data": dataset, "estimator": name}
                    row |= {"repetition": repetition, "side": side}
                    if time.time() < deadline and not is_done(row, options):
                        fit(row, options)


def is_done(row, options):
    """Whether a fit is in the file, or an earlier one says that it is not wanted."""
    table = read(options.csv)
    if table.empty:
        return False
    same = table[
        (table["data"] == row["data"]) & (table["estimator"] == row["estimator"])
    ]
    if (same["cpu"] > options.slow).any() and row["repetition"]:
        return True
    own = (same["repetition"] == row["repetition"]) & (same["side"] == row["side"])
    return own.any()


def fit(row, options):
    """Run one process and add its result to the file."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, "1")
    environment["PYTHONPATH"] = str(getattr(options, row["side"]).resolve())
    command = [sys.executable, __file__, "--child", row["data"], row["estimator"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{row}: {done.stderr.splitlines()[-1]}", flush=True)
        return
    row = row | json.loads(done.stdout)
    print(f"{row}", flush=True)
    is_new = not options.csv.exists()
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    with options.csv.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def read(path):
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)


def show(table):
    for dataset, part in table.groupby("data", sort=False):
        lines = []
        for name, rows in part.groupby("estimator", sort=False):
            sides = rows.pivot(index="repetition", columns="side").dropna()
            if sides.empty:
                continue
            cpu, rmse, peak = (sides[each] for each in ("cpu", "rmse", "peak"))
            ratio = cpu["before"] / cpu["after"]
            change = rmse["after"] - rmse["before"]
            lines.append(
                {
                    "estimator": name,
                    "before, s": f"{cpu['before'].median():.2f}",
                    "after, s": f"{cpu['after'].median():.2f}",
                    "times faster": f"{ratio.median():.2f}",
                    "range": f"{ratio.min():.2f} to {ratio.max():.2f}",
                    "fits": len(sides),
                    "RMSE before": f"{rmse['before'].mean():.4f}",
                    "RMSE after": f"{rmse['after'].mean():.4f}",
                    "change": f"{change.mean():+.4f}",
                    "MiB before": f"{peak['before'].median():.0f}",
                    "MiB after": f"{peak['after'].median():.0f}",
                }
            )
        print(f"\n{dataset}\n\n{rst_table(pd.DataFrame(lines))}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="folder with the package skrec")
    parser.add_argument("after", type=Path)
    parser.add_argument("--data", nargs="+", default=["ml-1m"])
    parser.add_argument("--estimators", nargs="+", default=ESTIMATORS)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--slow", type=float, default=20, help="seconds of a fit")
    parser.add_argument("--minutes", type=float, default=60, help="start no fit later")
    parser.add_argument("--csv", type=Path, default=Path("results/versions.csv"))
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        measure(*sys.argv[2:])
    else:
        options = parse()
        run(options)
        show(read(options.csv))
