"""Properties that hold for any small rating matrix.

The environment variable HYPOTHESIS_PROFILE=nightly runs 100 times the examples.
"""

import os

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import skrec
from skrec import AutoRecRegressor, BaselineRegressor, BiasedMFRegressor, PMFRegressor
from skrec._core.sparse import Pattern, sddmm, spmm
from skrec.model_selection import ratings_to_samples

settings.register_profile("ci", max_examples=10, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*stopped at max_iter:sklearn.exceptions.ConvergenceWarning"
)

MODELS = {
    "Baseline": BaselineRegressor(dtype="float64", clip=False),
    "BiasedMF": BiasedMFRegressor(
        n_factors=2, max_iter=5, dtype="float64", clip=False, random_state=0
    ),
    "PMF": PMFRegressor(
        n_factors=2, max_iter=5, dtype="float64", clip=False, random_state=0
    ),
    "AutoRec": AutoRecRegressor(
        hidden_layer_sizes=(2,),
        max_iter=5,
        input_dropout=0.0,
        dtype="float64",
        clip=False,
        random_state=0,
    ),
}
each = pytest.mark.parametrize("name", MODELS)


@st.composite
def matrices(draw):
    """Rating matrices without empty rows and columns, with stored zeros."""
    n_users, n_items = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.random((n_users, n_items)) < draw(st.floats(0.1, 1))
    mask[np.arange(n_users), np.arange(n_users) % n_items] = True
    mask[np.arange(n_items) % n_users, np.arange(n_items)] = True
    rows, columns = np.nonzero(mask)
    levels = draw(st.lists(st.integers(-4, 9), min_size=2, max_size=6, unique=True))
    ratings = rng.choice(np.array(levels, float), len(rows))
    return sp.csr_array((ratings, (rows, columns)), shape=mask.shape)


@each
@given(R=matrices())
def test_both_forms_give_the_same_predictions(name, R):
    X, y = ratings_to_samples(R)
    by_matrix = MODELS[name].fit(R).predict(X)
    np.testing.assert_array_equal(MODELS[name].fit(X, y).predict(X), by_matrix)


@each
@given(R=matrices(), seed=st.integers(0, 2**32 - 1))
def test_the_order_of_ratings_does_not_matter(name, R, seed):
    X, y = ratings_to_samples(R)
    order = np.random.default_rng(seed).permutation(len(y))
    expected = MODELS[name].fit(X, y).predict(X)
    shuffled = MODELS[name].fit(X[order], y[order])
    np.testing.assert_array_equal(shuffled.predict(X), expected)


@given(R=matrices(), seed=st.integers(0, 2**32 - 1))
def test_renamed_users_and_items_have_the_same_effects(R, seed):
    rng, model = np.random.default_rng(seed), MODELS["Baseline"]
    rows, columns = (rng.permutation(n) for n in R.shape)
    expected = model.fit(R).predict(R)[rows][:, columns]
    moved = R[rows][:, columns]
    np.testing.assert_allclose(model.fit(moved).predict(moved), expected, atol=1e-6)


@each
@given(R=matrices(), a=st.floats(0.01, 100), b=st.integers(-100, 100))
def test_another_unit_of_the_ratings_maps_the_predictions(name, R, a, b):
    X, y = ratings_to_samples(R)
    if np.ptp(y) == 0:
        return
    expected = a * MODELS[name].fit(X, y).predict(X) + b
    found = MODELS[name].fit(X, a * y + b).predict(X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * a)


@pytest.mark.parametrize("name", ["BiasedMF", "PMF", "AutoRec"])
@given(R=matrices())
def test_left_out_ratings_are_predicted_as_if_they_were_not_there(name, R):
    model = MODELS[name].fit(R)
    found = model._predictor().predict_left_out(R)
    rows, columns = R.tocoo().coords
    for place, (row, column) in enumerate(zip(rows, columns, strict=True)):
        entries = np.arange(R.indptr[row], R.indptr[row + 1])
        others = entries[entries != place]
        indptr = [0, len(others)]
        rest = sp.csr_array(
            (R.data[others], R.indices[others], indptr), shape=(1, R.shape[1])
        )
        expected = model.predict(rest)[0, column]
        np.testing.assert_allclose(found[place], expected, rtol=1e-6, atol=1e-6)


@given(R=matrices())
def test_sweeps_never_raise_the_objective(R):
    for penalties in ({"lambda_u": 1.0, "lambda_v": 2.0}, {}):
        model = BiasedMFRegressor(
            n_factors=2, max_iter=6, tol=0, dtype="float64", random_state=0, **penalties
        ).fit(R)
        losses = np.array(model.loss_curve_)
        assert (np.diff(losses) <= 1e-7 * abs(losses[:-1]) + 1e-9).all()


@each
@given(R=matrices())
def test_a_saved_model_predicts_the_same(name, R, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.skrec"
    model = MODELS[name].fit(R)
    skrec.save(model, path)
    np.testing.assert_array_equal(skrec.load(path).predict(R), model.predict(R))


@given(
    R=matrices(),
    k=st.integers(1, 5),
    index=st.sampled_from([torch.int32, torch.int64]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_kernels_equal_dense_products(R, k, index, dtype):
    crow, col = torch.tensor(R.indptr), torch.tensor(R.indices)
    pattern = Pattern(crow.to(index), col.to(index), R.shape)
    values = torch.tensor(R.data, dtype=dtype)
    generator = torch.Generator().manual_seed(k)
    left, right = (torch.rand(n, k, generator=generator, dtype=dtype) for n in R.shape)
    dense = torch.tensor(R.toarray(), dtype=dtype)
    torch.testing.assert_close(spmm(pattern, values, right), dense @ right)
    rows, columns = (torch.tensor(c, dtype=torch.int64) for c in R.tocoo().coords)
    torch.testing.assert_close(
        sddmm(pattern, left, right), (left @ right.T)[rows, columns]
    )
