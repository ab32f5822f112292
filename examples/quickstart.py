"""Tune AutoRec and ConvMF, and compare them with simple baselines.

Runs in under a minute without network access, on synthetic ratings and texts.

    python examples/quickstart.py
"""

import time

import matplotlib as mpl
import numpy as np
import pandas as pd
from sklearn.callback import ProgressBar
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, TargetEncoder

from skrec import AutoRecRegressor, ConvMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples
from skrec.text import ItemTexts

mpl.use("Agg")
import matplotlib.pyplot as plt


def encode(columns, encoder):
    """Make a linear model of some columns of the user-item pairs."""
    return make_pipeline(
        make_column_transformer((encoder, columns)),
        RidgeCV(alphas=np.logspace(-2, 3, 6)),
    )


def baselines():
    one_hot = OneHotEncoder(handle_unknown="ignore")
    folds = KFold(5, shuffle=True, random_state=0)
    return {
        "global mean": DummyRegressor(),
        "user mean": encode(["user"], TargetEncoder(cv=folds)),
        "item mean": encode(["item"], TargetEncoder(cv=folds)),
        "user and item effects (ridge)": encode(["user", "item"], one_hot),
    }


def tune_autorec(X, y):
    # An integer cv does not shuffle: folds of sorted ratings test on unseen users only.
    search = GridSearchCV(
        AutoRecRegressor(max_iter=80, learning_rate_init=0.01, random_state=0),
        {"alpha": [3, 10, 30], "hidden_layer_sizes": [(50,), (200,)]},
        scoring="neg_root_mean_squared_error",
        cv=KFold(3, shuffle=True, random_state=0),
    )
    return search.set_callbacks(ProgressBar()).fit(X, y)


def tune_convmf(X, y, item_texts):
    search = RandomizedSearchCV(
        ConvMFRegressor(
            lambda_w=1.0,
            word_dropout=0.0,
            network_epochs=3,
            max_iter=15,
            tol=1e-4,
            n_iter_no_change=10,
            random_state=0,
        ),
        {
            "lambda_u": [3, 10, 30],
            "lambda_v": [3, 10, 30],
            "n_factors": [5, 10, 20],
            "embedding_dim": [20, 50],
        },
        n_iter=6,
        scoring="neg_root_mean_squared_error",
        cv=ShuffleSplit(1, test_size=0.2, random_state=0),
        random_state=0,
    )
    search.set_callbacks(ProgressBar())
    return search.fit(X, y, item_texts=ItemTexts(item_texts))


def plot(table, search, path):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.barh(table.index[::-1], table["RMSE"][::-1], color="#4477aa")
    left.set(xlabel="RMSE on held-out ratings")
    results = pd.DataFrame(search.cv_results_)
    for sizes, part in results.groupby("param_hidden_layer_sizes"):
        scores, spread = -part["mean_test_score"], part["std_test_score"]
        right.errorbar(
            part["param_alpha"], scores, spread, marker="o", label=f"{sizes[0]} units"
        )
    right.set(xlabel="alpha", ylabel="RMSE in cross-validation", xscale="log")
    alphas = results["param_alpha"].unique()
    right.set_xticks(alphas, labels=alphas)
    right.minorticks_off()
    right.legend()
    figure.savefig(path, dpi=120)


def main():
    start = time.perf_counter()
    data = make_ratings(600, 300, density=0.12, noise=0.4, random_state=0)
    X, y = ratings_to_samples(data.R)
    X = pd.DataFrame(X, columns=["user", "item"])
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.1, random_state=0
    )
    print("{} ratings of {} items by {} users".format(len(y), *data.R.shape[::-1]))

    search = tune_autorec(X_train, y_train)
    texts = dict(enumerate(data.item_texts))
    convmf = tune_convmf(X_train, y_train, texts)
    models = {name: m.fit(X_train, y_train) for name, m in baselines().items()}
    models["AutoRec"] = search.best_estimator_
    models["ConvMF, with texts"] = convmf.best_estimator_
    errors = {
        name: root_mean_squared_error(y_test, model.predict(X_test))
        for name, model in models.items()
    }
    table = pd.DataFrame({"RMSE": errors}).sort_values("RMSE", ascending=False)
    print(f"\nBest parameters of AutoRec: {search.best_params_}")
    print(f"Best parameters of ConvMF: {convmf.best_params_}\n")
    print(table.to_string(float_format="{:.4f}".format))
    print("\nFor user 0:")
    print(search.best_estimator_.recommend([0], n_items=3).to_string(index=False))
    plot(table, search, "quickstart.png")
    print(f"\nWrote quickstart.png; {time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
