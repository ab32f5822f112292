"""Searches and predictions on two local workers of Ray; needs the extra `ray`."""

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TEXTS, small
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, KFold

from skrec import AutoRecRegressor, BiasedMFRegressor
from skrec.text import ItemTexts

ray = pytest.importorskip("ray", reason="needs Ray: pip install skrec-ratings[ray]")

# Ray has warnings of its own, about files that it leaves open and its next versions.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module", autouse=True)
def two_workers():
    from ray.util.joblib import register_ray

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as on the workers: sums depend on it
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000)
    register_ray()
    yield
    ray.shutdown()
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (GridSearchCV, {}),
        (HalvingGridSearchCV, {"factor": 2, "min_resources": 400, "random_state": 0}),
    ],
)
def test_a_search_on_workers_finds_what_one_process_finds(pairs, kind, options):
    X, y = pairs
    cv = KFold(3, shuffle=True, random_state=0)
    model = small(AutoRecRegressor, input_dropout=0.2)
    search = kind(model, {"alpha": [1.0, 5.0]}, cv=cv, **options)
    here = search.fit(X, y, item_texts=ItemTexts(TEXTS)).cv_results_
    with joblib.parallel_backend("ray", n_jobs=2):
        there = search.fit(X, y, item_texts=ItemTexts(TEXTS)).cv_results_
    for name, values in here.items():
        if "time" not in name:
            np.testing.assert_array_equal(there[name], values)


def test_batches_of_ray_data_are_predicted(pairs):
    X, y = pd.DataFrame(pairs[0], columns=["user", "item"]), pairs[1]
    model = small(BiasedMFRegressor, max_iter=100).fit(X, y)

    def predict(part):  # blocks may come in any order
        return part.assign(rating=model.predict(part))

    parts = ray.data.from_pandas(X).repartition(3)
    found = parts.map_batches(predict, batch_format="pandas").to_pandas()
    assert len(found) == len(X)
    expected = model.predict(found[["user", "item"]])
    np.testing.assert_array_equal(found["rating"], expected)
