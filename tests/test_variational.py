"""Variational factorization: the bound, the posteriors and the fitted models."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone

import skrec._core.chunks
from skrec import BayesianMFRegressor, BiasedMFRegressor, SVDppRegressor
from skrec._core import prior_means, variational
from skrec._core.canonical import canonical_bases, transform
from skrec._core.normal_rows import with_ones
from skrec._core.prior_means import Coefficients, Features, NormalPrior, solve_means
from skrec._core.sparse import Pattern
from skrec._core.symmetric import Triangle
from skrec._core.variational import (
    Factorization,
    Moments,
    Vectors,
    fold_in,
    leave_out,
)
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

pytestmark = pytest.mark.filterwarnings("ignore:.*stopped at max_iter")

CPU = torch.device("cpu")

ESTIMATORS = [
    BiasedMFRegressor(random_state=0),
    SVDppRegressor(implicit="users", random_state=0),
    SVDppRegressor(implicit="items", random_state=0),
    SVDppRegressor(random_state=0),
]
IDS = ["BiasedMF", "users", "items", "both"]


def make_features(n, rng):
    """Two blocks of features of all rows but one."""
    values = torch.tensor(rng.normal(size=(n, 5)))
    is_known = torch.arange(n) != 2
    block = torch.tensor([0, 0, 1, 1, 1])
    return Features(values, values[is_known].mean(0), block, is_known)


def make_factorization(
    links=(False, False), weighted=False, k=3, seed=0, features=(False, False)
):
    """Random ratings of 20 users and 15 items; some have none or a single one."""
    rng = np.random.default_rng(seed)
    mask = rng.random((20, 15)) < 0.5
    mask[3] = False
    mask[5] = np.arange(15) == 7
    mask[:, 4] = False
    matrix = sp.csr_array(np.where(mask, rng.normal(size=mask.shape), 0))
    pattern = Pattern(
        torch.tensor(matrix.indptr), torch.tensor(matrix.indices), matrix.shape
    )
    weights = torch.tensor(rng.uniform(0.5, 2, matrix.nnz)) if weighted else None
    generator = torch.Generator().manual_seed(seed)
    users, items = (
        Vectors.draw(n, k, torch.float64, generator, CPU) for n in matrix.shape
    )
    counts = [n * has for n, has in zip(matrix.shape[::-1], links, strict=True)]
    known = [
        make_features(n, rng) if has else None
        for n, has in zip(matrix.shape, features, strict=True)
    ]
    priors = [
        NormalPrior.start(k, n, torch.float64, CPU, some)
        for n, some in zip(counts, known, strict=True)
    ]
    ratings = torch.tensor(matrix.data)
    return Factorization(pattern, ratings, weights, users, items, *priors, *known)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "links", [(False, False), (True, False), (False, True), (True, True)]
)
@pytest.mark.parametrize("features", [(False, False), (True, True)])
def test_evidence_bound_never_falls(links, weighted, features, monkeypatch):
    # Only the estimates of the links' precision are not steps up the bound.
    monkeypatch.setattr(variational, "fit_precisions", lambda *args: None)
    model = make_factorization(links, weighted, features=features)
    model.sweep()
    losses = [model.loss()]
    for _ in range(20):
        for sides in (model.users, model.items), (model.items, model.users):
            model.improve(*sides)
            losses.append(model.loss())
    assert np.all(np.diff(losses) <= 1e-9 * np.abs(losses[:-1]))
    assert losses[-1] < losses[0] - 1


def test_evidence_bound_is_that_of_the_definition():
    """The bound, term by term, with loops over ratings and vectors."""
    model = make_factorization(weighted=True)
    for _ in range(3):
        loss = model.sweep()
    side_u, side_i = model.users, model.items
    noise = float(model.noise)
    triangle = Triangle(4, CPU)
    covariances = [
        triangle.unpack(side.vectors.covariance).numpy() for side in (side_u, side_i)
    ]
    U, V = (side.vectors.mean.numpy() for side in (side_u, side_i))
    bound = 0.0
    rows, cols = side_u.pattern.row.numpy(), side_u.pattern.col.numpy()
    for u, i, r, w in zip(
        rows, cols, side_u.ratings.numpy(), side_u.weights.numpy(), strict=True
    ):
        z, x = np.append(V[i, :-1], 1), np.append(U[u, :-1], 1)
        inner = np.zeros((4, 4))
        inner[:3, :3] = covariances[1][i][:3, :3]
        error = (r - U[u] @ z - V[i, -1]) ** 2
        error += np.sum(covariances[0][u] * (np.outer(z, z) + inner))
        error += x @ covariances[1][i] @ x
        bound -= 0.5 * (np.log(2 * np.pi * noise / w) + w * error / noise)
    for side, means, S in (side_u, U, covariances[0]), (side_i, V, covariances[1]):
        center, C = side.prior.center.numpy(), side.prior.covariance.numpy()
        L, log_det = np.linalg.inv(C), np.linalg.slogdet(C)[1]
        for n in np.flatnonzero(np.diff(side.pattern.crow)):
            second = np.outer(means[n] - center, means[n] - center) + S[n]
            bound += 0.5 * (np.linalg.slogdet(S[n])[1] - log_det)
            bound += 0.5 * (4 - np.sum(L * second))
        observed = np.full(4, variational._PRIOR_FACTOR_VARIANCE)
        observed[-1] = variational._PRIOR_BIAS_VARIANCE
        bound -= 0.5 * (log_det + observed @ np.diag(L))
        bound -= 0.5 * prior_means.CENTER_PRECISION * center @ center
    assert loss == pytest.approx(-bound, rel=1e-10)


def test_prior_means_minimize_their_objective(monkeypatch, rng):
    """Center, links and weights solve the normal equations of all rows."""
    monkeypatch.setattr(prior_means, "_TOLERANCE", 1e-10)
    model = make_factorization((False, True), features=(False, True))
    for _ in range(3):
        model.sweep()
    side, k = model.items, 4
    L = torch.linalg.inv(side.prior.covariance)
    G, q = (
        torch.tensor(rng.normal(size=(15, k, k))),
        torch.tensor(rng.normal(size=(15, k))),
    )
    S = torch.linalg.inv(L + G @ G.mT)
    q[~side.is_rated] = 0
    coefficients = Coefficients(
        side.prior, side.pattern, side.transposed, side.features
    )
    solve_means(coefficients, L, Triangle(k, CPU).pack(S), q)
    # The inputs of the rows: constant, links and features
    inputs = np.ones((15, 1 + 20 + 5))
    pattern = np.zeros((15, 20))
    pattern[side.pattern.row, side.pattern.col] = 1
    inputs[:, 1:21] = pattern / np.sqrt(pattern.sum(1, keepdims=True).clip(1))
    inputs[:, 21:] = side.features.values - side.features.center
    inputs[2, 21:] = 0
    A = np.diag(coefficients.penalties().numpy().ravel())
    for n in np.flatnonzero(np.diff(side.pattern.crow)):
        P = (L - L @ S[n] @ L).numpy()
        A += np.kron(np.outer(inputs[n], inputs[n]), P)
    expected = np.linalg.solve(A, (inputs.T @ q.numpy()).ravel())
    found = coefficients.stack().numpy().ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    means = side.prior.means(side.pattern, side.features)
    np.testing.assert_allclose(means, inputs @ found.reshape(-1, k), atol=1e-9)


def test_predictions_are_sums_of_products_and_biases():
    model = make_factorization()
    model.sweep()
    U, V = model.users.vectors.mean, model.items.vectors.mean
    pattern = model.users.pattern
    expected = U[:, :-1] @ V[:, :-1].T + U[:, -1:] + V[:, -1]
    expected = expected[pattern.row.long(), pattern.col.long()]
    torch.testing.assert_close(model.predict(pattern), expected)


@pytest.mark.parametrize("links", [False, True])
def test_weighted_ratings_left_out_equal_folding_in_the_others(links):
    model = make_factorization((links, False), weighted=True)
    for _ in range(3):
        model.sweep()
    side, moments = model.users, Moments(model.items.vectors)
    pattern, noise = side.pattern, float(model.noise)
    rated = side.ratings, side.weights
    vectors, predicted = leave_out(moments, side.prior, noise, pattern, *rated)
    z = with_ones(model.items.vectors.mean)
    for j in range(0, pattern.nnz, 7):
        row, col = int(pattern.row[j]), int(pattern.col[j])
        keep = (pattern.row == row) & (torch.arange(pattern.nnz) != j)
        crow = torch.tensor([0, int(keep.sum())])
        others = Pattern(crow, pattern.col[keep], (1, pattern.shape[1]))
        rest = [t[keep] for t in rated]
        expected = fold_in(moments, side.prior, noise, others, *rest)[0]
        torch.testing.assert_close(vectors[j], expected)
        prediction = expected @ z[col] + model.items.vectors.mean[col, -1]
        torch.testing.assert_close(predicted[j], prediction)


def test_sparse_features_are_those_of_the_dense_matrix(rng):
    dense = np.where(rng.random((9, 5)) < 0.4, rng.normal(size=(9, 5)), 0)
    csr = sp.csr_array(dense)
    pattern = Pattern(torch.tensor(csr.indptr), torch.tensor(csr.indices), csr.shape)
    center, block = torch.tensor(dense.mean(0)), torch.tensor([0, 0, 1, 1, 1])
    is_known = torch.arange(9) != 4
    one, other = (
        Features(values, center, block, is_known)
        for values in (torch.tensor(dense), (pattern, torch.tensor(csr.data)))
    )
    weights, x = (torch.tensor(rng.normal(size=(n, 3))) for n in (5, 9))
    torch.testing.assert_close(one.means(weights), other.means(weights))
    torch.testing.assert_close(one.gather(x), other.gather(x))
    torch.testing.assert_close(one.gather_squares(x), other.gather_squares(x))
    centered = is_known.unsqueeze(1) * (torch.tensor(dense) - center)
    torch.testing.assert_close(one.gather_squares(x), (centered**2).T @ x)
    for features in one, other:
        torch.testing.assert_close(features.dense(), centered)


def test_chunks_do_not_change_the_result(monkeypatch):
    expected = make_factorization((True, True))
    losses = [expected.sweep() for _ in range(3)]
    monkeypatch.setattr(skrec._core.chunks, "CHUNK", 150)
    model = make_factorization((True, True))
    np.testing.assert_allclose([model.sweep() for _ in range(3)], losses, rtol=1e-10)


def test_weights_are_relative():
    """The noise variance absorbs the scale of all weights."""
    one, other = (make_factorization(weighted=True) for _ in range(2))
    for side in other.users, other.items:
        side.weights *= 4
        side.total *= 4
    other.noise *= 4
    for _ in range(3):
        one.sweep()
        other.sweep()
    torch.testing.assert_close(one.users.vectors.mean, other.users.vectors.mean)
    torch.testing.assert_close(4 * one.noise, other.noise)


def test_canonical_bases():
    model = make_factorization()
    for _ in range(10):
        model.sweep()
    sides = model.users, model.items
    bases = canonical_bases(*(side.vectors for side in sides), float(model.noise), 0.0)
    (U, S), (V, _) = (
        transform(side.vectors, side.prior, basis)[0]
        for side, basis in zip(sides, bases, strict=True)
    )
    before = sides[0].vectors.mean[:, :-1] @ sides[1].vectors.mean[:, :-1].T
    torch.testing.assert_close(U[:, :-1] @ V[:, :-1].T, before)
    triangle = Triangle(4, CPU)
    moments = U.T @ U / len(U) + triangle.unpack(S.mean(0, keepdim=True))[0]
    factors = moments[:-1, :-1]
    torch.testing.assert_close(factors, torch.diag(factors.diagonal()))
    assert torch.all(factors.diagonal().diff() <= 0)


def test_factors_that_explain_nothing_are_dropped():
    rng = np.random.default_rng(0)
    effects = np.add.outer(rng.normal(size=60), rng.normal(size=40))
    R = sp.csr_array(effects + rng.normal(0, 0.5, effects.shape))
    model = BiasedMFRegressor(n_factors=8, tol=0, max_iter=100, random_state=0).fit(R)
    assert model.user_factors_.shape == (60, 1)
    assert model.item_prior_covariance_.shape == (2, 2)
    assert model.score(R) > 0.85


def test_moments():
    model = make_factorization()
    model.sweep()
    vectors = model.items.vectors
    moments = Moments(vectors)
    covariances = moments.triangle.unpack(vectors.covariance)
    z = torch.cat([vectors.mean[:, :-1], torch.ones(15, 1)], 1)
    expected = z.unsqueeze(2) * z.unsqueeze(1)
    expected[:, :-1, :-1] += covariances[:, :-1, :-1]
    torch.testing.assert_close(moments.triangle.unpack(moments.products), expected)
    expected = z * vectors.mean[:, -1:]
    expected[:, :-1] += covariances[:, :-1, -1]
    torch.testing.assert_close(moments.z_bias, expected)


@pytest.fixture(scope="module")
def data():
    return make_ratings(n_users=200, n_items=60, random_state=0).R


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=IDS)
def test_left_out_is_a_refit_of_the_row(estimator, data):
    model = clone(estimator).set_params(dtype="float64", clip=False).fit(data[:150])
    rows = data[150:155].tocsr()
    left_out = model._predictor().predict_left_out(rows)
    for entry in range(0, rows.nnz, 3):
        row = np.searchsorted(rows.indptr, entry, side="right") - 1
        others = rows[[row]].tolil()
        others[0, rows.indices[entry]] = 0
        others = others.tocsr()
        others.eliminate_zeros()
        expected = model.predict(others)[0, rows.indices[entry]]
        assert left_out[entry] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("estimator", ESTIMATORS[:2], ids=IDS[:2])
def test_fold_in_is_the_last_half_step(estimator, data):
    """A user of `fit`, folded in, has the vector of the next half step."""
    model = clone(estimator).set_params(dtype="float64", tol=0, max_iter=300).fit(data)
    np.testing.assert_allclose(model.transform(data), model.user_factors_, atol=2e-2)


@pytest.mark.parametrize("estimator", [ESTIMATORS[0], ESTIMATORS[3]], ids=["MF", "++"])
def test_agrees_with_gibbs_sampling(estimator):
    """On a small problem, means and standard deviations are near those of samples."""
    R = make_ratings(
        n_users=150, n_items=80, density=0.6, n_factors=3, random_state=1
    ).R
    rng = np.random.default_rng(0)
    is_train = rng.random(R.nnz) < 0.7
    rows, cols = R.nonzero()
    pairs, y = np.column_stack([rows, cols]), R.data
    sampler = BayesianMFRegressor(
        n_factors=5, implicit=False, random_state=0, max_iter=400, burn_in=100
    )
    sampler.fit(pairs[is_train], y[is_train])
    model = (
        clone(estimator)
        .set_params(n_factors=5, tol=1e-4)
        .fit(pairs[is_train], y[is_train])
    )
    X = pairs[~is_train]
    (mean, std), (expected, spread) = (
        m.predict(X, return_std=True) for m in (model, sampler)
    )
    # Differences are small compared to the uncertainty of a rating.
    assert np.sqrt(np.mean((mean - expected) ** 2)) < 0.35 * spread.mean()
    assert std.mean() == pytest.approx(spread.mean(), rel=0.15)
    # About 68 % of the ratings are within one standard deviation.
    assert np.mean(np.abs(y[~is_train] - mean) < std) == pytest.approx(0.68, abs=0.08)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=IDS)
def test_standard_deviations_of_both_forms(estimator, data):
    model = clone(estimator).set_params(dtype="float64", tol=0, max_iter=60).fit(data)
    users, items = np.arange(5).repeat(60), np.tile(np.arange(60), 5)
    of_pairs = model.predict(np.column_stack([users, items]), return_std=True)[1]
    of_rows = model.predict(data[:5], return_std=True)[1]
    # The users' vectors are one half step apart.
    np.testing.assert_allclose(of_pairs.reshape(5, 60), of_rows, rtol=1e-3)
    assert of_pairs.min() > np.sqrt(model.noise_variance_) * model.rating_std_


def test_standard_deviations_are_those_of_the_definition(data):
    model = BiasedMFRegressor(dtype="float64", random_state=0).fit(data)
    loaded = model._predictor().model
    k = model.user_factors_.shape[1]
    triangle = Triangle(k + 1, CPU)
    S = triangle.unpack(torch.tensor(model._item_covariances)).numpy()
    L = np.linalg.inv(model.user_prior_covariance_)
    u, i = 3, data[[3]].indices[0]
    A = L.copy()
    for j in data[[u]].indices:
        z = np.append(model.item_factors_[j], 1)
        A += np.outer(z, z) / model.noise_variance_
        A[:k, :k] += S[j][:k, :k] / model.noise_variance_
    own = np.linalg.inv(A)
    z, x = np.append(model.item_factors_[i], 1), np.append(model.user_factors_[u], 1)
    inner = S[i].copy()
    inner[-1] = inner[:, -1] = 0
    variance = z @ own @ z + np.sum(own * inner) + x @ S[i] @ x + model.noise_variance_
    std = loaded.std_at(np.array([u]), np.array([i]))
    np.testing.assert_allclose(std, np.sqrt(variance))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_standard_deviations_use_weights(early_stopping, data):
    """Users of `fit` have the covariances of the fit, whatever ratings it used."""
    model = BiasedMFRegressor(
        dtype="float64", early_stopping=early_stopping, random_state=0
    )
    rng = np.random.default_rng(0)
    weights = data.copy()
    weights.data = rng.uniform(0.5, 2, data.nnz)
    model.fit(data, sample_weight=weights)
    assert (model._rating_weights == 0).sum() == early_stopping * np.ceil(data.nnz / 10)
    kept = model._rating_weights > 0
    np.testing.assert_allclose(model._rating_weights[kept], weights.data[kept])
    pairs = [[u, 0] for u in range(200)]
    certain = model.predict(pairs, return_std=True)[1]
    model._rating_weights = model._rating_weights / 100
    assert np.mean(model.predict(pairs, return_std=True)[1] > certain) > 0.95


@pytest.mark.parametrize("estimator", [ESTIMATORS[0], ESTIMATORS[3]], ids=["MF", "++"])
def test_warm_start_continues(estimator, data):
    params = {"dtype": "float64", "tol": 0, "n_factors": 4, "max_iter": 20}
    whole = clone(estimator).set_params(**params).fit(data)
    losses, predicted = whole.loss_curve_, whole.predict(data)
    model = clone(whole).set_params(max_iter=10).fit(data)
    model.set_params(warm_start=True).fit(data)
    rtol = 1e-4 if isinstance(model, BiasedMFRegressor) else 1e-2
    np.testing.assert_allclose(model.loss_curve_, losses[10:], rtol=rtol)
    np.testing.assert_allclose(model.predict(data), predicted, rtol=10 * rtol)
    # New users and items
    X, y = ratings_to_samples(data)
    new = [[0, 300], [400, 1]]
    model.fit(np.vstack([X, new]), np.append(y, [1, 2]))
    assert np.isfinite(model.predict([[0, 300]], return_std=True)).all()


def test_warm_start_needs_the_same_method(data):
    model = BiasedMFRegressor(warm_start=True, random_state=0).fit(data)
    with pytest.raises(ValueError, match="'auto' with penalties that are numbers"):
        model.set_params(lambda_u=1, lambda_v=1).fit(data)
    model = BiasedMFRegressor(lambda_u=1, lambda_v=1, warm_start=True).fit(data)
    with pytest.raises(ValueError, match="numbers with penalties that are 'auto'"):
        model.set_params(lambda_u="auto", lambda_v="auto").fit(data)
    model = BiasedMFRegressor(warm_start=True, random_state=0).fit(data)
    with pytest.raises(ValueError, match="20 factors with n_factors=3"):
        model.set_params(n_factors=3).fit(data)


def test_refit_with_numbers_drops_the_estimates(data):
    model = BiasedMFRegressor(random_state=0).fit(data)
    model.set_params(lambda_u=10, lambda_v=10).fit(data)
    assert not hasattr(model, "noise_variance_")
    with pytest.raises(ValueError, match="lambda_u='auto'"):
        model.predict(data, return_std=True)
    with pytest.raises(ValueError, match="both be 'auto' or both be numbers"):
        model.set_params(lambda_u="auto").fit(data)


def test_estimated_penalties_need_standardized_ratings(data):
    with pytest.raises(ValueError, match="normalize_y=False needs lambda_u"):
        BiasedMFRegressor(normalize_y=False).fit(data)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("estimator", [ESTIMATORS[0], ESTIMATORS[3]], ids=["MF", "++"])
def test_ratings_without_noise(estimator, dtype, rng):
    """The noise variance stays within the working precision."""
    model = clone(estimator).set_params(dtype=dtype, tol=0, max_iter=60)
    left, right = rng.normal(size=(30, 2)), rng.normal(size=(2, 20))
    for R in (left @ right, np.full((30, 20), 3.0)):
        model.fit(sp.csr_array(R))
        ratings, std = model.predict([[0, 1], [29, 19]], return_std=True)
        np.testing.assert_allclose(ratings, R[[0, 29], [1, 19]], atol=0.05)
        assert np.isfinite(std).all()


def test_links(data):
    both, users, items = (
        SVDppRegressor(implicit=side, random_state=0).fit(data)
        for side in ("both", "users", "items")
    )
    k = both.item_factors_.shape[1] + 1
    assert both.item_links_.shape == (60, k)
    assert both.user_links_.shape == (200, k)
    assert users.user_links_ is None
    assert items.item_links_ is None


def test_users_without_ratings_have_the_prior_mean(data):
    X = data.tolil()
    X[0] = 0
    model = BiasedMFRegressor(random_state=0).fit(sp.csr_array(X))
    vector = np.append(model.user_factors_[0], model.user_biases_[0])
    np.testing.assert_allclose(vector, model.user_prior_mean_, atol=1e-5)
