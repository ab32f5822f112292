import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import without_one
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import r2_score

from skrec import BaselineRegressor, RBMRegressor
from skrec._core.rbm import Cases, Machine, at_levels
from skrec._core.softmax import solve_softmax_rows
from skrec._core.sparse import Pattern
from skrec._networks.rbm_trainer import nearest_levels, quantize
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

KINDS = ["item", "user"]
N_HIDDEN, N_LEVELS = 6, 5


def make(kind="item", **params):
    """A small machine, by default one of the paper, without effects."""
    defaults = {
        "n_hidden": N_HIDDEN, "alpha": 2.0, "learning_rate_init": 0.02,
        "batch_size": 20, "max_iter": 30, "random_state": 0, "device": "cpu",
        "baseline": False,
    }  # fmt: skip
    return RBMRegressor(kind=kind, **(defaults | params))


@pytest.fixture(scope="module")
def large():
    """Enough ratings to learn to predict others."""
    return make_ratings(300, 80, density=0.4, noise=0.3, random_state=0).R


@pytest.fixture(scope="module", params=KINDS)
def model(request, R):
    return make(request.param).fit(R)


@pytest.fixture(scope="module", params=KINDS)
def with_effects(request, R):
    return make(request.param, baseline=True).fit(R)


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


@pytest.mark.parametrize(
    ("weighted", "center"), [(False, 0.0), (True, 0.0), (True, 0.5)]
)
def test_the_gradient_equals_contrastive_divergence(generator, rng, weighted, center):
    """CD-1 in dense loops, with samples of the same generator."""
    n, n_visible, n_levels, F = 4, 6, 3, 5
    mask = rng.random((n, n_visible)) < 0.6
    mask[:, 0] = True
    csr = sp.csr_array(mask)
    k = rng.integers(n_levels, size=(n, n_visible))
    w = rng.random((n, n_visible)) + 0.5 if weighted else np.ones((n, n_visible))
    log_rates = torch.tensor(rng.standard_normal((n_visible, n_levels)))
    machine = Machine.draw(log_rates, F, generator, center)
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
        p = {i: softmax(b[i] + W[i] @ (h - center)) for i in rated}
        last = expit(c + sum(p[i] @ W[i] for i in rated))
        for i in rated:
            total -= w[row, i] * np.log(p[i][k[row, i]])
            grad_W[i] += w[row, i] * np.outer(p[i], last - center)
            grad_W[i, k[row, i]] -= w[row, i] * (first - center)
            grad_b[i] += w[row, i] * p[i]
            grad_b[i, k[row, i]] -= w[row, i]
        grad_c += w[row, rated].mean() * (last - first)
    assert loss == pytest.approx(total)
    np.testing.assert_allclose(machine.weights.grad, grad_W.reshape(-1, F), atol=1e-12)
    np.testing.assert_allclose(machine.visible_bias.grad, grad_b, atol=1e-12)
    np.testing.assert_allclose(machine.hidden_bias.grad, grad_c, atol=1e-12)


def test_persistent_chains_continue(generator, rng):
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


@pytest.mark.parametrize("given", [False, True])
def test_softmax_regressions_equal_a_general_solver(rng, given):
    Z = rng.standard_normal((12, 3))
    intercept = rng.standard_normal(4) if given else np.zeros(4)
    prior, penalty = rng.standard_normal((4, 3)), rng.random(3) + 0.5
    indptr, indices = np.array([0, 2, 2, 10]), np.array([1, 3, *range(4, 12)])
    levels = rng.integers(4, size=10)

    def solve(entries):
        def loss(w):
            W = w.reshape(4, 3)
            logits = log_softmax(Z[indices[entries]] @ W.T + intercept, axis=1)
            distance = (penalty * (W - prior) ** 2).sum() / 2
            return distance - logits[np.arange(len(entries)), levels[entries]].sum()

        return minimize(loss, prior.ravel(), tol=1e-10).x.reshape(4, 3)

    arrays = indptr, indices, levels, Z, penalty, prior
    solutions = solve_softmax_rows(
        *map(torch.tensor, arrays),
        intercept=torch.tensor(intercept) if given else None,
        leave_one_out=True,
    )
    np.testing.assert_allclose(solutions.coef[0], solve(np.arange(2)), atol=1e-4)
    np.testing.assert_allclose(solutions.coef[1], prior)
    np.testing.assert_allclose(solutions.coef[2], solve(np.arange(2, 10)), atol=1e-4)
    for j in range(2, 10):
        others = np.setdiff1d(np.arange(2, 10), [j])
        exact = softmax(solve(others) @ Z[indices[j]] + intercept)
        approximate = softmax(solutions.left_out[j].numpy())
        np.testing.assert_allclose(approximate, exact, atol=0.03)


