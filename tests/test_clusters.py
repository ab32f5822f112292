"""Searches and predictions on the workers of a cluster: two processes of Dask here."""

import contextlib
import io

import dask
import dask.dataframe
import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from dask.distributed import Client, LocalCluster
from helpers import TEXTS, small
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, KFold

from skrec import AutoRecRegressor, BiasedMFRegressor
from skrec.features import Features
from skrec.text import ItemTexts


@pytest.fixture(scope="module")
def client():
    # Workers on this machine need no dashboard and no folder of their own.
    with (
        dask.config.set({"distributed.worker.use-file-locking": False}),
        LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def one_thread():
    """As on the workers: sums depend on the number of threads."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def features_of_items():
    words = np.random.default_rng(0).integers(3, size=(50, 2))
    return Features(pd.DataFrame(words, columns=["genre", "year"]))


@pytest.mark.parametrize("kind", [GridSearchCV, HalvingGridSearchCV])
@pytest.mark.parametrize(
    ("model", "grid", "known"),
    [
        (
            small(BiasedMFRegressor, max_iter=100),
            {"n_factors": [2, 3]},
            {"item_features": features_of_items()},
        ),
        (
            small(AutoRecRegressor, input_dropout=0.2),
            {"alpha": [1.0, 5.0]},
            {"item_texts": ItemTexts(TEXTS)},
        ),
    ],
    ids=["features", "texts"],
)
def test_a_search_on_workers_finds_what_one_process_finds(
    client, one_thread, pairs, kind, model, grid, known
):
    X, y = pairs
    search = kind(model, grid, cv=KFold(3, shuffle=True, random_state=0))
    if kind is HalvingGridSearchCV:  # half of the ratings, then all of them
        search.set_params(factor=2, min_resources=len(y) // 2, random_state=0)
    here = search.fit(X, y, **known).cv_results_
    with joblib.parallel_backend("dask"):
        there = search.fit(X, y, **known).cv_results_
    for name, values in here.items():
        if "time" not in name:
            np.testing.assert_array_equal(there[name], values)


def test_partitions_of_a_dask_frame_are_predicted_on_workers(client, pairs):
    X, y = pairs
    model = small(BiasedMFRegressor, max_iter=100).fit(X, y)
    frame = dask.dataframe.from_pandas(pd.DataFrame(X), npartitions=3)
    with pytest.raises(TypeError, match=r"give X\.compute\(\), if it fits in memory"):
        model.predict(frame)
    found = frame.map_partitions(model.predict, meta=("rating", float)).compute()
    np.testing.assert_array_equal(found, model.predict(X))


def test_partitions_of_users_get_their_recommendations_on_workers(client, pairs):
    X, y = pairs
    model = small(BiasedMFRegressor, max_iter=100).fit(X, y)
    users = pd.DataFrame({"user": np.unique(X[:, 0])})
    found = (
        dask.dataframe.from_pandas(users, npartitions=3)
        .map_partitions(
            lambda part: model.recommend(part["user"], 3),
            meta=model.recommend(users["user"][:1], 3),
        )
        .compute()
    )
    whole = model.recommend(users["user"], 3)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), whole)


def test_batches_of_a_polars_frame_are_predicted(pairs):
    X, y = pl.DataFrame(pairs[0], schema=["user", "item"]), pairs[1]
    model = small(BiasedMFRegressor, max_iter=100).fit(X, y)

    def predict(part):
        return pl.DataFrame({"rating": model.predict(part)})

    lazy = X.lazy().map_batches(predict, schema={"rating": pl.Float64}, streamable=True)
    found = lazy.collect(engine="streaming")["rating"]
    np.testing.assert_array_equal(found, model.predict(X))


def test_a_fit_on_a_worker_prints_its_progress(client, pairs):
    model = small(BiasedMFRegressor, verbose=1)

    def fit_on_worker():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            model.fit(*pairs)
        return printed.getvalue()

    assert "[BiasedMFRegressor] " in client.submit(fit_on_worker, pure=False).result()
