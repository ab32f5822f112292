"""Check that every estimator still computes the same bits after a refactoring.

    python tests/same_results.py record before.pkl     # before a change
    python tests/same_results.py compare before.pkl    # after it

Fits every estimator in many configurations to small data and records the results of its
methods. Bits are reproducible only on one machine with one version of each dependency,
so records are not part of the repository.
"""

import argparse
import inspect
import pickle
import sys
import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from helpers import has_std, small

import skrec
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

DATA = make_ratings(80, 50, density=0.3, noise=0.3, random_state=0)
TEXTS = dict(enumerate(DATA.item_texts))
MORE = make_ratings(30, 50, density=0.2, noise=0.3, random_state=1).R


def configurations():
    """Pairs of a name and (estimator, which form of ratings, arguments of fit)."""
    for name in skrec.__all__:
        cls = getattr(skrec, name)
        if not hasattr(cls, "fit"):
            continue
        parameters = inspect.signature(cls).parameters
        variants = {"": {}}
        if "kind" in parameters:
            variants["user"] = {"kind": "user"}
        if "early_stopping" in parameters:
            variants["early stopping"] = {"early_stopping": True, "max_iter": 12}
            if "kind" in parameters:
                variants["user, early stopping"] = {"kind": "user"}
                variants["user, early stopping"] |= variants["early stopping"]
        for parameter, values in {
            "fit_biases": [True, False],
            "fit_intercept": [False],
            "implicit": [True],
            "out_activation": ["sigmoid"],
            "batch_size": [16],
            "solver": ["lbfgs", "rprop"],
            "center_input": [True],
            "refine": [False],
            "item_weight": ["sqrt"],
            "persistent": [True],
            "dropout": [0.2],
            "learning_rate": ["constant", "cosine"],
            "dtype": ["float64"],
            "clip": [False],
            "warm_start": [True],
        }.items():
            for value in values if parameter in parameters else []:
                variants[f"{parameter}={value}"] = {parameter: value}
        if "kind" in parameters and "out_activation" in parameters:
            variants["user, tanh"] = {"kind": "user", "out_activation": "tanh"}
            variants["two layers"] = {"hidden_layer_sizes": (5, 4)}
        takes_texts = "item_texts" in inspect.signature(cls.fit).parameters
        for label, change in variants.items():
            for form in ["pairs", "matrix"]:
                yield f"{name} {label} {form}", (cls, change, form, {})
                if takes_texts and change.get("kind") != "user":
                    texts = {"item_texts": TEXTS}
                    key = f"{name} {label} {form} texts"
                    yield key, (cls, change, form, texts)
        for form in ["pairs", "matrix"]:
            yield f"{name} weights {form}", (cls, {}, form, {"sample_weight": True})


def outputs(cls, change, form, arguments):
    """What the methods of a fitted estimator return."""
    R = DATA.R.copy()
    if "item_texts" in arguments:
        R = R[:, :46]  # the other items have only texts
        R = sp.csr_array((R.data, R.indices, R.indptr), shape=(80, 50))
    X, y = ratings_to_samples(R)
    if arguments.get("sample_weight"):
        weights = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
        if form == "matrix":
            weights = sp.csr_array((weights, R.indices, R.indptr), shape=R.shape)
        arguments = arguments | {"sample_weight": weights}
    model = small(cls, **change)
    for _ in range(2 if change.get("warm_start") else 1):
        model.fit(*((X, y) if form == "pairs" else (R,)), **arguments)
    n_items = len(model.items_)
    rows = MORE[:, model.items_.astype(int)]
    rows = sp.vstack([rows, sp.csr_array((1, n_items))], format="csr")
    target = rows.copy()
    target.data = target.data[::-1].copy()
    pairs = np.array([[u, i] for u in [*range(0, 80, 7), 1000] for i in range(60)])
    found = {
        "predict pairs": model.predict(pairs),
        "predict rows": model.predict(rows),
        "score pairs": model.score(X, y),
        "score rows": model.score(rows),
        "score rows y": model.score(rows, target),
        "recommend users": model.recommend([0, 5, 79, 1000], 7),
        "recommend rows": model.recommend(rows[:5], 7, exclude_seen=False),
        "transform pairs": model.transform(pairs),
        "transform rows": model.transform(rows),
        "loss_curve_": model.loss_curve_,
        "n_iter_": model.n_iter_,
        "validation_scores_": model.validation_scores_,
    }
    if has_std(model):
        found["std pairs"] = model.predict(pairs, return_std=True)[1]
        found["std rows"] = model.predict(rows, return_std=True)[1]
    if hasattr(model, "extend_items") and "item_texts" in arguments and form == "pairs":
        model.extend_items({100: DATA.item_texts[3]})
        found["extended"] = model.predict([[0, 100], [1, 3]])
    return found


def is_same(a, b):
    if isinstance(a, pd.DataFrame):
        return a.equals(b)
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "compare"])
    parser.add_argument("file")
    parser.add_argument("--only", default="", help="names that contain this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = {n: c for n, c in configurations() if options.only in n}
    if options.action == "record":
        record = {name: outputs(*chosen[name]) for name in chosen}
        with open(options.file, "wb") as file:
            pickle.dump(record, file)
        print(f"{len(record)} configurations recorded")
        return
    with open(options.file, "rb") as file:
        record = pickle.load(file)
    differing = 0
    for name in record:
        if name not in chosen:
            continue
        try:
            found = outputs(*chosen[name])
        except Exception as error:
            found, differences = {}, [f"{type(error).__name__}: {error}"]
        else:
            differences = [
                k for k in record[name] if not is_same(record[name][k], found[k])
            ]
        if differences:
            differing += 1
            print(f"{name}: {', '.join(differences)}", flush=True)
    print(f"{len(record)} configurations, {differing} differ")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
