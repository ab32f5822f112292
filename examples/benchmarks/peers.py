"""Accuracy against fit time of skrec, of other libraries and of plain PyTorch.

Fits each model to 90 % of MovieLens with growing numbers of iterations, each time from
the beginning, and predicts the other ratings, clipped to the training range.

    pip install -e ".[plot,bench]"
    python examples/benchmarks/peers.py --data ml-100k
    python examples/benchmarks/peers.py --data ml-1m --threads 1 2 --plot peers.png

skrec has its defaults: nothing is searched. The rank and the penalty of each other
model are chosen from a few candidates (SYSTEMS) on a random tenth of the training
ratings, and its search ends when its fits have taken `--search-limit` seconds. The test
ratings choose nothing. The times are of the fits alone. For other libraries, the
conversion of the ratings to the library's own data set does not count; for skrec, all
that `fit` does counts.

With one thread the time is CPU time, with more it is wall time, so other processes
should not run then. Models that cannot use threads are fitted with one thread only.
The repetitions alternate: each fits all models, one after the other, and ratios are
formed within a repetition. Each model has a process of its own. Fits that would take
longer than `--limit`, by the time of shorter ones, are left out, and those that take
longer than `--slow` are not repeated.

Each result is added to a CSV file as soon as it is known, and a later call continues
there, so a run can be made in pieces (`--minutes`). After a change of skrec, `--again
skrec` forgets its fits. implicit is not here: it has no explicit ratings, so an error
of its predictions would mean nothing; see serving.py.
"""

import argparse
import csv
import functools
import json
import multiprocessing
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tables import rst_table

SKREC, PEER = "skrec", "peer"
COLUMNS = (
    "data",
    "threads",
    "repetition",
    "system",
    "kind",
    "version",
    "iterations",
    "parameters",
    "part",
    "cpu",
    "wall",
    "rmse",
)
SEARCH, TEST = "validation", "test"


@dataclass
class System:
    """A model and what is measured of it.

    Attributes
    ----------
    model : str
        Name of the estimator of skrec, or of the class in other_libraries or
        plain_pytorch.

    iterations : tuple of int or None
        Numbers of iterations, increasing; None means the default.

    candidates : list of dict
        Parameters to choose from on validation ratings. The first has the defaults.

    search_iterations : int or None
        Number of iterations in the search.

    parameters : dict
        Parameters of all fits.
    """

    model: str
    iterations: tuple
    candidates: list = field(default_factory=lambda: [{}])
    search_iterations: int | None = None
    parameters: dict = field(default_factory=dict)

    @property
    def kind(self):
        return SKREC if self.model.endswith("Regressor") else PEER

    @functools.cached_property
    def maker(self):
        """Class of the model."""
        if self.kind == SKREC:
            import skrec

            return getattr(skrec, self.model)
        if self.model.startswith("Torch"):
            import plain_pytorch

            return getattr(plain_pytorch, self.model)
        import other_libraries

        return getattr(other_libraries, self.model)

    @property
    def threaded(self):
        return self.kind == SKREC or self.maker.threaded

    def version(self):
        """Return the version, or None if the library is not installed."""
        if self.kind == SKREC:
            import skrec

            return f"skrec {skrec.__version__}"
        return self.maker.version()

    def make(self, seed, threads, iterations, parameters):
        if self.kind == PEER:
            return self.maker(seed, threads, iterations, **parameters)
        given = {} if iterations is None else {"max_iter": iterations}
        if "random_state" in self.maker().get_params():
            given["random_state"] = seed
        return self.maker(**given, **self.parameters, **parameters)


def grid(**values):
    """Return all combinations of the values of two parameters."""
    (first, firsts), (second, seconds) = values.items()
    return [{first: a, second: b} for b in seconds for a in firsts]


