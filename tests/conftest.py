"""Fixtures that several test files share."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from skrec import (
    AutoRecRegressor,
    BayesianMFRegressor,
    CDLRegressor,
    ConvMFRegressor,
    CTRRegressor,
    LLORMARegressor,
    RBMRegressor,
    SVDppRegressor,
)
from skrec.datasets import make_ratings


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


@pytest.fixture(scope="session")
def R():
    """A small rating matrix whose ratings have structure to be found."""
    return make_ratings(80, 50, density=0.3, noise=0.3, random_state=0).R


@pytest.fixture(scope="session")
def movielens_100k():
    """The ratings of MovieLens 100K as (X, y)."""
    path = Path(os.environ.get("SKREC_DATA", "")) / "ml-100k" / "ratings.npz"
    if not path.is_file():
        pytest.skip("needs MovieLens 100K in the folder SKREC_DATA")
    with np.load(path, allow_pickle=False) as file:
        X = np.column_stack([file["user"], file["item"]]).astype(np.int64)
        return X, file["rating"].astype(np.float64)


def random_sparse(rng, shape, density, dtype=np.float64):
    """A CSR array with standard normal entries, and at least one in each row."""
    mask = rng.random(shape) < density
    mask[np.arange(shape[0]), rng.integers(shape[1], size=shape[0])] = True
    row, col = mask.nonzero()
    values = rng.standard_normal(len(row)).astype(dtype)
    return sp.csr_array((values, (row, col)), shape=shape)


def small(cls, **params):
    """A recommender that is fitted in a moment, of a class or one derived from it."""
    if issubclass(cls, AutoRecRegressor):
        sizes = {
            "hidden_layer_sizes": (4,),
            "alpha": 1.0,
            "learning_rate_init": 0.2,
            "max_iter": 15,
            "input_dropout": 0.0,
        }
    elif issubclass(cls, RBMRegressor):
        sizes = {"n_hidden": 4, "alpha": 1.0, "learning_rate_init": 0.3}
        sizes |= {"max_iter": 40}
    elif issubclass(cls, BayesianMFRegressor):
        sizes = {"n_factors": 2, "max_iter": 8, "burn_in": 1, "thinning": 3}
    else:
        sizes = {"n_factors": 2, "lambda_u": 1.0, "lambda_v": 1.0, "max_iter": 5}
    if issubclass(cls, SVDppRegressor):
        sizes |= {"lambda_y": 1.0}
    if issubclass(cls, LLORMARegressor):
        sizes |= {"n_models": 2}
    # Few texts have words that are in more than half of them.
    if issubclass(cls, CTRRegressor):
        sizes |= {"lda_max_iter": 2, "vectorizer": CountVectorizer()}
    if issubclass(cls, CDLRegressor):
        sizes |= {"hidden_layer_sizes": (4,), "learning_rate_init": 0.01}
        sizes |= {"vectorizer": TfidfVectorizer(use_idf=False)}
    if issubclass(cls, ConvMFRegressor):
        sizes |= {"embedding_dim": 4, "n_filters": 4, "hidden_dim": 4}
        sizes |= {"window_sizes": (1, 2), "lambda_w": 0.1, "learning_rate_init": 0.01}
        sizes |= {"max_iter": 3}
    return cls(**(sizes | {"random_state": 0} | params))


def left_out(model, rows):
    """Each rating as predicted by a row from which it has been taken."""
    predicted = []
    for u, i in zip(*rows.nonzero(), strict=True):
        others = rows[[u]].tolil()
        others[0, i] = 0
        others = others.tocsr()
        others.eliminate_zeros()
        predicted.append(model.predict(others)[0, i])
    return np.array(predicted)
