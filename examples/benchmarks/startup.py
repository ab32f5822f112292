"""Start-up: what a fresh process costs before and during its first fit.

Runs short programs in processes of their own, one after the other, several times: the
imports that everybody pays (`import torch, sklearn`), those of skrec, and fits to
100,000 ratings. The table has the CPU time of each process with one thread, the median
and the range over the repetitions, what it takes above `import torch, sklearn` (paired
with the process of the same repetition), the number of imported modules, and the peak
memory. A second fit in the same process shows what of the first is the fit itself.

    python examples/benchmarks/startup.py [--repetitions 7] [--estimators BiasedMF PMF]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd

N_USERS, N_ITEMS, N_RATINGS = 943, 1_682, 100_000
BASE = "import torch, sklearn"
IMPORTS = (
    "import numpy",
    BASE,
    "import skrec",
    "import skrec.datasets, skrec.metrics, skrec.model_selection",
    "from skrec import BiasedMFRegressor",
)
FIT = """
import numpy as np
data = np.load({path!r})
from skrec import {name}Regressor
for _ in range({n_fits}):
    {name}Regressor(random_state=0).fit(data["X"], data["y"])
"""
# The kernel's own count of the peak starts anew with each program.
REPORT = """
import re, sys
with open("/proc/self/status") as file:
    peak = re.search(r"VmHWM:\\s+(\\d+)", file.read())[1]
print(len(sys.modules), peak)
"""


def make_ratings(path):
    """Write random ratings of the size of MovieLens 100K to a file."""
    rng = np.random.default_rng(0)
    pairs = rng.choice(N_USERS * N_ITEMS, N_RATINGS, replace=False)
    X = np.column_stack(np.divmod(np.sort(pairs), N_ITEMS))
    factors = [rng.normal(size=(n, 3)) for n in (N_USERS, N_ITEMS)]
    signal = np.sum(factors[0][X[:, 0]] * factors[1][X[:, 1]], axis=1)
    noisy = 3.5 + 0.4 * signal + rng.normal(size=N_RATINGS)
    np.savez(path, X=X, y=np.clip(np.round(noisy), 1, 5))


def run(program):
    """Run a program; return its CPU seconds, number of modules and peak MiB."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program + REPORT],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"This program failed:\n{program}")
    cpu = usage.ru_utime + usage.ru_stime
    n_modules, peak = printed.split()
    return cpu, int(n_modules), int(peak) / 1024


def programs(names, path):
    """Return the programs by what the table calls them."""
    found = {text: text for text in IMPORTS}
    for name in names:
        for n_fits, label in ((1, "a fit"), (2, "two fits")):
            code = FIT.format(path=path, name=name, n_fits=n_fits)
            found[f"{label} of {name}"] = code
    return found


def main(options):
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ratings.npz")
        make_ratings(path)
        chosen = programs(options.estimators, path)
        for program in chosen.values():  # compiles modules and fills the file cache
            run(program)
        for _ in range(options.repetitions):
            for label, program in chosen.items():
                rows.setdefault(label, []).append(run(program))
    lines = {}
    for label, runs in rows.items():
        seconds, modules, peaks = zip(*runs, strict=True)
        above = [cpu - base[0] for cpu, base in zip(seconds, rows[BASE], strict=True)]
        lines[label] = {
            "CPU s": f"{statistics.median(seconds):.2f}",
            "range": f"{min(seconds):.2f} to {max(seconds):.2f}",
            f"above {BASE}": f"{statistics.median(above):+.2f}",
            "range above": f"{min(above):+.2f} to {max(above):+.2f}",
            "modules": modules[0],
            "peak MiB": f"{statistics.median(peaks):.0f}",
        }
    print(pd.DataFrame(lines).T.to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--estimators", nargs="+", default=["BiasedMF", "PMF"])
    main(parser.parse_args())
