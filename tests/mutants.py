"""Mutation testing: which changes of a module do its unit tests notice?

    python mutants.py FOLDER [MODULE ...]

copies the working tree into FOLDER, lets mutmut make the mutants of each module and
run the tests of `TESTS` that cover them, and prints the changes that no test noticed
and a table. A second call with the same FOLDER runs only the survivors again, as long
as the module has not changed. With `--sample N`, at most N mutants per module are run,
drawn at random with a fixed seed.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Tests of each module. Those of the last ones and of `variational` take minutes.
TESTS = {
    "_core/ridge": "ridge",
    "_core/half_steps": "half_steps",
    "_core/sparse": "sparse",
    "_core/variational": "variational",
    "_core/prior_means": "known_features",
    "_core/gibbs": "gibbs",
    "_core/training": "training",
    "_core/conjugate_gradients": "conjugate_gradients ridge half_steps",
    "_core/networks": "networks",
    "_core/optimizers": "optimizers",
    "_core/rbm": "rbm",
    "_core/text_cnn": "text_cnn",
    "_core/topics": "topics",
    "_core/denoising": "denoising",
    "_core/softmax": "rbm",
    "_core/normal_rows": "gibbs half_steps",
    "_core/batches": "batches",
    "_core/canonical": "variational",
    "_data/ids": "ids",
    "_data/ratings": "ratings",
    "_data/stored": "ratings",
    "_data/dealt": "distributed",
    "_base": "base serving",
    "_prediction": "prediction",
    "_fitting": "fitting",
}
MISSED = (0, 33)  # exit statuses of mutmut: tests pass, no test runs the function
# Changes that no test on a CPU can notice: where tensors are and what spares waiting
# for a GPU; checks that lists of one origin are of one length. Tests match messages by
# their key words, so that other words of a message may change, too.
EQUIVALENT = {
    "wording": re.compile(r"XX|[\s\"']"),
    "device": re.compile(r"(device|output_size)=[^,()]*|\s|,"),
    "strict": re.compile(r"strict=\w+|\s|,"),
}
LITERAL = re.compile(r"\"([^\"]*)\"")


def prepare(folder, module):
    """Copy the working tree; mutmut keeps its own copy and results in `mutants`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("skrec", "tests"):
        for copy in (folder, folder / "mutants"):
            if name == "tests" or copy == folder:
                shutil.rmtree(copy / name, ignore_errors=True)
                shutil.copytree(ROOT / name, copy / name)
    tests = [f"tests/test_{name}.py" for name in TESTS[module].split()]
    (folder / "setup.cfg").write_text(
        "[mutmut]\nsource_paths=skrec\n"
        f"only_mutate=skrec/{module}.py\n"
        "timeout_multiplier=5\ntimeout_constant=5\n"
        "track_dependencies=false\nuse_git_change_detection=false\n"
        "pytest_add_cli_args=\n  -p\n  no:cacheprovider\n"
        "pytest_add_cli_args_test_selection=\n  " + "\n  ".join(tests) + "\n"
    )
    # As in pyproject.toml, without the doctests of the mutated module.
    (folder / "pytest.ini").write_text(
        "[pytest]\nmarkers = gpu: needs a CUDA device\nfilterwarnings = error\n"
    )


def mutants(folder, module):
    """Names of all mutants of a module."""
    code = (ROOT / f"skrec/{module}.py").read_text()
    with contextlib.chdir(folder):  # which has the settings of mutmut
        from mutmut.mutation.file_mutation import mutate_file_contents

        names = mutate_file_contents("", code).mutant_names
    return [f"skrec.{module.replace('/', '.')}.{name}" for name in names]


def mutmut(folder, names):
    """Run the named mutants."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH="")
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    with (folder / "log.txt").open("a") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log)


def results(folder, module):
    """Exit status of each mutant; None for those that have not run."""
    path = folder / f"mutants/skrec/{module}.py.meta"
    return json.loads(path.read_text())["exit_code_by_key"] if path.exists() else {}


def change(folder, module, name):
    """Lines that a mutant removes and adds."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant  # the extra `mutation`

    with contextlib.chdir(folder), contextlib.redirect_stderr(io.StringIO()):
        diff = get_diff_for_mutant(name, path=f"skrec/{module}.py").splitlines()
    return [
        "".join(f"{line[1:].strip()}\n" for line in diff[3:] if line[0] == sign)
        for sign in "-+"
    ]


def equivalence(before, after):
    """Class of `EQUIVALENT` that a change belongs to; None if to none."""
    changed = set(LITERAL.findall(after)) - set(LITERAL.findall(before))
    for name, pattern in EQUIVALENT.items():
        if name == "wording" and not all(" " in text for text in changed):
            continue  # a name or a key
        if pattern.sub("", before).lower() == pattern.sub("", after).lower():
            return name
    return None


def run(folder, module, sample):
    prepare(folder, module)
    everything = mutants(folder, module)
    names = sorted(everything)
    random.Random(0).shuffle(names)
    names = sorted(names[:sample])
    # Mutants of functions that have changed have no results after the first round.
    for _ in range(2):
        found = results(folder, module)
        again = [name for name in names if found.get(name) in (None, *MISSED)]
        if again:
            mutmut(folder, again)
        after = results(folder, module)
        if all(after.get(name) is not None for name in names):
            break
    else:
        raise SystemExit(f"mutmut did not run to its end: see {folder / 'log.txt'}")
    missed, equivalent = [], collections.Counter()
    for name in names:
        if after[name] in MISSED:
            lines = change(folder, module, name)
            if kind := equivalence(*lines):
                equivalent[kind] += 1
            else:
                missed.append((name.split(".")[-1], *lines))
    return len(everything), len(names), missed, equivalent


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--sample", type=int)
    arguments = parser.parse_args()
    titles = ("mutants", "tried", "killed", "survived", *EQUIVALENT, "score")
    table = [f"{'module':28}" + "".join(f"{title:>9}" for title in titles)]
    for module in arguments.modules or TESTS:
        folder = arguments.folder.resolve() / module.replace("/", ".")
        total, tried, missed, equivalent = run(folder, module, arguments.sample)
        for name, before, after in missed:
            print(f"{name}\n- {before}+ {after}")
        killed = tried - len(missed) - equivalent.total()
        counts = [total, tried, killed, len(missed)]
        counts += [equivalent[name] for name in EQUIVALENT]
        row = f"{module:28}" + "".join(f"{count:9}" for count in counts)
        table.append(f"{row}{killed / (killed + len(missed)):9.1%}")
        print(table[-1], flush=True)
    print("\n".join(table))


if __name__ == "__main__":
    main()
