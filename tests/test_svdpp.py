import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import Interrupt, random_sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import GridSearchCV, KFold

from skrec import BiasedMFRegressor, SVDppRegressor
from skrec._core.sparse import Pattern
from skrec._factorization.priors import ImplicitPrior
from skrec.model_selection import ratings_to_samples

LAMBDAS = {"lambda_u": 2.0, "lambda_v": 3.0, "lambda_y": 4.0}


def make(**params):
    return SVDppRegressor(
        **({"n_factors": 4, "random_state": 0} | LAMBDAS | params),
    )


@pytest.fixture(scope="module")
def pairs(R):
    return ratings_to_samples(R)


@pytest.fixture(scope="module")
def model(R):
    return make().fit(R)


def indicators(R):
    """Who has rated what, over the root of how many."""
    return (R.toarray() != 0) / np.sqrt(np.diff(R.indptr))[:, None]


def objective(R, users, items, links, mean):
    """The objective as the Notes write it; vectors end in their bias."""
    own = users - indicators(R) @ links
    predicted = users[:, :-1] @ items[:, :-1].T + users[:, -1:] + items[:, -1]
    errors = (R.toarray() - mean - predicted)[R.toarray() != 0]
    squares = (
        (errors**2).sum(),
        LAMBDAS["lambda_u"] * (own**2).sum(),
        LAMBDAS["lambda_v"] * ((items - items.mean(axis=0)) ** 2).sum(),
        LAMBDAS["lambda_y"] * (links**2).sum(),
    )
    return sum(squares) / 2


def vectors(model):
    users = np.column_stack([model.user_factors_, model.user_biases_])
    items = np.column_stack([model.item_factors_, model.item_biases_])
    return users, items, model.item_links_


def test_the_fit_is_a_minimum_of_the_objective(R):
    model = make(dtype="float64", tol=1e-9, max_iter=5000).fit(R)
    parts = vectors(model)
    best = objective(R, *parts, model.intercept_)
    assert model.loss_curve_[-1] == pytest.approx(best, rel=1e-6)
    rng = np.random.default_rng(0)
    for i in range(3):
        for _ in range(10):
            moved = [part.copy() for part in parts]
            moved[i] += 0.01 * rng.standard_normal(moved[i].shape)
            assert objective(R, *moved, model.intercept_) > best


def test_no_iteration_raises_the_objective(R):
    losses = np.array(make(dtype="float64").fit(R).loss_curve_)
    assert (np.diff(losses) <= 1e-9 * losses[:-1]).all()


def test_pairs_are_predicted_by_the_formula(model, R, pairs):
    X, _ = pairs
    F = indicators(R)
    # A user's own vector, and what the items of the user add.
    own = np.column_stack([model.user_factors_, model.user_biases_])
    own = own - F @ model.item_links_
    expected = []
    for u, i in X:
        items = R[[u]].indices
        added = model.item_links_[items].sum(axis=0) / np.sqrt(len(items))
        whole = own[u] + added
        q = model.item_factors_[i]
        expected.append(
            model.intercept_ + whole[-1] + model.item_biases_[i] + q @ whole[:-1]
        )
    expected = np.clip(expected, *model.rating_range_)
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-4)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_links_are_the_ridge_regression_of_the_users(rng, is_weighted):
    R = random_sparse(rng, (12, 7), 0.4)
    F, users = indicators(R), rng.standard_normal((12, 3))
    weights = rng.uniform(0.5, 2, 12) if is_weighted else np.full(12, 1.5)
    pattern = Pattern(torch.tensor(R.indptr), torch.tensor(R.indices), R.shape)
    prior = ImplicitPrior(pattern, torch.zeros(7, 3, dtype=torch.float64), 0.7)
    prior.fit(torch.tensor(users), torch.tensor(weights))
    A = F.T @ (weights[:, None] * F) + 0.7 * np.eye(7)
    expected = np.linalg.solve(A, F.T @ (weights[:, None] * users))
    np.testing.assert_allclose(prior.links, expected, atol=5e-3)
    np.testing.assert_allclose(prior.means(), F @ prior.links.numpy())
    assert prior.penalty() == pytest.approx(0.35 * (prior.links.numpy() ** 2).sum())


def test_users_without_ratings_have_no_links(rng):
    R = sp.csr_array(
        sp.block_diag([random_sparse(rng, (30, 20), 0.4), sp.csr_array((2, 3))])
    )
    model = make().fit(R)
    np.testing.assert_array_equal(model.item_links_[-3:], 0)
    np.testing.assert_array_equal(model.predict(R)[-1], model.item_means_)


def test_a_large_penalty_of_the_links_is_a_model_without_them(R):
    params = {"n_factors": 4, "lambda_u": 2.0, "lambda_v": 3.0, "random_state": 0}
    plain = BiasedMFRegressor(**params, tol=1e-7, max_iter=2000).fit(R)
    model = make(lambda_y=1e9, tol=1e-7, max_iter=2000).fit(R)
    np.testing.assert_allclose(model.predict(R), plain.predict(R), atol=0.01)


def test_a_converged_user_is_found_again_by_folding_in(R):
    model = make(dtype="float64", tol=1e-9, max_iter=5000).fit(R)
    np.testing.assert_allclose(model.transform(R), model.user_factors_, atol=2e-3)


