import numpy as np
import pytest
import torch
from helpers import Interrupt, standardized, to_ratings, without_one
from sklearn.metrics import r2_score

from skrec import LLORMARegressor
from skrec._core.prior_means import NormalPrior
from skrec._core.variational import Factorization, Vectors
from skrec._factorization.alternation import Alternation
from skrec._factorization.llorma_trainer import LLORMATrainer, VariationalBayes
from skrec._fitting import Fit

AUTO = {"lambda_u": "auto", "lambda_v": "auto"}
both_solvers = pytest.mark.parametrize("solver", [{}, AUTO], ids=["ridge", "auto"])


def make(**params):
    defaults = {
        "n_models": 4, "n_factors": 3, "lambda_u": 3.0, "lambda_v": 2.0,
        "bandwidth": 1.5, "local_penalty_scale": 0.4, "random_state": 0,
        "device": "cpu",
    }  # fmt: skip
    return LLORMARegressor(**(defaults | params))


@pytest.fixture(scope="module", params=[{}, AUTO], ids=["ridge", "auto"])
def model(request, R):
    return make(**request.param).fit(R)


def kernel(vectors, anchor, bandwidth):
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(anchor)
    angles = np.arccos(np.clip(vectors @ anchor / lengths, -1, 1))
    return np.where(angles < bandwidth, 1 - (angles / bandwidth) ** 2, 0)


def formula(model):
    """All predictions by the formula in the Notes."""
    preliminary = model.user_factors_ @ model.item_factors_.T
    preliminary += model.user_biases_[:, None] + model.item_biases_
    # The preliminary model has a weight only if the penalties are estimated.
    vote = 4.0 if model.lambda_u == "auto" else 0.0
    total, weight = vote * preliminary, np.full_like(preliminary, vote)
    local = model.local_user_factors_, model.local_item_factors_
    for U, V, a, b in zip(
        *local, model.user_kernels_, model.item_kernels_, strict=True
    ):
        near = np.outer(a, b)
        weight += near
        total += near * (U[:, :-1] @ V[:, :-1].T + U[:, -1:] + V[:, -1])
    sums = np.where(weight > 0, total / np.where(weight > 0, weight, 1), preliminary)
    return to_ratings(model, sums + model.intercept_)


def test_kernels_follow_from_the_angles_to_the_anchors(model):
    for t, (u, i) in enumerate(
        zip(model.anchor_users_, model.anchor_items_, strict=True)
    ):
        users = kernel(model.user_factors_, model.user_factors_[u], 1.5)
        items = kernel(model.item_factors_, model.item_factors_[i], 1.5)
        np.testing.assert_allclose(model.user_kernels_[t], users, atol=1e-3)
        np.testing.assert_allclose(model.item_kernels_[t], items, atol=1e-3)


def test_anchors_are_among_the_ratings(model, R):
    assert (R[model.anchor_users_, model.anchor_items_] > 0).all()


def test_predictions_are_weighted_means_of_local_models(model, R, pairs):
    X, _ = pairs
    expected = formula(model)
    np.testing.assert_allclose(model.predict(X), expected[X[:, 0], X[:, 1]], atol=1e-4)
    predictor = model._predictor()
    users = predictor.known_users(np.arange(R.shape[0]))
    everyone = predictor.predict_dense(users)
    np.testing.assert_allclose(everyone, expected, atol=1e-4)


@both_solvers
def test_pairs_far_from_all_anchors_get_the_preliminary_model(R, pairs, solver):
    model = make(bandwidth=0.3, n_models=1, **solver).fit(R)
    X, _ = pairs
    far = (model.user_kernels_[0][X[:, 0]] * model.item_kernels_[0][X[:, 1]]) == 0
    assert far.sum() > 100
    preliminary = model.user_factors_ @ model.item_factors_.T + model.intercept_
    preliminary += model.user_biases_[:, None] + model.item_biases_
    expected = to_ratings(model, preliminary[X[far, 0], X[far, 1]])
    np.testing.assert_allclose(model.predict(X[far]), expected, atol=1e-5)