SYSTEMS = {
    "Baseline": System("BaselineRegressor", (None,)),
    "PMF": System("PMFRegressor", (1, 2, 5, None)),
    "BiasedMF": System("BiasedMFRegressor", (1, 2, 3, 4, 6, None)),
    "SVDpp": System("SVDppRegressor", (1, 2, 3, 4, 6, None)),
    "BayesianMF": System("BayesianMFRegressor", (20, 50, None)),
    "BayesianMF, implicit": System(
        "BayesianMFRegressor", (20, 50, None), parameters={"implicit": True}
    ),
    "AutoRec": System("AutoRecRegressor", (5, 15, 50, None)),
    "LLORMA": System("LLORMARegressor", (None,)),
    "RBM": System("RBMRegressor", (5, None)),
    "Surprise SVD": System(
        "SurpriseSVD",
        (5, 10, 20, 40),
        grid(n_factors=(100, 20), reg_all=(0.02, 0.05, 0.08)),
        20,
    ),
    "Surprise SVD++": System("SurpriseSVDpp", (1, 2, 5, 20)),
    "Surprise item KNN": System("SurpriseItemKNN", (None,), [{"k": 40}, {"k": 20}]),
    "cornac MF": System(
        "CornacMF",
        (2, 5, 20, 50, 100),
        grid(k=(10, 50), lambda_reg=(0.02, 0.05, 0.1, 0.2)),
        50,
    ),
    "lenskit BiasedMF": System(
        "LenskitBiasedMF",
        (1, 2, 5, 10, 20),
        grid(embedding_size=(50, 20), regularization=(0.1, 0.2, 0.05)),
        10,
    ),
    "myfm": System("MyFM", (5, 20, 100), [{"rank": 10}, {"rank": 20}], 30),
    "myfm, who rated what": System("MyFMImplicit", (5, 20, 100)),
    "cmfrec": System(
        "CmfrecCMF",
        (1, 2, 5, 10),
        grid(k=(40, 20), lambda_=(10.0, 20.0, 40.0)),
        10,
    ),
    "cmfrec, implicit": System(
        "CmfrecImplicit",
        (1, 2, 5, 10),
        grid(k=(40, 20), lambda_=(10.0, 20.0, 40.0)),
        10,
    ),
    "PyTorch MF": System(
        "TorchMF",
        (2, 5, 10, 20),
        grid(n_factors=(50, 20), weight_decay=(1e-5, 5e-5, 2e-4)),
        10,
    ),
    "PyTorch AutoRec": System(
        "TorchAutoRec", (3, 10, 30), [{"penalty": p} for p in (25.0, 50.0, 10.0)], 30
    ),
}


# -- one process ---------------------------------------------------------------------


@functools.cache
def load(name, part):
    """Return training pairs and ratings, and those to predict."""
    from sklearn.model_selection import train_test_split

    from skrec.datasets import fetch_movielens

    raw = fetch_movielens(name.removeprefix("ml-"), download_if_missing=False)
    whole = raw.data.to_numpy(), raw.target.to_numpy()
    X, X_test, y, y_test = train_test_split(*whole, test_size=0.1, random_state=0)
    if part == SEARCH:
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.1, random_state=0)
    return X, y, X_test, y_test


def measure(job, iterations, parameters):
    """Fit once; return the row of the CSV file."""
    system = SYSTEMS[job["system"]]
    X, y, X_test, y_test = load(job["data"], job["part"])
    model = system.make(job["repetition"], job["threads"], iterations, parameters)
    fit = functools.partial(model.fit, X, y)
    if system.kind == PEER:
        fit = functools.partial(model.train, model.convert(X, y))
    cpu, wall = time.process_time(), time.perf_counter()
    fit()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    predicted = np.clip(model.predict(X_test), y.min(), y.max())
    return job | {
        "kind": system.kind,
        "version": system.version(),
        "iterations": -1 if iterations is None else iterations,
        "parameters": json.dumps(parameters),
        "cpu": round(cpu, 4),
        "wall": round(wall, 4),
        "rmse": round(float(np.sqrt(np.mean((predicted - y_test) ** 2))), 5),
    }