def test_the_score_of_a_matrix_leaves_each_rating_out(model, R):
    rows = R[:12]
    predicted = [model.predict(others)[0, i] for others, i in without_one(rows)]
    exact = r2_score(rows.data, predicted)
    tolerance = 1e-6 if model.kind == "user" else 0.01
    assert model.score(rows) == pytest.approx(exact, abs=tolerance)
    assert model.score(rows, rows) > exact + 0.005  # each rating predicts itself


def test_folding_in_recovers_hidden_units_of_known_users(R, pairs):
    model = make("user").fit(R)
    np.testing.assert_allclose(model.transform(R), model.user_factors_, atol=1e-6)
    X, _ = pairs
    dense = model.predict(R)[X[:, 0], X[:, 1]]
    np.testing.assert_allclose(dense, model.predict(X), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "params", [{}, {"persistent": True, "n_gibbs": 2}, {"baseline": True}]
)
def test_predictions_beat_item_means(large, kind, params):
    X, y = ratings_to_samples(large)
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    model = make(kind, **params).fit(X[~is_test], y[~is_test])
    means = model.item_means_[np.searchsorted(model.items_, X[is_test, 1])]
    baseline = r2_score(y[is_test], means)
    assert model.score(X[is_test], y[is_test]) > baseline + 0.02


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("baseline", [False, True])
def test_predictions_for_new_users_beat_item_means(large, kind, baseline):
    model = make(kind, baseline=baseline).fit(large[:250])
    rows = large[250:].tocsr()
    baseline = r2_score(rows.data, model.item_means_[rows.indices])
    assert model.score(rows) > baseline + 0.02


@pytest.mark.parametrize(
    "change",
    [
        {"n_hidden": N_HIDDEN + 1},
        {"kind": "user"},
        {"levels": True},
        {"baseline": True},
    ],
)
def test_warm_start_refuses_other_sizes_kinds_and_levels(pairs, change):
    X, y = pairs
    model = make(warm_start=True).fit(X, y)
    if "levels" in change:
        change, y = {}, 2 * y
    with pytest.raises(ValueError, match="use warm_start=False"):
        model.set_params(**change).fit(X, y)


def test_too_many_rating_levels_are_refused(rng):
    X = np.column_stack([np.repeat(np.arange(20), 10), np.tile(np.arange(10), 20)])
    with pytest.raises(ValueError, match=r"at most 100 .* found 200: .* baseline=True"):
        make().fit(X, rng.random(200))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rating_between_levels_counts_as_the_nearest_level(R, kind):
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
        ({"n_levels": 1}, "n_levels"),
        ({"baseline": "yes"}, "baseline"),
    ],
)
def test_bad_parameters_are_refused(R, params, match):
    with pytest.raises(ValueError, match=match):
        make().set_params(**params).fit(R)


# With effects


def residuals_of(model, rows, users):
    """Standardized ratings less the effects of the users and of the items."""
    standardized = (rows.data - model.global_mean_) / model.rating_std_
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    return standardized - users[row] - model.item_effects_[rows.indices]


def test_the_effects_are_those_of_the_baseline(with_effects, R):
    baseline = BaselineRegressor().fit(R)
    std = with_effects.rating_std_
    effects = std * with_effects.user_effects_, std * with_effects.item_effects_
    np.testing.assert_allclose(effects[0], baseline.user_factors_[:, 0], atol=1e-6)
    np.testing.assert_allclose(effects[1], baseline.item_biases_, atol=1e-6)
    np.testing.assert_allclose(with_effects.user_means_, baseline.user_means_)
    np.testing.assert_allclose(with_effects.item_means_, baseline.item_means_)


