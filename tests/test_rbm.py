import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import Interrupt, without_one
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold

from skrec import RBMRegressor
from skrec._core.rbm import Cases, Machine
from skrec._core.softmax import solve_softmax_rows
from skrec._core.sparse import Pattern
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

KINDS = ["item", "user"]
N_HIDDEN, N_LEVELS = 6, 5


def make(kind="item", **params):
    defaults = {
        "n_hidden": N_HIDDEN, "alpha": 2.0, "learning_rate_init": 0.02,
        "batch_size": 20, "max_iter": 30, "random_state": 0, "device": "cpu",
    }  # fmt: skip
    return RBMRegressor(kind=kind, **(defaults | params))


@pytest.fixture(scope="module")
def pairs(R):
    return ratings_to_samples(R)


@pytest.fixture(scope="module")
def large():
    """More ratings, from which a machine can learn to predict others."""
    return make_ratings(300, 80, density=0.4, noise=0.3, random_state=0).R


@pytest.fixture(scope="module", params=KINDS)
def model(request, R):
    return make(request.param).fit(R)


def dense_parts(model):
    """Hidden units, W of shape (n_visible, n_levels, n_hidden) and b of a model."""
    return model.hidden_probabilities_, model.weights_, model.visible_biases_


def expected(h, W, b, levels):
    return softmax(np.einsum("nf,vlf->nvl", h, W) + b, axis=2) @ levels


def test_hidden_units_follow_from_the_ratings(model, R):
    h, W, _ = dense_parts(model)
    rows = (R.T if model.kind == "item" else R).toarray()
    one_hot = (rows[..., None] == model.levels_).astype(float)
    sums = np.einsum("nvl,vlf->nf", one_hot, W) + model.hidden_biases_
    np.testing.assert_allclose(h, expit(sums), atol=1e-5)