def warm_up(system, threads):
    """Import all that a fit imports."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation(900)[:400]
    X, y = np.column_stack(np.divmod(pairs, 30)), rng.integers(1, 6, 400).astype(float)
    steps = None if system.iterations[0] is None else 12
    system.make(0, threads, steps, {}).fit(X, y).predict(X)


def work(job, options):
    """Measure one system in one repetition, what the file does not have yet."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(job["threads"])
    system = SYSTEMS[job["system"]]
    done = read(options.csv)
    if job["part"] == SEARCH:
        steps = [(system.search_iterations, each) for each in system.candidates]
    else:
        parameters = chosen(done, job["data"], job["system"])
        steps = [(each, parameters) for each in system.iterations]
        if job["repetition"]:
            slow = slow_steps(done, job, options)
            steps = [step for step in steps if (step[0] or -1) not in slow]
    done = select(done, **job)
    warm = False
    for iterations, parameters in steps:
        code = -1 if iterations is None else iterations
        known = done["parameters"].eq(json.dumps(parameters))
        if (known & done["iterations"].eq(code)).any():
            continue
        if job["part"] == SEARCH:
            too_long = done["cpu"].sum() > options.search_limit
        else:
            too_long = expected(done, code) > options.limit
        if too_long or time.time() > options.deadline:
            continue
        if not warm:
            warm_up(system, job["threads"])
            warm = True
        row = measure(job, iterations, parameters)
        append(options.csv, row)
        done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
        print(
            f"{job['part']}, {job['threads']} threads, {job['system']}, "
            f"{iterations} iterations, {parameters}: {row['cpu']:.2f} s of CPU, "
            f"{row['wall']:.2f} s, RMSE {row['rmse']:.4f}",
            flush=True,
        )


def slow_steps(table, job, options):
    """Return the numbers of iterations whose fits are not repeated."""
    first = select(table, **{**job, "repetition": 0})
    return set(first.loc[seconds_of(first) > options.slow, "iterations"])


def expected(done, iterations):
    """Return the seconds that a fit is going to take, by those of shorter ones."""
    shorter = done[(done["iterations"] > 0) & (done["iterations"] < iterations)]
    if shorter.empty:
        return 0
    longest = shorter.loc[shorter["iterations"].idxmax()]
    return seconds_of(longest) * iterations / longest["iterations"]


def seconds_of(rows):
    """Return the seconds of fits if nothing else had run."""
    return np.minimum(rows["cpu"], rows["wall"])


# -- the file ------------------------------------------------------------------------


def read(path):
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path)


def append(path, row):
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def select(table, **values):
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def chosen(table, data, name):
    """Return the parameters with the lowest validation error."""
    candidates = SYSTEMS[name].candidates
    found = select(table, data=data, system=name, part=SEARCH)
    if found.empty:
        return candidates[0]
    return json.loads(found.loc[found["rmse"].idxmin(), "parameters"])


# -- all processes -------------------------------------------------------------------


def run(options):
    """Search, then measure; return the systems that are not installed."""
    missing = [name for name in options.systems if installed(name) is None]
    names = [name for name in options.systems if name not in missing]
    common = {"data": options.data}
    for name in names:
        if len(SYSTEMS[name].candidates) > 1:
            job = {"threads": 1, "repetition": 0, "system": name, "part": SEARCH}
            start(common | job, options)
    for repetition in range(options.repetitions):
        for threads in options.threads:
            for name in names:
                if threads > 1 and not SYSTEMS[name].threaded:
                    continue
                job = {"threads": threads, "repetition": repetition, "system": name}
                start(common | job | {"part": TEST}, options)
    return missing


def installed(name):
    try:
        return SYSTEMS[name].version()
    except ImportError:
        return None


def start(job, options):
    """Measure in a new process, unless all is measured or time is over."""
    table = read(options.csv)
    system = SYSTEMS[job["system"]]
    first = select(table, **{**job, "repetition": 0})
    if job["part"] == SEARCH:
        complete = len(first) == len(system.candidates)
        complete |= first["cpu"].sum() > options.search_limit
    else:
        planned = [-1 if each is None else each for each in system.iterations]
        planned = [n for n in planned if expected(first, n) <= options.limit]
        if job["repetition"]:
            planned = [n for n in planned if n not in slow_steps(table, job, options)]
        complete = set(planned) <= set(select(table, **job)["iterations"])
    if complete or time.time() > options.deadline:
        return
    threads = str(job["threads"])
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    os.environ.update(dict.fromkeys(names, threads))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(work, job, options).result()


# -- table and chart -----------------------------------------------------------------