def test_the_score_of_a_matrix_leaves_each_rating_out(model, R):
    rows = R[:12]
    predicted = []
    for u, i in zip(*rows.nonzero(), strict=True):
        row = rows[[u]].tolil()
        row[0, i] = 0
        others = row.tocsr()
        others.eliminate_zeros()
        predicted.append(model.predict(others)[0, i])
    assert model.score(rows) == pytest.approx(r2_score(rows.data, predicted), abs=1e-6)


def test_memory_bounds_change_nothing(model, R, monkeypatch):
    before = model.predict(R), model.score(R)
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 7 * 25)
    np.testing.assert_allclose(model.predict(R), before[0], rtol=1e-5)
    assert model.score(R) == pytest.approx(before[1])


def test_both_forms_give_the_same_model_bit_for_bit(model, R, pairs):
    other = make().fit(*pairs)
    for name in ("user_factors_", "item_factors_", "item_links_", "loss_curve_"):
        np.testing.assert_array_equal(getattr(model, name), getattr(other, name))
    np.testing.assert_array_equal(model.predict(R), other.predict(R))


def test_who_has_rated_what_is_used():
    """Users like one half of the items and mostly rate what they like."""
    rng = np.random.default_rng(0)
    likes = np.repeat([0, 1], 150)[:, None] == np.repeat([0, 1], 30)
    mask = rng.random(likes.shape) < np.where(likes, 0.2, 0.03)
    row, col = mask.nonzero()
    X, y = np.column_stack([row, col]), likes[row, col] + 3 + rng.normal(0, 1, len(row))
    others = np.argwhere(~mask)  # of which most users like little
    errors = []
    for lambda_y in (1e9, 10.0):
        model = make(n_factors=2, lambda_u=20.0, lambda_y=lambda_y, max_iter=1000)
        predicted = model.fit(X, y).predict(others)
        errors.append(root_mean_squared_error(likes[~mask] + 3, predicted))
    assert errors[1] < 0.85 * errors[0]


def test_weight_zero_equals_absence(pairs):
    X, y = pairs
    weights = (np.arange(len(y)) % 5 > 0).astype(float)
    a = make().fit(X, y, sample_weight=weights)
    b = make().fit(X[weights > 0], y[weights > 0])
    np.testing.assert_array_equal(a.items_, b.items_)
    np.testing.assert_allclose(a.predict(X), b.predict(X), atol=2e-3)


@pytest.mark.filterwarnings("ignore:.*stopped at max_iter")
def test_early_stopping_keeps_the_best_state(pairs):
    params = dict.fromkeys(LAMBDAS, 0.1) | {"early_stopping": True}
    model = make(**params, n_iter_no_change=5).fit(*pairs)
    best = int(np.argmax(model.validation_scores_)) + 1
    assert best < model.n_iter_
    expected = make(**params, max_iter=best, n_iter_no_change=99).fit(*pairs)
    np.testing.assert_array_equal(model.item_links_, expected.item_links_)


def test_warm_start_goes_on_where_the_last_fit_ended(R, pairs):
    model = make(warm_start=True).fit(R)
    before, n_iter = model.loss_curve_[-1], model.n_iter_
    model.fit(R)
    assert model.loss_curve_[0] < before * 1.02
    assert model.n_iter_ < n_iter / 2
    # Links are matched by the ids of items.
    X, y = pairs
    model.fit(X + 7, y)
    assert model.n_iter_ > 3


def test_an_interrupt_raises_and_leaves_a_model_that_predicts(R):
    model = make().set_callbacks(Interrupt(1))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 2
    assert np.isfinite(model.predict(R)).all()


def test_divergence_keeps_the_last_finite_state(R):
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 1"):
        model = make().fit(R * 1e30)
    assert np.isfinite(model.predict(R)).all()


def test_a_penalty_of_zero_still_predicts_short_rows(R):
    model = make(lambda_u=0, n_factors=1).fit(R)
    row = sp.csr_array(([4.0], ([0], [0])), shape=(1, R.shape[1]))
    assert np.isfinite(model.predict(row)).all()


def test_a_model_comes_back_as_it_was(model, R, pairs):
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict(R), model.predict(R))
    np.testing.assert_array_equal(copy.predict(pairs[0]), model.predict(pairs[0]))
    assert copy.score(R) == model.score(R)


def test_clone_keeps_the_parameters():
    model = make(lambda_y=7.0)
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize("form", ["matrix", "pairs"])
def test_grid_search(R, pairs, form):
    search = GridSearchCV(
        make(tol=1e-3),
        {"lambda_u": [2.0, 1e4]},
        cv=KFold(2, shuffle=True, random_state=0),
    )
    search.fit(*((R,) if form == "matrix" else pairs))
    assert search.best_params_ == {"lambda_u": 2.0}
    assert search.best_estimator_.recommend([0], n_items=3).shape == (3, 3)


@pytest.mark.parametrize(
    ("params", "match"),
    [({"lambda_y": 0}, "lambda_y"), ({"lambda_u": -1}, "lambda_u")],
)
def test_bad_parameters_are_refused(R, params, match):
    with pytest.raises(ValueError, match=match):
        make(**params).fit(R)


@pytest.mark.gpu
def test_a_gpu_fits_what_the_cpu_fits(R, pairs):
    X, y = pairs
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    errors = []
    for device in ("cpu", "cuda"):
        model = make(device=device).fit(X[~is_test], y[~is_test])
        errors.append(root_mean_squared_error(y[is_test], model.predict(X[is_test])))
        assert np.isfinite(model.score(R))
    assert errors[0] == pytest.approx(errors[1], abs=0.02)
