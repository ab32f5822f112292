"""Fixtures that several test files share."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

# No test opens a window. Nothing has imported matplotlib yet.
os.environ["MPLBACKEND"] = "agg"


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def without_limits(monkeypatch):
    """Accept numbers that are refused because fits could diverge with them."""
    for name in ("refuse_extreme_parameters", "refuse_extreme_ratings"):
        monkeypatch.setattr(f"skrec._fitting.{name}", lambda *args: None)


@pytest.fixture(scope="session")
def R():
    """A small rating matrix with structure that models can learn."""
    return make_ratings(80, 50, density=0.3, noise=0.3, random_state=0).R


@pytest.fixture(scope="session")
def pairs(R):
    """The ratings of `R` as (X, y)."""
    return ratings_to_samples(R)


@pytest.fixture(scope="session")
def movielens_100k():
    """The ratings of MovieLens 100K as (X, y)."""
    path = Path(os.environ.get("SKREC_DATA", "")) / "ml-100k" / "ratings.npz"
    if not path.is_file():
        pytest.skip("needs MovieLens 100K in the folder SKREC_DATA")
    with np.load(path, allow_pickle=False) as file:
        X = np.column_stack([file["user"], file["item"]]).astype(np.int64)
        return X, file["rating"].astype(np.float64)