def summarize(table):
    """Return one line for each system and number of iterations."""
    table = table[table["part"] == TEST].copy()
    table["seconds"] = table["cpu"].where(table["threads"] == 1, table["wall"])
    keys = ["threads", "kind", "system", "iterations"]
    grouped = table.groupby(keys, sort=False)
    lines = grouped.agg(
        seconds=("seconds", "median"),
        fastest=("seconds", "min"),
        slowest=("seconds", "max"),
        n=("seconds", "size"),
        rmse=("rmse", "mean"),
        parameters=("parameters", "first"),
    ).reset_index()
    return table, lines


def ratios(table, lines, threads):
    """Compare each fit of a peer with the fastest of skrec that is as accurate."""
    own = select(lines, threads=threads, kind=SKREC)
    found = []
    peers = lines[(lines["kind"] == PEER) & with_threads(lines, threads)]
    for _, peer in peers.iterrows():
        as_good = own[own["rmse"] <= peer["rmse"]]
        line = {"system": peer["system"], "iterations": peer["iterations"]}
        if as_good.empty:
            found.append(line)
            continue
        best = as_good.loc[as_good["seconds"].idxmin()]
        theirs = times_of(table, peer)
        ours = times_of(table, best)
        paired = (theirs / ours).dropna()
        found.append(
            line
            | {
                "fastest of skrec": f"{best['system']}, {steps_of(best)}",
                "its RMSE": best["rmse"],
                "its seconds": best["seconds"],
                "ratio": paired.median(),
                "lowest": paired.min(),
                "highest": paired.max(),
            }
        )
    return pd.DataFrame(found)


def with_threads(lines, threads):
    """Which lines belong to a number of threads.

    The time of a model that cannot use threads stands in all tables.
    """
    single = [
        name for name in SYSTEMS if installed(name) and not SYSTEMS[name].threaded
    ]
    return (lines["threads"] == threads) | (
        lines["system"].isin(single) & (lines["threads"] == 1)
    )


def times_of(table, line):
    """Return the seconds of a line by repetition."""
    names = ("threads", "system", "iterations")
    rows = select(table, **{name: line[name] for name in names})
    return rows.set_index("repetition")["seconds"]


def steps_of(line):
    n = int(line["iterations"])
    return "defaults" if n < 0 else f"{n} iterations"


def show(table, lines, options, missing):
    for threads in options.threads:
        part = lines[with_threads(lines, threads)].copy()
        if part.empty:
            continue
        kind = "CPU seconds" if threads == 1 else "seconds"
        compared = ratios(table, lines, threads)
        print(f"\n{options.data}, threads: {threads}, all fits\n")
        print(rst_table(all_fits(part, kind)))
        print(f"\n{options.data}, threads: {threads}, other libraries\n")
        print(rst_table(by_peer(part, compared, kind)))
    print("\nSearches on validation ratings\n")
    print(
        rst_table(searches(select(read(options.csv), data=options.data, part=SEARCH)))
    )
    print(f"\n{', '.join(sorted({*table['version']}))}")
    if missing:
        print(f"Not installed: {', '.join(missing)}")


def all_fits(part, kind):
    return pd.DataFrame(
        {
            "model": part["system"],
            "iterations": [steps_of(line) for _, line in part.iterrows()],
            "RMSE": part["rmse"].map("{:.4f}".format),
            kind: part["seconds"].map("{:.2f}".format),
            "range": [
                f"{line['fastest']:.2f} to {line['slowest']:.2f}"
                if line["n"] > 1
                else ""
                for _, line in part.iterrows()
            ],
            "fits": part["n"],
        }
    )


def by_peer(part, compared, kind):
    """Return one line for each peer: its most accurate fit, and where it is nearest.

    It is nearest where the ratio of its time to that of the fastest fit of skrec that
    is at least as accurate is lowest, among its fits that are better than the effects.
    """
    effects = part.loc[part["system"] == "Baseline", "rmse"].min()
    lines = []
    for name, fits in part[part["kind"] == PEER].groupby("system", sort=False):
        fits = fits.merge(compared, on=["system", "iterations"])
        best = fits.loc[fits["rmse"].idxmin()]
        line = {
            "model": name,
            "lowest RMSE": f"{best['rmse']:.4f}",
            kind: f"{best['seconds']:.2f}",
            "skrec as accurate": "none",
            "ratio of times": "",
            "nearest": "no fit better than the effects",
        }
        if not pd.isna(best["ratio"]):
            line["skrec as accurate"] = best["fastest of skrec"]
            line["ratio of times"] = times_as_long(best)
        useful = fits[(fits["rmse"] < effects) & fits["ratio"].notna()]
        if len(useful):
            near = useful.loc[useful["ratio"].idxmin()]
            line["nearest"] = f"{times_as_long(near)} at {near['rmse']:.4f}"
        lines.append(line)
    return pd.DataFrame(lines)