def test_pairs_get_the_expected_rating(model, pairs):
    X, _ = pairs
    table = expected(*dense_parts(model), model.levels_)
    if model.kind == "item":
        table = table.T
    np.testing.assert_allclose(model.predict(X), table[X[:, 0], X[:, 1]], atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_contrastive_divergence(generator, rng, weighted):
    """CD-1 written with dense loops, on the samples of the same generator."""
    n, n_visible, n_levels, F = 4, 6, 3, 5
    mask = rng.random((n, n_visible)) < 0.6
    mask[:, 0] = True
    csr = sp.csr_array(mask)
    k = rng.integers(n_levels, size=(n, n_visible))
    w = rng.random((n, n_visible)) + 0.5 if weighted else np.ones((n, n_visible))
    log_rates = torch.tensor(rng.standard_normal((n_visible, n_levels)))
    machine = Machine.draw(log_rates, F, generator)
    with torch.no_grad():
        machine.weights += torch.tensor(rng.standard_normal(machine.weights.shape))
        machine.hidden_bias += torch.tensor(rng.standard_normal(F))
    pattern = Pattern(torch.tensor(csr.indptr), torch.tensor(csr.indices), mask.shape)
    cases = Cases(
        pattern, torch.tensor(k[mask]), torch.tensor(w[mask]) if weighted else None,
        n_levels, torch.float64,
    )  # fmt: skip
    loss = machine.contrast(cases, 1, False, torch.Generator().manual_seed(3))

    W, b, c = (p.detach().numpy() for p in machine.parameters())
    W = W.reshape(n_visible, n_levels, F)
    draws = torch.rand(
        n, F, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    grad_W, grad_b, grad_c = np.zeros_like(W), np.zeros_like(b), np.zeros_like(c)
    total = 0.0
    for row in range(n):
        rated = np.flatnonzero(mask[row])
        first = expit(c + sum(W[i, k[row, i]] for i in rated))
        h = (draws[row].numpy() < first).astype(float)
        p = {i: softmax(b[i] + W[i] @ h) for i in rated}
        last = expit(c + sum(p[i] @ W[i] for i in rated))
        for i in rated:
            total -= w[row, i] * np.log(p[i][k[row, i]])
            grad_W[i] += w[row, i] * np.outer(p[i], last)
            grad_W[i, k[row, i]] -= w[row, i] * first
            grad_b[i] += w[row, i] * p[i]
            grad_b[i, k[row, i]] -= w[row, i]
        grad_c += w[row, rated].mean() * (last - first)
    assert loss == pytest.approx(total)
    np.testing.assert_allclose(machine.weights.grad, grad_W.reshape(-1, F), atol=1e-12)
    np.testing.assert_allclose(machine.visible_bias.grad, grad_b, atol=1e-12)
    np.testing.assert_allclose(machine.hidden_bias.grad, grad_c, atol=1e-12)


def test_persistent_chains_go_on(generator, rng):
    csr = sp.csr_array(np.ones((3, 4)))
    pattern = Pattern(torch.tensor(csr.indptr), torch.tensor(csr.indices), csr.shape)
    levels = torch.tensor(rng.integers(2, size=12))
    cases = Cases(pattern, levels, None, 2, torch.float64)
    machine = Machine.draw(torch.zeros(4, 2, dtype=torch.float64), 2, generator)
    cases.chain = torch.ones(3, 2, dtype=torch.float64)
    with torch.no_grad():
        machine.hidden_bias += 30  # every chain stays where all units are on
        machine.weights.view(4, 2, 2)[:, 1] += 30
    machine.contrast(cases, 2, True, generator)
    assert (cases.chain == 1).all()
    grad = machine.visible_bias.grad.numpy()
    counts = np.array([np.bincount(k, minlength=2) for k in levels.view(3, 4).T])
    np.testing.assert_allclose(grad, [0, 3] - counts, atol=1e-6)


def test_softmax_regressions_are_those_of_a_general_solver(rng):
    Z = rng.standard_normal((12, 3))
    prior, penalty = rng.standard_normal((4, 3)), rng.random(3) + 0.5
    indptr, indices = np.array([0, 2, 2, 10]), np.array([1, 3, *range(4, 12)])
    levels = rng.integers(4, size=10)

    def solve(entries):
        def loss(w):
            W = w.reshape(4, 3)
            logits = log_softmax(Z[indices[entries]] @ W.T, axis=1)
            distance = (penalty * (W - prior) ** 2).sum() / 2
            return distance - logits[np.arange(len(entries)), levels[entries]].sum()

        return minimize(loss, prior.ravel(), tol=1e-10).x.reshape(4, 3)

    arrays = indptr, indices, levels, Z, penalty, prior
    solutions = solve_softmax_rows(*map(torch.tensor, arrays), leave_one_out=True)
    np.testing.assert_allclose(solutions.coef[0], solve(np.arange(2)), atol=1e-4)
    np.testing.assert_allclose(solutions.coef[1], prior)
    np.testing.assert_allclose(solutions.coef[2], solve(np.arange(2, 10)), atol=1e-4)
    for j in range(2, 10):
        others = np.setdiff1d(np.arange(2, 10), [j])
        exact = softmax(solve(others) @ Z[indices[j]])
        approximate = softmax(solutions.left_out[j].numpy())
        np.testing.assert_allclose(approximate, exact, atol=0.03)


def test_the_score_of_a_matrix_leaves_each_rating_out(model, R):
    rows = R[:12]
    predicted = [model.predict(others)[0, i] for others, i in without_one(rows)]
    exact = r2_score(rows.data, predicted)
    tolerance = 1e-6 if model.kind == "user" else 0.01
    assert model.score(rows) == pytest.approx(exact, abs=tolerance)
    assert model.score(rows, rows) > exact + 0.005  # memory would be rewarded


def test_rows_of_known_users_give_their_hidden_units_again(R, pairs):
    model = make("user").fit(R)
    np.testing.assert_allclose(model.transform(R), model.user_factors_, atol=1e-6)
    X, _ = pairs
    dense = model.predict(R)[X[:, 0], X[:, 1]]
    np.testing.assert_allclose(dense, model.predict(X), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("params", [{}, {"persistent": True, "n_gibbs": 2}])
def test_predictions_beat_the_means_of_items(large, kind, params):
    X, y = ratings_to_samples(large)
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    model = make(kind, **params).fit(X[~is_test], y[~is_test])
    means = model.item_means_[np.searchsorted(model.items_, X[is_test, 1])]
    baseline = r2_score(y[is_test], means)
    assert model.score(X[is_test], y[is_test]) > baseline + 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_new_users_are_predicted_better_than_by_means(large, kind):
    model = make(kind).fit(large[:250])
    rows = large[250:].tocsr()
    baseline = r2_score(rows.data, model.item_means_[rows.indices])
    assert model.score(rows) > baseline + 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_give_the_same_model_bit_for_bit(R, pairs, kind):
    a, b = make(kind).fit(R), make(kind).fit(*pairs)
    for name in ("user_factors_", "weights_", "hidden_biases_", "loss_curve_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.predict(R), b.predict(R))


@pytest.mark.parametrize("kind", KINDS)
def test_weight_zero_equals_absence(pairs, kind):
    X, y = pairs
    weights = np.where(np.arange(len(y)) % 5 == 0, 0.0, 1.0)
    a = make(kind).fit(X, y, sample_weight=weights)
    kept = weights > 0
    b = make(kind).fit(X[kept], y[kept])
    np.testing.assert_allclose(a.predict(X), b.predict(X), atol=1e-3)


def test_a_large_weight_draws_the_prediction_to_its_rating(pairs):
    X, y = pairs
    weights = np.ones(len(y))
    weights[5] = 100
    plain, weighted = (
        abs(make().fit(X, y, sample_weight=w).predict(X[[5]])[0] - y[5])
        for w in (None, weights)
    )
    assert weighted < min(plain, 0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_early_stopping_keeps_the_best_state(pairs, kind):
    params = {
        "kind": kind, "alpha": 0.0, "learning_rate_init": 0.1,
        "learning_rate": "constant", "early_stopping": True, "tol": 0.0,
    }  # fmt: skip
    model = make(**params, max_iter=60, n_iter_no_change=5).fit(*pairs)
    best = int(np.argmax(model.validation_scores_)) + 1
    assert best < model.n_iter_ == len(model.validation_scores_)
    with pytest.warns(ConvergenceWarning, match="stopped at max_iter"):
        other = make(**params, max_iter=best, n_iter_no_change=99).fit(*pairs)
    np.testing.assert_array_equal(model.weights_, other.weights_)


@pytest.mark.parametrize("kind", KINDS)
def test_warm_start_goes_on_where_the_last_fit_ended(pairs, kind):
    X, y = pairs
    known = (X[:, 0] % 7 != 3) & (X[:, 1] % 7 != 3)
    model = make(kind, warm_start=True).fit(X[known], y[known])
    cold = make(kind, max_iter=1).fit(X, y)
    warm = model.set_params(max_iter=1).fit(X, y)
    assert warm.loss_curve_[0] < 0.95 * cold.loss_curve_[0]


@pytest.mark.parametrize(
    "change", [{"n_hidden": N_HIDDEN + 1}, {"kind": "user"}, {"levels": True}]
)
def test_warm_start_refuses_what_it_cannot_continue(pairs, change):
    X, y = pairs
    model = make(warm_start=True).fit(X, y)
    if change.pop("levels", False):
        y = 2 * y
    with pytest.raises(ValueError, match="use warm_start=False"):
        model.set_params(**change).fit(X, y)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_raises_and_leaves_a_model_that_predicts(R, kind):
    model = make(kind).set_callbacks(Interrupt(1))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 2
    assert np.isfinite(model.predict(R)).all()


def test_divergence_keeps_the_last_finite_state(R):
    model = make(learning_rate_init=1e38, alpha=1e3)
    with pytest.warns(ConvergenceWarning, match="diverged in epoch .*Lower"):
        model.fit(R)
    assert np.isfinite(model.predict(R)).all()


def test_ratings_without_levels_are_refused(rng):
    X = np.column_stack([np.repeat(np.arange(20), 10), np.tile(np.arange(10), 20)])
    with pytest.raises(ValueError, match=r"at most 100 .* found 200: round"):
        make().fit(X, rng.random(200))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rating_between_levels_counts_as_the_nearest(R, kind):
    model = make(kind).fit(R)
    moved = R.copy()
    moved.data = moved.data + 0.3
    np.testing.assert_array_equal(model.predict(moved), model.predict(R))


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"kind": "both"}, "kind"),
        ({"n_hidden": 0}, "n_hidden"),
        ({"alpha": -1}, "alpha"),
        ({"n_gibbs": 0}, "n_gibbs"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_bad_parameters_are_refused(R, params, match):
    with pytest.raises(ValueError, match=match):
        make().set_params(**params).fit(R)


def test_a_model_comes_back_as_it_was(model, R, pairs):
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict(R), model.predict(R))
    np.testing.assert_array_equal(copy.predict(pairs[0]), model.predict(pairs[0]))
    assert copy.score(R) == model.score(R)


@pytest.mark.parametrize("form", ["matrix", "pairs"])
def test_grid_search(large, form):
    search = GridSearchCV(
        clone(make("user")), {"alpha": [2.0, 1e4]},
        cv=KFold(2, shuffle=True, random_state=0),
    )  # fmt: skip
    search.fit(*((large,) if form == "matrix" else ratings_to_samples(large)))
    assert search.best_params_ == {"alpha": 2.0}
    assert search.best_estimator_.recommend([0], n_items=3).shape == (3, 3)


def test_unseen_users_and_items_get_means(model):
    ratings = model.predict([[0, 999], [999, 0], [999, 999]])
    means = model.user_means_[0], model.item_means_[0], model.global_mean_
    np.testing.assert_allclose(ratings, means)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_rating_can_be_fitted(kind):
    model = make(kind).fit([["ann", "up"]], [4.0])
    assert model.predict([["ann", "up"], ["bob", "up"]]) == pytest.approx([4.0, 4.0])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_fits_what_the_cpu_fits(R, pairs, kind):
    scores = [make(kind, device=d).fit(R).score(*pairs) for d in ("cpu", "cuda")]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
