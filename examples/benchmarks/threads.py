"""What a second thread is worth, on an idle and on a busy machine.

Fits each estimator for a few iterations, with one thread and with several, by turns in
one process, on parts of MovieLens 1M (synthetic ratings if the folder SKREC_DATA does
not have it). For each part the table has the wall time of one thread and the ratios of
the wall time and of the CPU time with several threads to those with one.

The busy machine has as many processes that only compute as the machine has processors;
the benchmark starts and ends them. ``passive`` is the environment variable
OMP_WAIT_POLICY, which OpenMP reads as a process starts: threads then sleep while they
wait for each other, instead of occupying a processor.

    python examples/benchmarks/threads.py [--ratings 100000 900000] [--only BiasedMF]
        [--force]
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
import warnings

import pandas as pd

POLICIES = {"default": {}, "passive": {"OMP_WAIT_POLICY": "passive"}}


def estimators():
    """Return the estimators by name, each with few iterations."""
    import skrec

    return {
        "BiasedMF": skrec.BiasedMFRegressor(max_iter=4, random_state=0),
        "SVDpp": skrec.SVDppRegressor(max_iter=3, random_state=0),
        "PMF": skrec.PMFRegressor(max_iter=4, random_state=0),
        "BayesianMF": skrec.BayesianMFRegressor(max_iter=14, random_state=0),
        "AutoRec": skrec.AutoRecRegressor(max_iter=5, random_state=0),
        "ConvMF": skrec.ConvMFRegressor(max_iter=2, random_state=0),
        "RBM": skrec.RBMRegressor(max_iter=1, random_state=0),
    }


def load():
    """Load pairs and ratings, in random order, and the texts of the items."""
    from sklearn.utils import shuffle

    from skrec.datasets import fetch_movielens, make_ratings
    from skrec.model_selection import ratings_to_samples
    from skrec.text import ItemTexts

    try:
        movielens = fetch_movielens("1m", download_if_missing=False)
        samples = movielens.data.to_numpy(), movielens.target.to_numpy()
        texts = movielens.item_texts
    except OSError:
        data = make_ratings(6_000, 3_700, density=0.045, text_words=80, random_state=0)
        samples, texts = ratings_to_samples(data.R), pd.Series(data.item_texts)
    return *shuffle(*samples, random_state=0), ItemTexts(texts)


def measure(options):
    """Print a line of JSON for each fit, after a fit of each kind to warm up."""
    import torch
    from threadpoolctl import ThreadpoolController

    warnings.simplefilter("ignore")
    X, y, texts = load()
    controller = ThreadpoolController()
    if options.force:
        from skrec._core import threads

        threads.RATINGS_PER_THREAD = 1
    for name, estimator in estimators().items():
        if options.only and name not in options.only:
            continue
        given = {"item_texts": texts} if name == "ConvMF" else {}
        for n_ratings in options.ratings:
            for repeat in range(options.repeats + 1):
                for n_threads in (1, options.threads):
                    torch.set_num_threads(n_threads)
                    with controller.limit(limits=n_threads):
                        wall, cpu = time.perf_counter(), time.process_time()
                        estimator.fit(X[:n_ratings], y[:n_ratings], **given)
                        wall = time.perf_counter() - wall
                        cpu = time.process_time() - cpu
                    if repeat:
                        line = [name, n_ratings, n_threads, wall, cpu]
                        print(json.dumps(line), flush=True)


def spin():
    """Compute for ever."""
    while True:
        pass


@contextlib.contextmanager
def load_on_the_machine(n_processes):
    """Keep processors busy with `n_processes` processes."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=spin, daemon=True) for _ in range(n_processes)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def run(policy, options):
    """Measure in a process of its own; return the median of the repetitions."""
    command = [sys.executable, __file__, "--measure", "--threads", str(options.threads)]
    command += ["--repeats", str(options.repeats), "--ratings"]
    command += [str(n) for n in options.ratings]
    command += ["--only", *options.only] if options.only else []
    command += ["--force"] if options.force else []
    environment = os.environ | POLICIES[policy]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    columns = ["estimator", "ratings", "threads", "wall", "cpu"]
    table = pd.DataFrame(lines, columns=columns)
    return table.groupby(columns[:3], sort=False).median().unstack()


def main(options):
    tables = {}
    for machine in options.machines:
        n_busy = len(os.sched_getaffinity(0)) if machine == "busy" else 0
        for policy in options.policies:
            with load_on_the_machine(n_busy):
                times = run(policy, options)
            one, several = (times.xs(n, axis=1, level=1) for n in (1, options.threads))
            ratios = (several / one).add_prefix("ratio of ")
            table = one[["wall"]].add_suffix(", s").join(ratios)
            tables[f"{machine}, {policy}"] = table
            print(f"{machine}, {policy}:", table.round(2).to_string(), sep="\n")
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ratings", type=int, nargs="+", default=[100_000, 900_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="names of estimators")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--machines", nargs="+", default=["idle", "busy"])
    parser.add_argument(
        "--force", action="store_true", help="all threads, however small the fit is"
    )
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    measure(options) if options.measure else main(options)