def test_local_users_solve_weighted_ridge_regressions(R):
    """Vectors of users against numpy.linalg.solve, given those of items."""
    model = make(tol=1e-9, max_iter=3000, dtype="float64", n_models=2).fit(R)
    penalty = 0.4 * 3.0
    for t in range(2):
        for u in np.flatnonzero(model.user_kernels_[t] > 0)[:10]:
            row = R[[u]].tocsr()
            k = model.item_kernels_[t][row.indices]
            V = model.local_item_factors_[t][row.indices]
            Z = np.column_stack([V[:, :-1], np.ones(len(V))])
            targets = standardized(model, row.data) - V[:, -1]
            A = Z.T @ (k[:, None] * Z) + penalty * np.eye(4)
            expected = np.linalg.solve(A, Z.T @ (k * targets))
            found = model.local_user_factors_[t][u]
            np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_local_models_are_weighted_factorizations(R, weighted):
    """The kernels times the sample weights are the weights of the ratings."""
    sample_weight = R.copy()
    sample_weight.data = np.random.default_rng(0).uniform(0.5, 2, R.nnz)
    if not weighted:
        sample_weight.data[:] = 1
    params = {"tol": 0.0, "max_iter": 5, "dtype": "float64"} | AUTO
    estimator = make(n_models=1, **params)
    fit = Fit(estimator, R, None, sample_weight if weighted else None)
    trainer = LLORMATrainer(fit, VariationalBayes)
    trainer.step(0, lambda: None)
    state = trainer.generator.get_state()
    trainer.step(1, lambda: None)
    found = trainer.attributes()

    near = np.outer(found["user_kernels_"][0], found["item_kernels_"][0])
    near = near[R.nonzero()]
    part = fit.training.select(near > 0)
    pattern, ratings, _ = fit.tensors(part)
    weights = torch.tensor((near * sample_weight.data)[near > 0])
    generator = torch.Generator().manual_seed(0)
    generator.set_state(state)
    cpu = torch.device("cpu")
    users, items = (Vectors.draw(n, 3, torch.float64, generator, cpu) for n in R.shape)
    priors = [NormalPrior.start(3, 0, torch.float64, cpu) for _ in range(2)]
    expected = Factorization(pattern, ratings, weights, users, items, *priors)
    for _ in range(5):
        expected.sweep()
    for name, tensor in [
        ("local_user_factors_", users.mean),
        ("local_item_factors_", items.mean),
        ("_local_item_covariances", items.covariance),
        ("local_user_prior_means_", priors[0].center),
        ("local_user_prior_covariances_", priors[0].covariance),
        ("local_noise_variances_", expected.noise),
    ]:
        np.testing.assert_allclose(found[name][0], tensor, rtol=1e-6, atol=1e-9)


@both_solvers
def test_folding_in_recovers_converged_users(R, solver):
    params = {"n_models": 2, "tol": 1e-9, "max_iter": 3000, "dtype": "float64"}
    model = make(**params, **solver).fit(R)
    np.testing.assert_allclose(model.predict(R), formula(model), atol=0.02)
    np.testing.assert_allclose(model.transform(R), model.user_factors_, atol=1e-2)


@both_solvers
@pytest.mark.parametrize("bandwidth", [0.8, 1.5, 3.0])
def test_the_score_of_a_matrix_leaves_each_rating_out(R, bandwidth, solver):
    model = make(bandwidth=bandwidth, dtype="float64", **solver).fit(R)
    rows = R[:12].tocsr()
    predicted = [model.predict(others)[0, i] for others, i in without_one(rows)]
    left_out = model._predictor().predict_left_out(rows)
    np.testing.assert_allclose(left_out, predicted, atol=1e-5)
    assert model.score(rows) == pytest.approx(r2_score(rows.data, predicted))


@both_solvers
def test_predictions_beat_item_means(pairs, solver):
    X, y = pairs
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    model = make(**solver).fit(X[~is_test], y[~is_test])
    means = model.item_means_[np.searchsorted(model.items_, X[is_test, 1])]
    baseline = r2_score(y[is_test], means)
    assert model.score(X[is_test], y[is_test]) > baseline + 0.05


@both_solvers
def test_early_stopping_keeps_the_best_number_of_models(pairs, solver):
    model = make(n_models=30, early_stopping=True, tol=1e-3, **solver).fit(*pairs)
    scores = model.validation_scores_
    assert model.n_iter_ == len(scores) <= 30
    n_kept = int((model.user_kernels_ > 0).any(axis=1).sum())
    assert n_kept == int(np.argmax(scores))


@both_solvers
def test_an_interrupt_between_models_keeps_earlier_models(R, solver):
    model = make(**solver).set_callbacks(Interrupt(1))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 2
    np.testing.assert_array_equal((model.user_kernels_ > 0).any(1), [1, 0, 0, 0])
    assert np.isfinite(model.predict(R)).all()


@both_solvers
def test_an_interrupt_within_a_model_keeps_earlier_models(R, monkeypatch, solver):
    cls = Factorization if solver else Alternation
    improve, calls = cls.improve, []

    def interrupted(self, side, others):
        calls.extend([None] if side is self.items else [])
        if len(calls) == 60 and side is self.items:
            raise KeyboardInterrupt
        improve(self, side, others)

    monkeypatch.setattr(cls, "improve", interrupted)
    model = make(tol=0.0, max_iter=20, **solver)
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 2
    assert (model.user_kernels_ > 0).any(1).sum() == 1
    assert np.isfinite(model.predict(R)).all()


def test_a_refit_with_numbers_drops_the_estimates(R):
    model = make(**AUTO).fit(R)
    assert model.local_noise_variances_.min() > 0
    model.set_params(lambda_u=1.0, lambda_v=1.0).fit(R)
    assert not hasattr(model, "local_noise_variances_")
    assert model.predict(R).shape == R.shape


def test_local_penalty_is_ignored_if_penalties_are_estimated(R):
    one, other = (make(local_penalty_scale=p, **AUTO).fit(R) for p in (0.1, 10.0))
    np.testing.assert_array_equal(one.predict(R), other.predict(R))


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_models": 0}, "n_models"),
        ({"bandwidth": 0.0}, "bandwidth"),
        ({"local_penalty_scale": 0.0}, "local_penalty_scale"),
        ({"lambda_u": 0.0}, "lambda_u"),
        ({"lambda_v": -1.0}, "lambda_v"),
        ({"lambda_v": "auto"}, "both be 'auto' or both be numbers"),
    ],
)
def test_bad_parameters_are_refused(R, params, match):
    with pytest.raises(ValueError, match=match):
        make().set_params(**params).fit(R)