def times_as_long(line):
    text = f"{line['ratio']:.1f}"
    if line["lowest"] < line["highest"]:
        text += f" ({line['lowest']:.1f} to {line['highest']:.1f})"
    return text


def searches(table):
    lines = []
    for name, rows in table.groupby("system", sort=False):
        best = rows.loc[rows["rmse"].idxmin()]
        lines.append(
            {
                "model": name,
                "candidates": f"{len(rows)} of {len(SYSTEMS[name].candidates)}",
                "CPU seconds": f"{rows['cpu'].sum():.0f}",
                "chosen": f"``{best['parameters'].strip('{}')}``".replace('"', ""),
                "validation RMSE": f"{best['rmse']:.4f}",
            }
        )
    return pd.DataFrame(lines)


def draw(lines, options):
    """Draw the error against the time, one panel for each number of threads."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot as plt

    panels = options.threads
    figure, all_axes = plt.subplots(
        1,
        len(panels),
        figsize=(6.5 * len(panels), 6.5),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    names = list(dict.fromkeys(lines["system"]))
    colors = {name: plt.get_cmap("tab20")(i % 20) for i, name in enumerate(names)}
    for axes, threads in zip(all_axes.flat, panels, strict=True):
        part = lines[with_threads(lines, threads)]
        for name in names:
            points = part[part["system"] == name].sort_values("seconds")
            if points.empty:
                continue
            is_own = points["kind"].iloc[0] == SKREC
            spread = [
                (points["seconds"] - points["fastest"]).to_numpy(),
                (points["slowest"] - points["seconds"]).to_numpy(),
            ]
            axes.errorbar(
                points["seconds"].to_numpy(),
                points["rmse"].to_numpy(),
                xerr=spread,
                label=name,
                color=colors[name],
                marker="o" if is_own else "x",
                linestyle="-" if is_own else ":",
                linewidth=2 if is_own else 1.2,
            )
        kind = (
            "CPU seconds, one thread" if threads == 1 else f"seconds, {threads} threads"
        )
        axes.set(xscale="log", xlabel=f"time of the fit, {kind}", title=options.data)
        axes.grid(alpha=0.3)
    lowest = lines["rmse"].min()
    all_axes.flat[0].set(ylabel="RMSE on held-out ratings")
    all_axes.flat[0].set_ylim(lowest - 0.004, lowest + 0.1)
    handles, labels = all_axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.plot, dpi=100)
    plt.close(figure)


def main(options):
    if options.again:
        table = read(options.csv)
        old = (table["kind"] == options.again) & (table["part"] == TEST)
        table[~old].to_csv(options.csv, index=False)
    missing = run(options)
    rows = select(read(options.csv), data=options.data)
    table, lines = summarize(rows)
    if lines.empty:
        print("No results.")
        return
    show(table, lines, options, missing)
    if options.plot:
        draw(lines, options)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["ml-100k", "ml-1m"], default="ml-100k")
    names = list(SYSTEMS)
    parser.add_argument("--systems", nargs="+", choices=names, default=names)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60, help="seconds of a fit")
    parser.add_argument("--slow", type=float, default=10, help="seconds of a fit")
    parser.add_argument("--search-limit", type=float, default=60, help="seconds")
    parser.add_argument("--minutes", type=float, default=20, help="start no fit later")
    parser.add_argument("--again", choices=[SKREC, PEER], help="forget these fits")
    parser.add_argument("--csv", type=Path, default=Path("results/peers.csv"))
    parser.add_argument("--plot", type=Path, help="PNG or SVG file")
    options = parser.parse_args()
    options.deadline = time.time() + 60 * options.minutes
    return options


if __name__ == "__main__":
    main(parse())