def test_pairs_get_effects_plus_the_expected_level(with_effects, R, pairs):
    model, (X, _) = with_effects, pairs
    residuals = residuals_of(model, R, model.user_effects_)
    residuals -= residuals.mean()
    levels = np.abs(residuals[:, None] - model.levels_).argmin(axis=1)
    means = [residuals[levels == k].mean() for k in range(3)]
    np.testing.assert_allclose(model.levels_, means)

    _, W, b = dense_parts(model)
    counts = np.bincount(levels)
    np.testing.assert_allclose(softmax(b, axis=1), [counts / counts.sum()] * len(b))
    assert not model.hidden_biases_.any()
    rows = sp.csr_array((levels + 1, R.indices, R.indptr), shape=R.shape).toarray()
    rows = rows.T if model.kind == "item" else rows
    one_hot = (rows[..., None] == [1, 2, 3]).astype(float)
    h = expit(np.einsum("nvl,vlf->nf", one_hot, W))
    np.testing.assert_allclose(model.hidden_probabilities_, h, atol=1e-5)

    table = expected(h - 0.5, W, b, model.levels_)
    table = table.T if model.kind == "item" else table
    table = table + model.user_effects_[:, None] + model.item_effects_
    ratings = model.global_mean_ + model.rating_std_ * table[X[:, 0], X[:, 1]]
    np.testing.assert_allclose(model.predict(X), ratings.clip(1, 5), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_without_information_the_effects_alone_are_predicted(R, pairs, kind):
    X, _ = pairs
    params = {"alpha": 1e9, "learning_rate_init": 1e-3, "max_iter": 100}
    model = make(kind, baseline=True, batch_size=None, **params).fit(R)
    assert np.abs(model.weights_).max() < 0.01
    baseline = BaselineRegressor().fit(R)
    np.testing.assert_allclose(model.predict(X), baseline.predict(X), atol=2e-3)
    np.testing.assert_allclose(model.predict(R), baseline.predict(R), atol=2e-3)
    assert model.score(R) == pytest.approx(baseline.score(R), abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_few_ratings_are_not_overfitted(kind):
    R = make_ratings(400, 200, density=0.02, noise=1.0, random_state=0).R
    X, y = ratings_to_samples(R)
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    models = RBMRegressor(kind=kind, random_state=0), BaselineRegressor()
    scores = [
        model.fit(X[~is_test], y[~is_test]).score(X[is_test], y[is_test])
        for model in models
    ]
    assert scores[0] > scores[1] - 0.005


def test_new_rows_are_described_by_their_effect_and_levels(R):
    model = make("user", baseline=True).fit(R)
    rows = R[:5].tocsr()
    residuals = residuals_of(model, rows, np.zeros(5))
    sums = np.add.reduceat(residuals, rows.indptr[:-1])
    effects = sums / (np.diff(rows.indptr) + BaselineRegressor().fit(R).lambda_u_)
    everyone = residuals_of(model, R, model.user_effects_)
    own = residuals_of(model, rows, effects) - everyone.mean()
    levels = np.abs(own[:, None] - model.levels_).argmin(axis=1)
    for i, (start, end) in enumerate(zip(rows.indptr, rows.indptr[1:], strict=False)):
        weights = model.weights_[rows.indices[start:end], levels[start:end]]
        h = expit(weights.sum(axis=0))
        np.testing.assert_allclose(model.transform(rows)[i], h, atol=1e-5)
        _, W, b = dense_parts(model)
        predicted = expected(h[None] - 0.5, W, b, model.levels_)[0]
        predicted = predicted + effects[i] + model.item_effects_
        ratings = model.global_mean_ + model.rating_std_ * predicted
        found = model.predict(rows)[i]
        np.testing.assert_allclose(found, ratings.clip(1, 5), atol=1e-4)


def test_with_effects_the_score_of_a_matrix_leaves_each_rating_out(
    with_effects, R, monkeypatch
):
    # Several chunks of ratings
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 500)
    model, rows = with_effects, R[:12]
    predicted = [model.predict(others)[0, i] for others, i in without_one(rows)]
    exact = r2_score(rows.data, predicted)
    tolerance = 1e-6 if model.kind == "user" else 0.02
    assert model.score(rows) == pytest.approx(exact, abs=tolerance)
    assert model.score(rows, rows) > exact + 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_with_effects_ratings_may_be_continuous(rng, kind):
    X = np.column_stack([np.repeat(np.arange(40), 30), np.tile(np.arange(30), 40)])
    tastes = rng.standard_normal((40, 1)) @ rng.standard_normal((1, 30))
    y = tastes.ravel() + 0.1 * rng.standard_normal(1200)
    is_test = rng.random(1200) < 0.2
    model = make(kind, baseline=True, alpha=0.5, learning_rate_init=0.1)
    model.fit(X[~is_test], y[~is_test])
    baseline = BaselineRegressor().fit(X[~is_test], y[~is_test])
    score = model.score(X[is_test], y[is_test])
    assert score > baseline.score(X[is_test], y[is_test]) + 0.2
    assert len(model.levels_) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_with_effects_a_warm_start_takes_new_ratings_in_another_unit(pairs, kind):
    X, y = pairs
    model = make(kind, baseline=True, warm_start=True).fit(X[50:], y[50:])
    first = model.loss_curve_[0] / len(y[50:])
    model.fit(X, 3 * y + 1)
    assert model.loss_curve_[0] / len(y) < 0.95 * first
    with pytest.raises(ValueError, match="use warm_start=False"):
        model.set_params(n_levels=4).fit(X, y)


@pytest.mark.parametrize("kind", KINDS)
def test_with_effects_early_stopping_scores_ratings(R, kind):
    model = make(kind, baseline=True, early_stopping=True, max_iter=5).fit(R)
    # The effects alone explain a part of the ratings.
    assert min(model.validation_scores_) > 0.15


@pytest.mark.parametrize("weighted", [False, True])
def test_levels_are_means_of_the_nearest_values(rng, weighted):
    values = np.concatenate([rng.normal(m, 0.1, 50) for m in (-2, 0, 5)])
    weights = rng.random(150) + 0.5 if weighted else None
    levels = quantize(values, weights, 3)
    parts = np.arange(150).reshape(3, 50)
    given = np.ones(150) if weights is None else weights
    means = [np.average(values[part], weights=given[part]) for part in parts]
    np.testing.assert_allclose(levels, means)
    # No shift of a level reduces the distances.
    levels = quantize(values, weights, 5)
    nearest = np.abs(values[:, None] - levels).argmin(axis=1)
    means = [
        np.average(values[nearest == k], weights=given[nearest == k]) for k in range(5)
    ]
    np.testing.assert_allclose(levels, means)


def test_there_are_at_most_as_many_levels_as_values():
    np.testing.assert_array_equal(quantize(np.array([2.0, 1.0, 2.0]), None, 3), [1, 2])
    np.testing.assert_array_equal(quantize(np.zeros(4), None, 3), [0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_automatic_batch_has_an_eighth_of_the_cases(R, kind):
    n_cases = R.shape[kind == "item"]
    own = make(kind, batch_size=-(-n_cases // 8)).fit(R)
    automatic = make(kind, batch_size="auto").fit(R)
    np.testing.assert_array_equal(automatic.weights_, own.weights_)
    other = make(kind, batch_size=n_cases).fit(R)
    assert not np.array_equal(automatic.weights_, other.weights_)


def test_weights_that_are_not_trained_have_no_gradient(generator):
    crow, col = torch.tensor([0, 2]), torch.tensor([0, 1])
    cases = Cases(
        Pattern(crow, col, (1, 2)), torch.tensor([0, 1]), None, 2, torch.float64
    )
    machine = Machine.draw(torch.zeros(2, 2, dtype=torch.float64), 3, generator, 0.5)
    machine.visible_bias.requires_grad_(False)
    machine.hidden_bias.requires_grad_(False)
    machine.contrast(cases, 1, False, generator)
    assert machine.weights.grad is not None
    assert machine.visible_bias.grad is None
    assert machine.hidden_bias.grad is None


def test_there_may_be_more_levels_than_a_byte_holds(rng):
    X = np.column_stack([np.repeat(np.arange(40), 30), np.tile(np.arange(30), 40)])
    y = rng.standard_normal(1200)
    y = (y - y.mean()) / y.std()
    model = make("user", baseline=True, n_levels=300, max_iter=1).fit(X, y)
    user, item = X.T
    residuals = y - model.user_effects_[user] - model.item_effects_[item] - model._shift
    levels = nearest_levels(model.levels_, residuals)
    assert levels.max() == 299
    W = model.weights_[item, levels].reshape(40, 30, -1)
    expected = expit(W.sum(1) + model.hidden_biases_)
    np.testing.assert_allclose(model.hidden_probabilities_, expected, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_weight_of_a_row_is_the_mean_of_its_ratings(weighted):
    pattern = Pattern(torch.tensor([0, 1, 1, 3]), torch.tensor([1, 0, 1]), (3, 2))
    weights = torch.tensor([0.5, 1.0, 4.0]) if weighted else None
    cases = Cases(pattern, torch.zeros(3).long(), weights, 2, torch.float32)
    assert cases.row_weights.tolist() == ([0.5, 0, 2.5] if weighted else [1, 0, 1])


@torch.no_grad()
def test_left_out_ratings_of_a_centered_machine(generator):
    machine = Machine.draw(torch.zeros(3, 2).double(), 4, generator, 0.5)
    machine.weights.normal_(generator=generator)
    pattern = Pattern(torch.tensor([0, 3]), torch.tensor([0, 1, 2]), (1, 3))
    levels = torch.tensor([1, 0, 1])
    found = machine.leave_one_out(pattern, levels)(slice(0, 3))
    for rating in range(3):
        others = [i for i in range(3) if i != rating]
        rest = Pattern(torch.tensor([0, 2]), torch.tensor(others), (1, 3))
        h = machine.hidden(rest, levels[others])
        log_p = machine.log_visible(pattern, h)[:, rating]
        expected = log_p - log_p.logsumexp(0)
        torch.testing.assert_close(found[rating].log_softmax(0), expected)


def test_levels_of_very_many_units_have_long_positions():
    n_visible = 2**29
    pattern = Pattern(
        torch.tensor([0, 1]), torch.tensor([n_visible - 1]), (1, n_visible)
    )
    levels = at_levels(pattern, torch.tensor([6], dtype=torch.uint8), 8)
    assert levels.col.tolist() == [8 * n_visible - 2]
